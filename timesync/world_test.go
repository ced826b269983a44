package timesync

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"ntsclient/nts"
	"ntsclient/nts/ntstest"
	"ntsclient/timesync/report"
)

// A world is some servers on loopback and what a client knows of them. This
// machine's own clock is the local one: where that is to be wrong, the servers
// and their certificates are of another time.
type world struct {
	t       *testing.T
	ca      *ntstest.CA
	servers []*ntstest.Server
	options Options
	clock   *fakeClock
	log     bytes.Buffer
}

// fakeClock notes what is done to it.
type fakeClock struct {
	maxError time.Duration
	denied   error // what Permitted returns
	broken   error // what Step and Slew return
	blind    error // what MaxError returns
	raw      time.Duration
	hours    time.Duration // that the raw clock goes on between two readings
	rates    []float64
	slept    []time.Duration // what Suspended returns, one after another
	done     []string
	offset   time.Duration // the last one
}

func (c *fakeClock) Permitted() error                 { return c.denied }
func (c *fakeClock) MaxError() (time.Duration, error) { return c.maxError, c.blind }

func (c *fakeClock) Suspended() (time.Duration, error) {
	if len(c.slept) == 0 {
		return 0, errors.ErrUnsupported
	}
	d := c.slept[0]
	if len(c.slept) > 1 {
		c.slept = c.slept[1:]
	}
	return d, nil
}

func (c *fakeClock) Now() (raw, correction time.Duration, err error) {
	c.raw += c.hours
	return c.raw, 0, nil
}

func (c *fakeClock) Steer(rate float64) error {
	c.rates = append(c.rates, rate)
	return nil
}

func (c *fakeClock) Step(offset, maxError, estError time.Duration) error {
	return c.correct("step", offset, maxError, estError)
}

func (c *fakeClock) Slew(offset, maxError, estError time.Duration) error {
	return c.correct("slew", offset, maxError, estError)
}

func (c *fakeClock) correct(how string, offset, maxError, estError time.Duration) error {
	if maxError <= 0 || estError < 0 || estError > maxError {
		return fmt.Errorf("errors of %v and %v", maxError, estError)
	}
	c.done, c.offset = append(c.done, how), offset
	return c.broken
}

var (
	testCA    = sync.OnceValues(func() (*ntstest.CA, error) { return ntstest.NewCA("timesync") })
	syncedFor = 10 * ms // the kernel's maxerror where something keeps its clock
)

// newWorld starts servers, each of another operator, on a machine whose clock
// something has set. Edit, unless nil, changes the i-th before it starts.
func newWorld(t *testing.T, n int, edit func(i int, o *ntstest.Options)) *world {
	t.Helper()
	w := &world{t: t, clock: &fakeClock{maxError: syncedFor}}
	w.ca = must(testCA())
	w.options = Options{
		Clock: w.clock,
		Policy: Policy{
			Samples: 1, Interval: ms, AnswerTimeout: 2 * time.Second, Deadline: 20 * time.Second, MaxDistance: time.Second,
			MinOperators: 2,
			Limits:       Limits{StepAbove: 100 * ms, MaxStep: 15 * time.Minute, Step: StepAlways, Bootstrap: 3},
		},
		Log: slog.New(slog.NewTextHandler(&w.log, nil)),
	}
	for i := range n {
		o := ntstest.Options{CA: w.ca}
		if edit != nil {
			edit(i, &o)
		}
		s, err := ntstest.Start(o)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		w.servers = append(w.servers, s)
		w.options.Servers = append(w.options.Servers, w.server(i, string(rune('a'+i))))
	}
	t.Cleanup(func() {
		for i, s := range w.servers {
			if stats := s.Stats(); stats.Bad != nil || stats.Replayed > 0 {
				t.Errorf("server %d: %d cookies replayed, %v", i, stats.Replayed, stats.Bad)
			}
		}
	})
	return w
}

func (w *world) server(i int, operator string) Server {
	ke := w.servers[i].KE()
	return Server{
		Name: fmt.Sprintf("%s.test:%d", operator, ke.Port()), Operator: operator, Binding: "binding of " + operator,
		NTS: nts.Options{Host: ke.Addr().String(), Port: ke.Port(), Roots: w.ca.Pool()},
	}
}

// shifted servers live by a clock that is by that much ahead of this one.
func shifted(by time.Duration) func(int, *ntstest.Options) {
	return func(_ int, o *ntstest.Options) { o.Now = func() time.Time { return time.Now().Add(by) } }
}

const year = 8766 * time.Hour

// boot makes the machine one whose clock nothing has set.
func (w *world) boot() *world {
	w.clock.maxError = unsynchronized
	return w
}

// keep gives the machine a place for state.
func (w *world) keep() *world {
	w.options.StateDir = w.t.TempDir()
	return w
}

// sync is a process that runs sync once.
func (w *world) sync() *report.Report {
	w.t.Helper()
	return w.syncWith(SyncOptions{})
}

func (w *world) syncWith(o SyncOptions) *report.Report {
	w.t.Helper()
	r, err := New(w.options).Sync(w.t.Context(), o)
	if err != nil {
		w.t.Fatal(err)
	}
	checkReport(w.t, r)
	return r
}

func (w *world) query() *report.Report {
	w.t.Helper()
	r, err := New(w.options).Query(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	checkReport(w.t, r)
	if len(w.clock.done) > 0 {
		w.t.Errorf("a query touched the clock: %v", w.clock.done)
	}
	return r
}

// saved is what is in the state, and edit, unless nil, changes it.
func (w *world) saved(edit func(*Saved)) *Saved {
	w.t.Helper()
	s, err := OpenStore(w.t.Context(), w.options.StateDir, StoreOptions{MachineID: w.options.MachineID})
	if err != nil {
		w.t.Fatal(err)
	}
	defer s.Close()
	if edit != nil {
		edit(s.Saved())
		if err := s.Save(); err != nil {
			w.t.Fatal(err)
		}
	}
	return s.Saved()
}

// total adds a figure up over all servers.
func (w *world) total(of func(ntstest.Stats) int) (n int) {
	for _, s := range w.servers {
		n += of(s.Stats())
	}
	return n
}

func keyExchanges(s ntstest.Stats) int { return s.KeyExchanges }
func connections(s ntstest.Stats) int  { return s.Connections }
func requests(s ntstest.Stats) int     { return s.Requests }

// want compares the counts of key exchanges and requests over all servers.
func (w *world) want(wantExchanges, wantRequests int) {
	w.t.Helper()
	if ke, req := w.total(keyExchanges), w.total(requests); ke != wantExchanges || req != wantRequests {
		w.t.Errorf("%d key exchanges and %d requests, want %d and %d", ke, req, wantExchanges, wantRequests)
	}
}

// wantReport compares what a report comes to.
func wantReport(t *testing.T, r *report.Report, result report.Result, action report.Action, code, verdicts string) {
	t.Helper()
	got := ""
	for _, s := range r.Servers {
		got += string(s.Verdict[:1])
	}
	if r.Result != result || r.Action != action || r.ReasonCode != code || got != verdicts {
		t.Errorf("%s, %s, %q, verdicts %s; want %s, %s, %q, %s: %s", r.Result, r.Action, r.ReasonCode, got, result, action, code, verdicts, r.Reason)
		for _, s := range r.Servers {
			t.Logf("%s: %s %s %s %+v", s.Name, s.Verdict, s.ReasonCode, s.Reason, s.Error)
		}
	}
}

// near tells whether a is b but for a second.
func near(a report.Seconds, b time.Duration) bool {
	return (time.Duration(a) - b).Abs() < time.Second
}

// checkReport holds a report against what is true of every one.
func checkReport(t *testing.T, r *report.Report) {
	t.Helper()
	if r.Schema != 1 || r.Command == "" || r.Clock.IsZero() || r.Clock.Location() != time.UTC {
		t.Errorf("schema %d, command %q, clock %v", r.Schema, r.Command, r.Clock)
	}
	if (r.Agreement != nil) != (r.Result == report.Agreed || r.Result == report.Refused) {
		t.Errorf("%s with the agreement %+v", r.Result, r.Agreement)
	}
	if r.Result != report.Agreed && (r.Action != report.None || r.Reason == "" || r.ReasonCode == "") {
		t.Errorf("%s, but %s for %q", r.Result, r.Action, r.Reason)
	}
	if a := r.Agreement; a != nil {
		if a.Interval[0] > a.Offset || a.Offset > a.Interval[1] || a.Uncertainty != max(a.Offset-a.Interval[0], a.Interval[1]-a.Offset) {
			t.Errorf("agreement %+v", a)
		}
		if !a.Time.Equal(r.Clock.Add(time.Duration(a.Offset))) {
			t.Errorf("time %v, clock %v, offset %v", a.Time, r.Clock, a.Offset)
		}
	}
	var text bytes.Buffer
	var raw struct{ Servers []map[string]any }
	if err := errors.Join(r.WriteJSON(&text), json.Unmarshal(text.Bytes(), &raw)); err != nil {
		t.Fatal(err)
	}
	for i, s := range r.Servers {
		checkServer(t, r, s)
		_, measured := raw.Servers[i]["offset_s"]
		_, zero := raw.Servers[i]["stratum"]
		if failed := s.Verdict == report.Failed; measured == failed || zero == failed {
			t.Errorf("%s: keys of what is not known, or none of what is: %v", s.Name, raw.Servers[i])
		}
	}
}

func checkServer(t *testing.T, r *report.Report, s report.Server) {
	t.Helper()
	failed := s.Verdict == report.Failed
	if failed != (s.Error != nil) || failed == (s.Measured != nil) || failed == (s.Certificate != nil) || failed == (s.Address != "") {
		t.Errorf("%s: %s with error %+v, measured %+v, certificate %+v, address %q", s.Name, s.Verdict, s.Error, s.Measured, s.Certificate, s.Address)
	}
	if failed && (s.Error.Code == "" || s.Error.Stage == "" || s.Error.Message == "") {
		t.Errorf("%s: %+v", s.Name, s.Error)
	}
	out := s.Verdict == report.Falseticker || s.Verdict == report.Unusable
	if out != (s.ReasonCode != "") || out != (s.Reason != "") {
		t.Errorf("%s: %s for the reason %q, %q", s.Name, s.Verdict, s.ReasonCode, s.Reason)
	}
	if !slices.Contains([]report.Verdict{report.ServerAgreed, report.Falseticker, report.Unusable, report.Failed}, s.Verdict) {
		t.Errorf("%s: verdict %q", s.Name, s.Verdict)
	}
	if s.Verdict == report.ServerAgreed && r.Agreement != nil {
		if lo, hi := s.Offset-s.Measured.Uncertainty, s.Offset+s.Measured.Uncertainty; hi < r.Interval[0] || lo > r.Interval[1] {
			t.Errorf("%s agrees, with %v to %v, but the agreed interval is %v", s.Name, lo, hi, r.Interval)
		}
	}
}

// cancelled is a context that ends when do says so.
func cancelled(t *testing.T, cause error) (ctx context.Context, end func()) {
	ctx, cancel := context.WithCancelCause(t.Context())
	return ctx, func() { cancel(cause) }
}

// listener is a log handler that hears each message.
type listener func(message string)

func (l listener) Enabled(context.Context, slog.Level) bool { return true }
func (l listener) WithAttrs([]slog.Attr) slog.Handler       { return l }
func (l listener) WithGroup(string) slog.Handler            { return l }

func (l listener) Handle(_ context.Context, r slog.Record) error {
	l(r.Message)
	return nil
}
