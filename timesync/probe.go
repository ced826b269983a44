package timesync

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"time"

	"ntsclient/nts"
	"ntsclient/timesync/report"
)

// Check measures as Query does. Of servers that exchanged keys and gave no
// authenticated answer it then finds out what comes back at all, with a few
// packets more. That explains; it changes nothing of what is believed.
func (c *Client) Check(ctx context.Context) (*report.Report, error) {
	r, err := c.query(ctx, "check")
	if err != nil {
		return nil, err
	}
	within, cancel := context.WithTimeout(ctx, c.Policy.Deadline)
	defer cancel()
	var wg sync.WaitGroup
	for i, m := range r.measured {
		_, err := netip.ParseAddr(m.NTS.Host)
		proxied := m.NTS.Proxy != nil
		p := &report.Probed{
			Unresolved: errors.Is(m.err, nts.ErrResolver),
			Given:      err == nil || len(m.NTS.IPs) > 0 || proxied, Proxied: proxied,
		}
		r.report.Servers[i].Probed = p
		wg.Go(func() { (&probe{m, &c.Policy, p}).run(within) })
	}
	wg.Wait()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return r.report, nil
}

// probe looks closer at one server.
type probe struct {
	*measurement
	policy *Policy
	out    *report.Probed
}

func (p *probe) run(ctx context.Context) {
	s := p.state.Session
	if s == nil || p.out.Proxied { // what comes back to a proxy is not for us to see
		return
	}
	code := nts.CodeOf(p.err)
	switch {
	case p.sample != nil && p.unanswered > s.Largest:
		p.sizes(ctx, s)
	case p.sample == nil && (code == nts.ExchangeTimeout || code == nts.ExchangeUnauthenticated):
		p.replies(ctx, s)
	}
}

// next waits until the server may be asked again, and asks, if there is time.
func (p *probe) next(ctx context.Context, ask func(context.Context)) bool {
	if !p.pause(ctx, p.policy.Interval) {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, p.policy.AnswerTimeout)
	defer cancel()
	p.sending(time.Now())
	ask(ctx)
	return true
}

// replies finds out what comes back from a server that gave no good answer.
func (p *probe) replies(ctx context.Context, s *nts.Session) {
	p.out.Address = s.Servers[0].String()
	p.next(ctx, func(ctx context.Context) {
		p.out.Plain = report.Reply(s.ProbePlain(ctx, &p.NTS))
	})
	if p.out.Plain == report.Kissed { // and wants no more
		return
	}
	p.next(ctx, func(ctx context.Context) {
		reply, octets := s.ProbeRefusal(ctx, &p.NTS)
		p.out.Unknown, p.out.Octets = report.Reply(reply), octets
	})
	if (p.out.Plain == report.Bare || p.out.Unknown == report.Refusal) && s.Ready() {
		p.next(ctx, func(ctx context.Context) { // that the others were lost may have been by chance
			_, err := p.Exchange(ctx, s, p.NTS.Route)
			p.out.Later = err == nil
		})
	}
}

// sizes finds out how large a request may be, of a server that answered a small
// one after a larger one was lost: that may have been by chance.
func (p *probe) sizes(ctx context.Context, s *nts.Session) {
	const jar = 8
	s.Servers = []netip.AddrPort{p.sample.Server}
	passed, lost := 0, 2*jar // placeholders; there are fewer than the jar has room for
	for packets := 3; packets > 0; packets-- {
		n := min((passed+lost)/2, jar-len(s.Cookies))
		if n <= passed || !s.Ready() {
			break
		}
		s.Placeholders = n
		var err error
		if !p.next(ctx, func(ctx context.Context) { _, err = p.Exchange(ctx, s, p.NTS.Route) }) {
			break
		}
		var e *nts.Error
		switch errors.As(err, &e); {
		case err == nil:
			passed = n
		case e.Code == nts.ExchangeTimeout:
			lost, p.out.Lost = n, e.Octets
		default: // a kiss, say
			packets = 0 // no more
		}
	}
	p.out.Passed = s.Largest
}
