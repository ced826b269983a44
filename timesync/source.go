package timesync

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"ntsclient/nts"
)

const (
	// tries is how many requests may go without an answer in one round.
	tries = 3
	// keyLife is how long a session is used (RFC 8915 §8.5 leaves it open).
	keyLife = 28 * 24 * time.Hour
	// drift is how wrong the rate of a clock may be that nobody corrects, and
	// slewing how much more while a kernel makes up for an offset.
	drift   = 100e-6
	slewing = 500e-6
	// stampError is what the kernel's stamps may be off.
	stampError = time.Microsecond
	// rateRest and denyRest are how long a server is left alone that asked for
	// fewer requests, or for none (RFC 5905 §7.4).
	rateRest = 64 * time.Second
	maxRest  = 2 * time.Hour
	denyRest = time.Hour
)

// Server is one configured server.
type Server struct {
	Name     string // host:port of the key exchange, as people know it
	Operator string // who runs it: it has one vote
	Binding  string // what its keys are bound to, see Binding
	NTS      nts.Options
}

// source is one server over the rounds of a process. One goroutine uses it at
// a time.
type source struct {
	Server
	network
	moment   func() (Moment, error) // reads the clocks; nil where nobody needs that
	state    *ServerState
	lastSent time.Time     // to keep the interval
	leaf     time.Time     // latest notBefore of the leaf certificates verified; zero: none
	restsTo  time.Time     // it is not asked before
	pace     time.Duration // between requests, at least: it asked for fewer
	calm     int           // answers since it did
	kiss     *nts.Error
	history
}

// measurement is what one round got out of one server.
type measurement struct {
	*source
	err         error         // why there is no sample
	sample      *nts.Sample   // the one with the least delay
	session     *nts.Session  // that all samples came by
	dated       bool          // its chain was valid at an agreed time before
	samples     int           // authenticated answers
	jitter      time.Duration // of the other samples' offsets around it
	correction  time.Duration // of the clock while the last of them was taken
	refused     bool          // the keys, by a NAK
	keyExchange bool          // one was tried in this round
	spared      bool          // and the proxy failed, so that the server does not count it
	renewal     error         // why that failed, where the old session is still good
	verified    bool          // and it worked, with a chain that is right, but perhaps for the dates
	early       error         // that chain is not valid yet at the local clock, which was not in doubt
	waiting     bool          // it was not asked, as it rests
	cut         bool          // it was broken off from outside
	unanswered  int           // octets of the largest request that was not answered
}

// measure gets the samples of one round. It ends when ctx does.
func (s *source) measure(ctx context.Context, p *Policy, doubt bool) *measurement {
	m := &measurement{source: s}
	var all []*nts.Sample
	for lost := 0; len(all) < p.Samples && lost < s.tries(); {
		if lost > 0 && !m.refused && time.Until(s.restsTo) > 0 {
			break // it wants to be asked less; what went wrong is what is told
		}
		if err := m.prepare(ctx, p, doubt); err != nil {
			m.err = err
			break
		}
		if !s.pause(ctx, p.Interval) {
			// What went wrong before tells more.
			m.err = cmp.Or(m.err, error(&nts.Error{
				Stage: nts.StageExchange, Code: nts.Deadline, Err: errors.New("the round's time is over"),
			}))
			break
		}
		sample, err := m.ask(ctx, p.AnswerTimeout)
		switch {
		case err == nil && !m.keyExchange && s.expired(sample.T3):
			s.state.dropSession()
		case err == nil:
			m.session, m.dated = s.state.Session, s.state.Dated
			all = append(all, sample)
		default:
			m.err = err
			lost++
			if m.over(err, len(all)) {
				m.choose(all)
				return m
			}
		}
	}
	m.choose(all)
	if m.renew {
		m.renewKeys(ctx, p)
	}
	return m
}

// over tells whether a round with this server ends by err.
func (m *measurement) over(err error, samples int) bool {
	var e *nts.Error
	errors.As(err, &e)
	switch nts.CodeOf(err) {
	case nts.ProxyFailed, nts.ProxyNoUDP: // and would again
		return true
	// One new key exchange and not a second; the old keys stay until it has
	// worked, since anyone on the way can say this (RFC 8915 §5.7).
	case nts.ExchangeNAK:
		m.naks++
		m.refused = true
		return m.keyExchange || samples > 0
	case nts.ExchangeKiss:
		// From now on, and not only once; see eased.
		m.pace, m.calm = min(max(rateRest, 2*m.pace, 2*m.spacing), maxRest), 0
		rest := m.pace
		if e.Kiss != "RATE" && e.Sure { // else anyone on the way may have said it
			rest = max(rest, denyRest)
		}
		m.kiss, m.restsTo = e, time.Now().Add(rest)
		return true
	case nts.ExchangeTimeout:
		m.unanswered = max(m.unanswered, e.Octets)
	}
	return false
}

// prepare sees to a session with cookies, by at most one key exchange a round
// and none before the back-off allows it.
func (m *measurement) prepare(ctx context.Context, p *Policy, doubt bool) error {
	if left := time.Until(m.restsTo); left > 0 && !m.refused { // which shows that it is there, and answers
		m.waiting = true
		return resting(*m.kiss, left)
	}
	s := m.state.Session
	if s != nil && !m.keyExchange && !doubt && !m.state.Dated && !s.Chain.Holds(time.Now()) {
		m.state.dropSession() // it was made when dates were in doubt, and never dated
		s = nil
	}
	if s != nil && s.Ready() && !m.refused {
		return nil
	}
	if m.keyExchange {
		return cmp.Or(m.err, error(&nts.Error{
			Stage: nts.StageExchange, Code: nts.KENoCookies, Err: errors.New("the server gives too few cookies"),
		}))
	}
	if left := m.state.Backoff.Remaining(time.Now()); left > 0 {
		b := m.state.Backoff
		m.waiting = true
		return resting(nts.Error{Stage: nts.Stage(b.Stage), Code: nts.Code(b.Code), Err: errors.New(b.Message)}, left)
	}
	m.keyExchange = true
	session, err := m.exchangeKeys(ctx, p, doubt)
	if err == nil {
		m.install(session)
	}
	return err
}

// renewKeys gets a new session in time, after the exchanges by the old one,
// which stays if that fails.
func (m *measurement) renewKeys(ctx context.Context, p *Policy) {
	if m.keyExchange || m.waiting || ctx.Err() != nil || m.state.Backoff.Remaining(time.Now()) > 0 {
		return
	}
	m.keyExchange = true
	session, err := m.exchangeKeys(ctx, p, false)
	if m.renewal = cmp.Or(err, m.early); m.renewal == nil {
		m.install(session)
	}
	m.early = nil
}

func (m *measurement) install(session *nts.Session) {
	m.state.dropSession()
	m.state.Session = session
	m.refused = false
	m.renewed()
}

// resting is e, told while the server is left alone.
func resting(e nts.Error, left time.Duration) error {
	e.Err = fmt.Errorf("%w (not asked again for %v)", e.Err, max(left.Round(time.Second), time.Second))
	return &e
}

// exchangeKeys makes a new session. Dates are put off even where they are not
// in doubt: that all certificates are not valid yet is what brings them into
// doubt (see allEarly).
func (m *measurement) exchangeKeys(ctx context.Context, p *Policy, doubt bool) (*nts.Session, error) {
	o := m.NTS
	o.DeferDates, o.Fallback = !p.Strict, m.state.Addrs
	session, err := m.KeyExchange(ctx, &o)
	if err != nil {
		m.spared = byProxy(err)
		return nil, err
	}
	if now := time.Now(); !doubt && !session.Chain.Holds(now) {
		err := m.NTS.VerifyChain(&session.Chain, now)
		if err != nil && nts.CodeOf(err) != nts.CertificateNotYetValid {
			return nil, err
		}
		m.early = err
	}
	m.verified = true
	if leaf, err := session.Chain.Leaf(); err == nil && leaf.NotBefore.After(m.leaf) {
		m.leaf = leaf.NotBefore
	}
	return session, nil
}

// refuse takes back what a chain brought that is not valid yet, where that was
// no reason to doubt the clock.
func (m *measurement) refuse() {
	m.state.dropSession()
	m.sample, m.session, m.err = nil, nil, m.early
}

// absent tells whether nothing of this round says that there is a network: no
// name, no way, and nobody who answers in time.
func (m *measurement) absent() bool {
	if m.err == nil || m.verified {
		return false
	}
	switch nts.CodeOf(m.err) {
	case nts.DNSNotFound, nts.DNSFailed, nts.ConnectUnreachable, nts.ConnectTimeout, nts.ExchangeTimeout:
		return true
	}
	return errors.Is(m.err, nts.ErrNoProxy)
}

// byProxy tells whether it was the proxy that failed.
func byProxy(err error) bool {
	var e *nts.Error
	return errors.As(err, &e) && e.Stage == nts.StageProxy
}

// unreached tells whether the server had no occasion to show a certificate.
func (m *measurement) unreached() bool {
	var e *nts.Error
	return m.waiting || m.absent() || errors.As(m.err, &e) && (e.Stage == nts.StageDNS || e.Stage == nts.StageConnect || e.Stage == nts.StageProxy)
}

// expired tells by an answer's own time whether the keys it came by are too
// old. The local clock could not: it may be wrong.
func (s *source) expired(at time.Time) bool {
	return !s.state.Born.IsZero() && at.Sub(s.state.Born) > keyLife
}

// pause waits until interval has passed since the last request.
func (s *source) pause(ctx context.Context, interval time.Duration) bool {
	if s.lastSent.IsZero() {
		return ctx.Err() == nil
	}
	return sleep(ctx, interval-time.Since(s.lastSent)) && ctx.Err() == nil
}

// ask is one exchange. Of a clock that is steered the correction is read before
// and after it.
func (m *measurement) ask(ctx context.Context, timeout time.Duration) (*nts.Sample, error) {
	if m.NTS.Proxy != nil { // of which an association is to be had first
		timeout *= 2
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	m.sending(time.Now())
	if m.moment == nil {
		return m.Exchange(ctx, m.state.Session, m.NTS.Route)
	}
	before, err := m.moment()
	if err != nil {
		return nil, err
	}
	sample, err := m.Exchange(ctx, m.state.Session, m.NTS.Route)
	if err != nil {
		return nil, err
	}
	after, err := m.moment()
	m.correction = before.Correction + (after.Correction-before.Correction)/2
	return sample, err
}

// choose takes the sample with the least delay: it has been disturbed least.
// The spread of the others around it says how much that may still be.
func (m *measurement) choose(all []*nts.Sample) {
	m.samples = len(all)
	if len(all) == 0 {
		return
	}
	m.err, m.waiting = nil, false
	for _, s := range all {
		if m.sample == nil || s.Delay() < m.sample.Delay() {
			m.sample = s
		}
	}
	best := held(m.sample, m.sample.At)
	var sum float64
	for _, s := range all {
		d := (held(s, m.sample.At) - best).Seconds()
		sum += d * d
	}
	if len(all) > 1 {
		m.jitter = time.Duration(math.Sqrt(sum/float64(len(all)-1)) * float64(time.Second))
	}
}

// held is a sample's offset from the local clock as it reads at now, held
// against the monotonic clock: a clock that was set since then changes
// nothing of what is true.
func held(s *nts.Sample, now time.Time) time.Duration {
	wall := s.At.Round(0).Sub(now.Round(0))
	return s.Offset() + wall - s.At.Sub(now)
}

// uncertainty is how far from held the truth may be: half of the round trip,
// whatever way the packets went (RFC 8915 §8.6), the server's own distance
// from the truth, and what clocks and stamps add.
func (m *measurement) uncertainty(now time.Time) time.Duration {
	s := m.sample
	age := now.Sub(s.At).Abs() + s.RoundTrip()
	return s.RoundTrip()/2 + s.RootDelay/2 + s.RootDispersion + s.Precision + stampError + m.jitter +
		nanoseconds((drift+slewing)*float64(age))
}
