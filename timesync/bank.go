package timesync

import (
	"math"
	"slices"
)

// The bank holds filters for two questions that nobody answers beforehand: how
// much the crystal wanders (the random walk of its frequency, in s/s per √s),
// and whether a server's delays tell how good a sample is.
const (
	wanders = 4
	filters = 2 * wanders // the first half by delay, the other half flat
)

var wander = [wanders]float64{1e-10, 1e-9, 1e-8, 1e-7}

const (
	// forgetting is what is left of the evidence for a filter after each
	// further sample: what counts are about the last hundred.
	forgetting = 0.99
	// outlier is the part of samples that may be off for reasons of their own,
	// as a Cauchy distribution as wide as the usual excess delay: so no single
	// sample decides between filters, and many that are far off still do.
	outlier = 0.2
	// certain is by how much a filter can be more probable than another, as a
	// logarithm.
	certain = 10
	// least uncertainty of a sample, s: stamps are no better.
	stampNoise = 1e-7
)

// bank is the mixture of the filters, each as probable as the samples say.
type bank struct {
	filter   [filters]kalman
	evidence [filters]float64 // logarithm of the likelihood, forgetting
}

// start sets all filters to x ± sdx and y ± sdy.
func (b *bank) start(x, sdx, y, sdy float64) {
	for i := range b.filter {
		b.filter[i] = kalman{x: x, y: y, pxx: sdx * sdx, pyy: sdy * sdy}
	}
	b.evidence = [filters]float64{}
}

func (b *bank) predict(d float64) {
	for i := range b.filter {
		w := wander[i%wanders]
		b.filter[i].predict(d, w*w)
	}
}

// shift adds d to x, where what x counts from has changed.
func (b *bank) shift(d float64) {
	for i := range b.filter {
		b.filter[i].x += d
	}
}

// sample is what one exchange says of x.
type sample struct {
	z      float64 // true time − raw clock, as measured
	age    float64 // how long before the bank's present it was, s
	excess float64 // of its delay over the least, s
	usual  float64 // median of that
	flat   float64 // standard deviation of z, if delays say nothing
	soft   float64 // how uncertain the least delay is, s
	coarse bool    // it was delayed much more than is usual
}

// half is half the width of the interval that must hold x: the excess went
// into one way or the other. The least delay so far was hardly the least
// possible, which makes all intervals wider.
func (s *sample) half() float64 { return s.excess/2 + 1.5*s.soft }

// take lets all filters learn from a sample.
//
// The excess delay was lost somewhere on the two ways, so that x is within half
// of it around z, and anywhere there with the same probability. That is what
// the first filters use. The flat ones take all samples for equally good, as
// they are where delays are random but the same on both ways. A coarse sample,
// from a congested path or a new route, is an interval to both, and no evidence
// for either.
func (b *bank) take(s *sample) {
	for i := range b.filter {
		k := &b.filter[i]
		z := s.z + k.y*s.age
		width, off := s.usual+s.soft, z-k.x
		strange := outlier * width / (width*width + off*off)
		var likelihood float64
		if i < wanders || s.coarse {
			likelihood = k.within(z, s.half(), s.soft*s.soft)
		} else {
			likelihood = k.normal(z, s.flat*s.flat)
		}
		if !s.coarse {
			b.evidence[i] = forgetting*b.evidence[i] + logSum(likelihood, math.Log(strange))
		}
	}
	b.doubt()
}

// doubt sees to it that no filter is ever given up: another one may be right
// from tomorrow on.
func (b *bank) doubt() {
	least := slices.Max(b.evidence[:]) - certain
	for i := range b.evidence {
		b.evidence[i] = max(b.evidence[i], least)
	}
}

// logSum is log(exp(a) + exp(b)).
func logSum(a, b float64) float64 {
	return max(a, b) + math.Log1p(math.Exp(-math.Abs(a-b)))
}

// estimate is mean and standard deviation of the mixture.
func (b *bank) estimate() (x, sdx, y, sdy float64) {
	best := b.evidence[0]
	for _, e := range b.evidence {
		best = max(best, e)
	}
	var weight [filters]float64
	var sum float64
	for i, e := range b.evidence {
		weight[i] = math.Exp(e - best)
		sum += weight[i]
	}
	origin := b.filter[0].x // so that nothing is lost where x is large
	for i := range b.filter {
		weight[i] /= sum
		x += weight[i] * (b.filter[i].x - origin)
		y += weight[i] * b.filter[i].y
	}
	x += origin
	var xx, yy float64
	for i := range b.filter {
		k := &b.filter[i]
		xx += weight[i] * (k.pxx + (k.x-x)*(k.x-x))
		yy += weight[i] * (k.pyy + (k.y-y)*(k.y-y))
	}
	return x, math.Sqrt(xx), y, math.Sqrt(yy)
}
