package timesync

import (
	"math"
	"slices"
	"time"
)

const (
	// maxPairs is how many agreed times are kept, and minGap how far they are
	// apart: runs in quick succession must not push out those that tell.
	maxPairs = 16
	minGap   = 10 * time.Minute
	// usableWithin is how certain a frequency must be to be better than none.
	usableWithin = 5e-6
	// agreeingPairs must there be: of two that are at odds nobody can tell which
	// is wrong.
	agreeingPairs = 3
	// betweenRuns is what a crystal's frequency may change by from run to run.
	betweenRuns = 1e-6
	// suspendNoise is what BOOTTIME − MONOTONIC may differ by without a suspend.
	suspendNoise = time.Millisecond
)

// Crystal is what one-shot runs, hours apart, learn of the clock's frequency:
// agreed times, each with the raw clock's reading. Steps and slews between
// them, by anyone, change neither.
type Crystal struct {
	Pairs     []AgreedTime `json:"pairs,omitempty"` // of one boot, without a suspend
	Frequency Frequency    `json:"frequency,omitzero"`
}

// Learn takes the agreed time of a run, and returns the frequency that the
// clock should have from now on, and whether it is to be set at all: not as
// long as the uncertainties of the agreed times leave more than ± 5 ppm. After
// a reboot, a suspend, a leap second or a time that was wrong the pairs count no
// more, and the last frequency stands until three new ones tell better.
func (c *Crystal) Learn(now AgreedTime) (f Frequency, usable bool) {
	c.add(now)
	first := c.Pairs[0]
	span := (now.Raw - first.Raw).Seconds()
	spread := (first.Uncertainty + now.Uncertainty).Seconds()
	if len(c.Pairs) < agreeingPairs || !(spread/span <= usableWithin) {
		return c.Frequency, c.Frequency.Uncertainty > 0
	}
	f = c.estimate()
	if math.Abs(f.Rate) > maxRate { // no crystal is that bad: the raw clock is not one
		c.Frequency = Frequency{}
		return c.Frequency, false
	}
	c.Frequency = f
	return f, true
}

// add appends a pair, and drops those that it cannot be compared with.
func (c *Crystal) add(now AgreedTime) {
	if n := len(c.Pairs); n > 0 {
		last := &c.Pairs[n-1]
		if now.BootID == "" || last.BootID != now.BootID || now.Raw <= last.Raw ||
			(now.Suspended-last.Suspended).Abs() > suspendNoise || !c.continues(now) {
			c.Pairs = nil
		}
	}
	if n := len(c.Pairs); n > 1 && now.Raw-c.Pairs[n-2].Raw < minGap {
		c.Pairs = c.Pairs[:n-1]
	}
	c.Pairs = append(c.Pairs, now)
	if extra := len(c.Pairs) - maxPairs; extra > 0 {
		c.Pairs = slices.Delete(c.Pairs, 0, extra)
	}
}

// continues tells whether a time is where the pairs say that it will be. Only
// they do: the last frequency may be another boot's, whose raw clock can differ.
func (c *Crystal) continues(now AgreedTime) bool {
	last := c.Pairs[len(c.Pairs)-1]
	f := c.estimate()
	gap := now.Raw - last.Raw
	miss := (now.Time.Sub(last.Time) - gap).Seconds() - f.Rate*gap.Seconds()
	within := (last.Uncertainty + now.Uncertainty).Seconds() + (3*f.Uncertainty+betweenRuns)*gap.Seconds()
	return math.Abs(miss) <= within
}

// estimate runs the pairs through the filters of the loop. They are few, so
// that nothing but them needs to be kept.
func (c *Crystal) estimate() Frequency {
	var b bank
	var p path
	first := c.Pairs[0]
	b.start(0, first.Uncertainty.Seconds()+stampNoise, 0, unlearned)
	for i, pair := range c.Pairs {
		if i > 0 {
			b.predict((pair.Raw - c.Pairs[i-1].Raw).Seconds())
		}
		// Twice the uncertainty is as good as the delay, which it follows.
		s := p.sample(2 * pair.Uncertainty.Seconds())
		s.z = (pair.Time.Sub(first.Time) - (pair.Raw - first.Raw)).Seconds()
		b.take(&s)
	}
	_, _, y, sdy := b.estimate()
	return Frequency{y, sdy}
}
