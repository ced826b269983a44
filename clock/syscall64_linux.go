//go:build !(386 || arm || mips || mipsle)

package clock

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

func clockAdjtime(t *timex) error {
	_, _, errno := unix.Syscall(unix.SYS_CLOCK_ADJTIME, unix.CLOCK_REALTIME, uintptr(unsafe.Pointer(t)), 0)
	if errno != 0 {
		return errno
	}
	return nil
}
