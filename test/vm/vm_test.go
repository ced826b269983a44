//go:build linux && vm

package vm

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ntsclient/test/interop"
	"ntsclient/test/vm/oracle"
)

func TestMain(m *testing.M) {
	interop.Enter()
	os.Exit(m.Run())
}

var epoch = time.Unix(0, 0)

// need skips the test where a part is missing, or fails it where nothing may
// be skipped.
func need(t *testing.T, arch Arch) {
	t.Helper()
	_, err := arch.Cache()
	if err == nil {
		_, err = interop.Cache()
	}
	switch {
	case err == nil:
	case os.Getenv("CI") == "true":
		t.Fatal(err)
	default:
		t.Skip(err)
	}
}

// lab is four operators' servers, and what a guest needs to ask them.
type lab struct {
	servers []*interop.Server
	before  []int // key exchanges that each had served when it had started
	files   []File
	// warmUp is to be run first: chronyd gives a key exchange 2 s, and an
	// emulator needs much of that to translate a program that it has never run.
	// It asks a server of its own.
	warmUp string
}

// serve starts the servers: "" is an honest one, "expired" one whose
// certificate ended a month ago, and all else what libfaketime adds to its
// clock. The text goes before the tables of the configuration.
func serve(t *testing.T, text string, kinds ...string) *lab {
	t.Helper()
	ca := interop.NewAuthority(t, "test root", nil)
	pem, err := os.ReadFile(ca.File)
	if err != nil {
		t.Fatal(err)
	}
	n := &lab{}
	for i, kind := range kinds {
		name := fmt.Sprintf("%c.vm.test", 'a'+i)
		s := &interop.Server{Kind: interop.Chrony12, Identity: ca.Issue(t, name, -1, 30)}
		switch kind {
		case "":
		case "expired":
			s.Identity = ca.Issue(t, name, -60, 30)
		default:
			s.Kind, s.Lie = interop.Liar, kind
		}
		s.Start(t)
		n.servers = append(n.servers, s)
		n.before = append(n.before, exchanges(t, s))
		text += fmt.Sprintf("[[server]]\naddress = \"%s:%d\"\noperator = \"operator-%d\"\nips = [%q]\nca_file = \"ca.pem\"\n",
			name, s.KE, i, HostIP)
	}
	first := &interop.Server{Kind: interop.Chrony12, Identity: ca.Issue(t, "first.vm.test", -1, 30)}
	first.Start(t)
	n.warmUp = fmt.Sprintf("guest run first ntsclient query --ca /etc/ca.pem first.vm.test:%d\n", first.KE)
	n.files = []File{
		{"etc/hosts", Plain, []byte(HostIP + " first.vm.test\n")},
		{"var/lib/ntsclient", Dir, nil},
		{"etc/ca.pem", Plain, pem},
		{"etc/ntsclient.toml", Plain, []byte(text)},
	}
	return n
}

// exchanges counts the key exchanges that an honest server has served.
func exchanges(t *testing.T, s *interop.Server) int {
	t.Helper()
	if s.Kind == interop.Liar {
		return 0
	}
	return s.KeyExchanges(t)
}

// exchanged fails the test unless each server served so many key exchanges to
// the guest.
func (n *lab) exchanged(t *testing.T, want int) {
	t.Helper()
	for i, s := range n.servers {
		if got := exchanges(t, s) - n.before[i]; got != want {
			t.Errorf("server %d served %d key exchanges, not %d", i, got, want)
		}
	}
}

// answer is what these tests look at in the report of a sync.
type answer struct {
	Result     string
	Action     string
	ReasonCode string `json:"reason_code"`
	Reason     string
	Bootstrap  *struct {
		Deferred   bool
		FloorFrom  string `json:"floor_from"`
		Reverified int
	}
	Servers []struct {
		Verdict     string
		ReasonCode  string `json:"reason_code"`
		KeyExchange *bool  `json:"key_exchange"`
		Error       *struct{ Code string }
	}
}

// report checks the exit code of a sync and returns its report.
func report(t *testing.T, r oracle.Record, exit int) answer {
	t.Helper()
	var a answer
	if err := json.Unmarshal([]byte(r.Stdout), &a); err != nil || r.Exit != exit {
		t.Fatalf("%s: exit %d, not %d; report: %v\n%s%s", r.Name, r.Exit, exit, err, r.Stdout, r.Stderr)
	}
	return a
}

// verdicts fails the test unless those are the servers' verdicts, in order.
func (a answer) verdicts(t *testing.T, want string) {
	t.Helper()
	var got []string
	for _, s := range a.Servers {
		got = append(got, s.Verdict)
	}
	if strings.Join(got, " ") != want {
		t.Errorf("verdicts %v, not %s; %s", got, want, a.Reason)
	}
}

// keyExchange fails the test unless all servers say so of theirs.
func (a answer) keyExchange(t *testing.T, want bool) {
	t.Helper()
	for i, s := range a.Servers {
		if s.KeyExchange == nil || *s.KeyExchange != want {
			t.Errorf("server %d: key_exchange is not %v", i, want)
		}
	}
}

// right fails the test unless the clock is, and the kernel says so, and nothing
// else was changed.
func right(t *testing.T, r oracle.Record) {
	t.Helper()
	correct(t, r, 0)
}

// correct is right where a frequency may have been learned, of so many ppm.
func correct(t *testing.T, r oracle.Record, learned int64) {
	t.Helper()
	if r.After.Abs() >= oracle.Near {
		t.Errorf("%s: the clock is off by %v (± %v)", r.Name, r.After, r.Trip/2)
	}
	if r.MaxError >= 16*time.Second || r.Status&unix.STA_UNSYNC != 0 {
		t.Errorf("%s: not synchronized: maxerror %v, status %#x", r.Name, r.MaxError, r.Status)
	}
	if f := max(r.Frequency, -r.Frequency); f > learned<<16 || r.Tick != 10000 {
		t.Errorf("%s: frequency %d, tick %d", r.Name, r.Frequency, r.Tick)
	}
	t.Logf("%s: from the start of the process to the right clock %v, to its end %v; off by %v before and %v after",
		r.Name, r.Right.Round(time.Millisecond), r.Took.Round(time.Millisecond), r.Before.Round(time.Millisecond), r.After)
}

// untouched fails the test if the clock was stepped, or declared synchronized.
func untouched(t *testing.T, r oracle.Record) {
	t.Helper()
	if d := r.After - r.Before; d.Abs() > time.Second || r.MaxError < 16*time.Second {
		t.Errorf("%s: the clock moved by %v; maxerror %v, status %#x", r.Name, d, r.MaxError, r.Status)
	}
}

// The instrument itself: it sees exit codes, output, real changes of the clock,
// and who may make them.
func TestHarness(t *testing.T) {
	need(t, AMD64)
	harness(t, AMD64)
}

func harness(t *testing.T, arch Arch) {
	t.Helper()
	r := Machine{Arch: arch, RTC: epoch, Script: `
guest run says sh -c 'echo out; echo err >&2; exit 7'
guest run denied -uid 1000 guest set 1000000000
cp /bin/guest /bin/capable
guest setcap /bin/capable
guest run capable -uid 1000 capable set 1000000000
guest run root guest set 2000000000
`}.Run(t)
	if s := r["says"]; s.Exit != 7 || s.Stdout != "out\n" || s.Stderr != "err\n" {
		t.Errorf("%+v", s)
	}
	for _, c := range []struct {
		name          string
		exit          int
		before, after int64 // the guest's clock
	}{
		{"says", 7, 0, 0},
		{"denied", 1, 0, 0},
		{"capable", 0, 0, 1000000000},
		{"root", 0, 1000000000, 2000000000},
	} {
		s := r[c.name]
		before := time.Now().Add(s.Before).Unix() - c.before
		after := time.Now().Add(s.After).Unix() - c.after
		if s.Exit != c.exit || min(before, after) < -1 || max(before, after) > 120 {
			t.Errorf("%s: clocks %d s and %d s ahead of what was set: %+v", c.name, before, after, s)
		}
		t.Logf("%s: right within ± %v", c.name, s.Trip/2)
	}
}

// From 1970 to the right time in one command; the next has no need of a key
// exchange, not even with the clock lost again, as by a boot.
func TestNoClock(t *testing.T) {
	need(t, AMD64)
	fromEpoch(t, AMD64)
}

func fromEpoch(t *testing.T, arch Arch) {
	t.Helper()
	n := serve(t, "", "", "", "", "")
	r := Machine{Arch: arch, RTC: epoch, Limit: 5 * time.Minute, Files: n.files, Script: n.warmUp + `
guest run cold ntsclient sync --json
guest run warm ntsclient sync --json
guest set 60
guest run again ntsclient sync --json
`}.Run(t)
	cold := report(t, r["cold"], 0)
	cold.verdicts(t, "agreed agreed agreed agreed")
	cold.keyExchange(t, true)
	right(t, r["cold"])
	if b := cold.Bootstrap; cold.Action != "step" || b == nil || !b.Deferred || b.Reverified != 4 || b.FloorFrom != "certificates" {
		t.Errorf("cold: %+v, %+v", cold, cold.Bootstrap)
	}
	warm := report(t, r["warm"], 0)
	warm.verdicts(t, "agreed agreed agreed agreed")
	warm.keyExchange(t, false)
	right(t, r["warm"])
	again := report(t, r["again"], 0)
	again.verdicts(t, "agreed agreed agreed agreed")
	again.keyExchange(t, false)
	right(t, r["again"])
	n.exchanged(t, 1)
}

// A clock that is ahead, where certificates look expired. The dry run finds the
// same and touches nothing.
func TestTenYearsAhead(t *testing.T) {
	need(t, AMD64)
	n := serve(t, "", "", "", "", "")
	r := Machine{Arch: AMD64, RTC: time.Now().AddDate(10, 0, 0), Files: n.files, Script: n.warmUp + `
guest run dry ntsclient sync --dry-run --json
guest run sync ntsclient sync --json
`}.Run(t)
	if a := report(t, r["dry"], 0); a.Result != "agreed" || a.Action != "step" {
		t.Errorf("dry run: %+v", a)
	}
	untouched(t, r["dry"])
	a := report(t, r["sync"], 0)
	a.verdicts(t, "agreed agreed agreed agreed")
	right(t, r["sync"])
	n.exchanged(t, 1)
}

// A clock that is off by little enough for the certificates is set without a
// look past their dates. Later a small error is slewed, which goes on when the
// process has ended. Where the RTC keeps local time, the kernel must not write to
// it: STA_UNSYNC stays.
func TestRightDates(t *testing.T) {
	need(t, AMD64)
	n := serve(t, "[clock]\nstep_above = \"1s\"\n", "", "", "", "")
	r := Machine{Arch: AMD64, RTC: time.Now().Add(-10 * time.Minute), Files: n.files, Script: n.warmUp + `
guest run step ntsclient sync --json
guest shift 100
guest run slew ntsclient sync --json
sleep 4
guest run slewed true
printf '0.0 0 0.0\n0\nLOCAL\n' >/etc/adjtime
guest shift 2000
guest run local ntsclient sync --json
`}.Run(t)
	a := report(t, r["step"], 0)
	a.verdicts(t, "agreed agreed agreed agreed")
	right(t, r["step"])
	if a.Action != "step" || (a.Bootstrap != nil && a.Bootstrap.Deferred) {
		t.Errorf("%+v, %+v", a, a.Bootstrap)
	}
	if a := report(t, r["slew"], 0); a.Action != "slew" {
		t.Errorf("%+v", a)
	}
	for _, s := range []oracle.Record{r["slew"], r["slewed"]} {
		if s.MaxError >= 16*time.Second || s.Status&unix.STA_UNSYNC != 0 {
			t.Errorf("%s: not synchronized: maxerror %v, status %#x", s.Name, s.MaxError, s.Status)
		}
	}
	began, later := r["slew"].Pending, r["slewed"].Pending
	if began > -90*time.Millisecond || began < -110*time.Millisecond || later <= began || later >= 0 {
		t.Errorf("to be slewed: %v, and a few seconds later %v", began, later)
	}
	local := r["local"]
	if a := report(t, local, 0); a.Action != "step" || a.ReasonCode == "first_correction" || local.After.Abs() >= oracle.Near {
		t.Errorf("%+v; off by %v", a, local.After)
	}
	if local.MaxError >= 16*time.Second || local.Status&unix.STA_UNSYNC == 0 {
		t.Errorf("RTC in local time: maxerror %v, status %#x", local.MaxError, local.Status)
	}
}

// What `status` says of the clock is what the kernel says, to whoever asks; and
// so do the metrics that a sync leaves.
func TestStatus(t *testing.T) {
	need(t, AMD64)
	n := serve(t, "[metrics]\ntextfile = \"/var/lib/ntsclient/ntsclient.prom\"\n", "", "", "", "")
	r := Machine{Arch: AMD64, RTC: epoch, Files: n.files, Script: n.warmUp + `
guest run nothing -uid 1000 ntsclient status --json
guest run sync ntsclient sync --json
guest run status -uid 1000 ntsclient status --json
guest run again ntsclient sync --json
guest run metrics cat /var/lib/ntsclient/ntsclient.prom
guest set 60
guest run lost -uid 1000 ntsclient status --json
`}.Run(t)
	report(t, r["sync"], 0)
	report(t, r["again"], 0)
	for _, c := range []struct {
		name string
		exit int
		want string
	}{
		{"nothing", 6, "\"synchronized\": false"},
		{"status", 0, "\"synchronized\": true"},
		{"lost", 3, "\"synchronized\": false"},
	} {
		s := r[c.name]
		report(t, s, c.exit)
		if !strings.Contains(s.Stdout, c.want) || (s.MaxError < 16*time.Second) != (c.exit == 0) {
			t.Errorf("maxerror %v, and status says:\n%s", s.MaxError, s.Stdout)
		}
	}
	for _, want := range []string{"ntsclient_synchronized 1", "ntsclient_steps_total 1", "ntsclient_holding 0"} {
		if !strings.Contains(r["metrics"].Stdout, "\n"+want+"\n") {
			t.Errorf("no %s in\n%s", want, r["metrics"].Stdout)
		}
	}
}

func TestStrictDates(t *testing.T) {
	need(t, AMD64)
	n := serve(t, "[bootstrap]\ncertificate_time = \"strict\"\n", "", "", "", "")
	r := Machine{Arch: AMD64, RTC: epoch, Files: n.files, Script: n.warmUp + "guest run sync ntsclient sync --json"}.Run(t)
	a := report(t, r["sync"], 3)
	a.verdicts(t, "failed failed failed failed")
	for i, s := range a.Servers {
		if s.Error == nil || s.Error.Code != "certificate_not_yet_valid" {
			t.Errorf("server %d: %+v", i, s.Error)
		}
	}
	if a.Result != "no_agreement" || a.Reason == "" {
		t.Errorf("%+v", a)
	}
	untouched(t, r["sync"])
}

// Who may set the clock: an unprivileged user by the file's capability only,
// and then not with a configuration that others may write.
func TestFileCapability(t *testing.T) {
	need(t, AMD64)
	n := serve(t, "", "", "", "", "")
	r := Machine{Arch: AMD64, RTC: epoch, Files: n.files, Script: n.warmUp + `
chown 1000:1000 /var/lib/ntsclient
cp /bin/ntsclient /bin/capable
guest setcap /bin/capable
guest run denied -uid 1000 ntsclient sync --json
guest run sync -uid 1000 capable sync --json
chmod 666 /etc/ntsclient.toml
guest run foreign -uid 1000 capable sync --json
`}.Run(t)
	if a := report(t, r["denied"], 5); a.Result != "not_permitted" {
		t.Errorf("%+v", a)
	}
	untouched(t, r["denied"])
	report(t, r["sync"], 0).verdicts(t, "agreed agreed agreed agreed")
	right(t, r["sync"])
	if f := r["foreign"]; f.Exit != 2 || !strings.Contains(f.Stderr, "/etc/ntsclient.toml") {
		t.Errorf("a configuration that anyone may write: exit %d\n%s", f.Exit, f.Stderr)
	}
	n.exchanged(t, 1) // that of the one sync that was permitted
}

// Keys whose certificates have ended prove nothing, whatever the clock says.
func TestExpired(t *testing.T) {
	need(t, AMD64)
	n := serve(t, "", "expired", "expired", "expired", "expired")
	r := Machine{Arch: AMD64, RTC: epoch, Files: n.files, Script: n.warmUp + "guest run sync ntsclient sync --json"}.Run(t)
	a := report(t, r["sync"], 3)
	a.verdicts(t, "unusable unusable unusable unusable")
	if a.Result != "no_agreement" || a.Reason == "" {
		t.Errorf("%+v", a)
	}
	untouched(t, r["sync"])
}

func TestOneLiar(t *testing.T) {
	need(t, AMD64)
	n := serve(t, "", "", "", "+0.5s", "")
	r := Machine{Arch: AMD64, RTC: epoch, Files: n.files, Script: n.warmUp + "guest run sync ntsclient sync --json"}.Run(t)
	report(t, r["sync"], 0).verdicts(t, "agreed agreed falseticker agreed")
	right(t, r["sync"])
}

// One expired, one a day off: the two that are left are fewer than the three
// that a bootstrap asks for.
func TestTooFewLeft(t *testing.T) {
	need(t, AMD64)
	n := serve(t, "", "", "expired", "+1d", "")
	r := Machine{Arch: AMD64, RTC: epoch, Files: n.files, Script: n.warmUp + "guest run sync ntsclient sync --json"}.Run(t)
	a := report(t, r["sync"], 3)
	a.verdicts(t, "agreed unusable falseticker agreed")
	if a.Result != "no_agreement" || !strings.Contains(a.Reason, "3") {
		t.Errorf("%+v", a)
	}
	untouched(t, r["sync"])
}

// 32-bit processors have other system calls for the time.
func TestOtherProcessors(t *testing.T) {
	if os.Getenv("LONG") == "" {
		t.Skip("takes minutes: set LONG=1")
	}
	for _, arch := range []Arch{I386, ARM64, ARMHF} {
		t.Run(arch.Name, func(t *testing.T) {
			need(t, arch)
			t.Run("harness", func(t *testing.T) { harness(t, arch) })
			t.Run("sync", func(t *testing.T) { patient(t, arch) })
			t.Run("far ahead", func(t *testing.T) { farAhead(t, arch) })
		})
	}
}

// patient is fromEpoch for processors that are emulated so slowly that chronyd,
// which waits for two seconds, may give up on their first key exchanges.
func patient(t *testing.T, arch Arch) {
	t.Helper()
	n := serve(t, "", "", "", "", "")
	r := Machine{Arch: arch, RTC: epoch, Limit: 5 * time.Minute, Files: n.files, Script: n.warmUp + `
guest run cold ntsclient sync --wait 2m --json
guest run warm ntsclient sync --json
`}.Run(t)
	cold := report(t, r["cold"], 0)
	if b := cold.Bootstrap; cold.Action != "step" || b == nil || !b.Deferred || b.Reverified < 3 {
		t.Errorf("cold: %+v, %+v", cold, cold.Bootstrap)
	}
	right(t, r["cold"])
	report(t, r["warm"], 0)
	right(t, r["warm"])
}

// Back over more years than 32 bits hold.
func farAhead(t *testing.T, arch Arch) {
	t.Helper()
	n := serve(t, "", "", "", "", "")
	r := Machine{Arch: arch, RTC: epoch, Limit: 5 * time.Minute, Files: n.files, Script: n.warmUp + `
guest set 4102444800
guest run sync ntsclient sync --wait 2m --json
`}.Run(t)
	report(t, r["sync"], 0)
	if r["sync"].Before < 70*365*24*time.Hour {
		t.Errorf("the clock was ahead by %v only", r["sync"].Before)
	}
	right(t, r["sync"])
}
