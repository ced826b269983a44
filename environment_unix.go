//go:build unix

package main

import (
	"errors"
	"io/fs"
	"path/filepath"
	"syscall"
)

// writable tells whether dir can be written, or made.
func writable(dir string) bool {
	const writeAndSearch = 2 | 1
	err := syscall.Access(dir, writeAndSearch)
	if errors.Is(err, fs.ErrNotExist) {
		err = syscall.Access(filepath.Dir(dir), writeAndSearch)
	}
	return err == nil
}
