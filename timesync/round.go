package timesync

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"ntsclient/timesync/report"
)

// round asks all servers once, and does what follows. Its error is of the clock.
func (k *keeper) round(ctx context.Context) error {
	if _, err := k.resumed(); err != nil {
		return err
	}
	var r *round
	for slept := true; slept && ctx.Err() == nil; { // in the middle of it
		r = k.vote(ctx)
		var err error
		if slept, err = k.resumed(); err != nil {
			return err
		}
	}
	if r == nil {
		return nil
	}
	if ctx.Err() != nil {
		k.settle(r)
		return nil
	}
	now, err := k.now()
	if err != nil {
		return err
	}
	o := k.loop.Round(Situation{Moment: now, First: k.first, Bootstrapped: r.bootstrapped}, k.measured(r))
	if r.err = cmp.Or(r.err, o.Err); r.err == nil {
		r.Consensus, r.decision = o.Consensus, o.Decision
		// Of the times that are agreed on, the one that all rounds make likely.
		r.Offset = min(max(o.Before.Offset, r.Lo), r.Hi)
		r.Uncertainty = max(saturatedGap(r.Lo, r.Offset), saturatedGap(r.Offset, r.Hi))
		if err := k.obey(r, &o); err != nil {
			return err
		}
	}
	k.settle(r)
	k.remember(r)
	k.wait(r, &o)
	return k.publish(r, &o)
}

// measured are the answers that may vote, for the loop.
func (k *keeper) measured(r *round) (all []Measured) {
	if r.err != nil {
		return nil
	}
	for i, m := range r.measured {
		if v := r.ballots[i].out.Verdict; v != report.ServerAgreed && v != report.Falseticker {
			continue
		}
		s := m.sample
		middle := time.Duration(s.T1.UnixNano()) + s.RoundTrip()/2
		all = append(all, Measured{
			Server: m.Name, Operator: m.Operator,
			Offset: s.Offset(), Uncertainty: m.uncertainty(s.At), Delay: s.Delay(),
			Moment: Moment{Raw: middle - m.correction, Correction: m.correction},
		})
	}
	return all
}

// remember notes what the round says of servers, and of the time.
func (k *keeper) remember(r *round) {
	var agreed time.Time
	if r.err == nil && !r.decision.Refused {
		agreed = r.now.Add(r.Offset).Round(0)
		k.saved.Agreed = &AgreedTime{
			Time: agreed.UTC(), Uncertainty: r.Uncertainty,
			BootID: k.BootID, Raw: k.mark.Raw, Suspended: k.suspended,
		}
		k.lastAgreed, k.agreedAt = time.Now(), agreed.UTC()
		k.offsets = append(k.offsets, report.Seconds(r.Offset))
		k.offsets = k.offsets[max(0, len(k.offsets)-report.MaxOffsets):]
	}
	online := r.online()
	for _, m := range r.measured {
		m.note(agreed, online)
	}
}

// wait sets the timer of the next round. While there is no network that is
// soon, as on a laptop that has just been opened.
func (k *keeper) wait(r *round, o *Orders) {
	asked := slices.ContainsFunc(r.measured, func(m *measurement) bool { return !m.waiting })
	if asked && !r.online() {
		k.retry = min(max(2*k.retry, minRetry), maxRetry)
		o.Wait = min(o.Wait, k.retry-rand.N(k.retry/8))
	} else {
		k.retry = 0
	}
	k.next.Reset(o.Wait)
}

// publish makes the round's report the latest, and says in the log what has
// changed.
func (k *keeper) publish(r *round, o *Orders) error {
	p := k.tell(r)
	if r.err == nil {
		p.ReasonCode, p.Reason = r.decision.Code, r.decision.Reason
		p.Action = r.decision.Action
		if r.decision.Refused {
			p.Result = report.Held
		}
	}
	maxError, err := k.clock.MaxError()
	if err != nil {
		return err
	}
	f := k.loop.Frequency()
	p.Keeping = &report.Keeping{
		Loop: true, Synchronized: maxError < unsynchronized,
		Frequency: f.Rate * 1e6, FrequencyUncertainty: f.Uncertainty * 1e6,
		NextPoll: report.Seconds(o.Wait), Poll: report.Seconds(o.Poll), Steps: k.steps,
		LastAgreement: k.agreedAt, Offsets: slices.Clone(k.offsets),
	}
	for i, m := range r.measured {
		p.Servers[i].Watched = m.watched(r.now, o.Poll)
	}
	k.latest.Store(p)
	if k.Published != nil {
		k.Published(p)
	}
	k.sayServers(r, p)
	k.say(r, p, o)
	k.Supervisor.Status(k.prefix() + k.sentence(r, p))
	// At once also what failed: a loop that is killed and started again is held
	// to its back-offs, too.
	if first := !k.kept && r.err == nil; first || time.Since(k.wrote) >= saveEvery {
		k.kept = k.kept || first
		k.write(p)
	}
	return nil
}

// Latest is the report of the last round of a loop; nil before the first. Any
// goroutine may ask.
func (c *Client) Latest() *report.Report { return c.latest.Load() }

func (m *measurement) watched(now time.Time, poll time.Duration) *report.Watched {
	w := &report.Watched{Reach: m.reach, NAKs: m.naks, Poll: report.Seconds(max(poll, m.pace)), Failures: maps.Clone(m.failures)}
	if s := m.state.Session; s != nil {
		w.KeyBits = 8 * len(s.Keys.C2S)
		if !m.state.Born.IsZero() {
			w.KeyAge = report.Seconds(now.Sub(m.state.Born))
		}
	}
	if !m.answered.IsZero() {
		w.LastAnswer = report.Seconds(now.Sub(m.answered))
	}
	return w
}

// sayServers says of each server when its state has changed, and why.
func (k *keeper) sayServers(r *round, p *report.Report) {
	online := r.online()
	for i, m := range r.measured {
		s := &p.Servers[i]
		code, reason := s.ReasonCode, s.Reason
		if s.Error != nil {
			code, reason = s.Error.Code, s.Error.Message
		}
		state := string(s.Verdict) + " " + code
		// Where nothing is agreed on, that says nothing of a single server.
		nobody := r.err != nil && s.Verdict == report.Falseticker || !online && m.absent()
		if m.waiting || nobody || state == m.told {
			continue
		}
		m.told = state
		if s.Verdict == report.ServerAgreed {
			k.Log.Info("server agrees", "server", m.Name, "offset", report.Offset(time.Duration(s.Offset)),
				"uncertainty", report.Duration(time.Duration(s.Measured.Uncertainty)), "delay", report.Duration(time.Duration(s.Delay)))
			continue
		}
		k.Log.Warn("server is left out", "server", m.Name, "verdict", s.Verdict, "code", code, "reason", report.Printable(reason))
	}
}

// say says when the result has changed, each step, and each hour that the clock
// is held.
func (k *keeper) say(r *round, p *report.Report, o *Orders) {
	step := p.Action == report.Step
	state := fmt.Sprint(p.Result, p.ReasonCode, step)
	again := step && !k.DryRun || p.Result == report.Held && time.Since(k.said) >= sayEvery
	if state == k.told && !again {
		return
	}
	k.told = state
	switch {
	case p.Result == report.Held:
		k.said = time.Now()
		k.Log.Warn("the clock is left alone", "offset", report.Offset(r.Offset), "reason", p.Reason)
	case r.err != nil:
		args := []any{"reason", p.Reason, "again_in", o.Wait.Round(time.Second)}
		if err := stoppedByProxy(r.measured); err != nil {
			args = append(args, "proxy", err)
		}
		k.Log.Warn("no agreed time", args...)
	default:
		what := "the clock is being kept"
		switch {
		case step && k.DryRun:
			what = "the clock would be stepped"
		case step:
			what = "the clock was stepped"
		}
		k.Log.Info(k.prefix()+what, "offset", report.Offset(r.Offset), "uncertainty", report.Duration(r.Uncertainty),
			"servers", fmt.Sprintf("%d of %d", r.Inside, len(r.measured)), "frequency", k.loop.Frequency())
	}
}

// sentence is the state of things for people.
func (k *keeper) sentence(r *round, p *report.Report) string {
	switch {
	case p.Result == report.Held:
		return "holding: " + strings.TrimPrefix(p.Reason, "held: ")
	case r.err == nil:
		return fmt.Sprintf("synchronized: the clock is off by %s ± %s; %d of %d servers agree; frequency %v; next poll in %v",
			report.Offset(r.Offset), report.Duration(r.Uncertainty), r.Inside, len(r.measured),
			k.loop.Frequency(), time.Duration(p.NextPoll).Round(time.Second))
	}
	what := "not synchronized yet"
	if !k.lastAgreed.IsZero() {
		what = fmt.Sprintf("no agreed time for %v", time.Since(k.lastAgreed).Round(time.Second))
	}
	if k.proxied.Load() { // the reason may name a server, and everybody may read this
		return what
	}
	return what + ": " + p.Reason
}

// prefix stands before what a dry run says.
func (k *keeper) prefix() string {
	if k.DryRun {
		return "dry run: "
	}
	return ""
}
