package report

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
)

// place is a path for a socket: they must be short.
func place(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "nts")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "run", "control.sock")
}

func listen(t *testing.T, path string, latest func() *Report) *Socket {
	t.Helper()
	s, err := Listen(path, latest)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestSocket(t *testing.T) {
	path := place(t)
	if _, err := Fetch(t.Context(), path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without a socket: %v", err)
	}
	var latest atomic.Pointer[Report]
	s := listen(t, path, latest.Load)
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o666 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if _, err := Fetch(t.Context(), path); !errors.Is(err, ErrNothingYet) {
		t.Errorf("before the first round: %v", err)
	}
	for _, r := range []*Report{example(), kept()} {
		latest.Store(r)
		for range 3 {
			if got, err := Fetch(t.Context(), path); err != nil || !reflect.DeepEqual(got, r) {
				t.Errorf("%v\n%+v, want\n%+v", err, got, r)
			}
		}
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("closed, and its file is there: %v", err)
	}
}

// A socket that was left behind is replaced, and nothing else.
func TestSocketInTheWay(t *testing.T) {
	path := place(t)
	first := listen(t, path, example)
	if _, err := Listen(path, kept); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("a second loop: %v", err)
	}
	if r, err := Fetch(t.Context(), path); err != nil || r.Command != "query" {
		t.Errorf("the first one no longer answers: %v", err)
	}
	first.listener.(*net.UnixListener).SetUnlinkOnClose(false)
	first.Close()
	if _, err := Fetch(t.Context(), path); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("left behind: %v", err)
	}
	listen(t, path, kept).Close()

	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(path, kept); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("a file: %v", err)
	}
	if text, err := os.ReadFile(path); err != nil || string(text) != "precious" {
		t.Errorf("the file: %q, %v", text, err)
	}
}

// However many connect and never read, or write, the next is answered, and all
// are sent the same octets.
func TestHostileReaders(t *testing.T) {
	path := place(t)
	big := kept() // more than a socket takes by itself
	big.Servers[0].Reason = strings.Repeat("x", 800_000)
	s := listen(t, path, func() *Report { return big })
	for i := range maxAnswers {
		conn, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if i%2 == 0 {
			conn.Write(bytes.Repeat([]byte("stop\n"), 100)) // which may fail
		}
	}
	if r, err := Fetch(t.Context(), path); err != nil || r.Servers[0].Reason != big.Servers[0].Reason {
		t.Errorf("not answered: %v", err)
	}
	s.Close()
	if a, b := s.text(), s.text(); &a[0] != &b[0] {
		t.Error("the report is written twice")
	}
}

// What answers need not be a loop.
func TestFetchIsBounded(t *testing.T) {
	path := place(t)
	if err := os.Mkdir(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	send := make(chan []byte, 1)
	go func() {
		for text := range send {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			conn.Write(text)
			if text != nil { // else it says nothing, and does not end
				conn.Close()
			}
		}
	}()
	defer close(send)
	for want, text := range map[string][]byte{
		"more than": bytes.Repeat([]byte("9"), MaxText+1), "not a report": []byte("hello\n"), "schema 2": []byte(`{"schema": 2}`),
	} {
		send <- text
		if r, err := Fetch(t.Context(), path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.20q: %v, %v", text, r, err)
		}
	}
	send <- nil
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Fetch(ctx, path); err == nil {
		t.Error("an answer from nobody")
	}
}
