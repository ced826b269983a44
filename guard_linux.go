package main

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// guard reads only files that root or owner made and that nobody else can
// change or put in the place of another.
type guard struct{ owner uint32 }

// newGuard trusts root and the owner of this program.
func newGuard() *guard {
	g := new(guard) // root alone, if the owner cannot be found out
	if info, err := os.Stat("/proc/self/exe"); err == nil {
		g.owner = info.Sys().(*syscall.Stat_t).Uid
	}
	return g
}

// hasFileCapability tells whether this program's file gives rights to whoever
// starts it.
func hasFileCapability() bool {
	n, err := syscall.Getxattr("/proc/self/exe", "security.capability", nil)
	return err == nil && n > 0
}

// refusal is why a file is not trusted.
type refusal string

func (r refusal) Error() string {
	return string(r) + ": anyone can start this program, which has a file capability to set the clock, " +
		"so that it uses only what belongs to root or to its owner and is writable by nobody else"
}

func (g *guard) read(path string) ([]byte, error) {
	path, err := g.way(path, true)
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, refusal("it is no regular file")
	}
	if err := g.trust("it", info, false); err != nil {
		return nil, err
	}
	if err := trustMount(f); err != nil {
		return nil, err
	}
	const most = 1 << 20 // what is longer is refused for that
	return io.ReadAll(io.LimitReader(f, most+1))
}

// trustState wants a state directory that is there, on a way that nobody else
// can change, and not for everybody: what lies in it is believed if it belongs
// to whoever started the program. It may be theirs, if it was given to them.
// What it returns is where that really is, and to be used from here on: a link
// on the way there could be another's, who turns it elsewhere meanwhile.
func (g *guard) trustState(dir string) (string, error) {
	dir, err := g.way(dir, false)
	if err != nil {
		return "", err
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return "", err
	}
	if info.Mode().Perm()&0o002 != 0 {
		return "", refusal("everybody may write there")
	}
	return dir, nil
}

// way follows path to what it is, and says whether nobody else can change the
// way there. In a sticky directory others can make files, but not replace any.
func (g *guard) way(path string, sticky bool) (string, error) {
	path, err := realPath(path)
	if err != nil {
		return "", err
	}
	for dir := path; dir != filepath.Dir(dir); {
		dir = filepath.Dir(dir)
		info, err := os.Lstat(dir)
		if err != nil {
			return "", err
		}
		if err := g.trust("directory "+dir, info, sticky); err != nil {
			return "", err
		}
	}
	return path, nil
}

// trust holds the owner and the mode of a file or directory against what can
// be trusted.
func (g *guard) trust(what string, info fs.FileInfo, sticky bool) error {
	uid := info.Sys().(*syscall.Stat_t).Uid
	switch {
	case uid != 0 && uid != g.owner:
		return refusal(fmt.Sprintf("%s belongs to user %d", what, uid))
	case sticky && info.IsDir() && info.Mode()&fs.ModeSticky != 0:
		return nil
	case info.Mode().Perm()&0o022 != 0:
		return refusal(fmt.Sprintf("others may write: %s has mode %04o", what, info.Mode().Perm()))
	}
	return nil
}

// trustMount refuses file systems on which an owner proves nothing: those that
// are mounted nosuid, as all are that ordinary users can mount, with files of
// whatever owner they like (FUSE, a stick); and /proc, where the command line of
// a process looks like a file of root's.
func trustMount(f *os.File) error {
	var st syscall.Statfs_t
	if err := syscall.Fstatfs(int(f.Fd()), &st); err != nil {
		return err
	}
	const proc, nosuid = 0x9fa0, 0x2 // PROC_SUPER_MAGIC, ST_NOSUID: statfs(2)
	switch {
	case st.Type == proc:
		return refusal("it is in /proc")
	case st.Flags&nosuid != 0:
		return refusal("its file system is mounted nosuid, so that its owner proves nothing")
	}
	return nil
}
