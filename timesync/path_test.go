package timesync

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

func TestPathRemembersTheLast(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	var p path
	var all []float64
	for i := range 1000 {
		d := rng.ExpFloat64()
		if i%5 == 0 && i > 0 {
			d = all[i-1] // the same twice
		}
		all = append(all, d)
		p.add(d)
		last := slices.Sorted(slices.Values(all[max(0, len(all)-window):]))
		n := len(last)
		if p.n != n || !slices.Equal(p.sorted[:n], last) {
			t.Fatalf("after %d: %d delays, not the last %d, sorted", i+1, p.n, n)
		}
		m := (last[(n-1)/2] + last[n/2]) / 2
		far := make([]float64, n)
		for j, x := range last {
			far[j] = math.Abs(x - m)
		}
		slices.Sort(far)
		if p.median() != m || p.usual() != m-last[0] || p.deviation() != far[n/2] {
			t.Fatalf("after %d: median %v, usual %v, deviation %v; want %v, %v, %v", i+1, p.median(), p.usual(), p.deviation(), m, m-last[0], far[n/2])
		}
	}
}

func TestPathSample(t *testing.T) {
	var p path
	usual := []float64{10, 12, 11, 12.9, 12, 11.5, 12.5, 12, 12.9}
	for i := range 100 {
		if s := p.sample(usual[i%len(usual)] * 1e-3); s.coarse {
			t.Errorf("the %dth delay is already coarse", p.n)
		}
	}
	s := p.sample(20e-3)
	if !s.coarse || !alike(s.excess, 10e-3, 1e-9) || !alike(s.half(), 5e-3, 0.3) || s.half() <= 5e-3 {
		t.Errorf("%+v", s)
	}
	least := p.sample(9e-3)
	if least.coarse || least.excess != 0 || least.half() <= 0 || least.soft <= 0 {
		t.Errorf("the least delay of all: %+v", least)
	}
	for range rerouted {
		if s = p.sample(20e-3); !s.coarse {
			t.Fatalf("%d delays, and the coarse are ordinary: %+v", p.n, s)
		}
	}
	if s = p.sample(20e-3); s.coarse || s.excess != 0 || p.n != rerouted {
		t.Errorf("after %d samples the new route is not the ordinary one: %d delays, %+v", rerouted, p.n, s)
	}
}

// Chance makes no bias, and a real one is found whole.
func TestBias(t *testing.T) {
	for _, c := range []struct{ bias, least, most float64 }{
		{0, -60e-6, 60e-6},
		{1e-3, 0.9e-3, 1.1e-3},
		{-1e-3, -1.1e-3, -0.9e-3},
	} {
		rng := rand.New(rand.NewPCG(1, 2))
		var p path
		zeros := 0
		for range 2000 {
			up, down := 1e-3*rng.ExpFloat64(), 1e-3*rng.ExpFloat64()
			s := p.sample(20e-3 + up + down)
			p.compare(&s, (up-down)/2+c.bias)
			if p.bias == 0 {
				zeros++
			}
		}
		if p.bias < c.least || p.bias > c.most {
			t.Errorf("a bias of %v is learned as %v", c.bias, p.bias)
		}
		if c.bias == 0 && zeros < 1800 {
			t.Errorf("without a bias one is made up %d times of 2000", 2000-zeros)
		}
	}
}
