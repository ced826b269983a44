//go:build unix

package report

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

func TestSocketIsForAll(t *testing.T) {
	for _, mask := range []int{0, 0o022, 0o077, 0o777} {
		path := place(t)
		if err := os.Mkdir(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		before := syscall.Umask(mask) // no test of this package runs in parallel
		s, err := Listen(path, example)
		after := syscall.Umask(before)
		if err != nil {
			t.Fatal(err)
		}
		if info, err := os.Lstat(path); err != nil || info.Mode() != fs.ModeSocket|0o666 {
			t.Errorf("umask %#o: %v, %v", mask, info.Mode(), err)
		}
		if after != mask {
			t.Errorf("umask %#o became %#o", mask, after)
		}
		s.Close()
	}
}

// Whoever owns the directory can put a link in the socket's place, before, while
// and after it is made: what it leads to stays as it is.
func TestSocketFollowsNoLink(t *testing.T) {
	path := place(t)
	dir := filepath.Dir(path)
	secret, missing := filepath.Join(dir, "secret"), filepath.Join(dir, "missing")
	if err := errors.Join(os.Mkdir(dir, 0o755), os.WriteFile(secret, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	for _, to := range []string{secret, missing} {
		if err := os.Symlink(to, path); err != nil {
			t.Fatal(err)
		}
		if _, err := Listen(path, example); err == nil {
			t.Errorf("listens at a link to %s", to)
		}
		os.Remove(path)
	}
	end, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-end:
				return
			default:
			}
			link := filepath.Join(dir, "link")
			os.Symlink(secret, link)
			os.Rename(link, path)
			os.Remove(path)
		}
	}()
	for range 500 {
		if s, err := Listen(path, example); err == nil {
			s.Close()
		}
	}
	close(end)
	<-ended
	if info, err := os.Lstat(secret); err != nil || info.Mode() != 0o600 {
		t.Errorf("the file behind the link has mode %v, %v", info.Mode(), err)
	}
	if _, err := os.Lstat(missing); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("made behind the link: %v", err)
	}
}
