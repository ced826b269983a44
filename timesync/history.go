package timesync

import (
	"errors"
	"math/rand/v2"
	"time"

	"ntsclient/nts"
)

const (
	// A session is renewed renewEarly before the end of its life, or up to
	// renewSpread later, so that machines that were started together do not
	// march in step.
	renewEarly  = renewSpread + time.Hour
	renewSpread = 12 * time.Hour
	// lostPatience is after how many rounds without an answer a name is looked up
	// and keys are exchanged anew, while other servers do answer.
	lostPatience = 3
)

// history is what a loop remembers of a server over its rounds.
type history struct {
	spacing  time.Duration // between the last two requests
	missed   int           // rounds running in which it was asked and did not answer
	renew    bool          // it is time for new keys
	life     time.Duration // of its session's keys; 0: not drawn yet
	reach    string        // the last rounds in which it was asked: 1 where it answered
	naks     int
	answered time.Time      // last
	failures map[string]int // rounds without an answer, by the error's code
	told     string         // in the log, of its state
}

// tries is how many requests it may leave without an answer in one round. One
// that was silent before gets one: its cookies are to last.
func (h *history) tries() int {
	if h.missed > 0 {
		return 1
	}
	return tries
}

// renewed begins the life of a new session.
func (h *history) renewed() {
	h.renew, h.life = false, 0
}

// sending notes a request.
func (s *source) sending(now time.Time) {
	if !s.lastSent.IsZero() {
		s.spacing = now.Sub(s.lastSent)
	}
	s.lastSent = now
	if s.pace > 0 { // a little less, so that it is asked in time for a round
		s.restsTo = now.Add(s.pace - s.pace/8)
	}
}

// eased lets a server that asked for less be asked more again, after some
// answers without a complaint.
func (s *source) eased() {
	const answers = 8
	if s.pace == 0 {
		return
	}
	if s.calm++; s.calm >= answers {
		s.calm = 0
		if s.pace /= 2; s.pace < rateRest {
			s.pace = 0
		}
	}
}

// rest is what goes on of that in the next process.
func (s *source) rest(now time.Time) *Rest {
	left := max(time.Until(s.restsTo), 0)
	if left == 0 && s.pace == 0 {
		return nil
	}
	return &Rest{
		Since: now.Round(0), Wait: left, Pace: s.pace, Calm: s.calm,
		Kiss: s.kiss.Kiss, Message: s.kiss.Err.Error(),
	}
}

// resume goes on with what the last process left of it.
func (s *source) resume(now time.Time) {
	r := s.state.Rest
	if r == nil {
		return
	}
	s.pace, s.calm, s.restsTo = r.Pace, r.Calm, now.Add(remaining(r.Since, r.Wait, now))
	s.kiss = &nts.Error{Stage: nts.StageExchange, Code: nts.ExchangeKiss, Kiss: r.Kiss, Err: errors.New(r.Message)}
}

// note remembers what a round brought. Agreed is the time agreed on, or zero.
func (m *measurement) note(agreed time.Time, online bool) {
	if m.waiting {
		return
	}
	h := &m.source.history
	mark := "0"
	switch {
	case m.sample != nil:
		mark = "1"
		h.missed, h.answered = 0, m.sample.At
	case nts.CodeOf(m.err) == nts.ExchangeKiss: // it is there
		h.missed = 0
	default:
		h.missed++
	}
	if m.sample == nil {
		if h.failures == nil {
			h.failures = map[string]int{}
		}
		h.failures[string(nts.CodeOf(m.err))]++
	}
	h.reach += mark
	h.reach = h.reach[max(0, len(h.reach)-8):]
	if h.life == 0 {
		h.life = keyLife - renewEarly + rand.N(renewSpread)
	}
	born := m.state.Born
	old := !agreed.IsZero() && !born.IsZero() && agreed.Sub(born) > h.life
	h.renew = old || online && h.missed >= lostPatience
}
