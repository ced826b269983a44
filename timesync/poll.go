package timesync

import "time"

const (
	// startInterval is between the first polls, startPolls many; then it
	// doubles until it is the ordinary one. Servers that limit rates allow it.
	startInterval = 2 * time.Second
	startPolls    = 8
	// The interval doubles when the standard deviation of the offset that is
	// predicted for two polls later was under roomy × the usual excess delay
	// for patience polls running, and halves when it is over tight × that.
	roomy    = 0.7
	tight    = 0.84
	patience = 4
	// When the clock is found so many standard deviations off, the interval is
	// quartered: the crystal is not what it was.
	surprise = 6.0
)

// schedule says when to ask.
type schedule struct {
	polls    int           // that were answered
	interval time.Duration // the last
	roomy    int           // polls running
}

// answered is the interval after a round that taught something.
func (s *schedule) answered(cfg *LoopConfig, b *bank, usual float64, surprised bool) time.Duration {
	s.polls++
	switch {
	case s.polls < startPolls:
		s.interval = min(startInterval, cfg.MinPoll)
	case s.interval < cfg.MinPoll:
		s.interval = min(2*s.interval, cfg.MinPoll)
	default:
		s.adapt(cfg, b, usual, surprised)
	}
	return s.interval
}

// adapt follows what the filters expect of the time to come.
func (s *schedule) adapt(cfg *LoopConfig, b *bank, usual float64, surprised bool) {
	later := *b
	later.predict(2 * s.interval.Seconds())
	_, sd, _, _ := later.estimate()
	if sd >= roomy*usual {
		s.roomy = 0
	} else if s.roomy++; s.roomy >= patience {
		s.roomy = 0
		s.interval *= 2
	}
	switch {
	case surprised:
		s.roomy = 0
		s.interval /= 4
	case sd > tight*usual:
		s.interval /= 2
	}
	s.interval = min(max(s.interval, cfg.MinPoll), cfg.MaxPoll)
}

// missed is the interval after a round without an agreement: as before, or,
// as long as that is not an ordinary one, ever longer up to the shortest of
// these: what is missing may be missing for days.
func (s *schedule) missed(cfg *LoopConfig) time.Duration {
	if s.interval < cfg.MinPoll {
		s.interval = min(max(2*s.interval, startInterval), cfg.MinPoll)
	}
	return min(s.interval, cfg.MaxPoll)
}

// spread adds the random part, so that fleets do not march in step: ± 1/16,
// but never under the interval of the start. random is in [0, 1).
func spread(poll time.Duration, random float64) time.Duration {
	part := nanoseconds(float64(poll) / 8 * random)
	if poll <= startInterval {
		return poll + part
	}
	return max(poll-poll/16+part, startInterval)
}
