package timesync

import "math"

// kalman is a filter of two states in the raw timescale (that of
// CLOCK_MONOTONIC_RAW, which nothing steps or slews): x, the correction that
// would make the clock right, true time − raw clock, in s; and y, its rate of
// change, in s/s. The rate walks at random: its variance grows by q a second.
type kalman struct {
	x, y          float64
	pxx, pxy, pyy float64 // their covariance
}

// predict carries the filter d ≥ 0 seconds on.
func (k *kalman) predict(d, q float64) {
	k.x += k.y * d
	k.pxx += d*(2*k.pxy+d*k.pyy) + q*d*d*d/3
	k.pxy += d*k.pyy + q*d*d/2
	k.pyy += q * d
}

// become gives x a new mean and variance, and lets y follow by its covariance
// with x. This is the update of a Kalman filter whatever a sample is like: the
// kinds of samples differ in how mean and variance come about.
func (k *kalman) become(mean, variance float64) {
	g := k.pxy / k.pxx
	k.y += g * (mean - k.x)
	k.pyy -= g * g * (k.pxx - variance)
	k.pxy = g * variance
	k.x, k.pxx = mean, variance
	// Rounding must not make the covariance impossible.
	k.pyy = max(k.pyy, g*g*variance*(1+1e-9), tiny)
}

// tiny is the least variance of a rate: (10^-14)².
const tiny = 1e-28

// normal takes a sample z of x with normal noise of variance r > 0, and
// returns the logarithm of its likelihood.
func (k *kalman) normal(z, r float64) float64 {
	s := k.pxx + r
	v := z - k.x
	k.become(k.x+v*k.pxx/s, k.pxx*r/s)
	return -(v*v/s + math.Log(2*math.Pi*s)) / 2
}

// within takes a sample that says of x no more than that it lies within z ± h,
// with ends that are uncertain by the variance r > 0, and returns the logarithm
// of its likelihood. What that leaves of the normal distribution of x is taken
// for normal again, with the same mean and variance (this is known as
// assumed-density filtering). So a sample that is much wider than what is known
// changes nothing, and one that disagrees moves x no farther than to its end.
func (k *kalman) within(z, h, r float64) float64 {
	s := k.pxx + r
	sd := math.Sqrt(s)
	mean, variance, logP := truncated((z-h-k.x)/sd, (z+h-k.x)/sd)
	k.become(k.x+mean*k.pxx/sd, k.pxx*(r+k.pxx*variance)/s)
	return logP - math.Log(2*h)
}

// truncated returns mean and variance of a standard normal variable that is
// known to lie between a < b, and the logarithm of how probable that was.
func truncated(a, b float64) (mean, variance, logP float64) {
	if a+b < 0 { // mirrored, a is the end with more of the probability
		mean, variance, logP = truncated(-b, -a)
		return -mean, variance, logP
	}
	if a > 5 {
		return truncatedTail(a, b)
	}
	if b-a < 1e-3 { // the density is flat there
		m := (a + b) / 2
		return m, (b - a) * (b - a) / 12, -m*m/2 + math.Log((b-a)/math.Sqrt(2*math.Pi))
	}
	p := (math.Erfc(a/math.Sqrt2) - math.Erfc(b/math.Sqrt2)) / 2
	da, db := density(a), density(b)
	mean = (da - db) / p
	variance = 1 - mean*mean
	if da > 0 {
		variance += a * da / p
	}
	if db > 0 {
		variance -= b * db / p
	}
	return mean, max(variance, 0), math.Log(p)
}

// truncatedTail is truncated far out, where the density falls nearly
// exponentially, and where differences of erfc would be of zeros.
func truncatedTail(a, b float64) (mean, variance, logP float64) {
	rate := a / (1 - 2/(a*a))
	logP = -a*a/2 - math.Log(rate*math.Sqrt(2*math.Pi))
	w := (b - a) * rate
	switch {
	case w < 1e-3:
		return (a + b) / 2, (b - a) * (b - a) / 12, logP + math.Log(w)
	case w > 30:
		return a + 1/rate, 1 / (rate * rate), logP
	}
	cut := w / math.Expm1(w)
	mean = a + (1-cut)/rate
	variance = (1 - cut*cut*math.Exp(w)) / (rate * rate)
	return mean, max(variance, 0), logP + math.Log(-math.Expm1(-w))
}

func density(x float64) float64 { return math.Exp(-x*x/2) / math.Sqrt(2*math.Pi) }
