package main

import (
	"errors"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"ntsclient/nts/ntstest"
)

// The system's authorities are read only where a server has none of its own:
// that takes memory and time.
func TestSystemRoots(t *testing.T) {
	s := serve(t, ntstest.Options{})
	roots := write(t, filepath.Join(t.TempDir(), "roots.pem"), string(s.CA().PEM()))
	file := configure(t, "", s)
	for _, c := range []struct {
		name, argument string
		opened         bool
	}{
		{"every server has a ca_file", "--config=" + file, false},
		{"one has none", s.KE().String(), true},
	} {
		watch, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
		if err == nil {
			_, err = unix.InotifyAddWatch(watch, roots, unix.IN_OPEN)
		}
		if err != nil {
			t.Fatal(err)
		}
		cmd := program(t, "query", c.argument)
		cmd.Env = append(cmd.Env, "SSL_CERT_FILE="+roots, "SSL_CERT_DIR="+t.TempDir())
		if got := status(t, cmd); got != exitOK {
			t.Errorf("%s: status %d", c.name, got)
		}
		_, err = unix.Read(watch, make([]byte, 4096))
		if opened := err == nil; opened != c.opened || (err != nil && !errors.Is(err, unix.EAGAIN)) {
			t.Errorf("%s: read: %v (%v)", c.name, opened, err)
		}
		unix.Close(watch)
	}
}
