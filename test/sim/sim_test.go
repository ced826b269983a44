package main

import (
	"bytes"
	"math"
	"regexp"
	"testing"
)

// slack is what few seeds may be off by chance: the spread over seeds, as a
// part of the figure, is about a half in the noisiest rows.
const slack = 1.15

// TestScenarios is `make sim` with few seeds. Where the loop gets worse by more
// than the distance to its targets, a row misses.
func TestScenarios(t *testing.T) {
	for i := range scenarios {
		s := &scenarios[i]
		t.Run(s.group+"/"+s.name, func(t *testing.T) {
			for _, miss := range many(s, 2001, 2010).misses(s.target, slack) {
				t.Error(miss)
			}
		})
	}
}

// The model is the one that the targets are for: a clock left to itself walks
// as class and crystal say.
func TestMachineIsTheModel(t *testing.T) {
	const seeds, length = 300, 1000
	var squares, errors float64
	for seed := range uint64(seeds) {
		m := newMachine(&world{net: lan, wander: classB, crystal: 30e-6, start: 10e-3}, seed)
		m.advance(length)
		walk := m.frequency - 30e-6
		squares += walk * walk / seeds
		drift := m.clockError() - 10e-3 - 30e-6*length
		errors += drift * drift / seeds
	}
	if want := classB * classB * length; math.Abs(squares/want-1) > 0.3 {
		t.Errorf("after %d s the frequency's variance is %.2g, want %.2g", length, squares, want)
	}
	if want := classB * classB * length * length * length / 3; math.Abs(errors/want-1) > 0.3 {
		t.Errorf("after %d s the error's variance is %.2g, want %.2g", length, errors, want)
	}
}

// A slew ends where it is told to, whatever is asked meanwhile.
func TestMachineSlews(t *testing.T) {
	m := newMachine(&world{net: lan, servers: 4}, 1)
	m.rate, m.base, m.until = 400e-6, 0, 10
	for m.t < 20 {
		m.ask(nil)
		m.advance(m.t + 0.3)
	}
	if math.Abs(m.correction-4e-3) > 1e-9 {
		t.Errorf("10 s at 400 ppm made %v s", m.correction)
	}
	if q := quantized(1e-6 + 1e-12); q != 1e-6 || quantized(1) != maxRate || quantized(-1) != -maxRate {
		t.Errorf("quantized to %v", q)
	}
}

// An exchange tells the clock's error, but for half of what the ways differ.
func TestMachineAsks(t *testing.T) {
	m := newMachine(&world{net: wan, servers: 3, start: 0.5, lie: []float64{0, 0, 1}}, 1)
	all := m.ask(nil)
	if len(all) != 3 {
		t.Fatalf("%d answers", len(all))
	}
	for i, a := range all {
		want := -0.5
		if a.Server == "C" {
			want = 0.5
		}
		if off := math.Abs(a.Offset.Seconds() - want); off > a.Delay.Seconds()/2-10e-3+1e-9 {
			t.Errorf("%s: offset %v, delay %v", a.Server, a.Offset, a.Delay)
		}
		if i > 0 && a.Delay < all[i-1].Delay {
			t.Error("answers are not in the order of arrival")
		}
	}
	m.loss = 1
	if all := m.ask(nil); len(all) != 0 {
		t.Errorf("%d answers came through a network that loses all", len(all))
	}
}

func TestSameSeedsSameFigures(t *testing.T) {
	s := &scenarios[1]
	if a, b := many(s, 1, 4), many(s, 1, 4); a != b {
		t.Errorf("%+v, then %+v", a, b)
	}
}

// A row that misses is counted, and said.
func TestTable(t *testing.T) {
	was := scenarios
	defer func() { scenarios = was }()
	scenarios = append([]scenario(nil), was[0], was[0])
	scenarios[1].name, scenarios[1].target.time = "impossible", 1e-9
	var out bytes.Buffer
	missed, tried := table(&out, regexp.MustCompile(""), 2001, 2002)
	if missed != 1 || tried != 2 || !regexp.MustCompile(`impossible[^M]*\n.*\n +MISSED: time `).MatchString(out.String()) {
		t.Errorf("%d of %d missed:\n%s", missed, tried, &out)
	}
}
