package timesync

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// runBank feeds a bank from one server, 64 s apart, with a crystal that wanders by
// w, and returns it, with the weights of its filters.
func runBank(w float64, n int, delay func(*rand.Rand) (up, down float64)) (b bank, weight [filters]float64) {
	rng := rand.New(rand.NewPCG(3, 4))
	var p path
	b.start(0, 1, 0, unlearned)
	x, y := 0.0, 20e-6
	for range n {
		for range 64 {
			y += w * rng.NormFloat64()
			x += y
		}
		b.predict(64)
		up, down := delay(rng)
		s := p.sample(up + down)
		s.z = x + (up-down)/2
		b.take(&s)
	}
	best, sum := math.Inf(-1), 0.0
	for _, e := range b.evidence {
		best = max(best, e)
	}
	for i, e := range b.evidence {
		weight[i] = math.Exp(e - best)
		sum += weight[i]
	}
	for i := range weight {
		weight[i] /= sum
	}
	return b, weight
}

func jittery(rng *rand.Rand) (up, down float64) {
	return 1e-4 + 1e-4*rng.ExpFloat64(), 1e-4 + 1e-4*rng.ExpFloat64()
}

// The mixture finds out by itself what the crystal and the network are like.
func TestBankFindsTheFilter(t *testing.T) {
	for i, w := range wander[1:] {
		_, weight := runBank(w, 400, jittery)
		if weight[i+1] < 0.5 {
			t.Errorf("wander %v: weights %.2f", w, weight)
		}
	}
	_, weight := runBank(1e-9, 400, balanced)
	flat := 0.0
	for _, x := range weight[wanders:] {
		flat += x
	}
	if flat < 0.5 {
		t.Errorf("delays that tell nothing: weights %.2f", weight)
	}
}

// balanced has delays that tell nothing of how good a sample is.
func balanced(rng *rand.Rand) (up, down float64) {
	return 1e-3 + 5e-5*rng.NormFloat64(), 1e-3 + 5e-5*rng.NormFloat64()
}

// A delay of 5 ms more one way makes the sample 2.5 ms wrong, and the estimate
// hardly, whichever filters the network before made probable.
func TestCongestionIsHarmless(t *testing.T) {
	for name, delay := range map[string]func(*rand.Rand) (up, down float64){"jittery": jittery, "balanced": balanced} {
		rng := rand.New(rand.NewPCG(5, 6))
		var b bank
		var p path
		b.start(0, 1, 0, unlearned)
		for i := range 290 {
			b.predict(64)
			up, down := delay(rng)
			if i >= 250 {
				down += 5e-3
			}
			s := p.sample(up + down)
			s.z = (up - down) / 2 // the clock is right
			b.take(&s)
			if x, _, _, _ := b.estimate(); i >= 250 && math.Abs(x) > 100e-6 {
				t.Errorf("%s, sample %d: %.0f µs off", name, i, x*1e6)
				break
			}
		}
	}
}

// What decides between filters is neither a coarse sample nor a single one.
func TestBankEvidence(t *testing.T) {
	b, _ := runBank(1e-9, 100, jittery)
	spread := func() float64 { return slices.Max(b.evidence[:]) - slices.Min(b.evidence[:]) }
	before, was := b.evidence, spread()
	b.take(&sample{z: 1, excess: 5e-3, usual: 2e-4, flat: 1e-4, soft: 1e-5, coarse: true})
	if b.evidence != before {
		t.Errorf("a coarse sample changes the evidence from %v to %v", before, b.evidence)
	}
	x, _, _, _ := b.estimate()
	b.take(&sample{z: x + 1, excess: 1e-4, usual: 2e-4, flat: 1e-4, soft: 1e-5})
	if now := spread(); now > was+5 {
		t.Errorf("one sample that is a second off changes the evidence from %v to %v", before, b.evidence)
	}
}

// A sample from a while ago says the same as it did then.
func TestBankTakesOlderSamples(t *testing.T) {
	b, _ := runBank(1e-9, 100, jittery)
	later := b
	x, _, y, _ := b.estimate()
	s := sample{z: x + 20e-6, excess: 1e-5, usual: 2e-4, flat: 1e-4, soft: 1e-5}
	b.take(&s)
	b.predict(10)
	later.predict(10)
	s.age = 10
	later.take(&s)
	x1, _, _, _ := b.estimate()
	x2, _, _, _ := later.estimate()
	if off := math.Abs(x1 - x2); off > 1e-6 || math.Abs(y) < 10e-6 {
		t.Errorf("10 s later it says %v more, at a rate of %v", off, y)
	}
}

func TestBankAllocatesNothing(t *testing.T) {
	var b bank
	var p path
	b.start(0, 1, 0, unlearned)
	if n := testing.AllocsPerRun(100, func() {
		b.predict(1)
		s := p.sample(1e-3)
		b.take(&s)
		p.compare(&s, 0)
		b.estimate()
	}); n > 0 {
		t.Errorf("%v allocations a sample", n)
	}
}

func BenchmarkSample(b *testing.B) {
	var k bank
	var p path
	k.start(0, 1, 0, unlearned)
	rng := rand.New(rand.NewPCG(1, 2))
	for b.Loop() {
		k.predict(64)
		up, down := jittery(rng)
		s := p.sample(up + down)
		s.z = (up - down) / 2
		k.take(&s)
	}
}
