package timesync

import (
	"math"
	"math/rand/v2"
	"testing"
)

// alike tells whether got is want, or off by no more than the part of it.
func alike(got, want, part float64) bool { return math.Abs(got-want) <= part*math.Abs(want)+1e-300 }

// integrated is truncated, by brute force.
func integrated(a, b float64) (mean, variance, logP float64) {
	const steps = 400000
	peak := min(max(0, a), b) // so that no density underflows
	scale := -peak * peak / 2
	b = min(b, peak+12)
	a = max(a, peak-12)
	var sum, first, second float64
	for i := range steps {
		x := a + (b-a)*(float64(i)+0.5)/steps
		p := math.Exp(-x*x/2 - scale)
		sum += p
		first += p * (x - peak)
		second += p * (x - peak) * (x - peak)
	}
	m := first / sum
	return peak + m, second/sum - m*m, math.Log(sum*(b-a)/steps/math.Sqrt(2*math.Pi)) + scale
}

func TestTruncated(t *testing.T) {
	for _, c := range []struct{ a, b, part float64 }{
		{-1, 1, 1e-6},
		{-0.1, 0.3, 1e-6},
		{-3, 0.5, 1e-6},
		{0.5, 0.5005, 1e-4},
		{-50, 50, 1e-6},
		{2, 4, 1e-5},
		{-4.9, -1, 1e-5},
		{4.9, 9, 1e-4},
		{5.1, 9, 0.06}, // from here on by the tail's approximation
		{5.1, 5.3, 0.02},
		{8, 8.0001, 0.02},
		{12, 100, 0.02},
		{-100, -30, 0.01},
	} {
		m, v, p := truncated(c.a, c.b)
		wantM, wantV, wantP := integrated(c.a, c.b)
		if math.Abs(m-wantM) > c.part*math.Sqrt(wantV)+1e-9 || !alike(v, wantV, 2*c.part) || math.Abs(p-wantP) > 2*c.part {
			t.Errorf("truncated(%v, %v) = %.6g, %.6g, %.6g; by integration %.6g, %.6g, %.6g", c.a, c.b, m, v, p, wantM, wantV, wantP)
		}
	}
}

func TestPredict(t *testing.T) {
	once := kalman{x: 1, y: 2e-6, pxx: 1e-6, pxy: -1e-10, pyy: 1e-12}
	twice := once
	once.predict(3600, 1e-16)
	twice.predict(600, 1e-16)
	twice.predict(3000, 1e-16)
	if !alike(once.x, 1.0072, 1e-12) {
		t.Errorf("x = %v", once.x)
	}
	for _, p := range [][2]float64{{once.x, twice.x}, {once.pxx, twice.pxx}, {once.pxy, twice.pxy}, {once.pyy, twice.pyy}} {
		if !alike(p[0], p[1], 1e-12) {
			t.Errorf("one hour is %+v, and in two pieces %+v", once, twice)
		}
	}
}

// The rate follows the offset as covariance says: offsets of 0 and 100 µs, a
// hundred seconds apart, are 1 ppm.
func TestNormal(t *testing.T) {
	k := kalman{pxx: 1, pyy: 1e-8}
	k.normal(0, 1e-14)
	k.predict(100, 0)
	k.normal(100e-6, 1e-14)
	if !alike(k.x, 100e-6, 1e-3) || !alike(k.y, 1e-6, 1e-3) || !alike(math.Sqrt(k.pyy), math.Sqrt2*1e-7/100, 0.01) {
		t.Errorf("%+v", k)
	}
	a := kalman{pxx: 4e-6, pyy: 1e-12}
	if got, want := a.normal(3e-3, 5e-6), -0.5*(1+math.Log(2*math.Pi*9e-6)); !alike(got, want, 1e-12) {
		t.Errorf("log-likelihood %v, want %v", got, want)
	}
	if !alike(a.x, 4./3*1e-3, 1e-12) || !alike(a.pxx, 20./9*1e-6, 1e-12) {
		t.Errorf("%+v", a)
	}
}

func TestWithin(t *testing.T) {
	before := kalman{x: 1e-3, y: 1e-6, pxx: 1e-8, pxy: 1e-12, pyy: 1e-14} // ± 0.1 ms

	wide := before
	wide.within(1.5e-3, 5e-3, 1e-14)
	if wide != before && (!alike(wide.x, before.x, 1e-6) || !alike(wide.pxx, before.pxx, 1e-6) || !alike(wide.pyy, before.pyy, 1e-6)) {
		t.Errorf("a bound far around changed %+v to %+v", before, wide)
	}

	off := before
	off.within(11e-3, 5e-3, 1e-14) // 6 ms and more
	if off.x < 5.9e-3 || off.x > 6.1e-3 || off.y <= before.y {
		t.Errorf("a bound that disagrees moved %+v to %+v, not to its end at 6 ms", before, off)
	}

	narrow := before
	narrow.within(1.05e-3, 3e-6, 1e-14)
	if !alike(narrow.x, 1.05e-3, 1e-3) || !alike(math.Sqrt(narrow.pxx), 3e-6/math.Sqrt(3), 0.01) {
		t.Errorf("a narrow interval made %+v", narrow)
	}
}

// Whatever comes, a filter stays one.
func TestKalmanStaysPossible(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	size := func(lo, hi float64) float64 { return math.Pow(10, lo+(hi-lo)*rng.Float64()) }
	for range 200 {
		k := kalman{pxx: size(-12, 20), pyy: size(-20, -8)}
		for i := range 300 {
			k.predict(size(-3, 6), size(-20, -14))
			z := (2*rng.Float64() - 1) * size(-9, 10)
			l := 0.0
			if r := size(-14, 0); rng.IntN(2) == 0 {
				l = k.normal(z, r)
			} else {
				l = k.within(z, size(-7, 3), r)
			}
			if notFinite(k.x, k.y, k.pxx, k.pxy, k.pyy) || math.IsNaN(l) || math.IsInf(l, 1) ||
				k.pxx <= 0 || k.pyy <= 0 || k.pxy*k.pxy > k.pxx*k.pyy*(1+1e-6) {
				t.Fatalf("sample %d: %+v, log-likelihood %v", i, k, l)
			}
		}
	}
}

// notFinite tells whether one of them is no number.
func notFinite(all ...float64) bool {
	for _, f := range all {
		if math.IsNaN(f) || math.IsInf(f, 0) {
			return true
		}
	}
	return false
}
