//go:build unix

package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"ntsclient/nts/ntstest"
)

// program is this program as a process of its own. It is killed where it hangs.
func program(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return hung(t, self, args...)
}

func hung(t *testing.T, path string, args ...string) *exec.Cmd {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = append(os.Environ(), asMain+"=1", "LC_ALL=C.UTF-8", "GORACE=atexit_sleep_ms=0")
	return cmd
}

// status runs a process to its end and gives its status as a shell does.
func status(t *testing.T, cmd *exec.Cmd) int {
	t.Helper()
	if cmd.Process == nil {
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
	}
	var exit *exec.ExitError
	if err := cmd.Wait(); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return shellStatus(cmd.ProcessState)
}

func shellStatus(p *os.ProcessState) int {
	if ws := p.Sys().(syscall.WaitStatus); ws.Signaled() {
		return exitSignal + int(ws.Signal())
	}
	return p.ExitCode()
}

// A signal ends a round that hangs at once: nobody waits for the ten minutes of
// its deadline. There is no report then.
func TestSignals(t *testing.T) {
	for _, command := range []string{"query", "sync --dry-run", "sync --dry-run --wait 1h"} {
		for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP} {
			if signal.Ignored(sig) {
				continue // whoever runs this test took it away
			}
			hole := newBlackHole(t)
			cmd := program(t, append(strings.Fields(command), "-c", hole.file, "--json")...)
			var stdout, stderr bytes.Buffer
			cmd.Stdout, cmd.Stderr = &stdout, &stderr
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			<-hole.took
			cmd.Process.Signal(sig)
			if got := status(t, cmd); got != exitSignal+int(sig) || stdout.Len() != 0 || stderr.Len() != 0 {
				t.Errorf("%s, %v: status %d, %q, %q", command, sig, got, &stdout, &stderr)
			}
		}
	}
}

// A hangup that whoever started it had ignored (nohup) stays so.
func TestIgnoredSignal(t *testing.T) {
	hole := newBlackHole(t)
	self := program(t)
	cmd := hung(t, "/bin/sh", "-c", `trap "" HUP; exec "$0" query -c "$1"`, self.Path, hole.file)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	<-hole.took
	cmd.Process.Signal(syscall.SIGHUP)
	cmd.Process.Signal(syscall.SIGTERM)
	if got := status(t, cmd); got != exitSignal+int(syscall.SIGTERM) {
		t.Errorf("status %d", got)
	}
}

// A signal ends what waits for a file, too.
func TestSignalBeforeMeasuring(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := program(t, "query", "-c", fifo)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w, err := os.OpenFile(fifo, os.O_WRONLY, 0) // waits until it is being read
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	cmd.Process.Signal(syscall.SIGTERM)
	if got := status(t, cmd); got != exitSignal+int(syscall.SIGTERM) {
		t.Errorf("status %d", got)
	}
}

// A report that cannot be written is no success.
func TestStandardOutput(t *testing.T) {
	file := configure(t, "", serve(t, ntstest.Options{}))
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	reader.Close()
	defer writer.Close()
	unwritable, err := os.Open(os.DevNull) // for reading
	if err != nil {
		t.Fatal(err)
	}
	defer unwritable.Close()
	for _, flag := range []string{"--json", "--log-level=error"} {
		cmd := program(t, "query", "-c", file, flag)
		cmd.Stdout = writer
		if got := status(t, cmd); got != exitSignal+int(syscall.SIGPIPE) {
			t.Errorf("nobody reads, %s: status %d", flag, got)
		}
		var stderr bytes.Buffer
		cmd = program(t, "query", "-c", file, flag)
		cmd.Stdout, cmd.Stderr = unwritable, &stderr
		if got := status(t, cmd); got != exitInternal || !strings.HasPrefix(stderr.String(), "ntsclient: ") {
			t.Errorf("not writable, %s: status %d, %q", flag, got, &stderr)
		}
	}
}

// A panic is no usage error: a service manager has to start the loop again.
func TestPanic(t *testing.T) {
	cmd := program(t, "check", "--offline")
	cmd.Env, cmd.Dir = append(cmd.Env, defective+"=1"), t.TempDir() // for a core, where they are wanted
	if got := status(t, cmd); got != exitSignal+int(syscall.SIGABRT) {
		t.Errorf("status %d", got)
	}
}
