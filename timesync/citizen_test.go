package timesync

import (
	"math"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"ntsclient/nts"
	"ntsclient/nts/ntstest"
	"ntsclient/timesync/report"
)

// A nuisance is a way to fail that asks for trouble, and what a client may do to
// such a server all the same.
type nuisance struct {
	name string
	fail func(*loopServer)
	// Of a day: key exchanges and requests, where the loop runs and where sync
	// does once a minute. RFC 8915 §4.2 allows 22 key exchanges: n failures take
	// 20 s × (1.5ⁿ − 1).
	loopKE, loopSent, syncKE, syncSent int
}

const backedOff = 22

var nuisances = []nuisance{
	{"nak", func(s *loopServer) { s.forgot = math.MaxInt }, backedOff, 8 * backedOff, backedOff, 8 * backedOff},
	{"no cookies", keFails(nts.StageKeyExchange, nts.KENoCookies), backedOff, 0, backedOff, 0},
	{"error", keFails(nts.StageKeyExchange, nts.KEError), backedOff, 0, backedOff, 0},
	{"timeout", keFails(nts.StageKeyExchange, nts.KETimeout), backedOff, 0, backedOff, 0},
	{"expired", keFails(nts.StageCertificate, nts.CertificateExpired), backedOff, 0, backedOff, 0},
	{"stranger", keFails(nts.StageCertificate, nts.CertificateUnknownAuthority), backedOff, 0, backedOff, 0},
	{"reset", keFails(nts.StageTLS, nts.TLSFailed), backedOff, 0, backedOff, 0},
	{"refused", func(s *loopServer) { s.keError = connRefused }, backedOff, 0, backedOff, 0},
	{"no name", keFails(nts.StageDNS, nts.DNSNotFound), backedOff, 0, backedOff, 0},
	{"dead", func(s *loopServer) { s.down = true }, backedOff, 0, backedOff, 0},
	{"deaf", func(s *loopServer) { s.deaf = true }, backedOff, 8 * backedOff, backedOff, 8 * backedOff},
	// What it gives is used up by every answer, and each is a success.
	{"one cookie", func(s *loopServer) { s.mean = true }, 1400, 1400, 1441, 1441},
	// 64 s, doubled up to two hours.
	{"rate", func(s *loopServer) { s.kiss = "RATE" }, 2, 22, 2, 22},
	{"rate, bare", func(s *loopServer) { s.kiss, s.bare = "RATE", true }, 2, 22, 2, 22},
	{"deny", func(s *loopServer) { s.kiss = "DENY" }, 2, 22, 2, 22},
	{"deny, bare", func(s *loopServer) { s.kiss, s.bare = "DENY", true }, 2, 22, 2, 22},
	{"rstr", func(s *loopServer) { s.kiss = "RSTR" }, 2, 22, 2, 22},
}

func keFails(stage nts.Stage, code nts.Code) func(*loopServer) {
	return func(s *loopServer) { s.keError = ntsError(stage, code) }
}

// aDay is one, or a shorter one with -short.
func aDay() time.Duration {
	if testing.Short() {
		return 4 * time.Hour
	}
	return 24 * time.Hour
}

// pester adds a server of each kind to three that are honest.
func (m *machine) pester() {
	for i, n := range nuisances {
		s := &loopServer{clock: m.loopClock, delay: 20 * ms, rng: rand.New(rand.NewPCG(uint64(i), 2))}
		n.fail(s)
		m.add(n.name, s)
	}
}

// wantManners holds what was sent in a day against the bounds; the other half of
// each is that it was sent at all.
func (m *machine) wantManners(most func(n nuisance) (ke, sent int)) {
	m.t.Helper()
	for _, n := range nuisances {
		ke, sent := m.exchanges(n.name), m.requests(n.name)
		mostKE, mostSent := most(n)
		m.t.Logf("%-12s %4d of at most %4d key exchanges, %4d of at most %4d requests", n.name, ke, mostKE, sent, mostSent)
		if ke < 1 || ke > mostKE || sent > mostSent || (sent < 1) != (mostSent == 0) {
			m.t.Errorf("%s: %d key exchanges and %d requests, at most %d and %d", n.name, ke, sent, mostKE, mostSent)
		}
		if m.servers[n.name].replayed {
			m.t.Errorf("%s: a cookie was sent twice", n.name)
		}
	}
	for _, name := range []string{"a", "b", "c"} {
		if ke := m.exchanges(name); ke != 1 {
			m.t.Errorf("%s: %d key exchanges", name, ke)
		}
	}
}

func loopManners(n nuisance) (ke, sent int) { return n.loopKE, n.loopSent }

// No way to fail makes the loop a nuisance.
func TestLoopManners(t *testing.T) {
	simulate(t, 3, func(m *machine) {
		m.pester()
		m.start()
		wait(24 * time.Hour)
		m.wantManners(loopManners)
		m.wantResult(report.Agreed)
		m.right(ms)
	})
}

// Nor does one that is started again every few minutes.
func TestRestartedLoopManners(t *testing.T) {
	simulate(t, 3, func(m *machine) {
		m.options.StateDir = t.TempDir()
		m.pester()
		for range 24 * 6 {
			m.start()
			wait(10 * time.Minute)
			m.end()
		}
		m.wantManners(func(n nuisance) (ke, sent int) {
			if n.name == "one cookie" { // the first polls of each loop
				return 24 * 6 * 25, 24 * 6 * 25
			}
			return n.loopKE, n.loopSent
		})
	})
}

// Nor does one that is killed again and again, before it ever finds the time.
func TestKilledLoopManners(t *testing.T) {
	simulate(t, 2, func(m *machine) {
		m.options.StateDir = t.TempDir()
		file := filepath.Join(m.options.StateDir, stateName)
		m.servers["a"].keError, m.servers["b"].deaf = connRefused, true
		for range 24 * 12 {
			m.start()
			wait(5 * time.Minute)
			disk := must(os.ReadFile(file))
			m.end()
			writeFile(t, file, disk) // as if it had not
		}
		// Of what fails before it is killed it may forget all but the first.
		for name := range m.servers {
			if ke := m.exchanges(name); ke < 10 || ke > 3*backedOff {
				t.Errorf("%s: %d key exchanges in a day", name, ke)
			}
			if m.servers[name].replayed {
				t.Errorf("%s: a cookie was sent twice", name)
			}
		}
	})
}

// Nor does sync, from a crontab, each minute.
func TestSyncManners(t *testing.T) {
	simulate(t, 3, func(m *machine) {
		m.options.StateDir = t.TempDir()
		m.pester()
		for m.age() < aDay() {
			r := m.sync(SyncOptions{})
			if r.Result != report.Agreed {
				t.Fatalf("after %v: %s", m.age(), r.Reason)
			}
			wait(time.Minute - m.age()%time.Minute)
		}
		m.wantManners(func(n nuisance) (ke, sent int) { return n.syncKE, n.syncSent })
	})
}

// The same on the wire, for as long as the first back-off lasts. Each of four may
// ask three times where a busy machine answers late.
func TestSyncMannersOnTheWire(t *testing.T) {
	t.Parallel()
	kinds := []struct {
		name                  string
		fail                  func(*ntstest.Options)
		connections, requests int
	}{
		{"good", func(*ntstest.Options) {}, 1, 12},
		{"resets", func(o *ntstest.Options) {
			o.RawConn = func(c net.Conn) bool { c.(*net.TCPConn).SetLinger(0); c.Close(); return true }
		}, 1, 0},
		{"expired", func(o *ntstest.Options) { o.NotBefore, o.NotAfter = ymd(2020, 1, 1), ymd(2021, 1, 1) }, 1, 0},
		{"of another name", func(o *ntstest.Options) { o.Names = []string{"elsewhere.test"} }, 1, 0},
		{"error", func(o *ntstest.Options) {
			o.KE = func([]ntstest.Record) []ntstest.Record {
				return []ntstest.Record{{Type: 2, Critical: true, Body: []byte{0, 2}}, {Critical: true}}
			}
		}, 1, 0},
		{"no cookies", func(o *ntstest.Options) {
			o.KE = func(all []ntstest.Record) []ntstest.Record {
				return slices.DeleteFunc(all, func(r ntstest.Record) bool { return r.Type == 5 })
			}
		}, 1, 0},
		{"NAK", func(o *ntstest.Options) { o.Kiss = "NTSN" }, 1, 8},
		{"deaf", func(o *ntstest.Options) { o.Loss = func(int) bool { return true } }, 1, 8},
		{"RATE", func(o *ntstest.Options) { o.Kiss = "RATE" }, 1, 3},
		{"RATE, bare", func(o *ntstest.Options) { o.Kiss, o.KissBare = "RATE", true }, 1, 3},
		{"DENY", func(o *ntstest.Options) { o.Kiss = "DENY" }, 1, 3},
	}
	w := newWorld(t, len(kinds), func(i int, o *ntstest.Options) { kinds[i].fail(o) }).keep()
	w.options.Policy.AnswerTimeout, w.options.Policy.MinOperators = 500*ms, 1
	begun := time.Now()
	for range 4 {
		wantReport(t, w.sync(), report.Agreed, report.Slew, "", "a"+strings.Repeat("f", len(kinds)-1))
	}
	more := int(time.Since(begun) / minBackoff) // on a very busy machine
	for i, k := range kinds {
		if s := w.servers[i].Stats(); s.Connections < k.connections || s.Connections > k.connections+more || s.Requests < min(k.requests, 1) || s.Requests > k.requests {
			t.Errorf("%s: %d connections and %d requests, not %d and up to %d", k.name, s.Connections, s.Requests, k.connections, k.requests)
		}
	}
}

// sync is a process that runs sync once.
func (m *machine) sync(o SyncOptions) *report.Report {
	m.t.Helper()
	options := m.options
	options.Clock = syncedClock{m.loopClock}
	options.Policy.Samples = 1
	r, err := New(options).Sync(m.t.Context(), o)
	if err != nil {
		m.t.Fatal(err)
	}
	return r
}

// syncedClock is one that sync corrects: its slews take no time.
type syncedClock struct{ *loopClock }

func (c syncedClock) Slew(offset, maxError, estError time.Duration) error {
	if c.dry {
		return nil
	}
	c.jump(offset)
	return c.Declare(maxError, estError, 0)
}

// wantPolls holds the requests of a day to one server against the longest of the
// ordinary intervals: MinPoll.
func (m *machine) wantPolls(name string, before int) {
	m.t.Helper()
	if n := m.requests(name) - before; n < 1 || n > 24*3600/60+20 {
		m.t.Errorf("%d requests to %s in a day", n, name)
	}
}

// Where the rest stays silent or disagrees, and whenever that begins, those who
// answer are not asked more often than usual.
func TestMannersWithoutAgreement(t *testing.T) {
	lie := func(s *loopServer) { s.lie = func() time.Duration { return 5 * time.Second } }
	for name, fail := range map[string]func(*loopServer){
		"silent":    func(s *loopServer) { s.deaf = true },
		"disagrees": lie,
	} {
		for _, after := range []time.Duration{0, 3 * time.Second, 9 * time.Second, 16 * time.Second, 40 * time.Second, 5 * time.Hour} {
			t.Run(name+" after "+after.String(), func(t *testing.T) {
				simulate(t, 2, func(m *machine) {
					if after == 0 {
						m.servers["b"].set(fail)
					}
					m.start()
					wait(after)
					m.servers["b"].set(fail)
					wait(5 * time.Minute)
					before := m.requests("a")
					wait(24 * time.Hour)
					m.wantResult(report.NoAgreement)
					m.wantPolls("a", before)
				})
			})
		}
	}
	// Even where both agree, for a moment, on what cannot be.
	simulate(t, 2, func(m *machine) {
		m.start()
		wait(5 * time.Hour)
		m.each(lie)
		for m.said("cannot be after all that was measured before") == 0 {
			wait(time.Second)
		}
		m.servers["a"].set(func(s *loopServer) { s.lie = nil })
		wait(5 * time.Minute)
		before := m.requests("a")
		wait(24 * time.Hour)
		m.wantResult(report.NoAgreement)
		m.wantPolls("a", before)
	})
}

// A back-off holds also on a clock that is not the agreed one, and stays so.
func TestMannersOnWrongClock(t *testing.T) {
	for _, off := range []time.Duration{-10 * time.Minute, 10 * time.Minute} {
		loop := func(change func(*machine)) {
			simulate(t, 3, func(m *machine) {
				m.pester()
				m.set(func(c *loopClock) { c.correct = off.Seconds() })
				change(m)
				m.start()
				wait(aDay())
				m.wantManners(loopManners)
				if e := m.error(); e.Abs() < 5*time.Minute {
					t.Errorf("the clock is off by %v only", e)
				}
			})
		}
		loop(func(m *machine) { m.options.Policy.Step = StepNever })
		loop(func(m *machine) { m.options.Policy.MaxStep = time.Minute })
		loop(func(m *machine) { m.dry, m.run.DryRun = true, true })
	}
	simulate(t, 3, func(m *machine) {
		m.options.StateDir = t.TempDir()
		m.pester()
		m.dry, m.correct = true, -600
		for m.age() < aDay() {
			m.sync(SyncOptions{DryRun: true})
			wait(5 * time.Minute)
		}
		m.wantManners(func(n nuisance) (ke, sent int) { return n.syncKE, n.syncSent })
	})
}

// Another program that sets the clock all the time makes nobody be asked all the
// time.
func TestMannersWhileOthersSetTheClock(t *testing.T) {
	simulate(t, 3, func(m *machine) {
		m.start()
		wait(time.Hour)
		before := m.requests("a")
		for range 3600 {
			m.jump(50 * ms)
			wait(time.Second)
		}
		// A few times at first, and then once in each MinPoll more.
		if n := m.requests("a") - before; n < 3600/64 || n > 2*3600/64+10 {
			t.Errorf("%d requests while another program set the clock 3600 times", n)
		}
		if n := m.said("WARN", "set by another program"); n < 2 || n > 3600/64+10 {
			t.Errorf("said %d times", n)
		}
		wait(10 * time.Minute)
		m.right(ms)
	})
}

// What goes wrong with a server that asked for fewer requests is told and counted
// as with any other.
func TestMannersAfterKiss(t *testing.T) {
	for _, kissed := range []bool{false, true} {
		simulate(t, 1, func(m *machine) {
			m.options.Policy.MinOperators, m.options.Policy.MaxPoll = 1, 64*time.Second
			m.start()
			wait(10 * time.Minute)
			if kissed {
				m.kissOnce("a")
			}
			m.servers["a"].set(func(s *loopServer) { s.deaf = true })
			before := m.exchanges("a")
			wait(24 * time.Hour)
			s := m.latest().Servers[0]
			if n := m.exchanges("a") - before; n > 22 || s.Error == nil || s.Error.Code == string(nts.ExchangeKiss) || s.Watched.Reach != "00000000" {
				t.Errorf("kissed %v: %d key exchanges, %+v, reach %s", kissed, n, s.Error, s.Watched.Reach)
			}
		})
	}
}

// A server that asked for fewer requests and lost its keys gets new ones.
func TestKeysLostAfterKiss(t *testing.T) {
	simulate(t, 3, func(m *machine) {
		m.start()
		wait(30 * time.Minute)
		m.kissOnce("a")
		before := m.exchanges("a")
		m.servers["a"].set(func(s *loopServer) { s.forgot = s.cookies })
		wait(2 * time.Hour) // its pace may be 34 minutes by now
		if n := m.exchanges("a") - before; n != 1 {
			t.Errorf("%d key exchanges in the loop", n)
		}
	})
	simulate(t, 3, func(m *machine) {
		m.options.StateDir = t.TempDir()
		server := m.servers["a"]
		sync := func() report.Server {
			r := m.sync(SyncOptions{})
			wait(time.Hour)
			return r.Servers[0]
		}
		sync()
		server.set(func(s *loopServer) { s.kiss = "RATE" })
		sync()
		server.set(func(s *loopServer) { s.kiss, s.forgot = "", s.cookies })
		if s := sync(); s.Verdict != report.ServerAgreed {
			t.Errorf("an hour after a kiss: %+v", s.Error)
		}
	})
}

// kissOnce lets the next request be answered by RATE.
func (m *machine) kissOnce(name string) {
	n := m.requests(name)
	m.servers[name].set(func(s *loopServer) { s.kiss = "RATE" })
	for m.requests(name) == n {
		wait(time.Second)
	}
	m.servers[name].set(func(s *loopServer) { s.kiss = "" })
}
