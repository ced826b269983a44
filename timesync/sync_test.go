package timesync

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"errors"
	"log/slog"
	"math"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"ntsclient/nts/ntstest"
	"ntsclient/timesync/report"
)

func TestQuery(t *testing.T) {
	w := newWorld(t, 5, func(i int, o *ntstest.Options) {
		switch i {
		case 3:
			o.Offset = -30 * time.Second
		case 4:
			o.KE = func([]ntstest.Record) []ntstest.Record {
				return []ntstest.Record{{Type: 2, Critical: true, Body: []byte{0, 2}}, {Type: 0, Critical: true}}
			}
		}
	}).keep()
	var progress []int
	w.options.Progress = func(done, of int) { progress = append(progress, done, of) }
	r := w.query()
	wantReport(t, r, report.Agreed, report.None, "", "aaaff")
	if len(progress) != 10 || progress[8] != 5 || progress[9] != 5 {
		t.Errorf("progress %v", progress)
	}
	if r.Command != "query" || r.DryRun || r.Bootstrap != nil || !near(r.Offset, 0) {
		t.Errorf("%+v", r)
	}
	s := r.Servers[0]
	m := s.Measured
	if s.Address != w.servers[0].NTP().String() || m.Stratum != 1 || m.Leap != "none" || m.AEAD != "AES-128-GCM-SIV" ||
		m.Cookies != 8 || m.Samples != 1 || !m.KeyExchange || m.Delay <= 0 {
		t.Errorf("%+v: %+v", s, m)
	}
	if c := s.Certificate; c.Subject != "127.0.0.1" || !c.NotBefore.Before(r.Clock) || !c.NotAfter.After(r.Clock) {
		t.Errorf("certificate %+v", c)
	}
	if f := r.Servers[3]; f.ReasonCode != "outside_agreement" || !near(f.Offset, -30*time.Second) {
		t.Errorf("%+v", f)
	}
	if e := r.Servers[4].Error; e.Code != "ke_error" || e.Stage != "key_exchange" {
		t.Errorf("%+v", e)
	}
	if left, err := os.ReadDir(w.options.StateDir); err != nil || len(left) > 0 {
		t.Errorf("a query left %v in the state, %v", left, err)
	}
}

// A query neither uses what is kept nor changes it.
func TestQueryLeavesStateAlone(t *testing.T) {
	w := newWorld(t, 2, nil).keep()
	w.sync()
	path := filepath.Join(w.options.StateDir, stateName)
	before := must(os.ReadFile(path))
	w.clock.done = nil
	w.query()
	w.want(4, 4)
	if after := must(os.ReadFile(path)); !bytes.Equal(before, after) {
		t.Error("the state has changed")
	}
}

func TestQuerySaysWhatSyncWouldDo(t *testing.T) {
	long := func(_ int, o *ntstest.Options) {
		o.Now = func() time.Time { return time.Now().Add(time.Hour) }
	}
	r := newWorld(t, 3, long).query()
	wantReport(t, r, report.Agreed, report.None, "would_refuse", "aaa")
	if !strings.Contains(r.Reason, "exceeds max_step") {
		t.Error(r.Reason)
	}
	r = newWorld(t, 3, long).boot().query()
	wantReport(t, r, report.Agreed, report.None, "would_step", "aaa")
	r = newWorld(t, 2, shifted(10*year)).boot().query()
	wantReport(t, r, report.NoAgreement, report.None, "too_few_operators", "aa")
	if !strings.Contains(r.Reason, "`[bootstrap] min_operators = 2`") {
		t.Error(r.Reason)
	}
}

// Where no kernel tells how wrong its clock is, a query works all the same.
func TestQueryWithoutKernel(t *testing.T) {
	w := newWorld(t, 2, nil)
	w.clock.blind = errors.ErrUnsupported
	wantReport(t, w.query(), report.Agreed, report.None, "", "aa")
	if _, err := New(w.options).Sync(t.Context(), SyncOptions{}); !errors.Is(err, errors.ErrUnsupported) {
		t.Error(err)
	}
	w.clock.blind = errors.New("broken")
	if _, err := New(w.options).Query(t.Context()); !errors.Is(err, w.clock.blind) {
		t.Error(err)
	}
}

func TestSync(t *testing.T) {
	for _, c := range []struct {
		name   string
		by     time.Duration
		boot   bool
		action report.Action
		code   string
	}{
		{"small", 0, false, report.Slew, ""},
		{"large", time.Minute, false, report.Step, ""},
		{"fast", -time.Minute, false, report.Step, ""},
		{"first", 0, true, report.Step, "first_correction"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, 2, shifted(c.by))
			if c.boot {
				w.boot()
			}
			r := w.sync()
			wantReport(t, r, report.Agreed, c.action, c.code, "aa")
			if len(w.clock.done) != 1 || w.clock.done[0] != string(c.action) || !near(r.Offset, c.by) || w.clock.offset != time.Duration(r.Offset) {
				t.Errorf("did %v by %v", w.clock.done, w.clock.offset)
			}
		})
	}
}

// A clock in 1970, years behind or years ahead is right after one step.
func TestSyncWithWrongClock(t *testing.T) {
	for _, c := range []struct {
		name string
		by   time.Duration
	}{
		{"in 1970", 56 * year},
		{"five years behind", 5 * year},
		{"ahead", -5 * year}, // the era begins in 2020
		{"more than half an era behind, where the nearest time is one before", 120 * year}, // and ends in 2156
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, 4, func(i int, o *ntstest.Options) {
				shifted(c.by)(i, o)
				if i == 3 {
					o.Offset = -3 * time.Hour
				}
			}).boot().keep()
			w.options.Policy.Built = time.Now().Add(c.by).AddDate(0, -2, 0)
			r := w.sync()
			wantReport(t, r, report.Agreed, report.Step, "first_correction", "aaaf")
			if len(w.clock.done) != 1 || !near(r.Offset, c.by) {
				t.Errorf("did %v by %v", w.clock.done, w.clock.offset)
			}
			var newest time.Time
			for _, s := range r.Servers {
				if from := s.Certificate.NotBefore; from.After(newest) {
					newest = from
				}
			}
			if b := r.Bootstrap; b == nil || !b.Deferred || b.FloorFrom != "certificates" || b.Reverified != 3 || !b.Floor.Equal(newest) {
				t.Errorf("bootstrap %+v, want the floor %v", b, newest)
			}
			w.want(4, 4)

			// The floor and all keys are dated by what was agreed on.
			saved := w.saved(nil)
			if a := saved.Agreed; a == nil || !a.Time.Equal(r.Time) || a.Uncertainty != time.Duration(r.Uncertainty) {
				t.Errorf("saved %+v, agreed on %v", a, r.Time)
			}
			for name, s := range saved.Servers {
				if !s.Dated || s.Born.Sub(r.Time).Abs() > time.Second {
					t.Errorf("%s: dated %v, born %v", name, s.Dated, s.Born)
				}
			}
		})
	}
}

// All that could be reached are not valid yet: then it is the clock that is
// behind, whatever the kernel calls it.
func TestDoubtByCertificates(t *testing.T) {
	w := newWorld(t, 3, shifted(5*year))
	wantReport(t, w.sync(), report.Agreed, report.Step, "", "aaa")
	w.want(3, 3)

	w = newWorld(t, 3, func(i int, o *ntstest.Options) {
		if i > 0 {
			shifted(5*year)(i, o)
		}
	}).keep()
	r := w.sync()
	wantReport(t, r, report.NoAgreement, report.None, "no_agreement", "aff")
	for _, s := range r.Servers[1:] {
		if s.Error.Code != "certificate_not_yet_valid" {
			t.Errorf("%+v", s.Error)
		}
		if kept := w.saved(nil).Servers[s.Name]; kept.Session != nil || kept.Backoff == nil {
			t.Errorf("%s: kept %+v", s.Name, kept)
		}
	}
}

// Certificates that look expired on a clock that the kernel calls synchronized
// are no doubt.
func TestNoDoubtByExpired(t *testing.T) {
	w := newWorld(t, 3, shifted(-5*year))
	r := w.sync()
	wantReport(t, r, report.NoAgreement, report.None, "no_agreement", "fff")
	if r.Servers[0].Error.Code != "certificate_expired" || !strings.Contains(r.Reason, "the kernel calls it synchronized") {
		t.Errorf("%s: %+v", r.Reason, r.Servers[0].Error)
	}
	if w.total(requests) > 0 || len(w.clock.done) > 0 {
		t.Error("their time was asked for")
	}
}

func TestStrict(t *testing.T) {
	for _, c := range []struct {
		by           time.Duration
		code, reason string
	}{
		{56 * year, "certificate_not_yet_valid", "no certificate is valid yet by this clock"},
		{-5 * year, "certificate_expired", "is this clock ahead?"},
	} {
		w := newWorld(t, 3, shifted(c.by)).boot()
		w.options.Policy.Strict = true
		r := w.sync()
		wantReport(t, r, report.NoAgreement, report.None, "no_agreement", "fff")
		if e := r.Servers[0].Error; e.Code != c.code || !strings.Contains(r.Reason, c.reason) || !strings.Contains(r.Reason, `certificate_time = "strict"`) {
			t.Errorf("%s: %+v", r.Reason, e)
		}
		w.want(0, 0)
	}
}

// thief is a server with stolen keys of a certificate that expired a month
// ago: its clock says the time in which that was good.
func thief(now time.Time, o *ntstest.Options) {
	back := time.Until(now.AddDate(0, -2, 0))
	o.Now = func() time.Time { return time.Now().Add(back) }
	o.NotBefore, o.NotAfter = now.AddDate(0, -3, 0), now.AddDate(0, -1, 0)
}

func TestStolenKeys(t *testing.T) {
	const by = 10 * year
	now := time.Now().Add(by)
	for _, c := range []struct {
		name     string
		thieves  int
		of       int
		result   report.Result
		verdicts string
	}{
		{"one of one", 1, 1, report.NoAgreement, "a"},
		{"one of four", 1, 4, report.Agreed, "uaaa"},
		{"two of five", 2, 5, report.Agreed, "uuaaa"},
		{"a majority, refused by the floor", 3, 5, report.NoAgreement, "uuuaa"},
		{"all but one, refused by the floor", 4, 5, report.NoAgreement, "uuuua"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, c.of, func(i int, o *ntstest.Options) {
				if i < c.thieves {
					thief(now, o)
				} else {
					shifted(by)(i, o)
				}
			}).boot().keep()
			r := w.sync()
			if r.Result != c.result || c.result == report.NoAgreement && (len(w.clock.done) > 0 || w.saved(nil).Agreed != nil) {
				t.Errorf("%s: %s, the clock was touched: %v", r.Result, r.Reason, w.clock.done)
			}
			if c.result == report.Agreed && !near(r.Offset, by) {
				t.Errorf("agreed on %v", r.Offset)
			}
			code := map[bool]string{true: "below_floor"}[c.of > 1]
			if got := r.Servers[0]; got.ReasonCode != code || string(got.Verdict[:1]) != c.verdicts[:1] {
				t.Errorf("the thief: %+v", got)
			}
		})
	}
}

// A floor that is wrong stops the sync, and the message names its file.
func TestWrongFloor(t *testing.T) {
	w := newWorld(t, 3, shifted(5*year)).boot().keep()
	w.saved(func(s *Saved) { s.Agreed = &AgreedTime{Time: time.Now().Add(50 * year)} })
	r := w.sync()
	wantReport(t, r, report.NoAgreement, report.None, "no_agreement", "uuu")
	if !strings.Contains(r.Reason, "delete "+filepath.Join(w.options.StateDir, "state.json")) || r.Bootstrap.FloorFrom != "state" {
		t.Errorf("%s; %+v", r.Reason, r.Bootstrap)
	}
	os.Remove(filepath.Join(w.options.StateDir, "state.json"))
	wantReport(t, w.sync(), report.Agreed, report.Step, "first_correction", "aaa")
}

func TestRefused(t *testing.T) {
	w := newWorld(t, 3, func(_ int, o *ntstest.Options) {
		o.Offset, o.NotAfter = time.Hour, time.Now().AddDate(1, 0, 0)
	}).keep()
	r := w.sync()
	wantReport(t, r, report.Refused, report.None, "exceeds_max_step", "aaa")
	if saved := w.saved(nil); saved.Agreed != nil || len(w.clock.done) > 0 {
		t.Errorf("the floor is %+v, the clock was touched: %v", saved.Agreed, w.clock.done)
	}
	var kept struct{ Result, Command string }
	if err := json.Unmarshal(must(os.ReadFile(filepath.Join(w.options.StateDir, reportName))), &kept); err != nil || kept.Result != "refused" || kept.Command != "sync" {
		t.Errorf("the last report is %+v, %v", kept, err)
	}
}

func TestNotPermitted(t *testing.T) {
	w := newWorld(t, 2, nil).keep()
	w.clock.denied = errors.New("not permitted: needs CAP_SYS_TIME")
	r := w.sync()
	wantReport(t, r, report.NotPermitted, report.None, "not_permitted", "")
	if w.total(connections) > 0 || w.total(requests) > 0 || r.Reason != w.clock.denied.Error() {
		t.Errorf("%+v", r)
	}
}

// What the clock says is told, and what was learned is kept.
func TestClockFails(t *testing.T) {
	w := newWorld(t, 2, nil).keep()
	w.clock.broken = errors.New("no such clock")
	r, err := New(w.options).Sync(t.Context(), SyncOptions{})
	if !errors.Is(err, w.clock.broken) || r.ReasonCode != "clock_failed" || r.Action != report.None {
		t.Errorf("%v: %+v", err, r)
	}
	if s := w.saved(nil).Servers[w.options.Servers[0].Name]; s.Session == nil {
		t.Error("cookies were lost")
	}
}

// A clock that another program sets between measuring and correcting is
// measured again, and left alone if that goes on.
func TestSetMeanwhile(t *testing.T) {
	for _, c := range []struct {
		times int
		done  []string
		code  string
	}{
		{1, []string{"step"}, ""},
		{9, nil, "clock_failed"},
	} {
		w := newWorld(t, 2, shifted(time.Minute))
		client := New(w.options)
		times := c.times
		client.moved = func(time.Time) time.Duration {
			if times--; times < 0 {
				return 0
			}
			return -time.Minute
		}
		r, err := client.Sync(t.Context(), SyncOptions{})
		if !slices.Equal(w.clock.done, c.done) || r.ReasonCode != c.code || (err == nil) != (c.code == "") {
			t.Errorf("set %d times: did %v, %v: %+v", c.times, w.clock.done, err, r)
		}
	}
}

// Runs that are hours apart teach the raw clock's frequency.
func TestLearnsFrequency(t *testing.T) {
	w := newWorld(t, 2, nil).keep()
	w.options.BootID = "this boot"
	w.sync()
	if len(w.clock.rates) > 0 {
		t.Fatalf("steered by a single pair: %v", w.clock.rates)
	}
	// Twice a hundred hours, in which the raw clock lost 20 ppm; so long that the
	// moment between the two runs, which it knows nothing of, is next to nothing.
	const gone = 100 * time.Hour
	w.saved(func(s *Saved) {
		last := s.Crystal.Pairs[0]
		last.Time = last.Time.Add(-gone)
		first := last
		first.Time, first.Raw = last.Time.Add(-gone), last.Raw-(gone-gone/50000)
		s.Crystal.Pairs = []AgreedTime{first, last}
	})
	w.clock.hours = gone - gone/50000
	w.sync()
	if len(w.clock.rates) != 1 || math.Abs(w.clock.rates[0]-20e-6) > 5e-6 {
		t.Errorf("steered by %v", w.clock.rates)
	}
	if f := w.saved(nil).Crystal.Frequency; math.Abs(f.Rate-20e-6) > 5e-6 || f.Uncertainty <= 0 {
		t.Errorf("kept %v", f)
	}
}

// A dry run sets and keeps no frequency.
func TestDryRunLearnsNothing(t *testing.T) {
	w := newWorld(t, 2, nil).keep()
	if _, err := New(w.options).Sync(t.Context(), SyncOptions{DryRun: true}); err != nil {
		t.Fatal(err)
	}
	if s := w.saved(nil); len(s.Crystal.Pairs) > 0 || s.Agreed == nil {
		t.Errorf("%+v", s)
	}
}

// What was measured before and after a suspend cannot be held against one
// clock: it is measured again.
func TestSuspendedWhileMeasuring(t *testing.T) {
	w := newWorld(t, 2, nil)
	w.clock.slept = []time.Duration{time.Minute, 11 * time.Minute} // before and after the first round
	wantReport(t, w.sync(), report.Agreed, report.Slew, "", "aa")
	w.want(2, 4)
}

func TestDryRunReport(t *testing.T) {
	w := newWorld(t, 2, nil).keep()
	if r := w.syncWith(SyncOptions{DryRun: true}); !r.DryRun || r.Action != report.Slew {
		t.Errorf("%+v", r)
	}
	if s := w.saved(nil); s.Agreed == nil || len(s.Servers) != 2 {
		t.Errorf("kept %+v", s)
	}
}

func TestLoopRunning(t *testing.T) {
	w := newWorld(t, 2, nil).keep()
	loop := must(OpenStore(t.Context(), w.options.StateDir, StoreOptions{Loop: true}))
	defer loop.Close()
	wantReport(t, w.sync(), report.Agreed, report.None, "loop_running", "aa")
	if len(w.clock.done) > 0 {
		t.Error("the clock was touched")
	}
	w.servers[0].Change(func(o *ntstest.Options) { o.Offset = time.Hour })
	wantReport(t, w.sync(), report.NoAgreement, report.None, "no_agreement", "ff")
}

// State is a help, never a need.
func TestStateUnwritable(t *testing.T) {
	w := newWorld(t, 2, nil)
	file := filepath.Join(t.TempDir(), "file")
	writeFile(t, file, nil)
	w.options.StateDir = filepath.Join(file, "state")
	wantReport(t, w.sync(), report.Agreed, report.Slew, "", "aa")
	if !strings.Contains(w.log.String(), "nothing is kept") {
		t.Error(w.log.String())
	}
}

// Two that corrected the same offset would overshoot: the second one waits.
func TestStateHeldByAnother(t *testing.T) {
	w := newWorld(t, 2, nil).keep()
	other := must(OpenStore(t.Context(), w.options.StateDir, StoreOptions{}))
	ctx, end := cancelled(t, errors.New("enough"))
	end()
	if _, err := New(w.options).Sync(ctx, SyncOptions{}); err == nil || !strings.Contains(err.Error(), "enough") {
		t.Error(err)
	}
	if w.total(connections) > 0 || len(w.clock.done) > 0 {
		t.Error("did not wait")
	}
	other.Close()
	wantReport(t, w.sync(), report.Agreed, report.Slew, "", "aa")
}

// unreachable is an address that no packet can be sent to.
var unreachable = []netip.Addr{netip.MustParseAddr("fe80::1")}

// retrying is a log that tells of each new try.
func retrying(t *testing.T, w *world, again func()) *Client {
	w.options.Log = nil
	c := New(w.options)
	c.Log = slog.New(listener(func(message string) {
		if message == "trying again" {
			again()
		}
	}))
	c.retry = ms
	return c
}

func TestWait(t *testing.T) {
	w := newWorld(t, 2, nil).keep()
	for i := range w.options.Servers {
		w.options.Servers[i].NTS.IPs = unreachable
	}
	rounds := 0
	var c *Client
	c = retrying(t, w, func() {
		if rounds++; rounds == 3 { // the network is there at last
			for _, s := range c.sources {
				s.NTS.IPs = nil
			}
		}
	})
	r, err := c.Sync(t.Context(), SyncOptions{Wait: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	wantReport(t, r, report.Agreed, report.Slew, "", "aa")
	if rounds != 3 || len(w.clock.done) != 1 {
		t.Errorf("%d rounds, clock %v", rounds, w.clock.done)
	}
	w.want(2, 2)
}

func TestWaitEnds(t *testing.T) {
	w := newWorld(t, 1, nil).keep()
	w.options.Servers[0].NTS.IPs = unreachable
	rounds := 0
	c := retrying(t, w, func() { rounds++ })
	r, err := c.Sync(t.Context(), SyncOptions{Wait: 100 * ms})
	if err != nil {
		t.Fatal(err)
	}
	wantReport(t, r, report.NoAgreement, report.None, "no_agreement", "f")
	if rounds == 0 || !strings.Contains(r.Reason, "is the network up?") {
		t.Errorf("%d rounds: %s", rounds, r.Reason)
	}
	if s := w.saved(nil).Servers[w.options.Servers[0].Name]; s.Backoff != nil {
		t.Errorf("a network that is not there counts: %+v", s.Backoff)
	}
	rounds = 0
	if wantReport(t, w.sync(), report.NoAgreement, report.None, "no_agreement", "f"); rounds != 0 {
		t.Error("tried again without --wait")
	}
}

// The doubt is judged once: in later rounds those that were deferred still do
// not vote by the rules of any other day.
func TestDoubtStays(t *testing.T) {
	w := newWorld(t, 2, shifted(5*year))
	w.options.Servers = append(w.options.Servers, w.server(1, "c"))
	w.options.Servers[2].NTS.IPs = unreachable
	rounds := 0
	c := retrying(t, w, func() { rounds++ })
	r, err := c.Sync(t.Context(), SyncOptions{Wait: 100 * ms})
	if err != nil {
		t.Fatal(err)
	}
	wantReport(t, r, report.NoAgreement, report.None, "no_agreement", "aaf")
	if rounds == 0 || len(w.clock.done) > 0 || !strings.Contains(r.Reason, "2 operators agree, 3 are needed") {
		t.Errorf("%d rounds, clock %v: %s", rounds, w.clock.done, r.Reason)
	}
}

func TestRandomDelayEnds(t *testing.T) {
	w := newWorld(t, 2, nil).keep()
	ctx, end := cancelled(t, errors.New("enough"))
	end()
	_, err := New(w.options).Sync(ctx, SyncOptions{Delay: time.Hour})
	if err == nil || err.Error() != "enough" || w.total(connections) > 0 {
		t.Error(err)
	}
	w.syncWith(SyncOptions{Delay: 1})
}

// A signal ends it at once, and is no failure of the servers.
func TestInterrupted(t *testing.T) {
	for name, stuck := range map[string]func(end func()) func(*ntstest.Options){
		"in the key exchange": func(end func()) func(*ntstest.Options) {
			return func(o *ntstest.Options) {
				o.RawConn = func(c net.Conn) bool {
					end()
					c.Read(make([]byte, 1<<16)) // hello
					c.Read(make([]byte, 1))     // nothing comes until the client hangs up
					return true
				}
			}
		},
		"in the answer of the key exchange": func(end func()) func(*ntstest.Options) {
			return func(o *ntstest.Options) {
				o.KERaw = func(c *tls.Conn, _ []ntstest.Record) bool { end(); c.Read(make([]byte, 1)); return true }
			}
		},
		"in the exchange": func(end func()) func(*ntstest.Options) {
			return func(o *ntstest.Options) { o.Loss = func(int) bool { end(); return true } }
		},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, end := cancelled(t, errors.New("enough"))
			w := newWorld(t, 1, func(_ int, o *ntstest.Options) { stuck(end)(o) }).keep()
			w.options.Policy.AnswerTimeout, w.options.Policy.Deadline = time.Hour, time.Hour
			if _, err := New(w.options).Sync(ctx, SyncOptions{Wait: time.Hour}); err == nil || err.Error() != "enough" {
				t.Error(err)
			}
			if s := w.saved(nil).Servers[w.options.Servers[0].Name]; s == nil || s.Backoff != nil {
				t.Errorf("kept %+v", s)
			}
			if _, err := os.Stat(filepath.Join(w.options.StateDir, reportName)); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("half a round was reported: %v", err)
			}
		})
	}
	ctx, end := cancelled(t, errors.New("enough"))
	w := newWorld(t, 1, func(_ int, o *ntstest.Options) { o.Loss = func(int) bool { end(); return true } })
	if _, err := New(w.options).Query(ctx); err == nil || err.Error() != "enough" {
		t.Error(err)
	}
}

func TestInterruptedWhileWaiting(t *testing.T) {
	w := newWorld(t, 1, nil).keep()
	w.options.Servers[0].NTS.IPs = unreachable
	ctx, end := cancelled(t, errors.New("enough"))
	c := retrying(t, w, end)
	c.retry = time.Hour
	if _, err := c.Sync(ctx, SyncOptions{Wait: time.Hour}); err == nil || err.Error() != "enough" {
		t.Error(err)
	}
}

// Many servers at once: each has its chance within the round.
func TestManyServers(t *testing.T) {
	const n = 200
	w := newWorld(t, 4, nil)
	w.options.Servers = nil
	for i := range n {
		w.options.Servers = append(w.options.Servers, w.server(i%4, "operator "+string(rune('A'+i))))
	}
	w.options.Policy.AnswerTimeout, w.options.Policy.Deadline = 20*time.Second, time.Minute
	wantReport(t, w.query(), report.Agreed, report.None, "", strings.Repeat("a", n))
	w.want(n, n)
}
