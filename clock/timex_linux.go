package clock

import (
	"math"
	"time"

	"golang.org/x/sys/unix"
)

// timex is the kernel's struct __kernel_timex: 208 octets, the same on every
// processor, which the padding sees to where int64 is aligned to 4.
type timex struct {
	modes     uint32
	_         int32
	offset    int64 // µs in a one-shot slew
	freq      int64
	maxError  int64 // µs
	estError  int64 // µs
	status    int32
	_         int32
	constant  int64
	precision int64
	tolerance int64
	sec       int64
	frac      int64 // of the second: ns with ADJ_NANO, else µs
	tick      int64
	ppsFreq   int64
	jitter    int64
	shift     int32
	_         int32
	stabil    int64
	jitCnt    int64
	calCnt    int64
	errCnt    int64
	stbCnt    int64
	tai       int32
	_         [11]int32
}

// stepRequest moves the clock by offset. ADJ_SETOFFSET clears the synchronized
// state and what is left of a slew; the other modes of the same call, which the
// kernel handles after it, set the state again.
func stepRequest(offset, maxError, estError time.Duration, rtcLocal bool) timex {
	t := stateRequest(maxError, estError, rtcLocal)
	t.modes |= unix.ADJ_SETOFFSET | unix.ADJ_NANO
	t.sec = int64(offset / time.Second)
	t.frac = int64(offset % time.Second)
	if t.frac < 0 { // the kernel wants the fraction positive: -0.3 s is -1 s + 0.7 s
		t.sec--
		t.frac += int64(time.Second)
	}
	return t
}

// slewRequest lets the clock run 500 µs/s fast or slow until offset is made up.
// The kernel looks at no other mode bit in such a call.
func slewRequest(offset time.Duration) timex {
	return timex{modes: unix.ADJ_OFFSET_SINGLESHOT, offset: int64(offset.Round(time.Microsecond) / time.Microsecond)}
}

// stateRequest declares the clock synchronized, within maxError. STA_UNSYNC
// stays where the RTC keeps local time, since the kernel would else write UTC
// to it every 11 minutes. All other status bits are cleared: a leap second or a
// loop that another program left armed has nobody to look after it.
func stateRequest(maxError, estError time.Duration, rtcLocal bool) timex {
	t := timex{
		modes:    unix.ADJ_STATUS | unix.ADJ_MAXERROR | unix.ADJ_ESTERROR,
		maxError: micros(maxError),
		estError: micros(estError),
	}
	if rtcLocal {
		t.status = unix.STA_UNSYNC
	}
	return t
}

// The kernel's units of frequency, and their bounds. What ADJ_FREQUENCY cannot
// do, longer or shorter ticks do.
const (
	freqUnit = 1e-6 / (1 << 16) // s/s
	maxFreq  = 500 << 16
	ordinary = 10000 // µs, the length of a tick
	tickUnit = 1e-4  // s/s, what 1 µs of it makes
	maxTicks = ordinary / 10
)

// steerRequest makes the clock run by rate, s/s, faster than the raw clock.
func steerRequest(rate float64) timex {
	t := timex{modes: unix.ADJ_FREQUENCY | unix.ADJ_TICK, tick: ordinary}
	if math.Abs(rate) > maxFreq*freqUnit {
		longer := min(max(math.Round(rate/tickUnit), -maxTicks), maxTicks)
		t.tick += int64(longer)
		rate -= longer * tickUnit
	}
	t.freq = int64(math.Round(min(max(rate/freqUnit, -maxFreq), maxFreq)))
	return t
}

// rateOf is the rate that a steerRequest was made of.
func rateOf(t *timex) float64 {
	return float64(t.freq)*freqUnit + float64(t.tick-ordinary)*tickUnit
}

// probeRequest asks for a tick of no length, which the kernel always refuses:
// with EPERM to those who may not set the clock, and with EINVAL to those who may.
func probeRequest() timex { return timex{modes: unix.ADJ_TICK} }

// micros rounds an error up to what the kernel counts in, and keeps it within
// what the kernel can say.
func micros(d time.Duration) int64 {
	d = min(max(d, 0), Unsynchronized)
	return int64((d + time.Microsecond - 1) / time.Microsecond)
}

// adjtime is clock_adjtime(CLOCK_REALTIME). Containers often forbid that even
// for reading, but not adjtimex, which is older.
func adjtime(t *timex) error {
	err := clockAdjtime(t)
	if err == nil || t.modes != 0 {
		return err
	}
	var old unix.Timex
	if _, olderr := unix.Adjtimex(&old); olderr != nil {
		return err
	}
	t.status, t.maxError, t.estError = old.Status, int64(old.Maxerror), int64(old.Esterror)
	t.freq, t.tick = int64(old.Freq), int64(old.Tick)
	return nil
}
