package timesync

import (
	"fmt"
	"math"
	"time"

	"ntsclient/timesync/report"
)

// StepPolicy says when the clock may be stepped.
type StepPolicy string

// The policies, as the configuration names them.
const (
	StepAlways StepPolicy = "always"
	StepFirst  StepPolicy = "first" // only the first correction after boot
	StepNever  StepPolicy = "never"
)

// Limits are what may be done to the clock.
type Limits struct {
	StepAbove time.Duration // smaller offsets are slewed
	MaxStep   time.Duration // larger ones are refused
	Step      StepPolicy
	Bootstrap int  // operators that must agree on a first correction over MaxStep
	Loop      bool // that can be told other limits, and not a run that is soon over
}

// finding is what is known when a correction is decided.
type finding struct {
	offset, uncertainty time.Duration
	operators           int  // that agree
	first               bool // nothing has set the kernel's clock since boot
	bootstrapped        bool // agreed on with dates deferred
}

// Decision is what to do about an offset, and why.
type Decision struct {
	Action  report.Action
	Refused bool
	Code    string // where refused, or where Action is not the ordinary one
	Reason  string
}

// slewLimit is what the kernel takes at once, in microseconds of 32 bits.
const slewLimit = math.MaxInt32 * time.Microsecond

// decide chooses between step, slew and nothing.
func (l *Limits) decide(f finding) Decision {
	size := f.offset.Abs()
	if size > l.MaxStep {
		if reason := l.tooLarge(f); reason != "" {
			return Decision{Action: report.None, Refused: true, Code: "exceeds_max_step", Reason: reason}
		}
	}
	large := size > max(l.StepAbove, f.uncertainty)
	slewed := l.Step == StepNever || l.Step == StepFirst && !f.first && !f.bootstrapped
	switch {
	case large && slewed && size > slewLimit:
		return Decision{
			Action: report.None, Refused: true, Code: "exceeds_slew",
			Reason: fmt.Sprintf("the correction of %s would take %.0f days to slew; `[clock] step = \"always\"` allows to step it",
				inWords(f.offset), size.Hours()/24*2000),
		}
	case l.Step == StepNever && (large || f.first):
		return Decision{Action: report.Slew, Code: "step_never", Reason: "slewed, as `[clock] step` says \"never\""}
	case f.first: // what waits for a synchronized clock is woken by its being set
		return Decision{Action: report.Step, Code: "first_correction", Reason: "the first correction since boot is a step"}
	case large && l.Step == StepFirst && !f.bootstrapped:
		return Decision{Action: report.Slew, Code: "step_first", Reason: "slewed, as `[clock] step` says \"first\""}
	case large:
		return Decision{Action: report.Step}
	}
	return Decision{Action: report.Slew}
}

// tooLarge is why a correction over MaxStep is refused, with the mend; empty
// if it is not.
func (l *Limits) tooLarge(f finding) string {
	exceeds := fmt.Sprintf("correction of %s exceeds max_step (%v)", inWords(f.offset), l.MaxStep)
	switch {
	case !f.bootstrapped && !f.first:
		if l.Loop {
			return "the " + exceeds + "; set the clock by hand, or raise `[clock] max_step` and reload"
		}
		return "the " + exceeds + "; `--max-step` allows more for once"
	case f.operators < l.Bootstrap:
		return fmt.Sprintf("the first %s, and %d of the %d operators needed for that agree; "+
			"add servers of other operators, or accept fewer with `[bootstrap] min_operators = %d`",
			exceeds, f.operators, l.Bootstrap, f.operators)
	case l.Step == StepNever: // at 500 µs/s that would never end
		return "the first " + exceeds + " and cannot be slewed; `[clock] step = \"first\"` allows to step it"
	}
	return ""
}

// inWords is a duration as people say it: days and years where it is long.
func inWords(d time.Duration) string {
	const dayLength = 24 * time.Hour
	switch size := d.Abs(); {
	case size >= 730*dayLength:
		return fmt.Sprintf("%.1f years", d.Hours()/24/365.25)
	case size >= 3*dayLength:
		return fmt.Sprintf("%.1f days", d.Hours()/24)
	}
	return d.Round(time.Millisecond).String()
}
