// Package timesync decides what time to believe and what to do about it.
package timesync

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
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
}

// unsynchronized is the kernel's maxerror when nothing has set its clock.
const unsynchronized = 16 * time.Second

// Policy is how to measure and whom to believe.
type Policy struct {
	Samples       int
	Interval      time.Duration // between two requests to one server
	AnswerTimeout time.Duration
	Deadline      time.Duration // of a round with one sample
	MaxDistance   time.Duration

	MinOperators int       // that must agree
	Strict       bool      // never look past a certificate's dates
	Built        time.Time // the floor that this program brings along
	Limits
}

// Options are what a Client is made of.
type Options struct {
	Servers  []Server
	Policy   Policy
	Clock    Clock
	StateDir string // empty: nothing is kept
	// MachineID tells a cloned image from its origin.
	MachineID, BootID string
	Log               *slog.Logger
	Progress          func(done, of int) // called as servers are done with; may be nil
}

// Client gets the time from its servers. One goroutine uses it.
type Client struct {
	Options
	sources []*source
	store   *Store // nil: nothing is kept
	saved   *Saved
	command string // that runs, for the report
	dryRun  bool
}

// New makes a Client. Nothing is sent or read yet.
func New(o Options) *Client {
	c := &Client{Options: o, saved: &Saved{}}
	for _, s := range o.Servers {
		c.sources = append(c.sources, &source{Server: s, state: &ServerState{Binding: s.Binding}})
	}
	return c
}

// Query measures once and says what is agreed on. It touches nothing.
func (c *Client) Query(ctx context.Context) (*report.Report, error) {
	maxError, err := c.Clock.MaxError()
	if err != nil {
		return nil, err
	}
	c.command = "query"
	r := c.once(ctx, maxError >= unsynchronized)
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if d := r.decision; d.Refused {
		r.report.ReasonCode, r.report.Reason = "would_refuse", "sync would refuse: "+d.Reason
	} else if d.Action == report.Step {
		r.report.ReasonCode, r.report.Reason = "would_step", "sync would step the clock"
	}
	return r.report, nil
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
	maxError, err := c.Clock.MaxError()
	if err != nil {
		return nil, err
	}
	if o.Delay > 0 && !sleep(ctx, rand.N(o.Delay)) {
		return nil, context.Cause(ctx)
	}
	first := maxError >= unsynchronized
	loop, err := c.open(ctx, o.Wait, first && !c.Policy.Strict)
	if err != nil {
		return nil, err
	}
	defer c.close()
	r, err := c.await(ctx, first, time.Now().Add(o.Wait))
	if err != nil {
		c.keep(r)
		return nil, err
	}
	if loop {
		r.report.ReasonCode, r.report.Reason = "loop_running", "a running loop keeps this clock"
		return r.report, nil
	}
	err = c.correct(r)
	c.keep(r)
	return r.report, err
}

// await measures until there is an agreement, or until end.
func (c *Client) await(ctx context.Context, first bool, end time.Time) (*round, error) {
	for pause := time.Second; ; pause = min(2*pause, 15*time.Second) {
		r := c.once(ctx, first)
		if ctx.Err() != nil {
			return r, context.Cause(ctx)
		}
		left := time.Until(end)
		if r.err == nil || left <= 0 {
			return r, nil
		}
		c.Log.Info("trying again", "in", min(pause, left), "reason", r.report.Reason)
		if !sleep(ctx, min(pause, left)) {
			return r, context.Cause(ctx)
		}
	}
}

// sleep tells whether ctx goes on after d.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// correct does what was decided.
func (c *Client) correct(r *round) error {
	if r.report.Result != report.Agreed {
		return nil
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
	if err := set(r.Offset, r.Uncertainty, r.Spread); err != nil {
		return fmt.Errorf("correcting the clock: %w", err)
	}
	r.report.Action = d.Action
	return nil
}

// round is one round, and what was decided by it.
type round struct {
	*election
	report   *report.Report
	measured []*measurement
	decision Decision
	now      time.Time // the moment that all offsets refer to
}

// once measures and votes. First says that nothing has set the kernel's clock
// since boot, so that it cannot date certificates.
func (c *Client) once(ctx context.Context, first bool) *round {
	c.withdraw()
	doubt := first && !c.Policy.Strict
	measured := c.ask(ctx, doubt)
	if !doubt && !c.Policy.Strict && allNotYetValid(measured) {
		doubt = true
		measured = c.ask(ctx, doubt)
	}
	now := time.Now()
	ballots := make([]*ballot, len(measured))
	for i, m := range measured {
		ballots[i] = m.ballot(now, c.Policy.MaxDistance)
	}
	e := c.electorate(measured, doubt)
	r := &round{measured: measured, now: now, election: e.elect(ballots, now)}
	if r.err == nil {
		r.decision = c.Policy.decide(finding{
			offset: r.Offset, uncertainty: r.Uncertainty, operators: r.Operators,
			first: first, bootstrapped: r.bootstrapped,
		})
	}
	r.report = c.tell(r, ballots)
	c.settle(r)
	return r
}

// ask asks all servers at once. Each has its own slot: one that fails ends no
// other.
func (c *Client) ask(ctx context.Context, deferDates bool) []*measurement {
	p := &c.Policy
	ctx, cancel := context.WithTimeout(ctx, p.Deadline+time.Duration(p.Samples-1)*p.Interval)
	defer cancel()
	measured := make([]*measurement, len(c.sources))
	done := make(chan struct{}, len(c.sources))
	var all sync.WaitGroup
	for i, s := range c.sources {
		all.Go(func() {
			measured[i] = s.measure(ctx, p, deferDates)
			done <- struct{}{}
		})
	}
	for n := range c.sources {
		<-done
		if c.Progress != nil {
			c.Progress(n+1, len(c.sources))
		}
	}
	all.Wait()
	return measured
}

// allNotYetValid tells whether every server that could be reached failed as
// its certificate is not yet valid: then it is the clock that is behind.
// Certificates that look expired prove nothing: stolen old keys would, too.
func allNotYetValid(measured []*measurement) bool {
	reached := 0
	for _, m := range measured {
		if m.err != nil && absent(m.err) {
			continue
		}
		reached++
		if m.err == nil || nts.CodeOf(m.err) != nts.CertificateNotYetValid {
			return false
		}
	}
	return reached > 0
}

// absent tells whether err is the network's and not the server's.
func absent(err error) bool {
	switch nts.CodeOf(err) {
	case nts.DNSNotFound, nts.DNSFailed, nts.ConnectUnreachable, nts.ConnectTimeout:
		return true
	}
	return false
}

// electorate is who may vote, with the floor of this round.
func (c *Client) electorate(measured []*measurement, doubt bool) *electorate {
	p := &c.Policy
	e := &electorate{
		minimum: p.MinOperators, bootstrap: p.Bootstrap, maxStep: p.MaxStep,
		doubt: doubt, floor: p.Built, floorFrom: "build",
	}
	operators := make(map[string]bool)
	raise := func(t time.Time, from string) {
		if t.After(e.floor) {
			e.floor, e.floorFrom = t, from
		}
	}
	if a := c.saved.Agreed; a != nil {
		raise(a.Time.Add(-a.Uncertainty), "state")
	}
	for _, m := range measured {
		operators[m.Operator] = true
		if m.verified {
			if leaf, err := m.state.Session.Chain.Leaf(); err == nil {
				raise(leaf.NotBefore, "certificates")
			}
		}
	}
	e.operators = len(operators)
	return e
}

// settle keeps in memory what the round taught: agreed times of key
// exchanges, dated chains, back-offs.
func (c *Client) settle(r *round) {
	now := r.now
	if r.err == nil {
		now = now.Add(r.Offset)
	}
	offline := true
	for _, m := range r.measured {
		offline = offline && m.err != nil && absent(m.err)
	}
	for _, m := range r.measured {
		s := m.state
		switch {
		case m.sample != nil:
			s.Backoff = nil
			s.Addrs = addAddr(s.Addrs, s.Session)
		case m.keyExchange && !offline: // even if it worked: RFC 8915 §4.2
			stage, code := nts.StageInternal, nts.Internal
			var e *nts.Error
			if errors.As(m.err, &e) {
				stage, code = e.Stage, e.Code
			}
			s.Backoff = s.Backoff.Failed(now, string(stage), string(code), m.err.Error())
		}
		if r.err != nil || s.Session == nil || s.Dated {
			continue
		}
		if s.Born.IsZero() {
			s.Born = now
		}
		s.Dated = m.NTS.VerifyChain(&s.Session.Chain, now) == nil
	}
}
