package main

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"ntsclient/nts/ntstest"
)

// asStranger does something as a user whom file modes stop: this one, unless it
// is root.
func asStranger(do func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		if os.Getuid() == 0 {
			runtime.LockOSThread() // and never again: the thread ends
			unix.SetfsuidRetUid(stranger)
		}
		do()
	}()
	<-done
}

// A file that names a proxy may hold its password, so that only root can read
// it: for all others nothing goes around that proxy either.
func TestUnreadableConfiguration(t *testing.T) {
	s := serve(t, ntstest.Options{})
	dir := vouched(t)
	ca := write(t, filepath.Join(dir, "ca.pem"), string(s.CA().PEM()))
	file := write(t, filepath.Join(dir, "ntsclient.toml"), "proxy = \"socks5h://u:secret@127.0.0.1:9\"\n")
	other := write(t, filepath.Join(dir, "other.toml"), "[[server]]\naddress = \"time.test\"\n")
	for path, mode := range map[string]os.FileMode{ca: 0o644, file: 0, other: 0o644} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	query := []string{"query", s.KE().String(), "--ca", ca, "--json"}
	want := file + ": cannot be read: permission denied; it may say that everything goes through a proxy: give another with --config FILE"
	asStranger(func() {
		usual(t, file)
		try(query...).usage(t, "ntsclient: "+want)
		usual(t, filepath.Join(dir, "none.toml"))
		try(append(query, "-c", file)...).usage(t, "ntsclient: "+want)
		t.Setenv("NTSCLIENT_CONFIG", file)
		try(query...).usage(t, "NTSCLIENT_CONFIG: "+want)
		untouched(t, s)
		if r := try(append(query, "-c", other)...); r.code != exitOK {
			t.Errorf("%+v", r)
		}
	})
}
