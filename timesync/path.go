package timesync

import (
	"math"
	"slices"
	"time"
)

const (
	// window is how many delays of a server are remembered.
	window = 256
	// rerouted is after how many coarse samples running the path is taken for
	// a new, longer one: only these are remembered then.
	rerouted = 64
	// biased is how many samples a server's bias is a mean of.
	biased = 64
)

// path is what the loop knows of the way to one server and back.
type path struct {
	server string

	ring   [window]float64 // the last delays, s; next is the oldest once it is full
	sorted [window]float64
	n      int // of them
	next   int
	coarse int // samples running

	// Weighted sums, forgetting: of how far the server's time was from the
	// estimate (s), and of the weights (1/s²).
	sum, weights float64
	bias         float64 // taken from its samples, s
	misfit       float64 // how far beyond their bounds its samples were of late, s

	heard time.Duration // last, on the raw clock
}

// add remembers a delay, in s, in place of the oldest.
func (p *path) add(delay float64) {
	if p.n == window {
		i, _ := slices.BinarySearch(p.sorted[:], p.ring[p.next])
		copy(p.sorted[i:], p.sorted[i+1:])
		p.n--
	}
	i, _ := slices.BinarySearch(p.sorted[:p.n], delay)
	copy(p.sorted[i+1:p.n+1], p.sorted[i:p.n])
	p.sorted[i], p.ring[p.next] = delay, delay
	p.n, p.next = p.n+1, (p.next+1)%window
}

// forget keeps only the last n delays.
func (p *path) forget(n int) {
	last := make([]float64, 0, window)
	for i := range n {
		last = append(last, p.ring[(p.next+window-n+i)%window])
	}
	p.n, p.next, p.coarse = 0, 0, 0
	for _, d := range last {
		p.add(d)
	}
}

func (p *path) median() float64 {
	return (p.sorted[(p.n-1)/2] + p.sorted[p.n/2]) / 2
}

// usual is the median of the delays' excess over the least, s.
func (p *path) usual() float64 { return p.median() - p.sorted[0] }

// deviation is the median of the delays' distances from their median, s.
func (p *path) deviation() float64 {
	m := p.median()
	lo, hi := 0, p.n-1
	// The half that is nearest to the median is a piece of the sorted ones:
	// take from the ends what is farther.
	d := 0.0
	for range p.n - p.n/2 {
		if m-p.sorted[lo] > p.sorted[hi]-m {
			d = m - p.sorted[lo]
			lo++
		} else {
			d = p.sorted[hi] - m
			hi--
		}
	}
	return d
}

// sample takes the delay of an exchange, s, and returns what is to be made of
// it; the measured time itself is the caller's.
func (p *path) sample(delay float64) sample {
	p.add(delay)
	if p.coarse >= rerouted {
		p.forget(p.coarse)
	}
	s := sample{excess: delay - p.sorted[0], usual: p.usual()}
	n := float64(p.n)
	// The least of n delays is above the least possible by something like
	// this. Of the first ones nothing is known but their size.
	s.soft = 0.28*s.usual/math.Sqrt(n) + delay/(20*n*n) + stampNoise
	s.soft = math.Hypot(s.soft, 2*p.misfit) // who contradicts the others counts for less
	s.flat = 0.74*p.deviation() + s.soft
	s.coarse = p.n > 8 && s.excess > 1.5*s.usual
	if p.coarse++; !s.coarse {
		p.coarse = 0
	}
	return s
}

// compare remembers by how much a sample differed from the estimate after it,
// in s. The result is the server's bias: a different asymmetry of its path, or
// an error of its own. It is 0 as long as chance explains it, and shrinks by
// what chance may have added (the estimator of James and Stein), so that where
// there is no bias none is made up.
func (p *path) compare(s *sample, difference float64) {
	p.misfit += (max(math.Abs(difference-p.bias)-s.half(), 0) - p.misfit) / 8
	if p.n <= 8 {
		return
	}
	w := 1 / (s.excess*s.excess/12 + s.usual*s.usual/16 + s.soft*s.soft)
	p.sum += w*difference - p.sum/biased
	p.weights += w - p.weights/biased
	mean := p.sum / p.weights
	p.bias = 0
	if m := mean * mean * p.weights; m > 4 {
		p.bias = mean * (1 - 4/m)
	}
}
