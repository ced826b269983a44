package clock

import (
	"context"
	"errors"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestSteerRequest(t *testing.T) {
	for _, c := range []struct {
		ppm        float64
		freq, tick int64
	}{
		{0, 0, 10000},
		{1, 65536, 10000},
		{-12.5, -819200, 10000},
		{1.0 / 65536 * 0.6, 1, 10000},
		{500, 32768000, 10000},
		{-500, -32768000, 10000},
		{600, 0, 10006},
		{-612.5, -819200, 9994},
		{1e6, 32768000, 11000}, // the kernel's own bounds
		{-1e6, -32768000, 9000},
	} {
		got := steerRequest(c.ppm * 1e-6)
		if want := (timex{modes: 0x4002, freq: c.freq, tick: c.tick}); got != want {
			t.Errorf("%v ppm: %+v", c.ppm, got)
		}
		if back := rateOf(&got) * 1e6; math.Abs(c.ppm) < 1e4 && math.Abs(back-c.ppm) > 0.5/65536 {
			t.Errorf("%v ppm came back as %v", c.ppm, back)
		}
	}
}

// Taking over drops what an adjtime and a loop in the kernel left, and declares
// nothing.
func TestBegin(t *testing.T) {
	for status, unsync := range map[int32]int32{0x2001: 0, 0x41: 0x40} {
		r := recorder{give: timex{status: status, freq: 77, tick: 10001}}
		k := r.kernel(t, "")
		if err := k.Begin(); err != nil {
			t.Fatal(err)
		}
		want := []timex{{}, {modes: 0x8001}, {modes: 0x11, status: 0x81 | unsync}, {modes: 0x10, status: unsync}}
		if !reflect.DeepEqual(r.got, want) {
			t.Errorf("status %#x:\n got %+v\nwant %+v", status, r.got, want)
		}
	}
}

func TestSteerCalls(t *testing.T) {
	for name, c := range map[string]struct {
		adjtime string
		do      func(*Kernel) error
		want    timex
	}{
		"steer":            {"", func(k *Kernel) error { return k.Steer(-2e-6) }, timex{modes: 0x4002, freq: -131072, tick: 10000}},
		"declare":          {"", func(k *Kernel) error { return k.Declare(11*ms, 2*ms, 0) }, timex{modes: 0x1c, maxError: 11000, estError: 2000}},
		"leap second":      {"", func(k *Kernel) error { return k.Declare(ms, 0, 1) }, timex{modes: 0x1c, maxError: 1000, status: 0x10}},
		"deleted second":   {"", func(k *Kernel) error { return k.Declare(ms, 0, -1) }, timex{modes: 0x1c, maxError: 1000, status: 0x20}},
		"RTC in UTC":       {"0.0 0 0.0\n0\nUTC\n", func(k *Kernel) error { return k.Declare(ms, 0, 0) }, timex{modes: 0x1c, maxError: 1000}},
		"RTC in localtime": {"0.0 0 0.0\n0\nLOCAL\n", func(k *Kernel) error { return k.Declare(ms, 0, 1) }, timex{modes: 0x1c, maxError: 1000, status: 0x50}},
	} {
		var r recorder
		if err := c.do(r.kernel(t, c.adjtime)); err != nil || !reflect.DeepEqual(r.got, []timex{c.want}) {
			t.Errorf("%s: %v\n got %+v\nwant %+v", name, err, r.got, c.want)
		}
	}
}

// What was read back and is not what was written was written by another.
func TestInterference(t *testing.T) {
	for name, c := range map[string]struct {
		now  timex
		left int64 // of another's adjtime, µs
		want string
	}{
		"as written":         {now: timex{freq: 65536, tick: 10000, status: 0x10}},
		"rounded":            {now: timex{freq: 65535, tick: 10000, status: 0x10}},
		"given up meanwhile": {now: timex{freq: 65536, tick: 10000, status: 0x50}},
		"frequency":          {now: timex{freq: 0, tick: 10000, status: 0x10}, want: "its frequency is +0.000 ppm, and was set to +1.000 ppm"},
		"tick":               {now: timex{freq: 65536, tick: 10001, status: 0x10}, want: "its frequency is +101.000 ppm"},
		"loop":               {now: timex{freq: 65536, tick: 10000, status: 0x11}, want: "the kernel's own loop is on"},
		"leap":               {now: timex{freq: 65536, tick: 10000}, want: "leap seconds are 0x0, and were set to 0x10"},
		"adjtime":            {now: timex{freq: 65536, tick: 10000, status: 0x10}, left: -300, want: "it is being slewed by -300µs"},
	} {
		k := &Kernel{adjtime: func(t *timex) error {
			switch t.modes {
			case 0:
				*t = c.now
			case unix.ADJ_OFFSET_SS_READ:
				t.offset = c.left
			}
			return nil
		}}
		if err := errors.Join(k.Begin(), k.Steer(1e-6), k.Declare(ms, ms, 1)); err != nil {
			t.Fatal(err)
		}
		got, err := k.Interference()
		if err != nil || (c.want == "") != (got == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	k := &Kernel{adjtime: func(*timex) error { return errors.New("not to be asked") }}
	if got, err := k.Interference(); got != "" || err != nil {
		t.Errorf("before anything was written: %q, %v", got, err)
	}
}

func TestSteerRefused(t *testing.T) {
	for name, do := range map[string]func(*Kernel) error{
		"begin":   (*Kernel).Begin,
		"steer":   func(k *Kernel) error { return k.Steer(0) },
		"declare": func(k *Kernel) error { return k.Declare(0, 0, 0) },
	} {
		r := recorder{errs: []error{unix.EPERM}}
		if err := do(r.kernel(t, "")); !errors.Is(err, ErrNotPermitted) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The machine's own clocks, read only.
func TestNow(t *testing.T) {
	k := New()
	before := time.Now().UnixNano()
	raw, correction, err := k.Now()
	after := time.Now().UnixNano()
	// Half of the time that the reading took is all that it may be off.
	slack := after - before
	if now := int64(raw + correction); err != nil || now < before-slack || now > after+slack {
		t.Errorf("%d is not between %d and %d: %v", now, before, after, err)
	}
	again, _, err := k.Now()
	if err != nil || again <= raw {
		t.Errorf("%v after %v, %v", again, raw, err)
	}
	if d, err := k.Suspended(); err != nil || d < -ms {
		t.Errorf("suspended for %v, %v", d, err)
	}
	if rate, err := k.Rate(); err != nil || math.Abs(rate) > 0.11 {
		t.Errorf("rate %v, %v", rate, err)
	}
}

// A watch says nothing by itself, and ends with its context.
func TestChangesEnd(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	changes, err := New().Changes(ctx)
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if _, ok := <-changes; ok {
		t.Error("the clock was set?")
	}
}
