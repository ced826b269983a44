//go:build linux

package interop

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"ntsclient/timesync/report"
)

// loop is a `run --dry-run` and its control socket.
type loop struct {
	t      *testing.T
	cmd    *exec.Cmd
	socket string
	log    string
}

// startLoop starts one, as the last arguments of another command.
func startLoop(t *testing.T, config string, prefix ...string) *loop {
	t.Helper()
	dir := filepath.Dir(config)
	short, err := os.MkdirTemp("", "nts") // a socket's path must be short
	check(t, err)
	t.Cleanup(func() { os.RemoveAll(short) })
	l := &loop{t: t, socket: filepath.Join(short, "control"), log: filepath.Join(dir, "log")}
	text, err := os.ReadFile(config)
	check(t, err)
	text = []byte(strings.Replace(string(text), `control_socket = ""`, `control_socket = "`+l.socket+`"`, 1))
	text = append(text, "[measure]\ninterval = \"20ms\"\nanswer_timeout = \"300ms\"\n[run]\nmin_poll = \"1s\"\nmax_poll = \"1s\"\n"...)
	check(t, os.WriteFile(config, text, 0o600))
	command := append(prefix, Binary(), "run", "--dry-run", "--config", config)
	l.cmd = exec.Command(command[0], command[1:]...)
	log, err := os.Create(l.log)
	check(t, err)
	defer log.Close()
	l.cmd.Stderr = log
	l.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	check(t, l.cmd.Start())
	t.Cleanup(func() {
		end(l.cmd)
		if t.Failed() {
			t.Logf("the loop said\n%s", l.said())
		}
	})
	return l
}

func (l *loop) said() string {
	said, err := os.ReadFile(l.log)
	check(l.t, err)
	return string(said)
}

// await waits until a report is as it should be, and returns it.
func (l *loop) await(what string, good func(*report.Report) bool) *report.Report {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(l.t.Context(), 40*time.Second)
	defer cancel()
	for {
		r, err := report.Fetch(ctx, l.socket)
		switch {
		case err == nil && good(r):
			return r
		case ctx.Err() != nil:
			l.t.Fatalf("not %s: %+v, %v\n%s", what, r, err, l.said())
		case err != nil && !errors.Is(err, report.ErrNothingYet) && !errors.Is(err, fs.ErrNotExist):
			l.t.Fatal(err)
		}
		time.Sleep(50 * time.Millisecond) // until the next try
	}
}

// verdicts tells whether a time is agreed on, with these verdicts.
func verdicts(want ...report.Verdict) func(*report.Report) bool {
	return func(r *report.Report) bool {
		var got []report.Verdict
		for _, s := range r.Servers {
			got = append(got, s.Verdict)
		}
		return r.Result == report.Agreed && slices.Equal(got, want)
	}
}

// Four servers, of which one lies all the time, one forgets its keys, and one is
// away for a while: at no time does that concern the others.
func TestRun(t *testing.T) {
	const yes, lies, no = report.ServerAgreed, report.Falseticker, report.Failed
	l := newLab(t)
	servers := l.start(t, Chrony12, Chrony12, Chrony13)
	liar := &Server{Kind: Liar, Identity: l.issuing.Issue(t, name, -30, 90), Lie: "+0.05s"}
	liar.Start(t)
	before := servers[0].KeyExchanges(t)
	run := startLoop(t, configure(t, l.entries(append(servers, liar), "127.0.0.1"), ""))
	r := run.await("agreed", verdicts(yes, yes, yes, lies))
	if k := r.Keeping; r.Command != "run" || !r.DryRun || k == nil || !k.Loop || r.Servers[0].Watched == nil {
		t.Errorf("%s, dry run %v, %+v, %+v", r.Command, r.DryRun, k, r.Servers[0].Watched)
	}

	forgets := servers[1]
	forgets.Stop()
	run.await("without the second", verdicts(yes, no, yes, lies))
	forgets.Start(t)
	run.await("with it again", verdicts(yes, yes, yes, lies))
	if n := forgets.KeyExchanges(t); n < 1 {
		t.Errorf("%d key exchanges since its start", n)
	}

	away := servers[2]
	check(t, away.process.Process.Signal(syscall.SIGSTOP))
	run.await("without the third", verdicts(yes, yes, no, lies))
	check(t, away.process.Process.Signal(syscall.SIGCONT))
	r = run.await("with it again", verdicts(yes, yes, yes, lies))
	if abs(r.Offset) > seconds(0.005) || r.Servers[3].Offset < seconds(0.04) {
		t.Errorf("offset %v; the liar's %v", r.Offset, r.Servers[3].Offset)
	}
	if n := servers[0].KeyExchanges(t) - before; n != 1 {
		t.Errorf("%d key exchanges with a server that did nothing", n)
	}

	check(t, run.cmd.Process.Signal(syscall.SIGTERM))
	if err := run.cmd.Wait(); err != nil {
		t.Errorf("ended by a signal: %v", err)
	}
	said := run.said()
	for _, want := range []string{"server agrees", "exchange_timeout", "outside_agreement", "msg=stopped"} {
		if !strings.Contains(said, want) {
			t.Errorf("%q was not said:\n%s", want, said)
		}
	}
	if n := strings.Count(said, "outside_agreement"); n != 1 {
		t.Errorf("said %d times of the liar:\n%s", n, said)
	}
}
