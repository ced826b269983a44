//go:build unix && !darwin

package config

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

func TestReadPipe(t *testing.T) {
	path := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	before := patience
	defer func() { patience = before }()
	patience = time.Millisecond
	if data, err := ReadFile(path); !errors.Is(err, errNobodyWrites) {
		t.Errorf("without a writer: %q, %v", data, err)
	}

	patience = time.Minute
	failed := make(chan error, 1)
	go func() {
		w, err := os.OpenFile(path, os.O_WRONLY, 0) // waits until there is a reader
		if err == nil {
			_, err = w.WriteString(one)
			err = errors.Join(err, w.Close())
		}
		failed <- err
	}()
	if data, err := ReadFile(path); err != nil || string(data) != one {
		t.Errorf("of a writer that comes later: %q, %v", data, err)
	}
	if err := <-failed; err != nil {
		t.Fatal(err)
	}
}

// The writer of a pipe that is open may take its time.
func TestReadSlowPipe(t *testing.T) {
	path := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	w, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	before := patience
	defer func() { patience = before }()
	patience = 0
	time.AfterFunc(20*time.Millisecond, func() {
		w.WriteString(one)
		w.Close()
	})
	if data, err := ReadFile(path); err != nil || string(data) != one {
		t.Errorf("%q, %v", data, err)
	}
}
