//go:build unix

package main

import (
	"syscall"
	"unsafe"
)

// terminalWidth asks the terminal; what is none does not answer.
func terminalWidth(fd uintptr) (columns int, ok bool) {
	var size struct{ rows, columns, x, y uint16 }
	_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, fd, syscall.TIOCGWINSZ, uintptr(unsafe.Pointer(&size)))
	return int(size.columns), errno == 0
}
