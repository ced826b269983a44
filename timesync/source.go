package timesync

import (
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
	// drift is how wrong the rate of a clock may be that nobody corrects.
	drift = 100e-6
	// stampError is what the kernel's stamps may be off.
	stampError = time.Microsecond
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
	state    *ServerState
	lastSent time.Time // to keep the interval
}

// measurement is what one round got out of one server.
type measurement struct {
	*source
	err         error       // why there is no sample
	sample      *nts.Sample // the one with the least delay
	samples     int
	jitter      time.Duration // of the other samples' offsets around it
	keyExchange bool          // one was tried in this round
	verified    bool          // and its chain is right, but perhaps for the dates
}

// measure gets the samples of one round. It ends when ctx does.
func (s *source) measure(ctx context.Context, p *Policy, deferDates bool) *measurement {
	m := &measurement{source: s}
	var all []*nts.Sample
	for lost := 0; len(all) < p.Samples && lost < tries; {
		if m.err = m.prepare(ctx, deferDates); m.err != nil {
			break
		}
		if !s.pause(ctx, p.Interval) {
			m.err = &nts.Error{Stage: nts.StageExchange, Code: nts.Deadline, Err: errors.New("the round's time is over")}
			break
		}
		sample, err := s.ask(ctx, p.AnswerTimeout)
		m.err = err
		switch {
		case err == nil && !m.keyExchange && s.expired(sample.T3):
			s.state.Session = nil
		case err == nil:
			all = append(all, sample)
		case nts.CodeOf(err) == nts.ExchangeNAK && !m.keyExchange:
			s.state.Session = nil // one new key exchange, and not a second
		case nts.CodeOf(err) == nts.ExchangeNAK, nts.CodeOf(err) == nts.ExchangeKiss:
			lost = tries
		default:
			lost++
		}
	}
	m.choose(all)
	return m
}

// prepare sees to a session with cookies, by at most one key exchange a round
// and none before the back-off allows it.
func (m *measurement) prepare(ctx context.Context, deferDates bool) error {
	if s := m.state.Session; s != nil && s.Ready() {
		return nil
	}
	if m.keyExchange {
		return m.err
	}
	if left := m.state.Backoff.Remaining(time.Now()); left > 0 {
		b := m.state.Backoff
		return &nts.Error{
			Stage: nts.Stage(b.Stage), Code: nts.Code(b.Code),
			Err: fmt.Errorf("%s (not asked again for %v)", b.Message, left.Round(time.Second)),
		}
	}
	m.keyExchange = true
	o := m.NTS
	o.DeferDates, o.Fallback = deferDates, m.state.Addrs
	session, err := nts.KeyExchange(ctx, &o)
	if err != nil {
		return err
	}
	m.verified = true
	m.state.Session, m.state.Dated, m.state.Born = session, false, time.Time{}
	return nil
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
	timer := time.NewTimer(interval - time.Since(s.lastSent))
	defer timer.Stop()
	select {
	case <-timer.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}

func (s *source) ask(ctx context.Context, timeout time.Duration) (*nts.Sample, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	s.lastSent = time.Now()
	return s.state.Session.Exchange(ctx)
}

// choose takes the sample with the least delay: it has been disturbed least.
// The spread of the others around it says how much that may still be.
func (m *measurement) choose(all []*nts.Sample) {
	m.samples = len(all)
	if len(all) == 0 {
		return
	}
	m.err = nil
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
		time.Duration(drift*float64(age))
}
