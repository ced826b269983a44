// Package timesync decides what time to believe and what to do about it.
package timesync

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"sync/atomic"
	"time"

	"ntsclient/nts"
	"ntsclient/timesync/report"
)

// Clock is what is needed of the clock that is corrected.
type Clock interface {
	Permitted() error                 // nil if it may be set; no effect
	MaxError() (time.Duration, error) // the kernel's; 16 s or more: nothing has set it
	Step(offset, maxError, estError time.Duration) error
	Slew(offset, maxError, estError time.Duration) error
	Suspended() (time.Duration, error) // since boot

	Now() (raw, correction time.Duration, err error) // the clock is raw + correction, since 1970
	Steer(rate float64) error                        // of the correction, s/s
}

// unsynchronized is the kernel's maxerror when nothing has set its clock.
const unsynchronized = 16 * time.Second

// Policy is how to measure and whom to believe.
type Policy struct {
	Samples       int
	Interval      time.Duration // between two requests to one server
	AnswerTimeout time.Duration
	Deadline      time.Duration // of a whole round, with all its samples
	MaxDistance   time.Duration

	MinOperators int       // that must agree
	Strict       bool      // never look past a certificate's dates
	Built        time.Time // the floor that this program brings along
	Limits

	MinPoll, MaxPoll time.Duration // of the loop
}

// Options are what a Client is made of.
type Options struct {
	Servers  []Server
	Policy   Policy
	Clock    Clock
	StateDir string // empty: nothing is kept
	// MachineID tells a cloned image from its origin.
	MachineID, BootID string
	Log               *slog.Logger       // nil: nobody is told
	Progress          func(done, of int) // called as servers are done with; may be nil

	network network // nil: the real one
}

// Client gets the time from its servers. One goroutine uses it.
type Client struct {
	Options
	sources []*source
	store   *Store // nil: nothing is kept
	saved   *Saved
	command string // that runs, for the report
	dryRun  bool
	first   bool          // nothing has set the kernel's clock since boot
	doubt   bool          // so, or for what the servers showed, it may be too wrong to date certificates
	settled bool          // a loop has set the clock right: it is not in doubt again
	retry   time.Duration // before the second round; grows to 15 times that
	moved   func(since time.Time) time.Duration
	latest  atomic.Pointer[report.Report]
	proxied atomic.Bool // the servers are reached through a proxy
}

// New makes a Client. Nothing is sent or read yet.
func New(o Options) *Client {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.network == nil {
		o.network = wire{}
	}
	c := &Client{Options: o, saved: &Saved{}, retry: time.Second, moved: moved}
	c.proxied.Store(proxied(o.Servers))
	c.Log = slog.New(discreet{o.Log.Handler(), &c.proxied})
	for _, s := range o.Servers {
		c.sources = append(c.sources, c.newSource(s))
	}
	return c
}

func (c *Client) newSource(s Server) *source {
	return &source{Server: s, network: c.network, state: &ServerState{Binding: s.Binding}}
}

// judge asks the kernel whether its clock may be too wrong to date
// certificates. It is done once, before anything is measured.
func (c *Client) judge() error {
	maxError, err := c.Clock.MaxError()
	if err != nil {
		return err
	}
	c.first = maxError >= unsynchronized
	c.doubt = c.first && !c.Policy.Strict
	return nil
}

// SyncOptions are the flags of one correction.
type SyncOptions struct {
	DryRun bool          // the Clock changes nothing; only the report says so
	Wait   time.Duration // keep trying for so long
	Delay  time.Duration // start after a random part of it
}

// Sync measures, decides and corrects once. It keeps what it learns, and takes
// from there what it can: with state, no key exchange is needed.
func (c *Client) Sync(ctx context.Context, o SyncOptions) (*report.Report, error) {
	c.command, c.dryRun = "sync", o.DryRun
	if err := c.Clock.Permitted(); err != nil {
		return &report.Report{
			Schema: report.Schema, Command: c.command, DryRun: c.dryRun, Result: report.NotPermitted,
			Clock: time.Now().Round(0).UTC(), Action: report.None,
			ReasonCode: "not_permitted", Reason: err.Error(),
		}, nil
	}
	if o.Delay > 0 && !sleep(ctx, rand.N(o.Delay)) {
		return nil, context.Cause(ctx)
	}
	if err := c.judge(); err != nil {
		return nil, err
	}
	loop, err := c.open(ctx, o.Wait)
	if err != nil {
		return nil, err
	}
	defer c.close()
	end := time.Now().Add(o.Wait)
	r, err := c.await(ctx, end)
	if err == nil && c.set(r) {
		c.Log.Warn("another program set the clock while it was measured; measuring again")
		r, err = c.await(ctx, end)
	}
	if err != nil {
		c.save() // what was learned, but no report of half a round
		return nil, err
	}
	if loop {
		if r.err == nil {
			r.report.ReasonCode, r.report.Reason = "loop_running", "a running loop keeps this clock"
		}
		return r.report, nil
	}
	err = c.correct(r)
	c.keep(r)
	return r.report, err
}

// learn takes a pair of agreed time and raw clock: from several, hours apart, the
// clock's frequency is known, and it loses less until the next run.
func (c *Client) learn(r *round, agreed *AgreedTime) {
	raw, _, err := c.Clock.Now()
	if err != nil || c.dryRun {
		return
	}
	agreed.Raw, agreed.Suspended = raw-time.Since(r.now), c.suspended()
	f, usable := c.saved.Crystal.Learn(*agreed)
	if !usable {
		return
	}
	if err := c.Clock.Steer(f.Rate); err != nil {
		c.Log.Warn("the clock's frequency was not set", "error", err)
		return
	}
	c.Log.Info("the clock's frequency is set", "frequency", f)
}

// await measures until there is an agreement, or until end.
func (c *Client) await(ctx context.Context, end time.Time) (*round, error) {
	for pause := c.retry; ; pause = min(2*pause, 15*c.retry) {
		r := c.once(ctx)
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		left := time.Until(end)
		if r.err == nil || left <= 0 {
			return r, nil
		}
		c.Log.Info("trying again", "in", min(pause, left), "reason", r.report.Reason)
		if !sleep(ctx, min(pause, left)) {
			return nil, context.Cause(ctx)
		}
	}
}

// sleep tells whether ctx goes on after d.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// moved is how far the wall clock was set since a moment, by the monotonic one.
func moved(since time.Time) time.Duration {
	now := nts.Now()
	return now.Round(0).Sub(since.Round(0)) - now.Sub(since)
}

// set tells whether the clock was set since the moment that a round's offsets
// refer to: by another sync, perhaps, that was to make up for the same offset.
func (c *Client) set(r *round) bool {
	const readings = 10 * time.Millisecond // may lie between those of the two clocks on a busy machine
	return c.moved(r.now).Abs() > max(readings, r.Uncertainty)
}

// correct does what was decided.
func (c *Client) correct(r *round) error {
	if r.report.Result != report.Agreed {
		return nil
	}
	if c.set(r) {
		err := errors.New("correcting the clock: other programs set it again and again meanwhile; is another time daemon running?")
		r.report.ReasonCode, r.report.Reason = "clock_failed", err.Error()
		return err
	}
	d := r.decision
	r.report.ReasonCode, r.report.Reason = d.Code, d.Reason
	if d.Refused {
		r.report.Result = report.Refused
		return nil
	}
	set := c.Clock.Slew
	if d.Action == report.Step {
		set = c.Clock.Step
	}
	// Those that agree may differ by more than what they agree on is wide.
	if err := set(r.Offset, r.Uncertainty, min(r.Spread, r.Uncertainty)); err != nil {
		err = fmt.Errorf("correcting the clock: %w", err)
		r.report.ReasonCode, r.report.Reason = "clock_failed", err.Error()
		return err
	}
	r.report.Action = d.Action
	return nil
}

// round is one round, and what was decided by it.
type round struct {
	*election
	report   *report.Report
	measured []*measurement
	ballots  []*ballot // of these, in their order
	decision Decision
	now      time.Time // the moment that all offsets refer to
}

// once measures, votes and decides.
func (c *Client) once(ctx context.Context) *round {
	c.withdraw()
	slept := c.suspended()
	r := c.vote(ctx)
	for now := c.suspended(); now-slept >= suspendLeast && ctx.Err() == nil; now = c.suspended() {
		c.Log.Info("the machine was suspended while it measured; measuring again")
		slept = now
		c.withdraw()
		r = c.vote(ctx)
	}
	if r.err == nil {
		r.decision = c.Policy.decide(finding{
			offset: r.Offset, uncertainty: r.Uncertainty, operators: r.Operators,
			first: c.first, bootstrapped: r.bootstrapped,
		})
	}
	r.report = c.tell(r)
	c.settle(r)
	return r
}

// vote measures and lets the servers elect the time.
func (c *Client) vote(ctx context.Context) *round {
	measured := c.ask(ctx)
	c.judgeDates(measured)
	r := &round{measured: measured, now: nts.Now()}
	for _, m := range measured {
		r.ballots = append(r.ballots, m.ballot(r.now, c.Policy.MaxDistance))
	}
	r.election = c.electorate().elect(r.ballots, r.now)
	return r
}

// ask asks all servers at once. Each has its own slot: one that fails ends no
// other.
func (c *Client) ask(whole context.Context) []*measurement {
	ctx, cancel := context.WithTimeout(whole, c.Policy.Deadline)
	defer cancel()
	measured := make([]*measurement, len(c.sources))
	done := make(chan struct{}, len(c.sources))
	for i, s := range c.sources {
		go func() {
			measured[i] = s.measure(ctx, &c.Policy, c.doubt)
			measured[i].cut = whole.Err() != nil
			done <- struct{}{}
		}()
	}
	for n := range c.sources {
		<-done
		if c.Progress != nil {
			c.Progress(n+1, len(c.sources))
		}
	}
	return measured
}

// judgeDates decides about chains that are not valid yet at a local clock that was
// not in doubt: it is in doubt from now on if there are no others.
func (c *Client) judgeDates(measured []*measurement) {
	if !c.settled && allEarly(measured) {
		c.doubt = true
		c.Log.Info("the clock is in doubt: no server's certificate is valid yet")
		return
	}
	for _, m := range measured {
		if m.early != nil {
			m.refuse()
		}
	}
}

// allEarly tells whether every server that could be reached has a certificate
// that is not valid yet: then it is the clock that is behind. Certificates
// that look expired prove nothing: stolen old keys would, too.
func allEarly(measured []*measurement) bool {
	early := 0
	for _, m := range measured {
		switch {
		case m.early != nil:
			early++
		case !m.unreached():
			return false
		}
	}
	return early > 0
}

// electorate is who may vote, with the floor of this process.
func (c *Client) electorate() *electorate {
	p := &c.Policy
	e := &electorate{
		minimum: p.MinOperators, bootstrap: p.Bootstrap, maxStep: p.MaxStep, doubt: c.doubt,
		floor: floor{p.Built, "build", "the date of this program", ""},
	}
	if a := c.saved.Agreed; a != nil {
		e.floor.raise(floor{
			a.Time.Add(-a.Uncertainty), "state", "the last agreed time",
			"if that was wrong, delete " + filepath.Join(c.StateDir, stateName),
		})
	}
	operators := make(map[string]bool)
	for _, s := range c.sources {
		operators[s.Operator] = true
		e.floor.raise(floor{
			s.leaf, "certificates", "the newest certificate, that of " + s.Name,
			"if that is dated wrong, leave that server out",
		})
	}
	e.operators = len(operators)
	return e
}
