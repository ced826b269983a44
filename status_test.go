package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"ntsclient/config"
	"ntsclient/nts/ntstest"
	"ntsclient/timesync/report"
)

// kernelSays is what the kernel says of its clock during a test.
func kernelSays(t *testing.T, synchronized bool) {
	t.Helper()
	before := kernelSynchronized
	t.Cleanup(func() { kernelSynchronized = before })
	kernelSynchronized = func() (bool, error) { return synchronized, nil }
}

// corner is a place for a control socket and for state, and a configuration
// that names them.
func corner(t *testing.T, top string, servers ...*ntstest.Server) (file, socket, state string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "nts") // the path of a socket must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket, state = filepath.Join(dir, "control.sock"), filepath.Join(dir, "state")
	file = configure(t, fmt.Sprintf("control_socket = %q\n%s", socket, top), servers...)
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	write(t, file, strings.Replace(string(text), `state_dir = ""`, fmt.Sprintf("state_dir = %q", state), 1))
	return file, socket, state
}

// loopReport is what a loop would tell.
func loopReport(result report.Result) *report.Report {
	r := &report.Report{
		Schema: report.Schema, Command: "run", Result: result, Clock: time.Now().Round(0).UTC(), Action: report.None,
		Keeping: &report.Keeping{Loop: true, Synchronized: true, Poll: report.Seconds(64 * time.Second)},
		Servers: []report.Server{{Name: "time.test:4460", Operator: "test", Verdict: report.Failed, Error: &report.Error{Code: "dns_failed"}}},
	}
	if result != report.NoAgreement {
		r.Agreement = &report.Agreement{Time: r.Clock, Uncertainty: 1000}
	}
	return r
}

func TestStatusOfALoop(t *testing.T) {
	file, socket, _ := corner(t, "", serve(t, ntstest.Options{}))
	var latest atomic.Pointer[report.Report]
	s, err := report.Listen(socket, latest.Load)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, c := range []struct {
		report       *report.Report
		synchronized bool
		code         int
	}{
		{nil, false, exitNoAgreement},
		{nil, true, exitOK},
		{loopReport(report.Agreed), true, exitOK},
		{loopReport(report.Agreed), false, exitNoAgreement},
		{loopReport(report.NoAgreement), true, exitOK}, // for a while
		{loopReport(report.NoAgreement), false, exitNoAgreement},
		{loopReport(report.Held), true, exitRefused},
		{loopReport(report.Held), false, exitRefused},
	} {
		latest.Store(c.report)
		kernelSays(t, c.synchronized)
		r := try("status", "--json", "-c", file)
		out := r.report(t, c.code)
		for _, want := range []string{`"command": "status"`, `"loop": true`, fmt.Sprintf(`"synchronized": %v`, c.synchronized)} {
			if strings.Count(r.stdout, want) != 1 {
				t.Errorf("no %s in %s", want, r.stdout)
			}
		}
		if (out.ReasonCode == "no_round_yet") != (c.report == nil) || strings.Contains(r.stdout, "age_s") != (c.report != nil) {
			t.Errorf("%+v", out)
		}
		text := try("status", "-c", file)
		if text.code != c.code || strings.Contains(text.stdout, "not synchronized:") == c.synchronized {
			t.Errorf("%+v", text)
		}
		metrics := try("status", "--prometheus", "-c", file)
		want := "\nntsclient_synchronized " + map[bool]string{true: "1", false: "0"}[c.synchronized] + "\n"
		if metrics.code != c.code || !strings.Contains(metrics.stdout, want) || !strings.Contains(metrics.stdout, "ntsclient_build_info{version=") {
			t.Errorf("%+v", metrics)
		}
	}
}

// Without a loop it is the last sync that counts, and the kernel.
func TestStatusOfTheLastSync(t *testing.T) {
	honest, fast := serve(t, ntstest.Options{}), serve(t, ntstest.Options{Offset: 10 * time.Second})
	ahead := []*ntstest.Server{serve(t, ntstest.Options{Offset: time.Hour}), serve(t, ntstest.Options{Offset: time.Hour})}
	for _, c := range []struct {
		servers []*ntstest.Server
		now     [2]int // exit status, by whether the kernel is synchronized
	}{
		{[]*ntstest.Server{honest}, [2]int{exitNoAgreement, exitOK}},
		{[]*ntstest.Server{honest, fast}, [2]int{exitNoAgreement, exitNoAgreement}},
		{ahead, [2]int{exitRefused, exitRefused}},
	} {
		file, socket, state := corner(t, "[bootstrap]\ncertificate_time = \"strict\"\n", c.servers...)
		nothing := try("status", "--json", "-c", file)
		if r := nothing.report(t, exitUnknown); r.ReasonCode != "nothing_known" || !strings.Contains(r.Reason, socket) || !strings.Contains(r.Reason, state) || nothing.stderr != "" {
			t.Errorf("%+v", nothing)
		}
		try("sync", "--dry-run", "-c", file)
		for i, synchronized := range []bool{false, true} {
			kernelSays(t, synchronized)
			r := try("status", "--json", "-c", file)
			out := r.report(t, c.now[i])
			if len(out.Servers) != len(c.servers) || out.Command != "status" || strings.Contains(r.stdout, "frequency_ppm") ||
				!strings.Contains(r.stdout, fmt.Sprintf("\"loop\": false,\n  \"synchronized\": %v,\n  \"age_s\": ", synchronized)) {
				t.Errorf("%s", r.stdout)
			}
			if text := try("status", "-c", file); text.code != c.now[i] || !strings.Contains(strings.ReplaceAll(text.stdout, "\n", " "), "no loop is running; the last `sync`, ") {
				t.Errorf("%+v", text)
			}
		}
	}
}

// What is no report of ours is not believed, and said.
func TestStatusOfABadReport(t *testing.T) {
	s := serve(t, ntstest.Options{})
	file, socket, state := corner(t, "", s)
	try("sync", "--dry-run", "-c", file)
	path := filepath.Join(state, "report.json")
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for want, c := range map[string]struct {
		text []byte
		mode fs.FileMode
	}{
		"others may write": {good, 0o666},
		"not a report":     {[]byte("{"), 0o644},
		"schema":           {[]byte("{}"), 0o644},
		"more than":        {append(good, bytes.Repeat([]byte(" "), report.MaxText)...), 0o644},
	} {
		write(t, path, string(c.text))
		if err := os.Chmod(path, c.mode); err != nil {
			t.Fatal(err)
		}
		if r := try("status", "-c", file); r.code != exitUnknown || strings.Count(r.stderr, "\n") != 1 || !strings.Contains(r.stderr, want) {
			t.Errorf("%s: %+v", want, r)
		}
	}
	write(t, socket, "") // which refuses connections, too
	if r := try("status", "-c", file); r.code != exitUnknown {
		t.Errorf("%+v", r)
	}
}

// Where the kernel does not tell, a loop does, but none that is gone.
func TestStatusWithoutAKernel(t *testing.T) {
	before := kernelSynchronized
	defer func() { kernelSynchronized = before }()
	kernelSynchronized = func() (bool, error) { return false, errors.New("not in here") }
	file, socket, state := corner(t, "", serve(t, ntstest.Options{}))
	s, err := report.Listen(socket, func() *report.Report { return loopReport(report.Agreed) })
	if err != nil {
		t.Fatal(err)
	}
	if r := try("status", "-c", file); r.code != exitOK || r.stderr != "" {
		t.Errorf("of a loop: %+v", r)
	}
	s.Close()
	var text bytes.Buffer
	if err := errors.Join(loopReport(report.Agreed).WriteJSON(&text), os.Mkdir(state, 0o711)); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(state, "report.json"), text.String())
	if r := try("status", "-c", file); r.code != exitNoAgreement || !strings.Contains(r.stderr, "not in here") || !strings.Contains(r.stdout, "the last `run`") {
		t.Errorf("of one that is gone: %+v", r)
	}
}

func TestStatusWaits(t *testing.T) {
	before := statusPause
	defer func() { statusPause = before }()
	statusPause = time.Millisecond
	file, socket, _ := corner(t, "", serve(t, ntstest.Options{}))
	kernelSays(t, true)
	if r := try("status", "--wait", "20ms", "-c", file); r.code != exitUnknown || r.stdout == "" {
		t.Errorf("%+v", r)
	}
	var looks atomic.Int32
	s, err := report.Listen(socket, func() *report.Report {
		if looks.Add(1) < 3 {
			return loopReport(report.Held)
		}
		return loopReport(report.Agreed)
	})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if r := try("status", "--wait", "1h", "--json", "-c", file).report(t, exitOK); r.Result != report.Agreed || looks.Load() != 3 {
		t.Errorf("%d looks, %+v", looks.Load(), r)
	}
}

func TestWhereReportsAre(t *testing.T) {
	t.Setenv("STATE_DIRECTORY", "")
	t.Setenv("XDG_STATE_HOME", "/user")
	for _, c := range []struct {
		cfg  config.Config
		want string
	}{
		{config.Config{StateDir: "/set", StateDirSet: true}, "/set"},
		{config.Config{StateDir: "", StateDirSet: true}, ""},
		{config.Config{StateDir: "/none/of/these"}, "/none/of/these /user/ntsclient"},
	} {
		if got := strings.Join(stateDirs(&c.cfg), " "); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}

// What goes wrong with metrics changes nothing else. A dry run writes none: the
// clock is not as it says.
func TestTextfile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "ntsclient.prom")
	file, _, _ := corner(t, fmt.Sprintf("[metrics]\ntextfile = %q\n", path), serve(t, ntstest.Options{}))
	if r := try("sync", "--dry-run", "-c", file); r.code != exitOK {
		t.Errorf("%+v", r)
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("a dry run wrote metrics")
	}
	kernelSays(t, true)
	var said bytes.Buffer
	cfg := config.Default()
	r := loopReport(report.NoAgreement)
	r.Keeping = nil
	for _, without := range []func(*report.Report){
		func(r *report.Report) { r.DryRun = true },
		func(r *report.Report) { r.Result = report.NotPermitted },
		func(r *report.Report) { r.ReasonCode = "loop_running" },
		func(*report.Report) { cfg.Metrics.Textfile = "" },
	} {
		cfg.Metrics.Textfile = path
		not := *r
		without(&not)
		textfile(logger(&said, 0), cfg)(&not)
		if _, err := os.Stat(path); err == nil || said.Len() > 0 {
			t.Errorf("%+v: %v, %q", not, err, said.String())
		}
	}
	cfg.Metrics.Textfile = filepath.Join(dir, "later", "ntsclient.prom")
	write := textfile(logger(&said, 0), cfg)
	write(r)
	write(r)
	if strings.Count(said.String(), "metrics not written") != 1 {
		t.Errorf("%q", said.String())
	}
	if err := os.Mkdir(filepath.Dir(cfg.Metrics.Textfile), 0o755); err != nil {
		t.Fatal(err)
	}
	write(r)
	write(r)
	if strings.Count(said.String(), "\n") != 2 || strings.Count(said.String(), "written again") != 1 {
		t.Errorf("%q", said.String())
	}
	text, err := os.ReadFile(cfg.Metrics.Textfile)
	if err != nil || !strings.Contains(string(text), "\nntsclient_synchronized 1\n") || !strings.Contains(string(text), `,code="dns_failed"} 2`) {
		t.Errorf("%v\n%s", err, text)
	}
}
