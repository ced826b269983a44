package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"ntsclient/clock"
	"ntsclient/nts/ntstest"
	"ntsclient/timesync"
	"ntsclient/timesync/report"
)

// machineOf makes this machine one with these files, whose clock may be set if
// err is nil.
func machineOf(t *testing.T, files fstest.MapFS, err error) {
	t.Helper()
	before := here
	t.Cleanup(func() { here = before })
	here.root, here.clock = files, &clock.Simulated{Error: time.Millisecond, Denied: err}
}

// findings are those that a check printed.
func (r result) findings(t *testing.T, code int) []report.Finding {
	t.Helper()
	var out struct {
		Schema   int
		Command  string
		Findings []report.Finding
	}
	d := json.NewDecoder(strings.NewReader(r.stdout))
	d.DisallowUnknownFields()
	if err := d.Decode(&out); err != nil || out.Schema != 1 || out.Command != "check" || r.code != code || r.stderr != "" {
		t.Fatalf("exit %d, want %d: %v\n%s\n%s", r.code, code, err, r.stdout, r.stderr)
	}
	for _, f := range out.Findings {
		if f.Subject == "" || f.Stage == "" || f.Level == "" || f.Code == "" || f.Message == "" || (f.Level == report.OK) != (f.Code == "ok") {
			t.Errorf("%+v", f)
		}
	}
	return out.Findings
}

// with are the findings with a code.
func with(all []report.Finding, code string) (some []report.Finding) {
	for _, f := range all {
		if f.Code == code {
			some = append(some, f)
		}
	}
	return some
}

// levels are the findings in short: what is not ok, in order.
func levels(all []report.Finding) string {
	var out []string
	for _, f := range all {
		if f.Level != report.OK {
			out = append(out, fmt.Sprintf("%s %s", f.Level, f.Code))
		}
	}
	return strings.Join(out, ", ")
}

func TestCheck(t *testing.T) {
	honest := func() *ntstest.Server { return serve(t, ntstest.Options{}) }
	late, denied := time.Hour, fmt.Errorf("%w: CAP_SYS_TIME is missing; start it as root", clock.ErrNotPermitted)
	down := honest()
	down.Close()
	three := "[bootstrap]\nmin_operators = 1\n"
	const strict = "[bootstrap]\ncertificate_time = \"strict\"\n"
	for _, c := range []struct {
		name   string
		file   string
		denied error
		code   int
		want   string // what is not ok, but the state that is off
	}{
		{"all is well", configure(t, three, honest(), honest(), honest()), nil, exitOK, ""},
		{"one is down", configure(t, three, honest(), down, honest()), nil, exitOK, "note connect_refused"},
		{"one lies", configure(t, three, honest(), serve(t, ntstest.Options{Offset: late}), honest()), nil, exitOK, "note outside_agreement"},
		{"all are down", configure(t, three, down), nil, exitNoAgreement, "blocks connect_refused, blocks no_agreement"},
		{"few operators", configure(t, "", honest(), honest()), nil, exitOK, "note too_few_operators"},
		{
			"too far off", configure(t, strict, serve(t, ntstest.Options{Offset: late}), serve(t, ntstest.Options{Offset: late})),
			nil, exitRefused, "blocks would_refuse",
		},
		{"not permitted", configure(t, three, honest()), denied, exitNotPermitted, "blocks not_permitted"},
		{"not permitted, and none answers", configure(t, three, down), denied, exitNotPermitted, "blocks not_permitted, blocks connect_refused, blocks no_agreement"},
	} {
		t.Run(c.name, func(t *testing.T) {
			machineOf(t, nil, c.denied)
			all := try("check", "--json", "-c", c.file).findings(t, c.code)
			got := strings.Split(levels(all), ", ")
			got = slices.DeleteFunc(got, func(level string) bool { return level == "note state_off" })
			if strings.Join(got, ", ") != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
			text := try("check", "-c", c.file)
			if text.code != c.code || text.stderr != "" || (c.code == exitOK) != strings.Contains(text.stdout, "nothing stops it") {
				t.Errorf("for people: %+v", text)
			}
			offline := try("check", "--offline", "--json", "-c", c.file).findings(t, map[bool]int{true: exitNotPermitted}[c.denied != nil])
			for _, f := range offline {
				if strings.HasPrefix(f.Subject, "server ") || f.Subject == "agreement" {
					t.Errorf("offline: %+v", f)
				}
			}
		})
	}
}

// Each stage that was passed is told; a name that was given an address was not
// resolved.
func TestCheckStages(t *testing.T) {
	machineOf(t, nil, nil)
	s := serve(t, ntstest.Options{})
	file := configure(t, "", s)
	stages := func() (passed string) {
		for _, f := range try("check", "--json", "-c", file).findings(t, exitOK) {
			if f.Subject == fmt.Sprintf("server time.test:%d", s.KE().Port()) || strings.HasPrefix(f.Subject, "server localhost:") {
				passed += f.Stage + " "
			}
		}
		return passed
	}
	if got := stages(); got != "connect tls certificate key_exchange exchange " {
		t.Errorf("with an address: %q", got)
	}
	named := serve(t, ntstest.Options{Names: []string{"localhost"}})
	ca := write(t, filepath.Join(filepath.Dir(file), "ca.pem"), string(named.CA().PEM()))
	write(t, file, fmt.Sprintf("state_dir = \"\"\n[[server]]\naddress = \"localhost:%d\"\nca_file = %q\n", named.KE().Port(), ca))
	if got := stages(); got != "dns connect tls certificate key_exchange exchange " {
		t.Errorf("with a name: %q", got)
	}
}

// Nothing is sent where it should not be.
func TestCheckOffline(t *testing.T) {
	machineOf(t, nil, nil)
	s := serve(t, ntstest.Options{})
	file := configure(t, "", s)
	if r := try("check", "--offline", "-c", file); r.code != exitOK || !strings.Contains(r.stdout, "nothing was sent (--offline)") {
		t.Errorf("%+v", r)
	}
	untouched(t, s)
}

// A configuration that is no good is a finding, and the machine is looked at
// all the same.
func TestCheckConfiguration(t *testing.T) {
	machineOf(t, files(map[string]string{"etc/adjtime": "\n\nLOCAL"}), nil)
	dir := t.TempDir()
	for _, c := range []struct{ name, text, message, hint string }{
		{"typo", "[[server]]\naddress = \"a.test\"\n[measure]\nsampels = 1\n", "x.toml:4:1: measure.sampels: unknown key", `did you mean "samples"?`},
		{"no authority", "[[server]]\naddress = \"a.test\"\nca_file = \"none.pem\"\n", "none.pem", ""},
		{"escapes", "\"\\u001b[31m\" = 1\n", `\x1b[31m`, ""},
		{"not there", "", "no such file", ""},
	} {
		file := filepath.Join(dir, c.name, "x.toml")
		if c.text != "" {
			if err := os.Mkdir(filepath.Dir(file), 0o700); err != nil {
				t.Fatal(err)
			}
			write(t, file, c.text)
		}
		all := try("check", "--json", "-c", file).findings(t, exitUsage)
		got := with(all, "configuration_error")
		if len(got) != 1 || !strings.Contains(got[0].Message, c.message) || !strings.Contains(got[0].Hint, c.hint) || len(with(all, "rtc_local")) != 1 {
			t.Errorf("%s: %+v", c.name, all)
		}
		if r := try("check", "-c", file); r.code != exitUsage || strings.Contains(r.stdout, "\x1b") || !strings.Contains(r.stdout, "stopped by: configuration") {
			t.Errorf("%s: %+v", c.name, r)
		}
	}
	try("check", "--log-level", "loud").usage(t, `not "loud"`)
	try("check", "now").usage(t, "check takes no arguments")
}

func TestCheckState(t *testing.T) {
	now := time.Now()
	saved := func(t *testing.T, dir, text string) {
		t.Helper()
		write(t, filepath.Join(dir, "state.json"), text)
	}
	at := func(d time.Duration) string {
		return fmt.Sprintf(`{"schema":1,"machine":"","agreed":{"time":%q,"uncertainty":1000}}`, now.Add(d).UTC().Format(time.RFC3339Nano))
	}
	for _, c := range []struct {
		name    string
		prepare func(t *testing.T, dir string)
		want    string
		text    string
	}{
		{"empty", func(*testing.T, string) {}, "", "cookies of 0 servers"},
		{"past", func(t *testing.T, dir string) { saved(t, dir, at(-time.Hour)) }, "", ""},
		{"future", func(t *testing.T, dir string) { saved(t, dir, at(time.Hour)) }, "note floor_in_future", "state.json"},
		{"damaged", func(t *testing.T, dir string) { saved(t, dir, "{") }, "note state_damaged", "damaged"},
		{"set aside", func(t *testing.T, dir string) {
			saved(t, dir, "{")
			store, err := timesync.OpenStore(t.Context(), dir, timesync.StoreOptions{})
			if err != nil {
				t.Fatal(err)
			}
			store.Close()
		}, "note state_set_aside", "set aside on " + now.UTC().Format(time.DateOnly)},
		{"for everybody", func(t *testing.T, dir string) { os.Chmod(dir, 0o777) }, "note state_unusable", "everybody may write there"},
		{"to be made", func(t *testing.T, dir string) { os.RemoveAll(dir) }, "", "will be made"},
		{"no directory", func(t *testing.T, dir string) { os.RemoveAll(dir); write(t, dir, "") }, "note state_unusable", "is no directory"},
		{"read-only", func(t *testing.T, dir string) { os.Chmod(dir, 0o500) }, "note state_unusable", "this user cannot write"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.name == "read-only" && os.Getuid() == 0 {
				t.Skip("root can write anywhere")
			}
			dir := filepath.Join(t.TempDir(), "state")
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { os.Chmod(dir, 0o700) })
			c.prepare(t, dir)
			var f report.Findings
			state(dir, nil, now, &f)
			text := fmt.Sprint(f.List)
			if c.want == "note state_damaged" || strings.HasPrefix(c.name, "past") || c.name == "future" {
				f.List = withoutOther(f.List)
			}
			if levels(f.List) != c.want || !strings.Contains(text, c.text) {
				t.Errorf("%s: %+v", levels(f.List), f.List)
			}
		})
	}
	var off report.Findings
	if state("", nil, now, &off); levels(off.List) != "note state_off" {
		t.Errorf("%+v", off.List)
	}
}

// withoutOther leaves out that the state is another machine's, which depends on
// whether this one has an identity.
func withoutOther(all []report.Finding) (rest []report.Finding) {
	for _, f := range all {
		if !strings.Contains(f.Message, "another machine") {
			rest = append(rest, f)
		}
	}
	return rest
}

func TestCheckKernel(t *testing.T) {
	before := commitDate
	t.Cleanup(func() { commitDate = before })
	commitDate = "2026-11-01T00:00:00Z"
	now := time.Date(2026, 11, 21, 0, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		name     string
		maxError time.Duration
		denied   error
		now      time.Time
		want     string
	}{
		{"fine", time.Millisecond, nil, now, ""},
		{"nearly 16 s", clock.Unsynchronized - 1, nil, now, ""},
		{"never set", clock.Unsynchronized, nil, now, "note unsynchronized"},
		{"in 1970", clock.Unsynchronized, nil, time.Unix(3, 0), "note unsynchronized, note before_build"},
		{"denied", time.Millisecond, errors.New("no; do this"), now, "blocks not_permitted"},
	} {
		machineOf(t, nil, c.denied)
		here.clock = &clock.Simulated{Error: c.maxError, Denied: c.denied}
		var f report.Findings
		kernel(c.now, &f)
		if levels(f.List) != c.want {
			t.Errorf("%s: %+v", c.name, f.List)
		}
		if c.denied != nil && (f.List[0].Message != "no" || f.List[0].Hint != "do this") {
			t.Errorf("%+v", f.List[0])
		}
	}
}

// The line to write is the one that then works.
func TestCheckNamesTheLine(t *testing.T) {
	machineOf(t, nil, nil)
	a, b := serve(t, ntstest.Options{}), serve(t, ntstest.Options{})
	for operators, want := range map[string]int{"3": 1, "2": 0} {
		top := "[bootstrap]\nmin_operators = " + operators + "\n"
		all := try("check", "--offline", "--json", "-c", configure(t, top, a, b)).findings(t, exitOK)
		got := with(all, "too_few_operators")
		if len(got) != want || want > 0 && !strings.Contains(got[0].Hint, "in [bootstrap] write `min_operators = 2`") {
			t.Errorf("%s: %+v", operators, got)
		}
	}
}
