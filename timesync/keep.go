package timesync

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"ntsclient/nts"
	"ntsclient/timesync/report"
)

// lockWait is how long another one-shot process may take.
const lockWait = 30 * time.Second

// open takes the state directory and hands each source what was saved for it.
// It tells whether a loop holds it: then nothing is kept and the clock is not
// ours. Without a directory that can be used all goes on, from nothing.
func (c *Client) open(ctx context.Context, wait time.Duration) (loop bool, err error) {
	if c.StateDir == "" {
		return false, nil
	}
	waiting, cancel := context.WithTimeout(ctx, lockWait+wait)
	defer cancel()
	store, err := OpenStore(waiting, c.StateDir, StoreOptions{MachineID: c.MachineID, Warn: c.Log.Warn})
	switch {
	case errors.Is(err, ErrLoopRunning):
		return true, nil
	case ctx.Err() != nil:
		return false, context.Cause(ctx)
	case waiting.Err() != nil: // two that correct the same offset would overshoot
		return false, fmt.Errorf("another ntsclient is at work with %s, and still was after %v; nothing was done", c.StateDir, lockWait+wait)
	case err != nil:
		c.Log.Warn("nothing is kept", "error", err)
		return false, nil
	}
	c.adopt(store)
	return false, nil
}

// adopt takes what was saved.
func (c *Client) adopt(store *Store) {
	c.store, c.saved = store, store.Saved()
	states := make(map[string]*ServerState, len(c.sources))
	for _, s := range c.sources {
		if saved := c.saved.Servers[s.Name]; saved != nil && saved.Binding == s.Binding {
			s.state = saved
			s.resume(time.Now())
			if !c.first && s.expired(time.Now()) {
				saved.dropSession()
			}
		}
		states[s.Name] = s.state
	}
	c.saved.Servers = states
}

// withdraw takes the cookies that a round may send out of the saved jars,
// before it does: no crash then makes one be sent twice.
func (c *Client) withdraw() {
	ready := func(s *source) bool { return s.state.Session != nil && s.state.Session.Ready() }
	if c.store == nil || !slices.ContainsFunc(c.sources, ready) {
		return
	}
	n := c.Policy.Samples + tries
	if slices.ContainsFunc(c.sources, func(s *source) bool { return s.state.Session != nil && s.state.Session.Other != nil }) {
		n += tries // each may be followed at once by one with the other keys
	}
	if err := c.store.Withdraw(n); err != nil {
		c.Log.Warn("saved cookies cannot be used", "error", err)
		for _, s := range c.sources {
			s.state.dropSession()
		}
	}
}

// online tells whether anything shows that there is a network.
func (r *round) online() bool {
	return slices.ContainsFunc(r.measured, func(m *measurement) bool { return !m.waiting && !m.absent() })
}

// settle keeps in memory what the round taught: agreed times of key
// exchanges, dated chains, and, of what was not broken off, back-offs.
func (c *Client) settle(r *round) {
	now, agreed := r.now, r.err == nil && !r.decision.Refused
	if agreed {
		now = now.Add(r.Offset).Round(0) // held against agreed times, not against a clock that is set
	}
	failing := r.now // by the clock as the next round finds it
	if r.decision.Action == report.Step && !c.dryRun {
		failing = now
	}
	online := r.online()
	for i, m := range r.measured {
		s := m.state
		if m.sample != nil {
			m.eased()
		}
		s.Rest = m.rest(failing)
		switch failed := cmp.Or(m.renewal, m.err); {
		case m.sample != nil && m.renewal == nil:
			s.Addrs = addAddr(s.Addrs, m.session)
			if m.session == s.Session && !m.renew { // not by older keys
				s.Backoff = nil
			}
		case m.keyExchange && !m.spared && online && !m.cut: // even if it worked: RFC 8915 §4.2
			e := tellError(failed)
			s.Backoff = s.Backoff.Failed(failing, e.Stage, e.Code, e.Message)
		}
		if !agreed || s.Session == nil || s.Dated {
			continue
		}
		if s.Born.IsZero() {
			s.Born = now
		}
		s.Dated = r.ballots[i].passed || m.NTS.VerifyChain(&s.Session.Chain, now) == nil
	}
}

// keep saves what a round taught, and its report.
func (c *Client) keep(r *round) {
	if c.store == nil {
		return
	}
	if r.report.Result == report.Agreed {
		c.saved.Agreed = &AgreedTime{Time: r.report.Time, Uncertainty: r.Uncertainty, BootID: c.BootID}
		c.learn(r, c.saved.Agreed)
	}
	c.save()
	c.saveReport(r.report)
}

func (c *Client) saveReport(r *report.Report) {
	var text bytes.Buffer
	err := r.WriteJSON(&text)
	if err == nil {
		err = c.store.SaveReport(text.Bytes())
	}
	if err != nil {
		c.Log.Warn("report not saved", "error", err)
	}
}

func (c *Client) save() {
	if c.store == nil {
		return
	}
	if err := c.store.Save(); err != nil {
		c.Log.Warn("state not saved", "error", err)
	}
}

func (c *Client) close() {
	if c.store != nil {
		c.store.Close()
		c.store = nil
	}
}

// maxAddrs is how many good addresses of a server are remembered.
const maxAddrs = 4

// addAddr puts the address that a session came from first.
func addAddr(addrs []netip.Addr, s *nts.Session) []netip.Addr {
	if s == nil || !s.KEAddr.IsValid() {
		return addrs
	}
	rest := slices.DeleteFunc(slices.Clone(addrs), func(a netip.Addr) bool { return a == s.KEAddr })
	rest = append([]netip.Addr{s.KEAddr}, rest...)
	return rest[:min(len(rest), maxAddrs)]
}

// suspended is for how long this machine was, since boot: then the monotonic
// clock stood still, and offsets held against it are off by that. Where no
// kernel tells, it was not.
func (c *Client) suspended() time.Duration {
	d, err := c.Clock.Suspended()
	if err != nil {
		return 0
	}
	return d
}
