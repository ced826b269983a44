//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package timesync

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// carefully are flags to open what someone else may have put there.
const carefully = syscall.O_NOFOLLOW | syscall.O_NONBLOCK

func ownerOf(info fs.FileInfo) owner {
	st := info.Sys().(*syscall.Stat_t)
	return owner{int(st.Uid), int(st.Gid)}
}

// links is how many names a file has.
func links(info fs.FileInfo) uint64 { return uint64(info.Sys().(*syscall.Stat_t).Nlink) }

// trustDir refuses a directory in which everybody may move files: an older
// state could come back, with cookies that have been sent.
func trustDir(info fs.FileInfo) error {
	if info.Mode()&0o002 != 0 && info.Mode()&fs.ModeSticky == 0 {
		return fmt.Errorf("everybody may write there (mode %04o): chmod o-w", info.Mode().Perm())
	}
	return nil
}

// flock locks an open file until it is closed, also by the end of the process.
// It does not wait.
func flock(f *os.File, shared bool) (ok bool, err error) {
	how := syscall.LOCK_EX
	if shared {
		how = syscall.LOCK_SH
	}
	for {
		err = syscall.Flock(int(f.Fd()), how|syscall.LOCK_NB)
		switch {
		case err == nil:
			return true, nil
		case errors.Is(err, syscall.EWOULDBLOCK):
			return false, nil
		case !errors.Is(err, syscall.EINTR):
			return false, &fs.PathError{Op: "flock", Path: f.Name(), Err: err}
		}
	}
}

// noDirSync tells whether err says that this file system syncs no directories:
// there is no more to be had then.
func noDirSync(err error) bool {
	return errors.Is(err, syscall.EINVAL) || errors.Is(err, errors.ErrUnsupported)
}
