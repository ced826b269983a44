package timesync

import (
	"errors"
	"fmt"
	"time"

	"ntsclient/nts"
	"ntsclient/timesync/report"
)

// ballot holds a measurement against the local clock as it reads at now, and
// says whether it may vote.
func (m *measurement) ballot(now time.Time, maxDistance time.Duration) *ballot {
	b := new(ballot)
	if m.sample == nil {
		b.out.Verdict = report.Failed
		return b
	}
	s, chain := m.sample, &m.session.Chain
	b.vote = Vote{Operator: m.Operator, Offset: held(s, now), Uncertainty: m.uncertainty(now)}
	b.answer = s.T3
	b.notBefore, b.notAfter = chain.NotBefore, chain.NotAfter
	b.dated = m.dated
	b.valid = b.dated || chain.Holds(now)
	b.verify = func(at time.Time) error { return m.NTS.VerifyChain(chain, at) }
	b.out.Code, b.out.Reason = m.unfit(b, maxDistance)
	b.fit = b.out.Code == ""
	if !b.fit {
		b.out.Verdict = report.Unusable
	}
	return b
}

// unfit is why an authenticated answer may not vote.
func (m *measurement) unfit(b *ballot, maxDistance time.Duration) (code, reason string) {
	s := m.sample
	switch {
	case s.Leap == 3 || s.Stratum == 0 || s.Stratum > 15:
		return "unsynchronized", fmt.Sprintf("says that it is not synchronized (leap %d, stratum %d)", s.Leap, s.Stratum)
	case s.T2.IsZero() || s.T3.IsZero() || s.T3.Before(s.T2) || s.Delay() < 0:
		return "impossible_times", fmt.Sprintf("its times cannot be: %v between its receiving and sending, of a round trip of %v",
			s.T3.Sub(s.T2), s.RoundTrip())
	case b.vote.Uncertainty > maxDistance:
		return "too_distant", fmt.Sprintf("its uncertainty of %v is more than max_distance (%v)",
			b.vote.Uncertainty.Round(time.Microsecond), maxDistance)
	case !b.dated && (b.answer.Before(b.notBefore) || b.answer.After(b.notAfter)):
		return "outside_window", fmt.Sprintf("says %s, while its certificate is good from %s to %s",
			day(b.answer), day(b.notBefore), day(b.notAfter))
	}
	return "", ""
}

// tell makes the report of a round.
func (c *Client) tell(r *round) *report.Report {
	p := &report.Report{
		Schema: report.Schema, Command: c.command, DryRun: c.dryRun,
		Result: report.NoAgreement, Action: report.None,
		Clock: r.now.Round(0).UTC(),
	}
	switch {
	case r.err == nil:
		p.Result = report.Agreed
		p.Agreement = &report.Agreement{
			Time: p.Clock.Add(r.Offset), Offset: report.Seconds(r.Offset), Uncertainty: report.Seconds(r.Uncertainty),
			Interval: [2]report.Seconds{report.Seconds(r.Lo), report.Seconds(r.Hi)},
		}
	case errors.Is(r.err, errTooFewConfigured):
		p.ReasonCode, p.Reason = "too_few_operators", r.err.Error()
	default:
		p.ReasonCode, p.Reason = "no_agreement", r.err.Error()
		if why := c.nobody(r.measured); why != "" {
			p.Reason += ": " + why
		}
	}
	p.Bootstrap = r.bootstrap
	for i, m := range r.measured {
		p.Servers = append(p.Servers, m.tell(r.ballots[i]))
	}
	return p
}

// nobody says what stands behind it where no server answers and all that could
// be reached fail for the same reason; empty: nothing to say.
func (c *Client) nobody(measured []*measurement) string {
	if err := stoppedByProxy(measured); err != nil {
		return err.Error()
	}
	codes := make(map[nts.Code]bool)
	refused := false // a refused connection is an answer, too
	for _, m := range measured {
		if m.sample != nil {
			return ""
		}
		code := nts.CodeOf(m.err)
		if m.waiting || !m.unreached() {
			codes[code] = true
		}
		refused = refused || code == nts.ConnectRefused
	}
	switch {
	case len(codes) == 0 && !refused:
		return "none could be reached; is the network up?"
	case len(codes) != 1:
		return ""
	case codes[nts.CertificateNotYetValid] && c.Policy.Strict:
		return "no certificate is valid yet by this clock, and `[bootstrap] certificate_time = \"strict\"` forbids to look past that"
	case codes[nts.CertificateExpired] && c.Policy.Strict:
		return "all certificates look expired; is this clock ahead? `[bootstrap] certificate_time = \"strict\"` forbids to look past that"
	case codes[nts.CertificateExpired]:
		return "all certificates look expired; is this clock ahead? as the kernel calls it synchronized, their dates count"
	}
	return ""
}

// stoppedByProxy is what is wrong with the proxy, where nobody was reached
// through it.
func stoppedByProxy(measured []*measurement) (err error) {
	for _, m := range measured {
		if err = m.err; m.sample != nil || !byProxy(err) {
			return nil
		}
	}
	return err
}

func (m *measurement) tell(b *ballot) report.Server {
	out := report.Server{
		Name: m.Name, Operator: m.Operator,
		Verdict: b.out.Verdict, ReasonCode: b.out.Code, Reason: b.out.Reason,
	}
	if m.sample == nil {
		out.Error = tellError(m.err)
		return out
	}
	s := m.sample
	if s.Server.IsValid() { // else only the proxy knows it
		out.Address = s.Server.String()
	}
	out.Measured = &report.Measured{
		Offset: report.Seconds(b.vote.Offset), Delay: report.Seconds(s.Delay()),
		Uncertainty: report.Seconds(b.vote.Uncertainty),
		Stratum:     s.Stratum, Leap: [4]string{"none", "insert", "delete", "unknown"}[s.Leap&3],
		RootDelay: report.Seconds(s.RootDelay), RootDispersion: report.Seconds(s.RootDispersion),
		AEAD: m.session.AEAD.String(), Cookies: len(m.session.Cookies),
		Samples: m.samples, KeyExchange: m.keyExchange, Timestamps: "user",
	}
	if s.Kernel {
		out.Timestamps = "kernel"
	}
	if leaf, err := m.session.Chain.Leaf(); err == nil {
		out.Certificate = &report.Certificate{
			Subject: nts.SubjectName(leaf), Issuer: leaf.Issuer.String(),
			NotBefore: leaf.NotBefore.UTC(), NotAfter: leaf.NotAfter.UTC(),
		}
	}
	return out
}

func tellError(err error) *report.Error {
	var e *nts.Error
	if !errors.As(err, &e) {
		return &report.Error{Stage: string(nts.StageInternal), Code: string(nts.Internal), Message: err.Error()}
	}
	return &report.Error{Stage: string(e.Stage), Code: string(e.Code), Message: e.Error(), Hint: e.Hint}
}
