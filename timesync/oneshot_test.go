package timesync

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"reflect"
	"testing"
	"time"
)

// pair is an agreed time of a machine whose crystal is ppm too slow.
func pair(hours, ppm float64, uncertainty time.Duration) AgreedTime {
	raw := time.Duration(hours * float64(time.Hour))
	slow := time.Duration(float64(raw) * ppm * 1e-6)
	return AgreedTime{
		Time: time.Date(2026, 11, 21, 0, 0, 0, 0, time.UTC).Add(raw + slow), Uncertainty: uncertainty,
		BootID: "one", Raw: raw + time.Minute,
	}
}

func TestCrystalLearns(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	var c Crystal
	for run := range 48 {
		p := pair(float64(run), 30, 10*time.Millisecond+time.Duration(1e6*rng.Float64()))
		p.Time = p.Time.Add(time.Duration(1e6 * (2*rng.Float64() - 1)))
		f, usable := c.Learn(p)
		// ± 10 ms at both ends of one hour is more than 5 ppm; of two hours it is not.
		if usable != (run >= 2) {
			t.Errorf("run %d: usable is %v", run, usable)
		}
		if usable && math.Abs(f.Rate-30e-6) > 1e-6 {
			t.Errorf("run %d: %v, want 30 ppm", run, f)
		}
		if f != c.Frequency || len(c.Pairs) > 16 {
			t.Errorf("run %d: kept %d pairs and %v", run, len(c.Pairs), c.Frequency)
		}
	}
	if c.Frequency.Uncertainty > 0.5e-6 || len(c.Pairs) != 16 {
		t.Errorf("in the end: %d pairs, %v", len(c.Pairs), c.Frequency)
	}
}

// Pairs that cannot be compared are dropped; the frequency stays until there
// are new ones.
func TestCrystalDiscards(t *testing.T) {
	for name, change := range map[string]func(*AgreedTime){
		"reboot":                 func(p *AgreedTime) { p.BootID = "two" },
		"no boot ID":             func(p *AgreedTime) { p.BootID = "" },
		"suspend":                func(p *AgreedTime) { p.Suspended = time.Second },
		"raw clock went back":    func(p *AgreedTime) { p.Raw = time.Second },
		"raw clock stood at one": func(p *AgreedTime) { p.Raw = pair(5, 30, 0).Raw },
	} {
		var c Crystal
		for run := range 6 {
			c.Learn(pair(float64(run), 30, time.Millisecond))
		}
		learned := c.Frequency
		next := pair(6, 0, time.Millisecond)
		change(&next)
		f, usable := c.Learn(next)
		if len(c.Pairs) != 1 || f != learned || !usable || c.Frequency != learned {
			t.Errorf("%s: %d pairs, %v, usable %v; was %v", name, len(c.Pairs), f, usable, learned)
		}
	}
	var c Crystal
	c.Learn(pair(0, 30, time.Millisecond))
	noise := pair(1, 30, time.Millisecond)
	noise.Suspended = 100 * time.Microsecond
	if c.Learn(noise); len(c.Pairs) != 2 {
		t.Error("noise is taken for a suspend")
	}
}

// A time that is wrong, once or from then on, makes no frequency wrong: whenever
// it comes, and however certain it seems to be.
func TestCrystalDistrustsJumps(t *testing.T) {
	for name, c := range map[string]struct {
		jump     time.Duration
		forGood  bool
		from, to int // the runs that it is tried at
	}{
		"leap second":         {time.Second, true, 1, 20},
		"leap second removed": {-time.Second, true, 1, 20},
		"300 ms off":          {300 * time.Millisecond, false, 0, 20},
		"50 ms off":           {50 * time.Millisecond, false, 0, 20},
		"50 ms from then on":  {-50 * time.Millisecond, true, 1, 20},
	} {
		for at := c.from; at <= c.to; at++ {
			for _, uncertainty := range []time.Duration{time.Millisecond, 10 * time.Millisecond} {
				if uncertainty > time.Millisecond && at < 6 && c.jump.Abs() < 100*time.Millisecond {
					continue // so little is too much only for who knows the frequency
				}
				jumps(t, name, at, c.jump, c.forGood, uncertainty)
			}
		}
	}
}

func jumps(t *testing.T, name string, at int, jump time.Duration, forGood bool, uncertainty time.Duration) {
	t.Helper()
	var c Crystal
	for run := range 30 {
		p := pair(float64(run), 30, uncertainty)
		if run == at || (forGood && run > at) {
			p.Time = p.Time.Add(jump)
		}
		before := c.Frequency
		f, usable := c.Learn(p)
		if usable && math.Abs(f.Rate-30e-6) > 2e-6 {
			t.Errorf("%s at run %d, ± %v: %v after run %d", name, at, uncertainty, f, run)
		}
		if run == at && at > 5 && (len(c.Pairs) != 1 || c.Frequency != before || !usable) {
			t.Errorf("%s at run %d, ± %v: %d pairs, %v; was %v", name, at, uncertainty, len(c.Pairs), c.Frequency, before)
		}
	}
	if len(c.Pairs) < 8 || c.Frequency.Uncertainty == 0 {
		t.Errorf("%s at run %d, ± %v: in the end %d pairs, %v", name, at, uncertainty, len(c.Pairs), c.Frequency)
	}
}

// A crystal that is another one from then on is learned again.
func TestCrystalLearnsAgain(t *testing.T) {
	var c Crystal
	for run := range 12 {
		c.Learn(pair(float64(run), 30, 10*time.Millisecond))
	}
	for run := range 4 {
		p := pair(float64(run), -20, 10*time.Millisecond)
		p.BootID = "two"
		c.Learn(p)
	}
	if math.Abs(c.Frequency.Rate+20e-6) > 1e-6 {
		t.Errorf("%v, want -20 ppm", c.Frequency)
	}
}

func TestCrystalNotUsable(t *testing.T) {
	var c Crystal
	if f, usable := c.Learn(pair(0, 30, time.Millisecond)); usable || f != (Frequency{}) {
		t.Errorf("one time: %v, %v", f, usable)
	}
	if f, usable := c.Learn(pair(1, 30, 100*time.Millisecond)); usable || f != (Frequency{}) {
		t.Errorf("too uncertain: %v, %v", f, usable)
	}
	if f, usable := c.Learn(pair(3, 900, time.Millisecond)); usable || f != (Frequency{}) {
		t.Errorf("no crystal is 900 ppm off: %v, %v", f, usable)
	}
}

// A raw clock that is no crystal's teaches nothing, however long it is watched.
func TestCrystalOfNoCrystal(t *testing.T) {
	var c Crystal
	for run := range 200 {
		hours := float64(run) / 6
		if run > 6 { // once it is known
			hours = float64(3 * (run - 6))
		}
		if f, usable := c.Learn(pair(hours, 700, 200*time.Millisecond)); usable || f != (Frequency{}) {
			t.Fatalf("after %v hours: %v, %v", hours, f, usable)
		}
	}
	if len(c.Pairs) < maxPairs {
		t.Errorf("%d pairs: they were dropped for another reason", len(c.Pairs))
	}
}

// Runs in quick succession do not push out those that tell.
func TestCrystalKeepsItsSpan(t *testing.T) {
	var c Crystal
	for run := range 4 {
		c.Learn(pair(float64(run), 30, 10*time.Millisecond))
	}
	for second := range 100 {
		f, usable := c.Learn(pair(3+float64(second+1)/3600, 30, 10*time.Millisecond))
		if !usable || math.Abs(f.Rate-30e-6) > 0.5e-6 {
			t.Fatalf("after %d: %v, %v", second+1, f, usable)
		}
	}
	if len(c.Pairs) > 6 || c.Pairs[0].Raw != pair(0, 30, 0).Raw {
		t.Errorf("%d pairs, from %v on", len(c.Pairs), c.Pairs[0].Raw)
	}
}

func TestCrystalAsJSON(t *testing.T) {
	var c, d Crystal
	for run := range 4 {
		c.Learn(pair(float64(run), 30, time.Millisecond))
	}
	text, err := json.Marshal(&c)
	if err != nil || json.Unmarshal(text, &d) != nil || !reflect.DeepEqual(c, d) {
		t.Errorf("%s became %+v, %v", text, d, err)
	}
	if text, err := json.Marshal(&Crystal{}); err != nil || string(text) != "{}" {
		t.Errorf("nothing is %s, %v", text, err)
	}
}
