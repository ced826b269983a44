package main

import (
	"math"
	"math/rand/v2"
)

// network gives the delay, in s, of a packet that is sent at true time t.
type network func(rng *rand.Rand, t float64, d direction) float64

type direction int

const (
	up direction = iota
	down
)

// exponential has a least delay and exponential jitter, each way.
func exponential(least, jitter float64) network {
	return func(rng *rand.Rand, _ float64, _ direction) float64 { return least + jitter*rng.ExpFloat64() }
}

var (
	lan = exponential(1e-4, 1e-4)
	wan = exponential(1e-2, 1e-3)
)

// bad is far, and one way is congested for 300 of every 2000 s.
func bad(rng *rand.Rand, t float64, d direction) float64 {
	delay := 5e-2 + 1e-2*rng.ExpFloat64()
	if d == down && math.Mod(t, 2000) <= 300 {
		delay += 5e-2 * rng.ExpFloat64()
	}
	return delay
}

// rerouted is wan, and one way is 5 ms longer for 2000 s.
func rerouted(rng *rand.Rand, t float64, d direction) float64 {
	delay := wan(rng, t, d)
	if d == down && t >= 12000 && t < 14000 {
		delay += 5e-3
	}
	return delay
}

// gaussian has jitter of ± 50 µs around 1 ms.
func gaussian(rng *rand.Rand, _ float64, _ direction) float64 {
	return max(1e-3+5e-5*rng.NormFloat64(), 0)
}

// heavy has a heavy tail.
func heavy(rng *rand.Rand, _ float64, _ direction) float64 {
	return 5e-3 + 5e-4*rng.ExpFloat64()*rng.ExpFloat64()
}

// asymmetric has nine times as much jitter on one way as on the other.
func asymmetric(rng *rand.Rand, _ float64, d direction) float64 {
	return 1e-2 + [...]float64{up: 2e-4, down: 18e-4}[d]*rng.ExpFloat64()
}

// uniform is 20 ms ± 2 ms each way.
func uniform(rng *rand.Rand, _ float64, _ direction) float64 {
	return 18e-3 + 4e-3*rng.Float64()
}
