//go:build linux && (386 || arm)

package main

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// setTime is clock_settime64: the older calls end with 2038.
func setTime(seconds int64) error {
	ts := struct{ sec, nsec int64 }{sec: seconds}
	_, _, errno := unix.Syscall(unix.SYS_CLOCK_SETTIME64, unix.CLOCK_REALTIME, uintptr(unsafe.Pointer(&ts)), 0)
	if errno != 0 {
		return errno
	}
	return nil
}
