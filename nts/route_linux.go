package nts

import "golang.org/x/sys/unix"

// bindToInterface needs no capability since Linux 5.7.
func bindToInterface(fd uintptr, name string) error {
	return unix.BindToDevice(int(fd), name)
}
