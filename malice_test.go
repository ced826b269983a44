//go:build linux

package main

import (
	"bytes"
	"cmp"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unicode"

	"github.com/urfave/cli/v2"

	"ntsclient/nts/ntstest"
	"ntsclient/timesync/report"
)

const (
	// tellPeak makes it write to descriptor 3 what memory it took.
	tellPeak = "NTSCLIENT_TEST_PEAK"
	// fewFiles lets it open one file at a time.
	fewFiles = "NTSCLIENT_TEST_FEW_FILES"
	// memory is what any malice may take more than an honest server, in octets.
	memory = 8 << 20
	// slack is how late anything may end on a busy machine.
	slack = 20 * time.Second
)

// hostileWorld is where the program meets one that is hostile.
type hostileWorld struct {
	ca     *ntstest.CA
	honest []*ntstest.Server
	usual  int // octets of memory that an honest server takes; 0: not held

	sync.Mutex
	codes map[string]bool // that were met
}

// What the shipped program makes of each kind of malice: alone, in a process of
// its own and in bounded memory, and beside two honest servers, which it does
// not take in. The servers say what the client sent them.
func TestMalice(t *testing.T) {
	w := newHostileWorld(t)
	t.Run("servers", func(t *testing.T) {
		for _, m := range ntstest.Malices() {
			t.Run(m.Name, func(t *testing.T) {
				t.Parallel()
				w.patiently(t, func(t *testing.T, patience time.Duration) error { return w.meet(t, &m, patience) })
			})
		}
		for _, l := range w.links(t) {
			t.Run(l.name, func(t *testing.T) {
				t.Parallel()
				w.patiently(t, func(t *testing.T, patience time.Duration) error { return w.follow(t, &l, patience) })
			})
		}
	})
	if !t.Failed() && wholeRun() {
		w.everyCode(t)
	}
}

func newHostileWorld(t *testing.T) *hostileWorld {
	t.Helper()
	w := &hostileWorld{codes: map[string]bool{}}
	var err error
	if w.ca, err = ntstest.NewCA("good"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		w.honest = append(w.honest, serve(t, ntstest.Options{CA: w.ca}))
	}
	if !testing.Short() {
		_, w.usual = w.process(t, "query", "--json", "-c", configure(t, "", w.honest[0]))
	}
	return w
}

// patiently gives more time where what others do with this machine took it.
func (w *hostileWorld) patiently(t *testing.T, try func(*testing.T, time.Duration) error) {
	for _, patience := range []time.Duration{1, 4, 16} {
		err := try(t, patience)
		if starved, ok := err.(starvation); ok && patience < 16 {
			t.Log(starved)
			continue
		}
		if err != nil {
			t.Error(err)
		}
		return
	}
}

// starvation may be for want of time.
type starvation struct{ error }

// meet runs the program with one hostile server, alone and in company.
func (w *hostileWorld) meet(t *testing.T, m *ntstest.Malice, patience time.Duration) error {
	deadline := 5 * patience * time.Second
	if m.Code == "tls_timeout" || m.Code == "ke_timeout" || m.Code == "dns_failed" {
		deadline = 2 * patience * time.Second
	}
	for _, company := range [][]*ntstest.Server{nil, w.honest} {
		o := m.Options(w.ca)
		s := serve(t, o)
		defer s.Close()
		dir := t.TempDir()
		one := entry(t, dir, s)
		if m.Host != "" {
			one = strings.ReplaceAll(one, "time.test", m.Host)
		}
		for _, other := range company {
			one += entry(t, dir, other)
		}
		file := write(t, filepath.Join(dir, "ntsclient.toml"), settings(deadline, 300*patience*time.Millisecond)+one)
		began := time.Now()
		r, peak := w.run(t, company != nil, file)
		if took := time.Since(began); took > deadline+slack {
			return fmt.Errorf("it took %v", took)
		}
		if peak > w.usual+memory {
			return fmt.Errorf("it took %d octets of memory, and an honest server %d", peak, w.usual)
		}
		out, err := readable(r)
		if err != nil {
			return err
		}
		if err := w.judge(m, out, r.code, o.Offset, company != nil); err != nil {
			return err
		}
		if err := manners(m, s.Stats()); err != nil {
			return err
		}
	}
	return nil
}

// settings are those that all have in common.
func settings(deadline, answer time.Duration) string {
	return fmt.Sprintf("state_dir = \"\"\n[bootstrap]\ncertificate_time = \"strict\"\n"+
		"[measure]\ninterval = \"0s\"\ndeadline = %q\nanswer_timeout = %q\n", deadline, answer)
}

// judge holds what was reported of the first server, and of those beside it.
func (w *hostileWorld) judge(m *ntstest.Malice, out *report.Report, code int, lie time.Duration, company bool) error {
	s := &out.Servers[0]
	want := m.Outcome
	if company && want.Liar {
		want.Verdict, want.Code = "falseticker", "outside_agreement"
	}
	got, text := s.ReasonCode, s.Reason
	if s.Error != nil {
		got, text = s.Error.Code, s.Error.Message
	}
	told := fmt.Sprintf("%s: %s, %s (%+v)", s.Verdict, got, text, s.Error)
	// On a busy machine less may come of it than could: never more.
	problem := func(format string, args ...any) error {
		err := fmt.Errorf(format+"\n%s", append(args, told)...)
		if more := s.Verdict != report.Failed && want.Verdict == "failed" || code == exitOK && !company && want.Verdict != "agreed"; more {
			return err
		}
		return starvation{err}
	}
	if string(s.Verdict) != want.Verdict || got != want.Code || s.Error != nil && s.Error.Stage != want.Stage() || !strings.Contains(text, want.Part) {
		return problem("want %+v", want)
	}
	agreed := company || want.Verdict == "agreed"
	if (code == exitOK) != agreed || !agreed && code != exitNoAgreement || (out.Agreement != nil) != agreed {
		return problem("exit %d, %+v", code, out.Agreement)
	}
	truth := lie
	if company {
		truth = 0
		for _, honest := range out.Servers[1:] {
			if honest.Verdict != report.ServerAgreed {
				return problem("an honest one is %+v", honest)
			}
		}
	}
	if a := out.Agreement; agreed && (time.Duration(a.Offset)-truth).Abs() > time.Duration(a.Uncertainty) {
		return fmt.Errorf("agreed on %+v, and the truth is %v\n%s", a, truth, told)
	}
	if s.Measured != nil && m.Cookies > 0 && s.Cookies != m.Cookies {
		return problem("%d cookies, want %d", s.Cookies, m.Cookies)
	}
	if s.Error != nil {
		w.met(got)
	}
	return nil
}

// manners says what the client sent that it should not have.
func manners(m *ntstest.Malice, stats ntstest.Stats) error {
	least, most := 0, 0
	switch {
	case m.Verdict != "failed":
		least, most = max(m.Requests, 1), 3
	case m.Code == "exchange_nak", m.Code == "exchange_kiss":
		least, most = 1, 1 // one who says no is not asked again
	case m.Stage() == "exchange":
		least, most = m.Requests, 3
	}
	if stats.Connections == 1 && stats.Requests >= least && stats.Requests <= most &&
		stats.Replayed == 0 && len(stats.Bad) > 0 == m.Blames {
		return nil
	}
	err := fmt.Errorf("want one connection and %d to %d requests: %+v", least, most, stats)
	if stats.Requests > most && stats.Requests <= 3 {
		return starvation{err} // the no came late
	}
	return err
}

func (w *hostileWorld) met(code string) {
	w.Lock()
	defer w.Unlock()
	w.codes[code] = true
}

// run queries, in a process if memory is held.
func (w *hostileWorld) run(t *testing.T, here bool, file string) (r result, peak int) {
	t.Helper()
	if here || w.usual == 0 {
		return w.query(t, file), 0
	}
	return w.process(t, "query", "--json", "-c", file)
}

func (w *hostileWorld) query(t *testing.T, file string) result {
	t.Helper()
	return w.here(t, queryAction, "query", "--json", "-c", file)
}

// here runs a command in this process. Others can go on at the same time: only
// the library that reads the arguments is for one at a time.
func (w *hostileWorld) here(t *testing.T, do cli.ActionFunc, args ...string) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	var context *cli.Context
	w.Lock()
	app := newApp(&stdout, &stderr)
	app.Command(args[0]).Action = func(c *cli.Context) error {
		context = c
		return nil
	}
	args, err := arrange(app, append([]string{"ntsclient"}, args...))
	if err == nil {
		err = app.Run(args)
	}
	w.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	code := exitCode(do(context), &stderr)
	return result{code, stdout.String(), stderr.String()}
}

// A second start asks for no second key exchange, be the server good or bad: with
// cookies it needs none, and without them the back-off holds (RFC 8915 §4.2). One
// of each kind of end is enough.
func TestMaliceTwice(t *testing.T) {
	w := newHostileWorld(t)
	ends := map[ntstest.Outcome]bool{}
	for _, m := range ntstest.Malices() {
		end := m.Outcome
		if end.Part = ""; ends[end] || m.Stage() == "dns" { // that may be for want of a network
			continue
		}
		ends[end] = true
		t.Run(m.Name, func(t *testing.T) {
			t.Parallel()
			s := serve(t, m.Options(w.ca))
			dir := t.TempDir()
			text := strings.Replace(settings(3*time.Second, 300*time.Millisecond), `state_dir = ""`, `state_dir = "state"`, 1)
			file := write(t, filepath.Join(dir, "ntsclient.toml"), text+strings.ReplaceAll(entry(t, dir, s), "time.test", cmp.Or(m.Host, "time.test")))
			for range 2 {
				r := w.here(t, syncAction, "sync", "--dry-run", "--json", "--log-level", "error", "-c", file)
				if _, err := readable(r); err != nil {
					t.Error(err)
				}
			}
			if stats := s.Stats(); stats.Connections != 1 || stats.Requests > 6 || stats.Replayed > 0 {
				t.Errorf("%+v", stats)
			}
		})
	}
	if len(ends) < 20 {
		t.Errorf("only %d kinds of end", len(ends))
	}
}

// process runs the program in a process; arguments in front may be environment.
func (w *hostileWorld) process(t *testing.T, args ...string) (r result, peak int) {
	t.Helper()
	env := []string{tellPeak + "=1"}
	for strings.Contains(args[0], "=") {
		env, args = append(env, args[0]), args[1:]
	}
	cmd := program(t, args...)
	cmd.Env = append(cmd.Env, env...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	cmd.ExtraFiles = []*os.File{writer}
	code := status(t, cmd)
	writer.Close()
	text, _ := io.ReadAll(reader)
	if peak, err = strconv.Atoi(string(text)); err != nil {
		t.Fatalf("exit %d without its peak: %v\n%s\n%s", code, err, &stdout, &stderr)
	}
	return result{code, stdout.String(), stderr.String()}, peak
}

// asProcess is main for a process whose memory is held.
func asProcess() {
	if os.Getenv(tellPeak) == "" {
		return
	}
	if os.Getenv(fewFiles) != "" {
		oneFile()
	}
	debug.SetGCPercent(400) // as main does
	code := run(os.Args, os.Stdout, os.Stderr)
	data, _ := os.ReadFile("/proc/self/status")
	_, after, _ := strings.Cut(string(data), "VmHWM:")
	kilobytes, _ := strconv.Atoi(strings.Fields(after)[0])
	fmt.Fprint(os.NewFile(3, "peak"), kilobytes<<10)
	os.Exit(code)
}

// oneFile lets this process open one file more, besides what the runtime needs
// to wait for sockets.
func oneFile() {
	if conn, err := net.ListenPacket("udp", "127.0.0.1:0"); err == nil {
		conn.Close()
	}
	f, err := os.Open(os.DevNull)
	if err != nil {
		return
	}
	defer f.Close()
	limit := uint64(f.Fd()) + 1
	syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: limit, Max: limit})
}

// readable is the report of a run. Nothing of it, also as people see it, does
// anything to a terminal.
func readable(r result) (*report.Report, error) {
	out, err := report.Parse([]byte(r.stdout))
	if err != nil {
		return nil, fmt.Errorf("exit %d: %w\n%s\n%s", r.code, err, r.stdout, r.stderr)
	}
	text := r.stdout + r.stderr
	for _, style := range []report.Style{{}, {UTF8: true, Draw: true}} {
		var b strings.Builder
		if err := out.WriteText(&b, style); err != nil {
			return nil, err
		}
		text += b.String()
	}
	for _, c := range text {
		if c != '\n' && !unicode.IsPrint(c) {
			return nil, fmt.Errorf("%q is printed raw:\n%q", c, text)
		}
	}
	return out, nil
}

// link is what can be wrong on the way to servers, and with the machine itself.
type link struct {
	name, code, stage, part string

	servers []string                               // as configured, but for operator and ca_file
	fails   int                                    // so many of them fail so; 0: all
	config  string                                 // in place of the settings of all
	run     func(t *testing.T, file string) result // nil: a query, also in company
}

func (w *hostileWorld) links(t *testing.T) []link {
	at := func(host, ip string, port uint16) string {
		return fmt.Sprintf("address = \"%s:%d\"\nips = [%q]", host, port, ip)
	}
	named := func(name string) []string { return []string{fmt.Sprintf("address = \"%s:4460\"", name)} }
	pinned := at("time.test", "127.0.0.1", serve(t, ntstest.Options{CA: w.ca}).KE().Port()) + "\npins = [\"sha256/" + strings.Repeat("A", 43) + "=\"]"
	deaf := serve(t, ntstest.Options{CA: w.ca, Loss: func(int) bool { return true }})
	gone := serve(t, ntstest.Options{CA: w.ca})
	gone.Close()
	var silent []string
	for range 3 {
		hole := serve(t, ntstest.Options{CA: w.ca, RawConn: func(c net.Conn) bool { io.Copy(io.Discard, c); return true }})
		silent = append(silent, at("time.test", "127.0.0.1", hole.KE().Port()))
	}
	return []link{
		{name: "no such name", code: "dns_not_found", stage: "dns", part: "missing.test", servers: named("missing.test")},
		{name: "the resolver fails", code: "dns_failed", stage: "dns", part: "broken.test", servers: named("broken.test")},
		{name: "nobody listens", code: "connect_refused", stage: "connect", servers: []string{at("time.test", "127.0.0.1", gone.KE().Port())}},
		{name: "no answer to connections", code: "connect_timeout", stage: "connect", servers: []string{at("time.test", "127.0.0.1", full(t))}},
		{name: "no way", code: "connect_unreachable", stage: "connect", servers: []string{at("time.test", "127.255.255.255", 4460)}},
		{name: "another key than pinned", code: "certificate_pin_mismatch", stage: "certificate", servers: []string{pinned}},
		{
			name: "no time left", code: "deadline", stage: "exchange",
			servers: []string{at("time.test", "127.0.0.1", deaf.KE().Port())},
			config:  "state_dir = \"\"\n[measure]\ninterval = \"1m\"\ndeadline = \"500ms\"\nanswer_timeout = \"100ms\"\n",
			run: func(t *testing.T, file string) result {
				r, _ := w.process(t, "sync", "--dry-run", "--wait", "1500ms", "--json", "--log-level", "error", "-c", file)
				return r
			},
		},
		{
			name: "no files left", code: "internal", stage: "internal", servers: silent, fails: 2,
			run: func(t *testing.T, file string) result {
				r, _ := w.process(t, fewFiles+"=1", "query", "--json", "-c", file)
				return r
			},
		},
	}
}

// full is a port that takes no more connections: who connects gets no answer.
func full(t *testing.T) uint16 {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Close(fd) })
	if err := errors.Join(syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), syscall.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	addr, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	port := addr.(*syscall.SockaddrInet4).Port
	for range 100 {
		conn, err := net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", port), time.Second)
		if err != nil {
			return uint16(port)
		}
		t.Cleanup(func() { conn.Close() })
	}
	t.Fatal("it takes any number of connections")
	return 0
}

// follow runs the program with what is wrong alone and in company.
func (w *hostileWorld) follow(t *testing.T, l *link, patience time.Duration) error {
	alone := func(file string) result { return w.query(t, file) }
	if l.run != nil {
		alone = func(file string) result { return l.run(t, file) }
	}
	if err := w.walk(t, l, patience, nil, exitNoAgreement, alone); err != nil || l.run != nil {
		return err
	}
	return w.walk(t, l, patience, w.honest, exitOK, alone)
}

func (w *hostileWorld) walk(t *testing.T, l *link, patience time.Duration, company []*ntstest.Server, code int, run func(string) result) error {
	dir := t.TempDir()
	ca := write(t, filepath.Join(dir, "ca.pem"), string(w.ca.PEM()))
	text := l.config
	if text == "" {
		text = settings(2*patience*time.Second, 300*patience*time.Millisecond)
	}
	for i, s := range l.servers {
		text += fmt.Sprintf("[[server]]\noperator = \"%d\"\nca_file = %q\n%s\n", i, ca, s)
	}
	for _, other := range company {
		text += entry(t, dir, other)
	}
	r := run(write(t, filepath.Join(dir, "ntsclient.toml"), text))
	out, err := readable(r)
	if err != nil {
		return err
	}
	found := 0
	for _, s := range out.Servers[:len(l.servers)] {
		if e := s.Error; e != nil && e.Code == l.code && e.Stage == l.stage && strings.Contains(e.Message, l.part) {
			found++
			w.met(e.Code)
		}
	}
	if want := cmp.Or(l.fails, len(l.servers)); found != want || r.code != code {
		return starvation{fmt.Errorf("exit %d, and %d fail by %s; want %d and %d\n%s", r.code, found, l.code, code, want, r.stdout)}
	}
	return nil
}

// ofProxies are codes that only a proxy brings about.
var ofProxies = []string{"proxy_failed", "proxy_no_udp"}

// everyCode fails the test where a code of the contract came from no malice.
func (w *hostileWorld) everyCode(t *testing.T) {
	codes, err := ntstest.Codes(filepath.Join("nts", "errors.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, code := range codes {
		if !w.codes[code] && !slices.Contains(ofProxies, code) {
			t.Errorf("no malice brings about %q", code)
		}
	}
	if len(codes) < 20 {
		t.Errorf("only %d codes are found", len(codes))
	}
}

// wholeRun tells whether no test was left out.
func wholeRun() bool {
	return flag.Lookup("test.run").Value.String() == "" && flag.Lookup("test.skip").Value.String() == "" ||
		flag.Lookup("test.run").Value.String() == "TestMalice"
}
