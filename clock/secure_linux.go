package clock

import "golang.org/x/sys/unix"

// Secure tells whether this process has more rights than whoever started it,
// as by a file capability (AT_SECURE, getauxval(3)): then what they hand in is
// not to be trusted. If the kernel does not say, it is.
func Secure() bool {
	const atSecure = 23
	entries, err := unix.Auxv()
	if err != nil {
		return true
	}
	for _, e := range entries {
		if e[0] == atSecure {
			return e[1] != 0
		}
	}
	return true
}
