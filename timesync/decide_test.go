package timesync

import (
	"strings"
	"testing"
	"time"

	"ntsclient/timesync/report"
)

func TestDecide(t *testing.T) {
	const year = 365 * 24 * time.Hour
	usual := Limits{StepAbove: 100 * ms, MaxStep: 15 * time.Minute, Step: StepAlways, Bootstrap: 3}
	first := Limits{StepAbove: 100 * ms, MaxStep: 15 * time.Minute, Step: StepFirst, Bootstrap: 3}
	never := Limits{StepAbove: 100 * ms, MaxStep: 15 * time.Minute, Step: StepNever, Bootstrap: 3}
	wide := Limits{StepAbove: 100 * ms, MaxStep: 100 * year, Step: StepNever, Bootstrap: 3}
	day := finding{uncertainty: 10 * ms, operators: 4}
	of := func(f finding, offset time.Duration, edit ...func(*finding)) finding {
		f.offset = offset
		for _, e := range edit {
			e(&f)
		}
		return f
	}
	boot := func(f *finding) { f.first = true }
	bootstrapped := func(f *finding) { f.bootstrapped = true }
	operators := func(n int) func(*finding) { return func(f *finding) { f.operators = n } }
	vague := func(f *finding) { f.uncertainty = 300 * ms }

	for _, c := range []struct {
		name   string
		limits Limits
		f      finding
		action report.Action
		code   string
		reason string // a part
	}{
		{"small", usual, of(day, 20*ms), report.Slew, "", ""},
		{"small, fast", usual, of(day, -20*ms), report.Slew, "", ""},
		{"nothing", usual, of(day, 0), report.Slew, "", ""},
		{"at step_above", usual, of(day, 100*ms), report.Slew, "", ""},
		{"over step_above", usual, of(day, 100*ms+1), report.Step, "", ""},
		{"over step_above, fast", usual, of(day, -100*ms-1), report.Step, "", ""},
		{"over step_above, not over the uncertainty", usual, of(day, 300*ms, vague), report.Slew, "", ""},
		{"over both", usual, of(day, 301*ms, vague), report.Step, "", ""},
		{"at max_step", usual, of(day, 15*time.Minute), report.Step, "", ""},
		{"over max_step", usual, of(day, 15*time.Minute+1), report.None, "exceeds_max_step", "the correction of 15m0s exceeds max_step (15m0s); `--max-step` allows more for once"},
		{"over max_step, fast", usual, of(day, -10*24*time.Hour), report.None, "exceeds_max_step", "-10.0 days"},
		{"many operators do not help after the first", usual, of(day, year, operators(9)), report.None, "exceeds_max_step", "365.0 days"},

		{"the first, however small", usual, of(day, 1, boot), report.Step, "first_correction", "since boot"},
		{"the first over max_step", usual, of(day, 56*year, boot), report.Step, "first_correction", ""},
		{"the first over max_step, at bootstrap.min_operators", usual, of(day, -56*year, boot, operators(3)), report.Step, "first_correction", ""},
		{
			"the first over max_step, with too few", usual, of(day, 10*year, boot, operators(2)), report.None, "exceeds_max_step",
			"the first correction of 10.0 years exceeds max_step (15m0s), and 2 of the 3 operators needed for that agree; " +
				"add servers of other operators, or accept fewer with `[bootstrap] min_operators = 2`",
		},
		{"the first within max_step, with few", usual, of(day, time.Minute, boot, operators(1)), report.Step, "first_correction", ""},
		{"bootstrapped on a clock that the kernel calls synchronized", usual, of(day, 56*year, bootstrapped), report.Step, "", ""},
		{"bootstrapped", usual, of(day, 56*year, bootstrapped, boot), report.Step, "first_correction", ""},

		{"step first: the first", first, of(day, time.Second, boot), report.Step, "first_correction", ""},
		{"step first: later", first, of(day, time.Second), report.Slew, "step_first", "`[clock] step` says \"first\""},
		{"step first: later, small", first, of(day, 20*ms), report.Slew, "", ""},
		{"step first: bootstrapped", first, of(day, 56*year, bootstrapped), report.Step, "", ""},
		{"step first: over max_step", first, of(day, year), report.None, "exceeds_max_step", "--max-step"},

		{"step never: more than can be slewed", wide, of(day, time.Hour), report.None, "exceeds_slew", "the correction of 1h0m0s would take 83 days to slew"},
		{"step never: years", wide, of(day, 56*year, boot), report.None, "exceeds_slew", "56.0 years"},
		{"step never: small", never, of(day, 20*ms), report.Slew, "", ""},
		{"step never: large", never, of(day, time.Second), report.Slew, "step_never", "`[clock] step` says \"never\""},
		{"step never: the first", never, of(day, 20*ms, boot), report.Slew, "step_never", ""},
		{
			"step never: what would be slewed for ever", never, of(day, 56*year, boot, bootstrapped), report.None, "exceeds_max_step",
			"cannot be slewed; `[clock] step = \"first\"` allows to step it",
		},
	} {
		d := c.limits.decide(c.f)
		if d.Action != c.action || d.Code != c.code || !strings.Contains(d.Reason, c.reason) {
			t.Errorf("%s: %+v", c.name, d)
		}
		if d.Refused != (c.action == report.None) || (d.Code == "") != (d.Reason == "") {
			t.Errorf("%s: %+v", c.name, d)
		}
	}
}

func TestInWords(t *testing.T) {
	const dayLength = 24 * time.Hour
	for d, want := range map[time.Duration]string{
		1234567 * time.Nanosecond: "1ms",
		-90 * time.Second:         "-1m30s",
		71 * time.Hour:            "71h0m0s",
		3 * dayLength:             "3.0 days",
		-400 * dayLength:          "-400.0 days",
		time.Duration(56 * 365.25 * 24 * 3600 * 1e9):  "56.0 years",
		-time.Duration(10 * 365.25 * 24 * 3600 * 1e9): "-10.0 years",
	} {
		if got := inWords(d); got != want {
			t.Errorf("%v: %s, want %s", d, got, want)
		}
	}
}
