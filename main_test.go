package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"ntsclient/config"
	"ntsclient/confine"
	"ntsclient/nts/ntstest"
	"ntsclient/timesync/report"
)

// asMain makes this test binary the program, for what needs a process.
const asMain = "NTSCLIENT_TEST_AS_MAIN"

// defective makes that program panic when it looks at the clock.
const defective = "NTSCLIENT_TEST_DEFECTIVE"

// namesAt is the address of the resolver of all tests, for their processes.
const namesAt = "NTSCLIENT_TEST_NAMES"

func TestMain(m *testing.M) {
	withoutSysTime() // no test can set this machine's clock
	if os.Getenv(asMain) != "" {
		if os.Getenv(defective) != "" {
			here.clock = nil
		}
		if names := os.Getenv(namesAt); names != "" {
			ntstest.AskNames(names)
		}
		asProcess()
		main()
	}
	names, err := ntstest.ServeNames()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Setenv(namesAt, names)
	ntstest.AskNames(names)
	flag.Parse()
	flag.Set("test.parallel", "16") // what runs side by side waits more than it computes
	confineProcess = func(confine.Needs) error { return nil }
	os.Unsetenv("NTSCLIENT_CONFIG")
	os.Exit(m.Run())
}

// skip skips a test for want of something, which is a failure in CI.
func skip(t *testing.T, reason string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(reason)
	}
	t.Skip(reason)
}

// result is what a run of the program came to.
type result struct {
	code           int
	stdout, stderr string
}

// try runs the program in this process.
func try(args ...string) result {
	var stdout, stderr bytes.Buffer
	code := run(append([]string{"ntsclient"}, args...), &stdout, &stderr)
	return result{code, stdout.String(), stderr.String()}
}

// usage fails the test unless a run ended with exit 2, nothing printed but one
// line on standard error with all of want in it.
func (r result) usage(t *testing.T, want ...string) {
	t.Helper()
	if r.code != exitUsage || r.stdout != "" || strings.Count(r.stderr, "\n") != 1 {
		t.Errorf("exit %d, standard output %q, standard error %q", r.code, r.stdout, r.stderr)
	}
	for _, w := range want {
		if strings.Count(r.stderr, w) != 1 {
			t.Errorf("standard error %q, want %q in it once", r.stderr, w)
		}
	}
}

// report is the report that a run printed.
func (r result) report(t *testing.T, code int) *report.Report {
	t.Helper()
	var out report.Report
	if err := json.Unmarshal([]byte(r.stdout), &out); err != nil || out.Schema != report.Schema || r.code != code {
		t.Fatalf("exit %d, want %d with a report: %v\n%s\n%s", r.code, code, err, r.stdout, r.stderr)
	}
	return &out
}

// serve starts a server named time.test.
func serve(t *testing.T, o ntstest.Options) *ntstest.Server {
	t.Helper()
	if o.Names == nil {
		o.Names = []string{"time.test", "127.0.0.1"}
	}
	s, err := ntstest.Start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// untouched fails the test where a server was sent anything.
func untouched(t *testing.T, s *ntstest.Server) {
	t.Helper()
	if stats := s.Stats(); stats.Connections+stats.Requests != 0 {
		t.Errorf("the server was sent something: %+v", stats)
	}
}

// entry is one [[server]], of an operator of its own.
func entry(t *testing.T, dir string, s *ntstest.Server) string {
	t.Helper()
	port := s.KE().Port()
	ca := write(t, filepath.Join(dir, fmt.Sprintf("%d.pem", port)), string(s.CA().PEM()))
	return fmt.Sprintf("[[server]]\naddress = \"time.test:%d\"\noperator = \"%d\"\nips = [\"127.0.0.1\"]\nca_file = %q\n",
		port, port, filepath.Base(ca))
}

// configure writes a configuration that begins with top.
func configure(t *testing.T, top string, servers ...*ntstest.Server) string {
	t.Helper()
	dir := t.TempDir()
	text := "state_dir = \"\"\n" + top + "\n"
	for _, s := range servers {
		text += entry(t, dir, s)
	}
	return write(t, filepath.Join(dir, "ntsclient.toml"), text)
}

func write(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// usual makes path the configuration that is read where none is named.
func usual(t *testing.T, path string) {
	t.Helper()
	before := defaultConfig
	t.Cleanup(func() { defaultConfig = before })
	defaultConfig = path
}

func TestShippedConfiguration(t *testing.T) {
	cfg, err := config.Parse("(built in)", shipped, nil)
	if err != nil || len(cfg.Servers) != 5 {
		t.Fatalf("%v, %+v", err, cfg)
	}
	// All else in it shows the defaults.
	usual(t, filepath.Join(t.TempDir(), "none.toml"))
	def := config.Default()
	if cfg.Measure != def.Measure || cfg.Agreement != def.Agreement || cfg.Clock != def.Clock || cfg.Bootstrap != def.Bootstrap {
		t.Errorf("%+v", cfg)
	}
}

func TestQueryWherever(t *testing.T) {
	s := serve(t, ntstest.Options{})
	usual(t, filepath.Join(t.TempDir(), "none.toml"))
	ca := write(t, filepath.Join(t.TempDir(), "ca.pem"), string(s.CA().PEM()))
	host, file := s.KE().String(), configure(t, "", s)
	for _, args := range [][]string{
		{"query", host, "--json", "--ca", ca},
		{"--json", "query", host, "--ca=" + ca},
		{"query", "--json", "--ca", ca, host, "-4"},
		{"-ca", ca, "-json", "query", host},
		{"query", "--json", "--ca", ca, "--", host},
		{"--ca", ca, "--json", "--", "query", host},
		{"-c", file, "--json", "query"},
		{"query", "-c", file, "--json=true"},
		{"query", "--json", "--config=" + file},
		{"query", "--log-level", "error", "--json", "--config", file, "--samples", "1", "--timeout", "5s"},
	} {
		r := try(args...).report(t, exitOK)
		if r.Command != "query" || r.Result != report.Agreed || len(r.Servers) != 1 || r.Servers[0].Verdict != report.ServerAgreed {
			t.Errorf("%q: %+v", args, r)
		}
	}
	try("query", "--", host, "--json").usage(t, "--json")         // a host's name, after that
	try("query", host, "--json", "-6").report(t, exitNoAgreement) // it has no such address
}

// `--config FILE` and nothing more is sync; nothing at all is help.
func TestNoCommand(t *testing.T) {
	s := serve(t, ntstest.Options{})
	file := configure(t, "", s)
	for _, args := range [][]string{{"--config", file}, {"-c", file, "--log-level=info"}, {"sync", "-c", file}, {"--config=" + file, "sync"}} {
		if r := try(args...); r.code != exitNotPermitted {
			t.Errorf("%q: not sync: %+v", args, r)
		}
	}
	r := try()
	if r.code != exitOK || r.stderr != "" || !strings.HasPrefix(r.stdout, "ntsclient sets the clock") {
		t.Errorf("bare: %+v", r)
	}
	t.Setenv("NTSCLIENT_CONFIG", file)
	if got := try(); got != r {
		t.Errorf("bare, with NTSCLIENT_CONFIG: %+v", got)
	}
	untouched(t, s)
}

// A mistake is told in one line, and nothing is measured, let alone set.
func TestUsage(t *testing.T) {
	s := serve(t, ntstest.Options{})
	file := configure(t, "", s)
	host := s.KE().String()
	for _, c := range []struct {
		args, want string
	}{
		{"qeury", "did you mean query?"},
		{"snyc -c FILE", "did you mean sync?"},
		{"-c FILE snyc", "did you mean sync?"},
		{"-c FILE HOST", "did you mean query HOST?"},
		{"help nonsense", `no command "nonsense"`},
		{"--jsn query HOST", "--jsn; did you mean --json?"},
		{"query HOST --tmieout=1s", "--tmieout; did you mean --timeout?"},
		{"query HOST --zzz", "--zzz; ntsclient --help"},
		{"query HOST -46", "-46; did you mean -4?"},
		{"query HOST ---json", "no flag ---json"},
		{"sync -c FILE --samples 3", "that is one of query"},
		{"query HOST -q", "no flag --quiet; that is one of sync"},
		{"-c FILE --dry-run", "--dry-run needs a command: sync"},
		{"--json", "--json needs a command: query, sync"},
		{"sync -c FILE --wait", "--wait needs a value"},
		{"sync -c", "--config needs a value"},
		{"sync --config=", "--config needs a value"},
		{"sync -c FILE --wait 5", `--wait needs a unit: "5" could be 5s`},
		{"sync -c FILE --max-step=1d", `500ms, 5s or 1h30m, not "1d"`},
		{"sync -c FILE --wait -5s", "--wait must not be negative"},
		{"sync -c FILE --random-delay=-1s", "--random-delay must not be negative"},
		{"sync -c FILE --max-step -1s", "--max-step must not be negative"},
		{"sync -c FILE --dry-run=maybe", `--dry-run takes no value, and "maybe"`},
		{"sync -c FILE HOST", "sync takes no arguments"},
		{"query HOST --samples x", `whole number, not "x"`},
		{"query HOST --samples 0", "--samples must be 1 to 8, not 0"},
		{"query HOST --samples 9", "--samples must be 1 to 8, not 9"},
		{"query HOST --timeout 0s", "--timeout must be more than 0"},
		{"query HOST --timeout 1", "--timeout needs a unit"},
		{"query HOST -4 -6", "-4 and -6 exclude each other"},
		{"query HOST HOST", "HOST"},
		{"query -c FILE --ca FILE", "--ca goes with hosts"},
		{"query HOST --ca /nonexistent", "--ca"},
		{"query HOST --log-level loud", `not "loud"`},
		{"query HOST:70000", "70000"},
		{"query -", `"-"`},
		{"status --json --prometheus --wait 5s", "--json and --prometheus exclude each other"},
		{"status --log-level loud", `not "loud"`},
		{"status HOST", "status takes no arguments"},
	} {
		t.Run(c.args, func(t *testing.T) {
			names := strings.NewReplacer("HOST", host, "FILE", file)
			try(strings.Fields(names.Replace(c.args))...).usage(t, names.Replace(c.want))
		})
	}
	untouched(t, s)
}

func TestHelp(t *testing.T) {
	flags := map[string]string{
		"":       "--config --log-level --version --help -c -V -h",
		"query":  "--json --samples --timeout --ca --proxy -4 -6 --help",
		"sync":   "--json --dry-run --quiet -q --wait --random-delay --max-step --proxy",
		"run":    "--dry-run",
		"status": "--json --prometheus --wait",
		"check":  "--json --offline",
	}
	for command, want := range flags {
		for _, args := range [][]string{{command, "--help"}, {"-h", command}, {"help", command}} {
			if command == "" {
				args = strings.Fields(strings.Join(args, " "))
			}
			r := try(args...)
			if r.code != exitOK || r.stderr != "" {
				t.Errorf("%q: %+v", args, r)
			}
			for _, w := range strings.Fields(want) {
				if !strings.Contains(r.stdout, w) {
					t.Errorf("%q: no %s in\n%s", args, w, r.stdout)
				}
			}
			for _, line := range strings.Split(r.stdout, "\n") {
				if len(line) > 80 || strings.ContainsAny(line, "\t`") || line != strings.TrimRight(line, " ") {
					t.Errorf("%q: %d columns, or not fit for a terminal: %q", args, len(line), line)
				}
			}
		}
	}
}

func TestVersion(t *testing.T) {
	want := result{stdout: versionLine() + "\n"}
	for _, args := range [][]string{{"--version"}, {"-V"}, {"sync", "--version"}, {"-V", "-c", "/nonexistent"}} {
		if r := try(args...); r != want || !strings.HasPrefix(r.stdout, "ntsclient ") {
			t.Errorf("%q: %+v", args, r)
		}
	}
}

func TestConfigurationErrors(t *testing.T) {
	s := serve(t, ntstest.Options{})
	file := filepath.Join(t.TempDir(), "x.toml")
	server := entry(t, filepath.Dir(file), s)
	name := fmt.Sprintf("server time.test:%d: ", s.KE().Port())
	for _, c := range []struct {
		name, text string
		want       []string
	}{
		{"unknown key", server + "[measure]\nsampels = 1\n", []string{file + ":7:1: measure.sampels: unknown key", `did you mean "samples"?`}},
		{"key in a table", server + "[measure]\nstate_dir = \"\"\n", []string{file + ":7:1: ", "move it above the first [table]"}},
		{"bad value", server + "[clock]\nstep_above = 100\n", []string{file + ":7:14: clock.step_above: "}},
		{"no CA file", server + "[[server]]\naddress = \"b.test\"\nca_file = \"none.pem\"\n", []string{file + ":8:11: server b.test:4460: ca_file: ", "none.pem"}},
		{"given twice", server + server, []string{file + ":7:11: " + name + "address: "}},
		{"syntax", server + "[measure\n", []string{file + ":6:9: "}},
		{"no server", "", []string{file + ": no server is configured", "add [[server]]"}},
		{"old file", "server = \"time.test:4460\"\n", []string{file + ":1:1: ", `address = "time.test:4460"`}},
		{"escapes", server + "[measure]\n\"\\u001b[31m\" = 1\n", []string{`[31m`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			write(t, file, c.text)
			for _, args := range [][]string{{"query"}, {"sync", "--dry-run"}} {
				r := try(append(args, "-c", file, "--json")...)
				r.usage(t, c.want...)
				if strings.Contains(r.stderr, "\x1b") {
					t.Errorf("%q", r.stderr)
				}
			}
		})
	}
	untouched(t, s)
}

// Which configuration is read, and what is said where there is none.
func TestWhichConfiguration(t *testing.T) {
	a, b := serve(t, ntstest.Options{}), serve(t, ntstest.Options{})
	fileA, fileB := configure(t, "", a), configure(t, "", b)
	none := filepath.Join(t.TempDir(), "none.toml")
	asked := func(want *ntstest.Server, args ...string) {
		t.Helper()
		r := try(append(args, "--json", "query")...).report(t, exitOK)
		if len(r.Servers) != 1 || r.Servers[0].Name != fmt.Sprintf("time.test:%d", want.KE().Port()) {
			t.Errorf("asked %+v", r.Servers)
		}
	}
	usual(t, fileA)
	asked(a)
	asked(b, "-c", fileB)
	t.Setenv("NTSCLIENT_CONFIG", fileB)
	asked(b)
	asked(a, "-c", fileA)
	t.Setenv("NTSCLIENT_CONFIG", none)
	try("query").usage(t, "NTSCLIENT_CONFIG: "+none+": cannot be read: no such file or directory")
	asked(a, "-c", fileA)
	t.Setenv("NTSCLIENT_CONFIG", "")
	asked(a)
	try("query", "-c", none).usage(t, "ntsclient: "+none+": cannot be read: no such file or directory")
	// The usual one that is there and cannot be used is not passed over.
	usual(t, write(t, filepath.Join(t.TempDir(), "bad.toml"), "x = 1\n"))
	try("query").usage(t, defaultConfig+":1:1: x: unknown key")
	// Without any, it is the one built in: without sending anything, that shows by a failure only.
	usual(t, none)
	if r := try("query", "--proxy", "socks5h://127.0.0.1:9"); r.code != exitNoAgreement || !strings.Contains(r.stdout, "time.cloudflare.com") {
		t.Errorf("%+v", r)
	}
}

// Reports stand on standard output where the exit code is 0, 3, 4 or 5.
func TestReports(t *testing.T) {
	honest, fast := serve(t, ntstest.Options{}), serve(t, ntstest.Options{Offset: 10 * time.Second})
	ahead := []*ntstest.Server{serve(t, ntstest.Options{Offset: time.Hour}), serve(t, ntstest.Options{Offset: time.Hour})}
	const strict = "[bootstrap]\ncertificate_time = \"strict\"\n"
	for _, c := range []struct {
		name, file, args string
		code             int
		result           report.Result
		reason           string
	}{
		{"query", configure(t, "", honest), "query", exitOK, report.Agreed, ""},
		{"dry run", configure(t, "", honest), "sync --dry-run", exitOK, report.Agreed, ""},
		{"disagreement", configure(t, "", honest, fast), "query", exitNoAgreement, report.NoAgreement, "no_agreement"},
		{"too large", configure(t, strict, ahead...), "sync --dry-run", exitRefused, report.Refused, "exceeds_max_step"},
		{"too large, asked only", configure(t, strict, ahead...), "query", exitOK, report.Agreed, "would_refuse"},
		{"allowed", configure(t, strict, ahead...), "sync --dry-run --max-step 2h", exitOK, report.Agreed, ""},
		{"still too large", configure(t, strict, ahead...), "sync --dry-run --max-step 30m", exitRefused, report.Refused, "exceeds_max_step"},
		{"not permitted", configure(t, "", honest), "sync", exitNotPermitted, report.NotPermitted, "not_permitted"},
	} {
		t.Run(c.name, func(t *testing.T) {
			args := append([]string{"-c", c.file}, strings.Fields(c.args)...)
			r := try(append(args, "--json")...)
			out := r.report(t, c.code)
			if out.Result != c.result || (c.reason != "" && out.ReasonCode != c.reason) || out.DryRun != strings.Contains(c.args, "dry") {
				t.Errorf("%+v", out)
			}
			if (out.Action != report.None) != (strings.HasPrefix(c.args, "sync") && c.code == exitOK) {
				t.Errorf("action %q", out.Action)
			}
			text := try(args...)
			if text.code != c.code || text.stdout == "" || strings.Contains(text.stdout, "\x1b") {
				t.Errorf("for people: %+v", text)
			}
			if strings.HasPrefix(c.args, "sync") { // cron hears of failures only
				quiet := try(append(args, "--quiet")...)
				if quiet.code != c.code || (quiet.stdout == "") != (c.code == exitOK) || quiet.stderr != "" {
					t.Errorf("quiet: %+v", quiet)
				}
			}
		})
	}
}

// What is only a warning is none of --quiet's business, unless it is asked for.
func TestQuiet(t *testing.T) {
	s := serve(t, ntstest.Options{})
	dir := t.TempDir()
	write(t, filepath.Join(dir, "state"), "no directory")
	file := write(t, filepath.Join(dir, "ntsclient.toml"), "state_dir = \"state\"\n"+entry(t, dir, s))
	for args, said := range map[string]bool{"": true, "--quiet": false, "-q --log-level warn": true, "-q --log-level error": false} {
		r := try(append(strings.Fields(args), "sync", "--dry-run", "-c", file)...)
		if r.code != exitOK || (r.stdout == "") != (args != "") || (r.stderr != "") != said {
			t.Errorf("%q: %+v", args, r)
		}
	}
	s.Close()
	if r := try("sync", "--dry-run", "-q", "-c", file); r.code != exitNoAgreement || r.stdout == "" {
		t.Errorf("a failure: %+v", r)
	}
}

// That the clock may not be set is found out before anything is sent.
func TestNotPermitted(t *testing.T) {
	s := serve(t, ntstest.Options{})
	r := try("sync", "--json", "-c", configure(t, "", s), "--wait", "1h", "--random-delay", "1h").report(t, exitNotPermitted)
	if r.Agreement != nil || r.Action != report.None || len(r.Servers) != 0 || !strings.Contains(r.Reason, "not permitted to set the clock") {
		t.Errorf("%+v", r)
	}
	untouched(t, s)
}

// A query never keeps anything, a dry run does as a real one would.
func TestStateDir(t *testing.T) {
	s := serve(t, ntstest.Options{})
	dir := filepath.Join(t.TempDir(), "state")
	file := configure(t, "", s)
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	write(t, file, strings.Replace(string(text), `state_dir = ""`, fmt.Sprintf("state_dir = %q", dir), 1))
	try("query", "-c", file, "--json").report(t, exitOK)
	if _, err := os.Stat(dir); err == nil {
		t.Error("a query made the state directory")
	}
	for _, exchange := range []bool{true, false} { // the second run is warm
		r := try("sync", "--dry-run", "-c", file, "--json").report(t, exitOK)
		if len(r.Servers) != 1 || r.Servers[0].Measured == nil || r.Servers[0].KeyExchange != exchange {
			t.Errorf("want key exchange %v: %+v", exchange, r.Servers)
		}
	}
}

func TestWhereStateGoes(t *testing.T) {
	there, root := t.TempDir(), filepath.Join(t.TempDir(), "a", "b") // neither b nor a is there
	for _, c := range []struct {
		cfg                 config.Config
		service, user, home string
		want                string
	}{
		{config.Config{StateDir: "/set", StateDirSet: true}, "/service", "/user", "/home", "/set"},
		{config.Config{StateDir: "", StateDirSet: true}, "/service", "/user", "/home", ""},
		{config.Config{StateDir: there}, "/service:/second", "/user", "/home", "/service"},
		{config.Config{StateDir: there}, "", "/user", "/home", there},
		{config.Config{StateDir: there + "/made"}, "", "/user", "/home", there + "/made"},
		{config.Config{StateDir: root}, "", "/user", "/home", "/user/ntsclient"},
		{config.Config{StateDir: root}, "", "relative", "/home", "/home/.local/state/ntsclient"},
		{config.Config{StateDir: root}, "", "", "", ""},
	} {
		t.Setenv("STATE_DIRECTORY", c.service)
		t.Setenv("XDG_STATE_HOME", c.user)
		t.Setenv("HOME", c.home)
		if got := stateDir(&c.cfg); got != c.want {
			t.Errorf("%+v: %q", c, got)
		}
	}
}

// --timeout is of the whole round, however many samples there are.
func TestTimeout(t *testing.T) {
	hole := newBlackHole(t)
	r := try("query", "--json", "-c", hole.file, "--timeout", "50ms", "--samples", "8").report(t, exitNoAgreement)
	if len(r.Servers) != 1 || r.Servers[0].Verdict != report.Failed || hole.taken.Load() == 0 {
		t.Errorf("%+v", r.Servers)
	}
}

// blackHole takes connections and says nothing.
type blackHole struct {
	file  string // a configuration with it
	took  chan struct{}
	taken atomic.Int32
}

func newBlackHole(t *testing.T) *blackHole {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h := &blackHole{took: make(chan struct{}, 100)}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { conn.Close() })
			h.taken.Add(1)
			h.took <- struct{}{}
		}
	}()
	h.file = write(t, filepath.Join(t.TempDir(), "hole.toml"), fmt.Sprintf(
		"state_dir = \"\"\n[[server]]\naddress = %q\n[measure]\ndeadline = \"10m\"\n", l.Addr()))
	return h
}

func TestIsUTF8(t *testing.T) {
	for _, c := range []struct {
		all, ctype, lang string
		want             bool
	}{
		{"", "", "de_DE.UTF-8", true},
		{"", "", "C.utf8", true},
		{"C", "", "de_DE.UTF-8", false},
		{"", "en_US.UTF-8", "C", true},
		{"", "", "", false},
		{"", "", "de_DE@euro", false},
	} {
		t.Setenv("LC_ALL", c.all)
		t.Setenv("LC_CTYPE", c.ctype)
		t.Setenv("LANG", c.lang)
		if isUTF8() != c.want {
			t.Errorf("%+v", c)
		}
	}
}

func TestNotOnLinux(t *testing.T) {
	if runtime.GOOS == "linux" {
		t.Skip("this is Linux")
	}
	if r := try("sync", "--json", "-c", configure(t, "", serve(t, ntstest.Options{}))); r.code == exitOK {
		t.Errorf("%+v", r)
	}
}
