//go:build linux

package interop

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ntsclient/timesync/report"
)

var commands = map[string][]string{
	"query": {"query", "--json"},
	"sync":  {"sync", "--dry-run", "--json"},
}

// Each kind of server alone: what the report says of it must be true.
func TestEachServer(t *testing.T) {
	const cmac, gcm = "AES-SIV-CMAC-256", "AES-128-GCM-SIV"
	for _, c := range []struct {
		kind Kind
		aead string
	}{{Chrony12, cmac}, {Chrony13, gcm}, {NTPsec, cmac}, {NTPdRS, cmac}} {
		t.Run(string(c.kind), func(t *testing.T) {
			l := newLab(t)
			servers := l.start(t, c.kind)
			for _, ip := range Loopback() {
				for command, args := range commands {
					r := run(t, configure(t, l.entries(servers, ip), ""), 0, args...)
					checkRound(t, r, command)
					checkServer(t, r.Servers[0], servers[0], ip)
					if got := r.Servers[0].AEAD; got != c.aead {
						t.Errorf("%s: AEAD %s, want %s", ip, got, c.aead)
					}
				}
			}
		})
	}
}

// checkRound checks what holds of every round that agreed: the servers' clock
// is the client's.
func checkRound(t *testing.T, r report.Report, command string) {
	t.Helper()
	if r.Schema != 1 || r.Command != command || r.DryRun != (command == "sync") {
		t.Errorf("schema %d, command %s, dry run %v", r.Schema, r.Command, r.DryRun)
	}
	if r.Result != report.Agreed || r.Agreement == nil {
		t.Fatalf("result %s: %s", r.Result, r.Reason)
	}
	if abs(r.Offset) > r.Uncertainty || r.Uncertainty > seconds(1) { // on a busy machine, too
		t.Errorf("offset %v ± %v, want 0 within 1 s", r.Offset, r.Uncertainty)
	}
	if r.Interval[0] > 0 || r.Interval[1] < 0 {
		t.Errorf("agreed interval %v does not hold the truth", r.Interval)
	}
	if got := r.Time.Sub(r.Clock) - time.Duration(r.Offset); got.Abs() > time.Microsecond {
		t.Errorf("time − clock is %v from the offset", got)
	}
	if age := time.Since(r.Clock); age < 0 || age > time.Minute {
		t.Errorf("clock is %v old", age)
	}
	if command == "query" && r.Action != report.None {
		t.Errorf("query: action %s", r.Action)
	}
}

// checkServer checks every field of an honest server after one key exchange
// and one exchange.
func checkServer(t *testing.T, got report.Server, s *Server, ip string) {
	t.Helper()
	if got.Verdict != report.ServerAgreed || got.Measured == nil || got.Certificate == nil || got.Error != nil {
		t.Fatalf("verdict %s (%s), error %+v", got.Verdict, got.Reason, got.Error)
	}
	for _, c := range []struct{ field, got, want string }{
		{"name", got.Name, fmt.Sprintf("%s:%d", name, s.KE)},
		{"operator", got.Operator, "operator-1.test"},
		{"address", got.Address, join(ip, s.NTP)},
		{"leap", got.Leap, "none"},
		{"timestamps", got.Timestamps, "kernel"},
		{"subject", got.Certificate.Subject, name},
		{"issuer", got.Certificate.Issuer, "CN=Interop Issuing CA"},
		{"not_before", got.Certificate.NotBefore.String(), s.Identity.NotBefore.String()},
		{"not_after", got.Certificate.NotAfter.String(), s.Identity.NotAfter.String()},
		{"counts", fmt.Sprint(got.Stratum, got.Cookies, got.Samples, got.KeyExchange), "1 8 1 true"},
	} {
		if c.got != c.want {
			t.Errorf("%s: %s %q, want %q", ip, c.field, c.got, c.want)
		}
	}
	if abs(got.Offset) > got.Uncertainty || got.Uncertainty < got.Delay/2 {
		t.Errorf("%s: offset %v ± %v, delay %v", ip, got.Offset, got.Uncertainty, got.Delay)
	}
	if got.Delay <= 0 || got.Delay > seconds(1) {
		t.Errorf("%s: delay %v on loopback", ip, got.Delay)
	}
	if got.RootDelay != 0 || got.RootDispersion < 0 || got.RootDispersion > seconds(0.1) {
		t.Errorf("%s: root delay %v, root dispersion %v", ip, got.RootDelay, got.RootDispersion)
	}
}

// One, four, and four with a fifth that is half a second off.
func TestAgreement(t *testing.T) {
	l := newLab(t)
	honest := l.start(t, Chrony12, Chrony13, NTPdRS, Chrony12)
	liar := l.start(t, Liar)[0]
	for command, args := range commands {
		t.Run(command, func(t *testing.T) {
			r := run(t, configure(t, l.entries(honest, "127.0.0.1"), ""), 0, args...)
			checkRound(t, r, command)
			for _, s := range r.Servers {
				if s.Verdict != report.ServerAgreed {
					t.Errorf("%s: %s", s.Name, s.Verdict)
				}
			}
			r = run(t, configure(t, l.entries(append(honest[:4:4], liar), "127.0.0.1"), ""), 0, args...)
			checkRound(t, r, command)
			for i, s := range r.Servers {
				if want := i < 4; want != (s.Verdict == report.ServerAgreed) {
					t.Errorf("server %d: %s", i+1, s.Verdict)
				}
			}
			lie := r.Servers[4]
			if lie.Verdict != report.Falseticker || lie.ReasonCode != "outside_agreement" || lie.Reason == "" {
				t.Fatalf("liar: %s, %s, %q", lie.Verdict, lie.ReasonCode, lie.Reason)
			}
			if abs(lie.Offset-seconds(0.5)) > lie.Uncertainty {
				t.Errorf("liar: offset %v ± %v, want 0.5 s", lie.Offset, lie.Uncertainty)
			}
		})
	}
}

// A liar and one honest server: nobody knows which is right.
func TestNoAgreement(t *testing.T) {
	l := newLab(t)
	servers := l.start(t, Chrony12, Liar)
	for _, args := range commands {
		r := run(t, configure(t, l.entries(servers, "127.0.0.1"), ""), 3, args...)
		if r.Result != report.NoAgreement || r.Agreement != nil || r.Action != report.None {
			t.Errorf("result %s, agreement %v, action %s", r.Result, r.Agreement, r.Action)
		}
	}
}

// A dry run says what it would do and calls nothing that sets a clock, as
// strace sees it: clock_adjtime without modes only reads.
func TestDryRun(t *testing.T) {
	l := newLab(t)
	servers := l.start(t, Liar, Liar)
	cache, err := Cache()
	check(t, err)
	trace := filepath.Join(t.TempDir(), "trace")
	r := runUnder(t, []string{
		filepath.Join(cache, "strace"), "-f", "-o", trace,
		"-e", "trace=adjtimex,clock_adjtime,clock_settime,settimeofday,execve",
	}, configure(t, l.entries(servers, "127.0.0.1"), ""), 0, "sync", "--dry-run", "--json")
	if !r.DryRun || r.Result != report.Agreed || r.Action != report.Step || abs(r.Offset-seconds(0.5)) > r.Uncertainty {
		t.Errorf("dry run %v, result %s, action %s", r.DryRun, r.Result, r.Action)
	}
	text, err := os.ReadFile(trace)
	check(t, err)
	if !strings.Contains(string(text), "execve(") {
		t.Fatalf("no trace: %s", text)
	}
	for line := range strings.Lines(string(text)) {
		adjusts := strings.Contains(line, "modes=") && !strings.Contains(line, "modes=0,")
		if adjusts || strings.Contains(line, "settime") {
			t.Errorf("a dry run sets the clock: %s", line)
		}
	}
}
