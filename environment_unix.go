//go:build unix

package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// openQuietly opens without waiting for the other end of a FIFO.
func openQuietly(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
}

func ownerOf(info fs.FileInfo) uint32 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return st.Uid
	}
	return ^uint32(0)
}

// writable tells whether dir can be written, or made.
func writable(dir string) bool {
	const writeAndSearch = 2 | 1
	err := syscall.Access(dir, writeAndSearch)
	if errors.Is(err, fs.ErrNotExist) {
		err = syscall.Access(filepath.Dir(dir), writeAndSearch)
	}
	return err == nil
}
