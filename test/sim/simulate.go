package main

import (
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"time"

	"ntsclient/timesync"
	"ntsclient/timesync/report"
)

// limits are the configuration's defaults.
var limits = timesync.Limits{
	StepAbove: 100 * time.Millisecond, MaxStep: 15 * time.Minute, Step: timesync.StepAlways, Bootstrap: 3,
}

// recorder makes figures of a clock's errors, second by second.
type recorder struct {
	half        float64
	last        float64
	squares     float64 // of errors
	frequencies float64 // of frequency errors, squared
	n           float64
	settled     float64
}

func (r *recorder) each(t, e float64) {
	if math.Abs(e) > 1e-3 {
		r.settled = t
	}
	if t > r.half {
		r.squares += e * e
		r.frequencies += (e - r.last) * (e - r.last)
		r.n++
	}
	r.last = e
}

// simulate runs the loop in a world once. trace may be nil.
func simulate(w *world, seed uint64, trace func(t, clockError float64)) figures {
	m := newMachine(w, seed)
	r := &recorder{half: w.length / 2}
	m.each = r.each
	if trace != nil {
		m.each = func(t, e float64) { r.each(t, e); trace(t, e) }
	}
	loop := timesync.NewLoop(timesync.LoopConfig{
		Limits: limits, MinOperators: min(w.servers, 2), MinPoll: minPoll, MaxPoll: w.maxPoll,
		Random: rand.New(rand.NewPCG(seed, 2)).Float64,
	}, w.known)
	var measured []timesync.Measured
	packets, first := 0.0, true
	for m.t < w.length {
		if m.t > r.half {
			packets++
		}
		measured = m.ask(measured[:0])
		o := loop.Round(timesync.Situation{Moment: m.moment(), First: first}, measured)
		first = first && o.Decision.Action == ""
		m.steer(&o)
		m.advance(min(m.t+o.Wait.Seconds(), w.length))
	}
	return figures{
		time: math.Sqrt(r.squares / r.n), frequency: math.Sqrt(r.frequencies / r.n),
		packets: packets, settled: r.settled,
	}
}

// simulateOneShot corrects the clock every hour, and what else is known of it
// are the pairs that the runs leave.
func simulateOneShot(w *world, seed uint64) figures {
	m := newMachine(w, seed)
	var crystal timesync.Crystal
	var measured []timesync.Measured
	var f figures
	for run := 1; m.t < w.length; run++ {
		measured = m.ask(measured[:0])
		a := measured[0]
		votes := []timesync.Vote{{Operator: a.Operator, Offset: a.Offset, Uncertainty: a.Uncertainty}}
		agreed, outcomes, err := timesync.Select(votes, 1)
		if err != nil || outcomes[0].Verdict != report.ServerAgreed {
			panic("a single server is always agreed on")
		}
		if run >= 5 {
			f.worst = max(f.worst, math.Abs(agreed.Offset.Seconds()), math.Abs(m.clockError()))
		}
		frequency, usable := crystal.Learn(timesync.AgreedTime{
			Time: time.Unix(0, 0).Add(a.Raw + a.Correction + agreed.Offset), Uncertainty: agreed.Uncertainty,
			BootID: "boot", Raw: a.Raw,
		})
		if usable {
			m.rate = quantized(frequency.Rate)
			m.base = m.rate
		}
		m.correction += agreed.Offset.Seconds() // a slew is long done by the next run
		m.advance(m.t + 3600)
	}
	return f
}

// many runs a scenario with each seed, on all processors, and returns the root
// of the mean squares over the seeds; of settled the median, of worst the worst.
func many(s *scenario, from, to uint64) figures {
	all := make([]figures, to-from+1)
	var wg sync.WaitGroup
	for p := range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for i := p; i < len(all); i += runtime.GOMAXPROCS(0) {
				if s.oneShot {
					all[i] = simulateOneShot(&s.world, from+uint64(i))
				} else {
					all[i] = simulate(&s.world, from+uint64(i), nil)
				}
			}
		})
	}
	wg.Wait()
	var f figures
	var settled []float64
	n := float64(len(all))
	for _, o := range all {
		f.time += o.time * o.time / n
		f.frequency += o.frequency * o.frequency / n
		f.packets += o.packets / n
		f.worst = max(f.worst, o.worst)
		settled = append(settled, o.settled)
	}
	slices.Sort(settled)
	f.time, f.frequency, f.settled = math.Sqrt(f.time), math.Sqrt(f.frequency), settled[len(settled)/2]
	return f
}

// misses says which figures are over their targets, slack times.
func (f figures) misses(target figures, slack float64) (missed []string) {
	check := func(what string, value, most, unit float64, name string) {
		if most > 0 && !(value <= most*slack) {
			missed = append(missed, what+" "+number(value/unit)+" "+name+", at most "+number(most*slack/unit))
		}
	}
	check("time", f.time, target.time, us, "µs")
	check("frequency", f.frequency, target.frequency, ppb, "ppb")
	check("packets", f.packets, target.packets, 1, "")
	check("settled", f.settled, target.settled, 1, "s")
	check("worst", f.worst, target.worst, us, "µs")
	return missed
}

func number(f float64) string { return strconv.FormatFloat(f, 'f', 1, 64) }
