package timesync

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"ntsclient/nts"
	"ntsclient/nts/ntstest"
	"ntsclient/timesync/report"
)

// session is the state of the i-th server, to be changed.
func (w *world) session(s *Saved, i int) *ServerState { return s.Servers[w.options.Servers[i].Name] }

// With state there is no key exchange, and one request to each server.
func TestWarm(t *testing.T) {
	w := newWorld(t, 3, nil).keep()
	w.sync()
	w.want(3, 3)
	for i := range 3 {
		r := w.sync()
		wantReport(t, r, report.Agreed, report.Slew, "", "aaa")
		w.want(3, 6+3*i)
		if s := r.Servers[0]; s.KeyExchange || s.Measured.Cookies != 8 || s.Certificate == nil {
			t.Errorf("%+v", s)
		}
	}
	s := w.session(w.saved(nil), 0)
	if len(s.Session.Cookies) != 8 || !s.Dated || s.Born.IsZero() || s.Backoff != nil ||
		!slices.Equal(s.Addrs, []netip.Addr{w.servers[0].KE().Addr()}) {
		t.Errorf("kept %+v", s)
	}
}

// A chain dated once is good for the life of its session: cookies outlive
// certificates, also on a machine that boots in 1970, whose ordinary vote it is.
func TestWarmWithEndedCertificate(t *testing.T) {
	for _, by := range []time.Duration{0, 56 * year} {
		w := newWorld(t, 3, shifted(by)).boot().keep()
		w.sync()
		w.saved(func(s *Saved) {
			for _, server := range s.Servers {
				server.Session.Chain.NotAfter = server.Session.Chain.NotBefore.Add(time.Minute)
				server.Born = server.Born.AddDate(0, 0, -20)
			}
		})
		action, code := report.Step, "first_correction"
		if by == 0 {
			w.clock.maxError, action, code = syncedFor, report.Slew, ""
		}
		r := w.sync()
		wantReport(t, r, report.Agreed, action, code, "aaa")
		if r.Bootstrap != nil {
			t.Errorf("dates were deferred: %+v", r.Bootstrap)
		}
		w.want(3, 6)
	}
}

// What was deferred and never dated votes only where dates are in doubt.
func TestUndatedSession(t *testing.T) {
	w := newWorld(t, 2, shifted(10*year)).boot().keep()
	wantReport(t, w.sync(), report.NoAgreement, report.None, "too_few_operators", "aa")
	w.want(2, 2)
	wantReport(t, w.sync(), report.NoAgreement, report.None, "too_few_operators", "aa")
	w.want(2, 4) // warm all the same
	if s := w.session(w.saved(nil), 0); s.Dated || !s.Born.IsZero() || s.Session == nil {
		t.Errorf("kept %+v", s)
	}
	w.options.Policy.Strict = true
	wantReport(t, w.sync(), report.NoAgreement, report.None, "no_agreement", "ff")
	w.want(2, 4)
}

func TestKeysDropped(t *testing.T) {
	old := func(s *ServerState) { s.Born = time.Now().Add(-keyLife - time.Hour) }
	for _, c := range []struct {
		name              string
		change            func(w *world)
		exchanges, extras int // of the run after: requests beyond one to each
	}{
		{"nothing has changed", func(*world) {}, 0, 0},
		{"another binding", func(w *world) { w.options.Servers[0].Binding = "another CA" }, 1, 0},
		{"another server", func(w *world) { w.options.Servers[0].Name = "other.test:4460" }, 1, 0},
		{"another machine", func(w *world) { w.options.MachineID = "clone" }, 2, 0},
		{"old by the local clock", func(w *world) {
			w.saved(func(s *Saved) { old(w.session(s, 0)) })
		}, 1, 0},
		{"young enough by the local clock", func(w *world) {
			w.saved(func(s *Saved) { w.session(s, 0).Born = time.Now().Add(-keyLife + time.Hour) })
		}, 0, 0},
		{"old by the answer's own time, where the local clock is in doubt", func(w *world) {
			w.boot()
			w.saved(func(s *Saved) { old(w.session(s, 0)) })
		}, 1, 1},
		{"old by the local clock only, where that is in doubt", func(w *world) {
			w.boot()
			for _, s := range w.servers {
				s.Change(func(o *ntstest.Options) { o.Offset = -10 * time.Minute })
			}
			w.saved(func(s *Saved) { w.session(s, 0).Born = time.Now().Add(-keyLife - 5*time.Minute) })
		}, 0, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, 2, nil).keep()
			w.sync()
			c.change(w)
			if r := w.sync(); r.Result != report.Agreed {
				t.Error(r.Reason)
			}
			w.want(2+c.exchanges, 4+c.extras)
			if s := w.session(w.saved(nil), 0); s.Session == nil || s.expired(time.Now()) && c.exchanges > 0 {
				t.Errorf("kept %+v", s)
			}
		})
	}
}

func (s *ServerState) expired(at time.Time) bool { return (&source{state: s}).expired(at) }

// Only the servers that are configured are kept.
func TestForgetsServers(t *testing.T) {
	w := newWorld(t, 3, nil).keep()
	w.sync()
	w.options.Servers = w.options.Servers[:2]
	w.sync()
	if s := w.saved(nil); len(s.Servers) != 2 {
		t.Errorf("%d servers kept", len(s.Servers))
	}
}

// Cookies that cannot be taken out of the state first are not sent.
func TestWithdrawFails(t *testing.T) {
	w := newWorld(t, 2, nil).keep()
	w.sync()
	c := New(w.options)
	if _, err := c.open(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	defer c.close()
	c.store.closed = true // nothing can be written any more
	wantReport(t, c.once(t.Context()).report, report.Agreed, report.None, "", "aa")
	c.save()
	c.store.closed = false
	w.want(4, 4)
	for _, warning := range []string{"saved cookies cannot be used", "state not saved"} {
		if !strings.Contains(w.log.String(), warning) {
			t.Errorf("no warning that %s: %s", warning, &w.log)
		}
	}
}

// After a NAK there is one new key exchange, and not a second.
func TestNAK(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 2, nil).keep()
	w.options.Policy.AnswerTimeout = 500 * ms // a NAK counts only when no good answer comes
	w.sync()
	for _, s := range w.servers {
		s.Rekey()
	}
	wantReport(t, w.sync(), report.Agreed, report.Slew, "", "aa")
	w.want(4, 6)

	nak := func(o *ntstest.Options) { o.Kiss = "NTSN" }
	w.servers[0].Change(nak)
	r := w.sync()
	wantReport(t, r, report.NoAgreement, report.None, "no_agreement", "fa")
	if e := r.Servers[0].Error; e.Code != "exchange_nak" {
		t.Errorf("%+v", e)
	}
	w.want(5, 9)
	s := w.session(w.saved(nil), 0)
	if s.Session == nil || s.Backoff == nil || s.Backoff.Failures != 1 {
		t.Errorf("kept %+v", s)
	}
	r = w.sync() // the back-off holds
	if e := r.Servers[0].Error; e.Code != "exchange_nak" || !strings.Contains(e.Message, "not asked again for") {
		t.Errorf("%+v", e)
	}
	w.want(5, 11)
	if s := w.session(w.saved(nil), 0); s.Backoff == nil || s.Backoff.Failures != 1 {
		t.Errorf("waiting counts as a failure: %+v", s.Backoff)
	}
}

// A NAK after a good sample: that is used, and the keys stay, as anyone could
// have said it.
func TestNAKAmongSamples(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1, nil).keep()
	w.options.Policy.AnswerTimeout, w.options.Policy.MinOperators = 500*ms, 1
	w.sync()
	w.options.Policy.Samples = 3
	w.servers[0].Change(func(o *ntstest.Options) {
		o.Loss = func(n int) bool {
			if n == 2 {
				w.servers[0].Rekey()
			}
			return false
		}
	})
	r := w.sync()
	wantReport(t, r, report.Agreed, report.Slew, "", "a")
	if r.Servers[0].Samples != 1 {
		t.Errorf("%+v", r.Servers[0].Measured)
	}
	w.want(1, 3)
	if s := w.session(w.saved(nil), 0); s.Session == nil || !s.Dated || s.Backoff != nil {
		t.Errorf("kept %+v", s)
	}
}

// Where it is open which keys a server means, a request with the others may
// follow each at once: so many cookies are taken out before.
func TestWithdrawForOtherKeys(t *testing.T) {
	for _, other := range []bool{false, true} {
		w := newWorld(t, 2, nil).keep()
		w.sync()
		w.saved(func(s *Saved) {
			if session := w.session(s, 0).Session; other {
				session.Other = &nts.Keys{C2S: session.Keys.C2S, S2C: session.Keys.S2C}
			}
		})
		c := New(w.options)
		if _, err := c.open(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
		before := len(c.sources[0].state.Session.Cookies)
		c.withdraw()
		c.close()
		want := before - c.Policy.Samples - tries
		if other {
			want -= tries
		}
		if s := w.session(w.saved(nil), 0).Session; len(s.Cookies) != max(0, want) {
			t.Errorf("other keys %v: %d of %d cookies left, want %d", other, len(s.Cookies), before, want)
		}
	}
}

// After a NAK without a key exchange that works, the old keys are still there.
func TestForgedNAK(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1, nil).keep()
	w.options.Policy.AnswerTimeout, w.options.Policy.MinOperators = 500*ms, 1
	w.sync()
	w.servers[0].Change(func(o *ntstest.Options) {
		o.Kiss = "NTSN"
		o.RawConn = func(c net.Conn) bool { c.Close(); return true }
	})
	wantReport(t, w.sync(), report.NoAgreement, report.None, "no_agreement", "f")
	w.servers[0].Change(func(o *ntstest.Options) { o.Kiss = "" })
	r := w.sync()
	wantReport(t, r, report.Agreed, report.Slew, "", "a")
	if r.Servers[0].KeyExchange {
		t.Errorf("%+v", r.Servers[0].Measured)
	}
}

// New keys come with a new chain, which has not been dated, however the old
// ones ended.
func TestNewKeysAreUndated(t *testing.T) {
	w := newWorld(t, 3, func(i int, o *ntstest.Options) {
		shifted(10*year)(i, o)
		o.Cookies = 1
		o.Seal = func(p *ntstest.Packet) { p.Encrypted = nil }
	}).boot()
	c := New(w.options)
	if err := c.judge(); err != nil {
		t.Fatal(err)
	}
	for i := range 2 {
		r := c.once(t.Context())
		if r.err != nil || r.reverified != 3 || !c.sources[0].state.Dated {
			t.Errorf("round %d: %v, %d verified again", i, r.err, r.reverified)
		}
		w.want(3*(i+1), 3*(i+1))
	}
}

// Only a key exchange that came to nothing makes the next one wait.
func TestNoBackoffForLoss(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 2, nil).keep()
	w.options.Policy.AnswerTimeout, w.options.Policy.MinOperators = 500*ms, 1
	w.sync()
	w.servers[0].Change(func(o *ntstest.Options) { o.Loss = func(int) bool { return true } })
	wantReport(t, w.sync(), report.Agreed, report.Slew, "", "fa")
	w.want(2, 6)
	if s := w.session(w.saved(nil), 0); s.Backoff != nil || s.Session == nil || len(s.Session.Cookies) != 5 {
		t.Errorf("kept %+v", s)
	}
}

// Key exchange works and NTP is dead: the back-off grows all the same.
func TestBackoffGrows(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 2, func(i int, o *ntstest.Options) {
		if i == 0 {
			o.Loss = func(int) bool { return true }
		}
	}).keep()
	w.options.Policy.AnswerTimeout, w.options.Policy.MinOperators = 500*ms, 1
	least := minBackoff
	for i := range 3 {
		r := w.sync()
		if e := r.Servers[0].Error; e.Code != "exchange_timeout" {
			t.Errorf("%+v", e)
		}
		var s *ServerState
		w.saved(func(saved *Saved) {
			s = w.session(saved, 0)
			since := s.Backoff.Since
			wait := s.Backoff.Wait
			if s.Backoff.Failures != i+1 || wait < least || wait > least+least/10 || since.Sub(r.Time).Abs() > time.Second {
				t.Errorf("back-off %+v, agreed on %v", s.Backoff, r.Time)
			}
			s.Backoff.Since, s.Session = since.Add(-wait-time.Second), nil // time passes, and cookies with it
			least = wait * 3 / 2
		})
	}
	if n := w.servers[0].Stats().KeyExchanges; n != 3 {
		t.Errorf("%d key exchanges", n)
	}
	w.servers[0].Change(func(o *ntstest.Options) { o.Loss = nil })
	w.options.Policy.AnswerTimeout = 2 * time.Second
	w.sync()
	if s := w.session(w.saved(nil), 0); s.Backoff != nil {
		t.Errorf("after success there is still %+v", s.Backoff)
	}
}

// A network that is not there counts only where it is there for others.
func TestBackoffOffline(t *testing.T) {
	w := newWorld(t, 3, nil).keep()
	w.options.Servers[0].NTS.IPs, w.options.Servers[1].NTS.IPs = unreachable, unreachable
	w.saved(func(s *Saved) { // the third rests for a reason of its own
		b := (*Backoff)(nil).Failed(time.Now(), "tls", "tls_failed", "handshake")
		s.Servers[w.options.Servers[2].Name] = &ServerState{Binding: w.options.Servers[2].Binding, Backoff: b}
	})
	r := w.sync()
	wantReport(t, r, report.NoAgreement, report.None, "no_agreement", "fff")
	for i, want := range []string{"connect_unreachable", "connect_unreachable", "tls_failed"} {
		failures := map[int]int{2: 1}[i]
		s := w.session(w.saved(nil), i)
		if e := r.Servers[i].Error; e.Code != want || (s.Backoff != nil) != (failures > 0) || failures > 0 && s.Backoff.Failures != failures {
			t.Errorf("%+v, back-off %+v", e, s.Backoff)
		}
	}
	if strings.Contains(r.Reason, "network") {
		t.Error(r.Reason)
	}
	w.saved(func(s *Saved) { w.session(s, 2).Backoff = nil })
	w.sync()
	for i, want := range []bool{true, true, false} {
		if s := w.session(w.saved(nil), i); (s.Backoff != nil) != want {
			t.Errorf("%d: back-off %+v", i, s.Backoff)
		}
	}
}

// The last good addresses are tried where the name does not resolve. The name
// in the certificate is verified either way.
func TestFallbackAddresses(t *testing.T) {
	resolver := net.DefaultResolver
	defer func() { net.DefaultResolver = resolver }()
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		return nil, errors.New("no way to the resolver")
	}}
	w := newWorld(t, 2, func(i int, o *ntstest.Options) { o.Names = []string{"one.test"} }).keep()
	addr := w.servers[0].KE().Addr()
	w.options.Policy.MinOperators = 1
	for i := range w.options.Servers {
		w.options.Servers[i].NTS.Host, w.options.Servers[i].NTS.IPs = "one.test", []netip.Addr{addr}
	}
	w.options.Servers[1].NTS.Host = "two.test"
	wantReport(t, w.sync(), report.Agreed, report.Slew, "", "af")
	forget := func(s *Saved) { w.session(s, 0).Session, w.session(s, 1).Backoff = nil, nil }
	if s := w.session(w.saved(forget), 0); !slices.Equal(s.Addrs, []netip.Addr{addr}) {
		t.Errorf("addresses %v", s.Addrs)
	}
	w.options.Servers[0].NTS.IPs, w.options.Servers[1].NTS.IPs = nil, nil
	w.saved(func(s *Saved) { w.session(s, 1).Addrs = []netip.Addr{addr} })
	r := w.sync()
	wantReport(t, r, report.Agreed, report.Slew, "", "af")
	if e := r.Servers[1].Error; e.Code != "certificate_wrong_name" {
		t.Errorf("%+v", e)
	}
	w.options.StateDir = ""
	r = w.sync()
	wantReport(t, r, report.NoAgreement, report.None, "no_agreement", "ff")
	if e := r.Servers[0].Error; e.Code != "dns_failed" || !strings.Contains(e.Hint, "`ips`") || !strings.Contains(r.Reason, "is the network up?") {
		t.Errorf("%s: %+v", r.Reason, e)
	}
}

// Samples are an interval apart, and never past the deadline.
func TestInterval(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1, nil)
	p := &w.options.Policy
	p.MinOperators, p.Samples = 1, 3
	r := w.query()
	if r.Servers[0].Samples != 3 {
		t.Errorf("%+v", r.Servers[0].Measured)
	}
	w.want(1, 3)

	p.Interval, p.Deadline = time.Hour, 2*time.Second
	r = w.query()
	wantReport(t, r, report.Agreed, report.None, "", "a")
	if r.Servers[0].Samples != 1 {
		t.Errorf("%+v", r.Servers[0].Measured)
	}
	w.want(2, 4)

	// What went wrong before tells more than that time is up.
	p.AnswerTimeout = 200 * ms
	w.servers[0].Change(func(o *ntstest.Options) { o.Loss = func(int) bool { return true } })
	if e := w.query().Servers[0].Error; e.Code != "exchange_timeout" {
		t.Errorf("%+v", e)
	}
	w.want(3, 5)

	// Also over the rounds of a process.
	c := New(w.options)
	c.sources[0].lastSent = time.Now()
	r, err := c.Query(t.Context())
	if err != nil || r.Servers[0].Error.Code != "deadline" {
		t.Errorf("%v: %+v", err, r)
	}
	w.want(4, 5)
}

// What is lost is asked for again, with another cookie and without
// placeholders, up to three tries in a round.
func TestTries(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name           string
		lost, samples  int
		want, requests int
	}{
		{"none lost", 0, 1, 1, 1},
		{"one lost", 1, 1, 1, 2},
		{"two lost", 2, 1, 1, 3},
		{"three lost", 3, 1, 0, 3},
		{"two lost of four", 2, 2, 2, 4},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, 1, func(_ int, o *ntstest.Options) {
				o.Loss = func(n int) bool { return n < c.lost }
				o.KE = func(records []ntstest.Record) []ntstest.Record { // two cookies are kept back, so that some are missed
					cookies := 0
					return slices.DeleteFunc(records, func(r ntstest.Record) bool {
						if r.Type == 5 {
							cookies++
						}
						return r.Type == 5 && cookies <= 2
					})
				}
			})
			w.options.Policy.AnswerTimeout, w.options.Policy.MinOperators, w.options.Policy.Samples = 500*ms, 1, c.samples
			r := w.query()
			if m := r.Servers[0].Measured; c.want > 0 && (m == nil || m.Samples != c.want) {
				t.Errorf("%+v", r.Servers[0])
			}
			if e := r.Servers[0].Error; c.want == 0 && (e == nil || e.Code != "exchange_timeout") {
				t.Errorf("%+v", r.Servers[0])
			}
			w.want(1, c.requests)
			all := w.servers[0].Requests()
			for i, request := range all {
				if small := len(request) < len(all[0]); i > 0 && i <= c.lost && !small {
					t.Errorf("request %d has %d octets after a loss, the first had %d", i, len(request), len(all[0]))
				}
			}
		})
	}
}

// After RATE no further sample is asked for, and what has come is used; the
// server is left alone then, as it is after DENY.
func TestKiss(t *testing.T) {
	t.Parallel()
	for _, bare := range []bool{false, true} {
		w := newWorld(t, 2, nil).keep()
		p := &w.options.Policy
		p.AnswerTimeout, p.MinOperators, p.Samples = 500*ms, 1, 4
		w.servers[0].Change(func(o *ntstest.Options) {
			o.Loss = func(n int) bool {
				if n == 1 {
					w.servers[0].Change(func(o *ntstest.Options) { o.Kiss, o.KissBare = "RATE", bare })
				}
				return false
			}
		})
		w.servers[1].Change(func(o *ntstest.Options) { o.Kiss, o.KissBare = "DENY", bare })
		c := New(w.options)
		c.retry = ms
		r, err := c.Sync(t.Context(), SyncOptions{})
		if err != nil {
			t.Fatal(err)
		}
		wantReport(t, r, report.Agreed, report.Slew, "", "af")
		// The change holds from the third request on.
		if e := r.Servers[1].Error; r.Servers[0].Samples != 2 || e.Code != "exchange_kiss" || !strings.Contains(e.Message, "DENY") {
			t.Errorf("%+v, %+v", r.Servers[0].Measured, e)
		}
		w.want(2, 4)
		if s := w.session(w.saved(nil), 1); s.Session == nil {
			t.Error("a server that denies is forgotten")
		}
		r = c.once(t.Context()).report
		wantReport(t, r, report.NoAgreement, report.None, "no_agreement", "ff")
		for i, kiss := range []string{"RATE", "DENY"} {
			if e := r.Servers[i].Error; e.Code != "exchange_kiss" || !strings.Contains(e.Message, kiss) || !strings.Contains(e.Message, "not asked again for") {
				t.Errorf("%+v", e)
			}
		}
		w.want(2, 4)
		a, b := time.Until(c.sources[0].restsTo), time.Until(c.sources[1].restsTo)
		if a <= 0 || a > rateRest || bare != (b <= rateRest) || b > denyRest {
			t.Errorf("they rest for %v and %v", a, b)
		}
	}
}

// A server that gives no cookies with its answers: what has come is used.
func TestTooFewCookies(t *testing.T) {
	t.Parallel()
	for _, samples := range []int{2, 1} {
		w := newWorld(t, 1, func(_ int, o *ntstest.Options) {
			o.Cookies = 1
			o.Seal = func(p *ntstest.Packet) { p.Encrypted = nil }
			o.Loss = func(int) bool { return samples == 1 }
		})
		w.options.Policy.MinOperators, w.options.Policy.Samples, w.options.Policy.AnswerTimeout = 1, samples, 500*ms
		r := w.query()
		w.want(1, 1)
		if samples == 2 {
			wantReport(t, r, report.Agreed, report.None, "", "a")
		} else if e := r.Servers[0].Error; e.Code != "exchange_timeout" {
			t.Errorf("%+v", e)
		}
	}
}

// A loop that only tries leaves lock, cookies and clock to those who do.
func TestDryLoopHindersNobody(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 2, nil).keep()
	w.sync()
	k := &keeper{Client: New(w.options), RunOptions: RunOptions{DryRun: true}}
	if err := k.openLoop(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, s := range k.sources {
		if s.state.Session != nil {
			t.Error("took saved cookies")
		}
	}
	if k.saved.Agreed == nil {
		t.Error("does not know the floor")
	}
	wantReport(t, w.sync(), report.Agreed, report.Slew, "", "aa")
	w.want(2, 4)
}

// A server that asked for less is asked as often as before, once it does not
// complain any more.
func TestPaceRecovers(t *testing.T) {
	s := &source{pace: 2 * time.Hour}
	n := 0
	for ; s.pace > 0 && n < 1000; n++ {
		s.eased()
	}
	if n != 56 { // seven times halved, after eight answers each
		t.Errorf("after %d answers", n)
	}
}

// Ages of keys are held against agreed times: a monotonic reading would hold them
// against a clock that was off by years when they were made.
func TestBornIsOfTheWall(t *testing.T) {
	w := newWorld(t, 2, nil)
	c := New(w.options)
	if r := c.once(t.Context()); r.err != nil {
		t.Fatal(r.err)
	}
	for _, s := range c.sources {
		if born := s.state.Born; born.IsZero() || born != born.Round(0) {
			t.Errorf("born %v", born)
		}
	}
}
