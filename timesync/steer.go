package timesync

import (
	"fmt"
	"time"

	"ntsclient/timesync/report"
)

const (
	// suspendLeast is how long a suspend must have been to be one, and jumpLeast
	// and jumpDrift (s/s) how far a clock must be from where it was left to be
	// one that was set by others.
	suspendLeast = 100 * time.Millisecond
	jumpLeast    = time.Millisecond
	jumpDrift    = 10e-6
)

func (k *keeper) now() (m Moment, err error) {
	m.Raw, m.Correction, err = k.clock.Now()
	return m, err
}

// obey does what was decided with an agreed time.
func (k *keeper) obey(r *round, o *Orders) error {
	if err := k.meddling(); err != nil {
		return err
	}
	maxError, estError := max(o.Consensus.Lo.Abs(), o.Consensus.Hi.Abs()), o.Before.Offset.Abs()+o.Before.Deviation
	if o.Decision.Action == report.Step {
		maxError = max(saturatedGap(o.Consensus.Lo, o.Step).Abs(), saturatedGap(o.Consensus.Hi, o.Step).Abs())
		estError = o.Before.Deviation
		if err := k.clock.Step(o.Step, maxError, min(estError, maxError)); err != nil {
			return fmt.Errorf("correcting the clock: %w", err)
		}
		if !k.DryRun {
			k.steps++
		}
	}
	k.orders = *o
	if err := k.steer(o.Rate); err != nil {
		return err
	}
	k.slewed.Stop()
	if o.Rate != o.Base {
		k.slewed.Reset(o.Until - k.mark.Raw)
	}
	if o.Decision.Refused { // what the kernel believes of its error grows meanwhile
		return nil
	}
	if leap := r.leap(); leap != k.leap {
		k.leap = leap
		k.Log.Info("leap second at the end of this day, as most servers say", "seconds", leap)
	}
	if err := k.clock.Declare(maxError, min(estError, maxError), k.leap); err != nil {
		return fmt.Errorf("correcting the clock: %w", err)
	}
	// From now on it is right, and dates can be told by it.
	k.settled = true
	if !k.DryRun {
		k.first, k.doubt = false, false
	}
	return nil
}

// steer sets the clock's frequency, and notes from where it runs like that.
func (k *keeper) steer(rate float64) error {
	if err := k.clock.Steer(rate); err != nil {
		return fmt.Errorf("correcting the clock: %w", err)
	}
	k.steered = true
	return k.remark()
}

func (k *keeper) remark() (err error) {
	if k.rate, err = k.clock.Rate(); err != nil { // in a dry run it is what others made it
		return err
	}
	k.mark, err = k.now()
	return err
}

// endSlew lets the clock run at its base frequency again.
func (k *keeper) endSlew() error {
	if err := k.meddling(); err != nil {
		return err
	}
	return k.steer(k.orders.Base)
}

// meddling says, once, that another program steers the clock.
func (k *keeper) meddling() error {
	what, err := k.clock.Interference()
	if err != nil {
		return err
	}
	if what != "" && k.meddled == "" {
		k.Log.Warn("another program is steering the clock; only one can keep it right", "found", what)
	}
	k.meddled = what
	return nil
}

// changed finds out what happened to the clock, and tells whether to measure at
// once. Most often it was this loop that set it.
func (k *keeper) changed() (measure bool, err error) {
	if resumed, err := k.resumed(); resumed || err != nil {
		return resumed, err
	}
	now, err := k.now()
	if err != nil {
		return false, err
	}
	passed := (now.Raw - k.mark.Raw).Seconds()
	jump := now.Correction - k.mark.Correction - nanoseconds(k.rate*passed*1e9)
	leap := -time.Duration(k.leap) * time.Second
	within := jumpLeast + nanoseconds(jumpDrift*passed*1e9)
	switch {
	case jump.Abs() <= within:
		return false, nil
	case leap != 0 && (jump-leap).Abs() <= within:
		k.Log.Info("the clock made the leap second", "by", jump)
		k.leap = 0
		k.loop.Leap(leap)
	default:
		// At once, but ever more rarely where somebody does it all the time.
		since := time.Since(k.disturbed)
		if rest := k.calm - since; rest > 0 {
			k.next.Reset(rest)
			return false, k.remark()
		}
		if since > 2*k.Policy.MinPoll {
			k.calm = 0
		}
		k.disturbed, k.calm = time.Now(), min(max(2*k.calm, startInterval), k.Policy.MinPoll)
		// Samples hold: they are of the raw clock, which nobody sets.
		k.Log.Warn("the clock was set by another program", "by", report.Offset(jump))
	}
	return true, k.remark()
}

// resumed tells whether the machine was suspended. The raw clock stood still
// then, and the network may be another one.
func (k *keeper) resumed() (bool, error) {
	total, err := k.clock.Suspended()
	if err != nil {
		return false, err
	}
	d := total - k.suspended
	k.suspended = total
	if d < suspendLeast {
		return false, nil
	}
	k.Log.Info("resumed; what was measured before is forgotten", "suspended", d.Round(time.Second))
	k.loop.Forget()
	return true, k.remark()
}

// leap is what most of the agreeing servers say of the end of this day: a
// second more, or less, if it is the last of a month.
func (r *round) leap() int {
	agreed, says := 0, [4]int{}
	for i, m := range r.measured {
		if r.ballots[i].out.Verdict == report.ServerAgreed {
			agreed++
			says[m.sample.Leap&3]++
		}
	}
	tomorrow := r.now.Add(r.Offset).UTC().AddDate(0, 0, 1)
	switch {
	case tomorrow.Day() != 1:
	case 2*says[1] > agreed:
		return 1
	case 2*says[2] > agreed:
		return -1
	}
	return 0
}
