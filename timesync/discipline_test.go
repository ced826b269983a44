package timesync

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"testing"
	"time"

	"ntsclient/timesync/report"
)

// bench is a clock and a loop that steers it. Time is exact, and so are the
// networks, but for what a test adds.
type bench struct {
	t          *testing.T
	loop       *Loop
	epoch      time.Duration
	now        float64 // true time since epoch, s
	frequency  float64 // of the raw clock; 0: it is true
	raw        float64 // s
	correction time.Duration
	fraction   float64 // of the correction, ns
	first      bool
	servers    []fakeServer
	last       Orders
}

type fakeServer struct {
	name     string
	off      time.Duration // its error
	up, down time.Duration // delays
	silent   bool
}

func newBench(t *testing.T, servers int, known Frequency) *bench {
	b := &bench{t: t, first: true}
	b.loop = NewLoop(LoopConfig{
		Limits:       Limits{StepAbove: 100 * time.Millisecond, MaxStep: 15 * time.Minute, Step: StepAlways, Bootstrap: 3},
		MinOperators: min(servers, 2), MinPoll: 64 * time.Second, MaxPoll: 64 * time.Second,
		Random: func() float64 { return 0.5 },
	}, known)
	for i := range servers {
		b.servers = append(b.servers, fakeServer{name: fmt.Sprint("server", i), up: 5 * time.Millisecond, down: 5 * time.Millisecond})
	}
	return b
}

func (b *bench) moment() Moment {
	return Moment{Raw: time.Duration(math.Round(b.raw * 1e9)), Correction: b.correction + time.Duration(math.Round(b.fraction))}
}

// offset is what must be added to the clock.
func (b *bench) offset() time.Duration {
	m := b.moment()
	return b.epoch + time.Duration(math.Round(b.now*1e9)) - m.Raw - m.Correction
}

// answers are the servers' as of now.
func (b *bench) answers() []Measured {
	var all []Measured
	for _, s := range b.servers {
		if s.silent {
			continue
		}
		all = append(all, Measured{
			Server: s.name, Operator: s.name, Moment: b.moment(),
			Offset: b.offset() + s.off + (s.up-s.down)/2, Delay: s.up + s.down, Uncertainty: (s.up + s.down) / 2,
		})
	}
	return all
}

// round asks once, does as told, and waits.
func (b *bench) round() Orders {
	b.t.Helper()
	o := b.loop.Round(Situation{Moment: b.moment(), First: b.first}, b.answers())
	if notFinite(o.Rate, o.Base) || math.Abs(o.Rate) > 500e-6 || math.Abs(o.Base) > 500e-6 || math.Abs(o.Rate-o.Base) > 400.01e-6 || o.Wait <= 0 || o.Rate != o.Base && o.Until <= b.moment().Raw {
		b.t.Fatalf("impossible orders %+v", o)
	}
	b.first = b.first && (o.Err != nil || o.Decision.Refused)
	b.correction += o.Step
	b.follow(&o, o.Wait.Seconds())
	b.last = o
	return o
}

// follow lets d seconds of the raw clock pass.
func (b *bench) follow(o *Orders, d float64) {
	slew := min(max(o.Until.Seconds()-b.raw, 0), d)
	b.fraction += (o.Rate*slew + o.Base*(d-slew)) * 1e9
	b.raw += d
	b.now += d / (1 + b.frequency)
}

func (b *bench) rounds(n int) Orders {
	b.t.Helper()
	for range n {
		b.round()
	}
	return b.last
}

func within(t *testing.T, what string, got, want, tolerance time.Duration) {
	t.Helper()
	if (got - want).Abs() > tolerance {
		t.Errorf("%s: %v, want %v ± %v", what, got, want, tolerance)
	}
}

func TestLoopStartsFastAndSettles(t *testing.T) {
	b := newBench(t, 1, Frequency{})
	b.frequency, b.correction = 50e-6, -3*time.Second
	var polls []time.Duration
	for range 16 {
		polls = append(polls, b.round().Poll)
	}
	s := time.Second
	want := []time.Duration{2 * s, 2 * s, 2 * s, 2 * s, 2 * s, 2 * s, 2 * s, 4 * s, 8 * s, 16 * s, 32 * s, 64 * s, 64 * s, 64 * s, 64 * s, 64 * s}
	if !reflect.DeepEqual(polls, want) {
		t.Errorf("polls %v, want %v", polls, want)
	}
	o := b.rounds(30)
	within(t, "offset", b.offset(), 0, 5*time.Microsecond)
	if f := o.Before.Frequency; math.Abs(f.Rate+50e-6) > 50e-9 || f.Uncertainty > 1e-6 || f != b.loop.Frequency() && b.loop.Frequency().Uncertainty <= 0 {
		t.Errorf("frequency %v, want -50 ppm", f)
	}
}

func TestLoopStepsAndSlews(t *testing.T) {
	for _, c := range []struct {
		name   string
		policy StepPolicy
		first  bool
		offset time.Duration
		action report.Action
		code   string
	}{
		{"first, small", StepAlways, true, 20 * time.Microsecond, report.Step, "first_correction"},
		{"first, large", StepAlways, true, -time.Hour, report.Step, "first_correction"},
		{"small", StepAlways, false, 50 * time.Millisecond, report.Slew, ""},
		{"large", StepAlways, false, -5 * time.Minute, report.Step, ""},
		{"large, step only first", StepFirst, false, 5 * time.Minute, report.Slew, "step_first"},
		{"large, step never", StepNever, true, -5 * time.Minute, report.Slew, "step_never"},
	} {
		b := newBench(t, 3, Frequency{})
		b.loop.cfg.Step, b.first, b.correction = c.policy, c.first, -c.offset
		o := b.round()
		if o.Decision.Action != c.action || o.Decision.Code != c.code || o.Decision.Refused {
			t.Errorf("%s: %+v", c.name, o.Decision)
		}
		moves := o.Step
		if c.action == report.Slew {
			moves = time.Duration((o.Rate - o.Base) * float64(o.Until-time.Duration(b.raw*1e9)+o.Wait))
		}
		within(t, c.name, moves, c.offset, time.Millisecond)
	}
}

func TestLoopHolds(t *testing.T) {
	b := newBench(t, 4, Frequency{})
	b.frequency = 10e-6
	b.rounds(30)
	base := b.last.Base
	b.correction += time.Hour
	for range 5 {
		o := b.round()
		if !o.Decision.Refused || o.Decision.Code != "exceeds_max_step" || o.Step != 0 || o.Rate != base || o.Base != base {
			t.Fatalf("an hour off: %+v", o)
		}
	}
	within(t, "found", b.last.Before.Offset, -time.Hour, time.Millisecond)
	b.correction -= time.Hour
	if o := b.round(); o.Decision.Refused || o.Step != 0 {
		t.Errorf("back: %+v", o)
	}
	b.correction += time.Hour
	b.loop.cfg.MaxStep = 2 * time.Hour
	if o := b.round(); o.Decision.Action != report.Step {
		t.Errorf("when more is allowed: %+v", o)
	}
	within(t, "offset", b.offset(), 0, time.Millisecond)
}

// What others do to the clock changes nothing of what is known of it.
func TestLoopKnowsStepsOfOthers(t *testing.T) {
	b := newBench(t, 2, Frequency{})
	b.frequency = 30e-6
	b.rounds(40)
	before := b.last.Before
	b.correction += 10 * time.Minute
	o := b.round()
	within(t, "step back", o.Step, -10*time.Minute, 10*time.Microsecond)
	if math.Abs(o.Before.Frequency.Rate-before.Frequency.Rate) > 1e-9 || o.Before.Deviation > 2*before.Deviation {
		t.Errorf("before %+v, after a step by others %+v", before, o.Before)
	}
}

func TestLoopThrowsFalsetickersOut(t *testing.T) {
	b := newBench(t, 4, Frequency{})
	b.servers[2].off = 50 * time.Millisecond
	for range 40 {
		o := b.round()
		if o.Err != nil || o.Outcomes[2].Verdict != report.Falseticker || o.Outcomes[1].Verdict != report.ServerAgreed {
			t.Fatalf("%+v", o)
		}
	}
	within(t, "offset", b.offset(), 0, 2*time.Microsecond)
}

// One operator has one vote, however many servers it runs.
func TestLoopVotesByOperator(t *testing.T) {
	b := newBench(t, 5, Frequency{})
	all := b.answers()
	for i := range all[:3] {
		all[i].Operator, all[i].Offset = "liar", all[i].Offset+time.Second
	}
	o := b.loop.Round(Situation{Moment: b.moment(), First: true}, all)
	if o.Err != nil || o.Outcomes[0].Verdict != report.Falseticker || o.Step.Abs() > time.Millisecond {
		t.Errorf("%+v", o)
	}
}

// Votes are about the clock as it is now: an older answer is carried on, over
// steps, too, and counts for less.
func TestLoopCarriesVotesOn(t *testing.T) {
	b := newBench(t, 2, Frequency{})
	all := b.answers()
	b.raw, b.now, b.correction = b.raw+10, b.now+10, b.correction+time.Second
	o := b.loop.Round(Situation{Moment: b.moment(), First: true}, append(all[:1], b.answers()[1]))
	if o.Err != nil || o.Step != -time.Second || o.Consensus.Operators != 2 {
		t.Errorf("%+v", o)
	}
	votes := b.loop.ballots(b.moment(), all)
	within(t, "uncertainty after 10 s", votes[0].Uncertainty, 6*time.Millisecond, 0)
	within(t, "uncertainty now", votes[1].Uncertainty, 5*time.Millisecond, 0)
}

// Servers that are wrong by a little each have their bias learned: then one of
// them that stays away moves nothing.
func TestLoopLearnsBiases(t *testing.T) {
	b := newBench(t, 3, Frequency{})
	rng := rand.New(rand.NewPCG(7, 8))
	for i, off := range []time.Duration{time.Millisecond, -time.Millisecond, 0} {
		b.servers[i].off = off
	}
	jitter := func() {
		for i := range b.servers {
			b.servers[i].up = 5*time.Millisecond + time.Duration(1e5*rng.ExpFloat64())
			b.servers[i].down = 5*time.Millisecond + time.Duration(1e5*rng.ExpFloat64())
		}
	}
	for range 200 {
		jitter()
		b.round()
	}
	b.servers[0].silent = true
	for range 20 {
		jitter()
		b.round()
		within(t, "offset", b.offset(), 0, 250*time.Microsecond)
	}
}

func TestLoopDoubtsWhatCannotBe(t *testing.T) {
	b := newBench(t, 1, Frequency{})
	b.rounds(40)
	lie := func(d time.Duration) { b.servers[0].off = d }

	lie(time.Second)
	if o := b.round(); !errors.Is(o.Err, ErrNoAgreement) || o.Step != 0 || o.Poll != 2*time.Second {
		t.Errorf("a second off for once: %+v", o)
	}
	lie(0)
	if o := b.round(); o.Err != nil || o.Step != 0 || b.offset().Abs() > time.Microsecond {
		t.Errorf("and back: %+v", o)
	}
	lie(time.Second)
	b.rounds(2)
	if o := b.round(); o.Err != nil || (o.Step-time.Second).Abs() > time.Millisecond {
		t.Errorf("a second off three times: %+v", o)
	}
}

func TestLoopForgets(t *testing.T) {
	b := newBench(t, 2, Frequency{})
	b.frequency = -40e-6
	b.rounds(40)
	f := b.loop.Frequency()
	b.loop.Forget()
	if g := b.loop.Frequency(); g.Rate != f.Rate || g.Uncertainty < f.Uncertainty || g.Uncertainty > 1e-6 {
		t.Errorf("frequency %v became %v", f, g)
	}
	b.raw += 86400 // the raw clock went on by itself; true time did not
	o := b.round()
	if o.Err != nil || o.Poll != 2*time.Second || math.Abs(o.Base-f.Rate) > 1e-9 {
		t.Errorf("%+v", o)
	}
}

// What was saved is good to 1 ppm at best, and what makes no sense counts not.
func TestLoopPrior(t *testing.T) {
	for _, c := range []struct{ known, want Frequency }{
		{Frequency{}, Frequency{0, 100e-6}},
		{Frequency{20e-6, 1e-9}, Frequency{20e-6, 1e-6}},
		{Frequency{20e-6, 5e-6}, Frequency{20e-6, 5e-6}},
		{Frequency{20e-6, 1}, Frequency{0, 100e-6}},
		{Frequency{1, 1e-6}, Frequency{0, 100e-6}},
		{Frequency{math.NaN(), 1e-6}, Frequency{0, 100e-6}},
		{Frequency{0, math.NaN()}, Frequency{0, 100e-6}},
	} {
		l := NewLoop(LoopConfig{Random: func() float64 { return 0 }}, c.known)
		if got := l.Frequency(); got != c.want {
			t.Errorf("%v: %v, want %v", c.known, got, c.want)
		}
	}
	b := newBench(t, 1, Frequency{-100e-6, 1e-6})
	b.frequency = 100e-6
	if o := b.round(); math.Abs(o.Base+100e-6) > 1e-12 {
		t.Errorf("what was saved is not used: %+v", o)
	}
}

// Without answers the clock goes on at its base frequency, and is known worse.
func TestLoopWithoutAnswers(t *testing.T) {
	b := newBench(t, 2, Frequency{})
	b.frequency = 80e-6
	b.rounds(40)
	before := b.last
	b.servers[0].silent, b.servers[1].silent = true, true
	var deviation time.Duration
	for range 9450 { // a week
		o := b.round()
		if o.Err == nil || o.Step != 0 || o.Poll != 64*time.Second || o.Base != before.Base || o.Before.Deviation < deviation {
			t.Fatalf("%+v", o)
		}
		deviation = o.Before.Deviation
	}
	if b.last.Rate != before.Base || deviation < 100*before.Before.Deviation {
		t.Errorf("after a week: rate %v, %+v", b.last.Rate, b.last.Before)
	}
	b.servers[0].silent, b.servers[1].silent = false, false
	b.rounds(20)
	within(t, "offset", b.offset(), 0, 20*time.Microsecond)
}

// A slew that was ordered goes on through a round without answers, to its end
// and no farther.
func TestLoopSlewGoesOn(t *testing.T) {
	b := newBench(t, 1, Frequency{})
	b.rounds(40)
	b.correction -= 40 * time.Millisecond // 100 s at 400 ppm
	o := b.round()
	b.servers[0].silent = true
	next := b.round()
	if o.Rate-o.Base < 399e-6 || next.Rate != o.Rate || next.Until != o.Until {
		t.Errorf("slew %+v, then %+v", o, next)
	}
	if last := b.round(); last.Rate != last.Base {
		t.Errorf("after its end: %+v", last)
	}
	within(t, "offset", b.offset(), 0, 5*time.Microsecond)
}

// Once it has settled, small offsets are made up slowly, and large ones within
// one poll.
func TestLoopIsCalm(t *testing.T) {
	b := newBench(t, 1, Frequency{})
	slew := func(offset time.Duration) time.Duration {
		b.correction -= offset
		now := b.moment().Raw
		return b.round().Until - now
	}
	b.rounds(9)
	within(t, "slew at the start", slew(time.Nanosecond), b.last.Poll, 0)
	b.rounds(40)
	small := b.last.Before.Deviation
	within(t, "a slew that may be noise", slew(small), 128*time.Second, 0)
	b.rounds(10)
	within(t, "a slew that is no noise", slew(time.Millisecond), 64*time.Second, 0)
}

// What is estimated counts within what is agreed on.
func TestLoopStaysWithinTheAgreement(t *testing.T) {
	l := newBench(t, 1, Frequency{}).loop
	for before, want := range map[time.Duration]time.Duration{
		300 * time.Millisecond: 250 * time.Millisecond, 0: 200 * time.Millisecond, 222 * time.Millisecond: 222 * time.Millisecond,
	} {
		o := Orders{
			Before:    Estimate{Offset: before},
			Consensus: Consensus{Lo: 200 * time.Millisecond, Hi: 250 * time.Millisecond, Uncertainty: time.Millisecond},
			Poll:      64 * time.Second,
		}
		l.decide(Situation{}, &o)
		within(t, before.String(), o.Step, want, 0)
	}
}

func TestLoopStartsWithoutAnswers(t *testing.T) {
	b := newBench(t, 1, Frequency{})
	b.servers[0].silent = true
	var polls []time.Duration
	for range 7 {
		polls = append(polls, b.round().Poll/time.Second)
	}
	if want := []time.Duration{2, 4, 8, 16, 32, 64, 64}; !reflect.DeepEqual(polls, want) {
		t.Errorf("polls %v s, want %v", polls, want)
	}
	b.servers[0].silent = false
	if o := b.round(); o.Poll != 2*time.Second || o.Decision.Action != report.Step {
		t.Errorf("the first answer: %+v", o)
	}
}

// From 1970 to now, and then as exact as ever.
func TestLoopBridgesYears(t *testing.T) {
	b := newBench(t, 3, Frequency{})
	b.epoch, b.frequency = 1.8e9*time.Second, 20e-6
	o := b.round()
	within(t, "step", o.Step, 1.8e9*time.Second, time.Millisecond)
	b.rounds(40)
	within(t, "offset", b.offset(), 0, 100*time.Nanosecond)
	within(t, "origin", b.loop.origin, b.moment().Correction, 2*time.Second)
}

// A leap second is no error of the clock.
func TestLoopLeap(t *testing.T) {
	b := newBench(t, 2, Frequency{})
	b.rounds(40)
	b.now--
	b.correction -= time.Second
	b.loop.Leap(-time.Second)
	if o := b.round(); o.Err != nil || o.Step != 0 || o.Before.Offset.Abs() > time.Microsecond {
		t.Errorf("%+v", o)
	}
}

func TestPollAdapts(t *testing.T) {
	b := newBench(t, 1, Frequency{})
	b.loop.cfg.MaxPoll = 1024 * time.Second
	rng := rand.New(rand.NewPCG(9, 10))
	poll := func(n int) (o Orders) {
		for range n {
			b.servers[0].up = 5*time.Millisecond + time.Duration(1e5*rng.ExpFloat64())
			b.servers[0].down = 5*time.Millisecond + time.Duration(1e5*rng.ExpFloat64())
			o = b.round()
		}
		return o
	}
	if o := poll(150); o.Poll < 512*time.Second {
		t.Errorf("a quiet crystal over a noisy network is asked every %v", o.Poll)
	}
	since := b.loop.since
	b.frequency += 2e-6
	if o := poll(2); o.Poll > 256*time.Second {
		t.Errorf("a crystal that jumped is asked again in %v", o.Poll)
	}
	for range 12 { // found out soon, too
		b.frequency += 1e-6 * rng.NormFloat64()
		poll(1)
	}
	if o := poll(1); o.Poll > 128*time.Second || b.loop.since != since {
		t.Errorf("a crystal that jumps is asked only every %v", o.Poll)
	}
}

func TestSpread(t *testing.T) {
	for _, c := range []struct {
		poll         time.Duration
		random       float64
		least, under time.Duration
	}{
		{64 * time.Second, 0, 60 * time.Second, 60*time.Second + 1},
		{64 * time.Second, 0.999, 67 * time.Second, 68 * time.Second},
		{2 * time.Second, 0, 2 * time.Second, 2*time.Second + 1},
		{2 * time.Second, 0.999, 2200 * time.Millisecond, 2250 * time.Millisecond},
		{time.Second, 0, time.Second, time.Second + 1},
	} {
		if got := spread(c.poll, c.random); got < c.least || got >= c.under {
			t.Errorf("spread(%v, %v) = %v", c.poll, c.random, got)
		}
	}
}

// Whatever servers and clocks say, orders stay possible.
func TestLoopHostile(t *testing.T) {
	rng := rand.New(rand.NewPCG(11, 12))
	some := []time.Duration{0, 1, -1, time.Microsecond, time.Millisecond, -time.Second, time.Hour, -87600 * time.Hour, math.MaxInt64, math.MinInt64}
	for _, servers := range []int{1, 3} {
		b := newBench(t, servers, Frequency{})
		var raw time.Duration
		for i := range 20000 {
			raw += time.Duration(rng.ExpFloat64() * float64(some[4+rng.IntN(3)]))
			if rng.IntN(1000) == 0 {
				raw = some[rng.IntN(len(some))]
			}
			at := Moment{raw, some[rng.IntN(len(some))]}
			if rng.IntN(2) == 0 {
				at.Correction = time.Duration(rng.NormFloat64() * 1e6)
			}
			var all []Measured
			for j := range rng.IntN(servers + 1) {
				pick := func() time.Duration { return some[rng.IntN(len(some))] + time.Duration(rng.NormFloat64()*1e6) }
				all = append(all, Measured{fmt.Sprint(j), fmt.Sprint(j), pick(), pick(), pick(), at})
			}
			o := b.loop.Round(Situation{Moment: at, First: rng.IntN(10) == 0}, all)
			e := o.Before.Frequency
			if notFinite(o.Rate, o.Base, e.Rate, e.Uncertainty) || math.Abs(o.Rate) > maxRate || math.Abs(o.Base) > maxRate ||
				o.Wait <= 0 || o.Poll > 64*time.Second || o.Before.Deviation < 0 {
				t.Fatalf("%d servers, round %d: %+v, %v", servers, i, o, o.Before)
			}
			for _, k := range b.loop.bank.filter {
				if notFinite(k.x, k.y, k.pxx, k.pxy, k.pyy) || b.loop.begun && (k.pxx <= 0 || k.pyy <= 0) {
					t.Fatalf("%d servers, round %d: %+v", servers, i, k)
				}
			}
		}
	}
}

func TestLoopIsDeterministic(t *testing.T) {
	one, two := newBench(t, 100, Frequency{}), newBench(t, 100, Frequency{})
	rng := rand.New(rand.NewPCG(13, 14))
	for range 60 {
		for i := range one.servers {
			s := &one.servers[i]
			s.up, s.down = time.Duration(1e6*rng.ExpFloat64()), time.Duration(1e6*rng.ExpFloat64())
			s.silent = rng.IntN(4) == 0
		}
		copy(two.servers, one.servers)
		if a, b := one.round(), two.round(); !reflect.DeepEqual(a, b) {
			t.Fatalf("the same gives %+v and %+v", a, b)
		}
	}
	within(t, "offset from 100 servers", one.offset(), 0, 100*time.Microsecond)
}

// Servers that come and go leave nothing behind.
func TestLoopMemoryIsBounded(t *testing.T) {
	b := newBench(t, 4, Frequency{})
	for i := range 5000 {
		b.servers[i%4].name = fmt.Sprint("visitor ", i)
		b.round()
	}
	if day := int(24*time.Hour/(64*time.Second)) + 5; len(b.loop.paths) > day || len(b.loop.order) != len(b.loop.paths) {
		t.Errorf("%d servers remembered, %d in order; a day has %d", len(b.loop.paths), len(b.loop.order), day)
	}
}

func BenchmarkRound(b *testing.B) {
	for _, n := range []int{1, 10, 100} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			w := newBench(nil, n, Frequency{})
			all := w.answers()
			b.ReportAllocs()
			for b.Loop() {
				w.raw += 64
				at := w.moment()
				for i := range all {
					all[i].Moment = at
				}
				w.loop.Round(Situation{Moment: at}, all)
			}
		})
	}
}
