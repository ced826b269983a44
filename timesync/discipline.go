package timesync

import (
	"fmt"
	"math"
	"slices"
	"time"

	"ntsclient/timesync/report"
)

// The discipline keeps a clock right: from measurements over time it estimates
// what must be added to the clock, and how fast it would run, and says how to
// steer it. It is arithmetic alone: time comes in as numbers, and nothing here
// reads a clock, sleeps or logs.
//
// All is estimated in the raw timescale, that of CLOCK_MONOTONIC_RAW: the clock
// is the raw clock plus a correction, which is read at each stamp, and what is
// looked for is the correction that would make it right. So steps and slews,
// by anyone, disturb nothing of what has been learned.
//
//	kalman.go      one filter: predict, and two kinds of samples
//	bank.go        eight of them, and their mixture
//	path.go        per server: delays, how good a sample is, bias
//	discipline.go  a round: select, filter, decide, steer
//	poll.go        when to ask next

// Moment is a reading of the clocks.
type Moment struct {
	Raw        time.Duration // CLOCK_MONOTONIC_RAW
	Correction time.Duration // CLOCK_REALTIME (since 1970) − Raw
}

// Measured is one server's answer, authenticated and fit to vote.
type Measured struct {
	Server   string // its name, the same in every round
	Operator string
	// As in a Vote, when the exchange was; and its round trip without the
	// time that it spent in the server.
	Offset, Uncertainty, Delay time.Duration
	// Means of the readings at its first and its last stamp.
	Moment
}

// Frequency is the rate of the correction that makes a clock right: what the
// kernel is told as the clock's frequency. Where nothing is known it is zero.
type Frequency struct {
	Rate        float64 `json:"rate"`        // s/s; 1e-6 is 1 ppm, and the crystal that much slow
	Uncertainty float64 `json:"uncertainty"` // its standard deviation; 0: nothing is known
}

// LoopConfig is what a Loop is told.
type LoopConfig struct {
	Limits
	MinOperators     int
	MinPoll, MaxPoll time.Duration
	Random           func() float64 // in [0, 1), for the random part of the intervals
}

// Situation is what else a decision depends on.
type Situation struct {
	Moment
	First        bool // nothing has set the kernel's clock since boot
	Bootstrapped bool // this round's servers were agreed on with dates deferred
}

// Estimate is what is known of the clock at one moment.
type Estimate struct {
	Offset, Deviation time.Duration // to be added to the clock, and its standard deviation
	Frequency         Frequency     // of the correction
}

// Orders are what to do with the clock, and what they follow from.
//
// First Step is added to the clock. Then the correction grows by Rate, until
// the raw clock reads Until, and by Base from then on: with a kernel, these are
// its frequency. Orders stand for themselves: those before are void.
type Orders struct {
	Decision   Decision // where Refused, the clock is held: nothing but Base
	Step       time.Duration
	Rate, Base float64 // s/s
	Until      time.Duration

	Wait time.Duration // until the next round, with a random part
	Poll time.Duration // the interval without

	Before    Estimate  // of the clock as it was
	Consensus Consensus // of the offsets now; empty where Err is set
	Outcomes  []Outcome // of the answers, in their order
	Err       error     // why nothing was learned; what was ordered before goes on
}

const (
	// maxRate is what a kernel takes, and maxSlew what is used of it, so that
	// clients that poll this one can follow.
	maxRate = 500e-6
	maxSlew = 400e-6
	// settling is how long the clock is corrected within one poll, and calm
	// over what time it is at least after that, unless it is wrong beyond
	// doubt: a little time error for a quiet frequency.
	settling = 1000 * time.Second
	calm     = 128 * time.Second
	beyond   = 4.0 // standard deviations
	// An agreement that is so many standard deviations off all that is known
	// is believed when it was seen so many times running.
	absurd  = 6.0
	believe = 3
	// unlearned is what a crystal may be off, and aged what it may have
	// changed by while nobody looked, s/s.
	unlearned = 100e-6
	aged      = 1e-6
	// unheard is for how long a server is remembered.
	unheard = 24 * time.Hour
)

// errAbsurd is an agreement that is not believed yet.
const errAbsurd = disagreement("the servers agree on a time that cannot be after all that was measured before; asked again")

// Loop is the discipline of one clock. One goroutine uses it. What it needs of
// memory is fixed, and 4 KiB for each server.
type Loop struct {
	cfg   LoopConfig
	known Frequency

	begun  bool
	since  time.Duration // raw clock, when it began
	at     time.Duration // raw clock, the bank's present
	origin time.Duration // correction that the bank counts x from
	bank   bank
	paths  map[string]*path
	order  []*path // the same, as first heard: sums in any order would differ
	absurd int     // agreements running that were

	rate, base float64 // as ordered
	until      time.Duration

	schedule
	votes   []Vote
	samples []sample
	biases  []float64
}

// NewLoop begins with what is known of the clock's frequency.
func NewLoop(cfg LoopConfig, known Frequency) *Loop {
	l := &Loop{cfg: cfg, paths: map[string]*path{}}
	l.learned(known)
	l.base = l.known.Rate
	l.rate = l.base
	return l
}

// learned makes f what is known beforehand.
func (l *Loop) learned(f Frequency) {
	if !(f.Uncertainty > 0 && f.Uncertainty <= unlearned && math.Abs(f.Rate) <= maxRate) {
		f = Frequency{Uncertainty: unlearned}
	}
	l.known = Frequency{f.Rate, max(f.Uncertainty, aged)}
}

// Forget drops all that was measured but the frequency: after a suspend, or on
// another network. After a step by others nothing needs to be forgotten.
func (l *Loop) Forget() {
	l.restart()
	l.rate = l.base
	clear(l.paths)
	l.order = nil
}

// restart begins anew with the next agreement, with the frequency as known.
func (l *Loop) restart() {
	l.learned(l.Frequency())
	l.begun, l.absurd, l.schedule = false, 0, schedule{}
}

// Leap tells of a leap second that the clock and the servers have just made:
// from now on true time is d, that is -1 s for an inserted one, further on.
func (l *Loop) Leap(d time.Duration) { l.bank.shift(d.Seconds()) }

// Frequency is what was learned, to be kept.
func (l *Loop) Frequency() Frequency {
	if !l.begun {
		return l.known
	}
	_, _, y, sdy := l.bank.estimate()
	return Frequency{y, sdy}
}

// Round takes the answers of one round, and says what to do. Without answers
// it must be called, too: the orders then say when to try again.
func (l *Loop) Round(now Situation, measured []Measured) Orders {
	var o Orders
	o.Consensus, o.Outcomes, o.Err = Select(l.ballots(now.Moment, measured), l.cfg.MinOperators)
	if o.Err == nil && l.contradicts(now.Moment, &o.Consensus) {
		o.Err = errAbsurd
	}
	if o.Err != nil {
		l.goOn(now.Raw)
		o.Before = l.estimate(now.Moment)
		o.Poll = l.missed(&l.cfg)
		if o.Err == errAbsurd {
			o.Poll = min(startInterval, l.cfg.MinPoll)
		}
	} else {
		l.learn(now.Moment, measured, o.Outcomes, &o.Consensus)
		o.Before = l.estimate(now.Moment)
		surprised := o.Before.Offset.Abs().Seconds() > surprise*o.Before.Deviation.Seconds()
		o.Poll = l.answered(&l.cfg, &l.bank, l.usual(), surprised)
		l.decide(now, &o)
	}
	o.Rate, o.Base, o.Until = l.rate, l.base, l.until
	o.Wait = spread(o.Poll, l.cfg.Random())
	return o
}

// ballots are the answers as votes about the clock as it is now.
func (l *Loop) ballots(now Moment, measured []Measured) []Vote {
	l.votes = l.votes[:0]
	for i := range measured {
		m := &measured[i]
		age := saturatedGap(m.Raw, now.Raw).Abs().Seconds()
		l.votes = append(l.votes, Vote{
			Operator:    m.Operator,
			Offset:      saturatedSum(m.Offset, saturatedGap(now.Correction, m.Correction)),
			Uncertainty: saturatedSum(m.Uncertainty, nanoseconds(age*drift*1e9)),
		})
	}
	return l.votes
}

// contradicts tells whether the agreement is to be doubted: it lies far off
// all that is known. Should it stay, it is what was known that is wrong, and
// the loop begins anew.
func (l *Loop) contradicts(now Moment, c *Consensus) bool {
	if !l.begun {
		return false
	}
	e := l.estimate(now)
	far := nanoseconds(absurd * float64(e.Deviation))
	if c.Lo <= saturatedSum(e.Offset, far) && c.Hi >= saturatedSum(e.Offset, -far) {
		l.absurd = 0
		return false
	}
	if l.absurd++; l.absurd < believe {
		return true
	}
	l.restart()
	return false
}

// estimate is what is known of the clock now.
func (l *Loop) estimate(now Moment) Estimate {
	if !l.begun {
		return Estimate{Frequency: l.known}
	}
	b := l.bank
	b.predict(max((now.Raw - l.at).Seconds(), 0))
	x, sdx, y, sdy := b.estimate()
	offset := saturatedGap(saturatedGap(l.origin, now.Correction), nanoseconds(x*1e9))
	return Estimate{offset, nanoseconds(sdx * 1e9), Frequency{y, sdy}}
}

// learn feeds the agreeing servers' samples to the bank.
func (l *Loop) learn(now Moment, measured []Measured, outcomes []Outcome, c *Consensus) {
	if !l.begun {
		l.begin(now, c)
	}
	l.rebase()
	if d := (now.Raw - l.at).Seconds(); d > 0 {
		l.bank.predict(d)
		l.at = now.Raw
	}
	l.samples = l.samples[:0]
	for i := range measured {
		if outcomes[i].Verdict != report.ServerAgreed {
			continue
		}
		m := &measured[i]
		p := l.paths[m.Server]
		if p == nil {
			p = &path{server: m.Server}
			l.paths[m.Server] = p
			l.order = append(l.order, p)
		}
		p.heard = now.Raw
		s := p.sample(max(m.Delay.Seconds(), 0))
		s.age = (l.at - m.Raw).Seconds()
		s.z = saturatedSum(saturatedGap(l.origin, m.Correction), m.Offset).Seconds() - p.bias
		l.bank.take(&s)
		s.z += p.bias
		l.samples = append(l.samples, s)
	}
	l.compare(measured, outcomes)
}

// begin is the first agreement.
func (l *Loop) begin(now Moment, c *Consensus) {
	l.begun = true
	l.since, l.at, l.origin = now.Raw, now.Raw, now.Correction
	u := max(c.Uncertainty.Seconds(), 1e-6)
	l.bank.start(c.Offset.Seconds(), u, l.known.Rate, l.known.Uncertainty)
}

// rebase moves the origin where x has become large, after a step of years: a
// float64 would round it.
func (l *Loop) rebase() {
	x, _, _, _ := l.bank.estimate()
	if math.Abs(x) > 1 {
		d := nanoseconds(math.Round(x) * 1e9)
		l.bank.shift(-d.Seconds())
		l.origin = saturatedSum(l.origin, d)
	}
}

// compare learns the servers' biases against the estimate. Their median is
// taken out: it would be the estimate's own. (The mean would follow a single
// server whose time runs away.) Servers long unheard of are forgotten.
func (l *Loop) compare(measured []Measured, outcomes []Outcome) {
	x, _, y, _ := l.bank.estimate()
	n := 0
	for i := range measured {
		if outcomes[i].Verdict == report.ServerAgreed {
			s := &l.samples[n]
			l.paths[measured[i].Server].compare(s, s.z+y*s.age-x)
			n++
		}
	}
	l.order = slices.DeleteFunc(l.order, func(p *path) bool {
		if l.at-p.heard <= unheard {
			return false
		}
		delete(l.paths, p.server)
		return true
	})
	if len(l.order) == 0 {
		return
	}
	l.biases = l.biases[:0]
	for _, p := range l.order {
		l.biases = append(l.biases, p.bias)
	}
	slices.Sort(l.biases)
	common := (l.biases[(len(l.biases)-1)/2] + l.biases[len(l.biases)/2]) / 2
	for _, p := range l.order {
		p.bias -= common
	}
}

// usual is the mean of the servers' usual excess delays, s.
func (l *Loop) usual() float64 {
	var sum float64
	for _, p := range l.order {
		sum += p.usual()
	}
	return sum / float64(max(len(l.order), 1))
}

// decide turns the estimate into a step or a slew.
func (l *Loop) decide(now Situation, o *Orders) {
	// What is agreed on is certain, what was estimated only probable.
	offset := min(max(o.Before.Offset, o.Consensus.Lo), o.Consensus.Hi)
	o.Decision = l.cfg.decide(finding{
		offset: offset, uncertainty: o.Consensus.Uncertainty, operators: o.Consensus.Operators,
		first: now.First, bootstrapped: now.Bootstrapped,
	})
	l.until = now.Raw
	if o.Decision.Refused {
		o.Decision.Reason = "held: " + o.Decision.Reason
		l.rate = l.base
		return
	}
	l.base = min(max(o.Before.Frequency.Rate, -maxRate), maxRate)
	l.rate = l.base
	if o.Decision.Action == report.Step {
		o.Step = offset
		return
	}
	e := offset.Seconds()
	span := o.Poll
	if now.Raw-l.since > settling && math.Abs(e) < beyond*o.Before.Deviation.Seconds() {
		span = max(span, calm)
	}
	seconds := max(span.Seconds(), math.Abs(e)/maxSlew)
	l.rate = min(max(l.base+e/seconds, -maxRate), maxRate)
	l.until = saturatedSum(now.Raw, nanoseconds(seconds*1e9))
}

// goOn keeps what was ordered, where nothing was learned.
func (l *Loop) goOn(raw time.Duration) {
	if raw >= l.until {
		l.rate, l.until = l.base, raw
	}
}

// String is the frequency for people.
func (f Frequency) String() string {
	return fmt.Sprintf("%+.3f ± %.3f ppm", f.Rate*1e6, f.Uncertainty*1e6)
}
