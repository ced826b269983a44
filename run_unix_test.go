//go:build unix

package main

import (
	"bytes"
	"context"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"ntsclient/nts/ntstest"
)

// loop is a loop as a process of its own, and what it tells its service manager.
type loop struct {
	*exec.Cmd
	t      *testing.T
	log    bytes.Buffer
	socket *net.UnixConn
}

// startLoop starts a dry run of a loop that polls each second.
func startLoop(t *testing.T, file string) *loop {
	t.Helper()
	dir, err := os.MkdirTemp("", "ntsclient") // its path is short, as a socket's must be
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "notify")
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { socket.Close() })
	l := &loop{t: t, socket: socket, Cmd: program(t, "run", "--dry-run", "-c", file)}
	signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP) // else the loop would inherit that it is ignored, under nohup
	l.Env = append(l.Env, "NOTIFY_SOCKET="+path, "WATCHDOG_USEC=200000")
	l.Stderr = &l.log
	if err := l.Start(); err != nil {
		t.Fatal(err)
	}
	return l
}

// hear waits for a message with these words, and returns it. Others are passed
// over.
func (l *loop) hear(words string) string {
	l.t.Helper()
	buf := make([]byte, 4096)
	if err := l.socket.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
		l.t.Fatal(err)
	}
	for {
		n, err := l.socket.Read(buf)
		if err != nil {
			l.Process.Kill()
			l.Wait()
			l.t.Fatalf("waiting for %q: %v\n%s", words, err, &l.log)
		}
		if strings.Contains(string(buf[:n]), words) {
			return string(buf[:n])
		}
	}
}

const hasty = `control_socket = ""
[measure]
interval = "10ms"
[run]
min_poll = "1s"
max_poll = "1s"
[agreement]
min_operators = 1
`

// A loop tells its service manager how it is, takes a new configuration if that
// is good, measures when it is told to, and ends by a signal, which is no
// failure.
func TestLoopProcess(t *testing.T) {
	s := serve(t, ntstest.Options{})
	file := configure(t, hasty, s)
	good, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	l := startLoop(t, file)
	l.hear("READY=1")
	if got := l.hear("STATUS=dry run: synchronized"); !strings.Contains(got, "1 of 1 servers agree") {
		t.Errorf("status %q", got)
	}
	l.hear("WATCHDOG=1")

	write(t, file, "max_pull = 3\n")
	l.Process.Signal(syscall.SIGHUP)
	if got := l.hear("RELOADING=1"); !strings.Contains(got, "MONOTONIC_USEC=") {
		t.Errorf("%q", got)
	}
	l.hear("READY=1")
	l.hear("STATUS=dry run: synchronized")

	other := serve(t, ntstest.Options{CA: s.CA()})
	moved := strings.Replace(string(good), `control_socket = ""`, `control_socket = "/nowhere/socket"`, 1)
	write(t, file, moved+"[metrics]\ntextfile = \"metrics.prom\"\n"+entry(t, filepath.Dir(file), other))
	l.Process.Signal(syscall.SIGHUP)
	l.hear("RELOADING=1")
	l.hear("READY=1")
	l.hear("2 of 2 servers agree")

	l.Process.Signal(syscall.SIGUSR1)
	l.hear("STATUS=dry run: synchronized")
	l.Process.Signal(syscall.SIGTERM)
	l.hear("STOPPING=1")
	if got := status(t, l.Cmd); got != exitOK {
		t.Errorf("status %d", got)
	}
	for _, want := range []string{
		"the configuration is refused, and the old one stays", "max_pull", "servers=2", "told to measure at once", "msg=stopped",
		"takes a restart: `control_socket`, `[metrics] textfile`",
	} {
		if !strings.Contains(l.log.String(), want) {
			t.Errorf("%q is not in the log:\n%s", want, &l.log)
		}
	}
}

// A loop that nobody answers ends by a signal, too.
func TestLoopSignals(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		hole := newBlackHole(t)
		l := startLoop(t, hole.file)
		<-hole.took
		l.Process.Signal(sig)
		if got := status(t, l.Cmd); got != exitOK {
			t.Errorf("%v: status %d\n%s", sig, got, &l.log)
		}
	}
}

// A loop that is ending is not ended by more signals.
func TestStoppedOnce(t *testing.T) {
	const signalled = "NTSCLIENT_TEST_SIGNALLED"
	if os.Getenv(signalled) == "" {
		cmd := hung(t, os.Args[0], "-test.run=^TestStoppedOnce$")
		cmd.Env = append(os.Environ(), signalled+"=1")
		if got := status(t, cmd); got != 0 {
			t.Errorf("status %d", got)
		}
		return
	}
	ctx, _ := untilStopped(context.Background()) // never stopped: the last signal may be under way
	for range 100 {
		if err := syscall.Kill(os.Getpid(), syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		<-ctx.Done()
		runtime.Gosched()
	}
}

// Without the right to set the clock nothing is sent.
func TestLoopNotPermitted(t *testing.T) {
	s := serve(t, ntstest.Options{})
	r := try("run", "-c", configure(t, hasty, s))
	if r.code != exitNotPermitted || !strings.Contains(r.stderr, "CAP_SYS_TIME") || r.stdout != "" {
		t.Errorf("%+v", r)
	}
	untouched(t, s)
}
