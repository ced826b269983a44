package clock

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// steered is what the loop wrote last, to know again.
type steered struct {
	freq, tick int64
	status     int32 // the flags of leap seconds
}

// Now reads the raw clock (CLOCK_MONOTONIC_RAW), and the correction that makes
// the kernel's clock of it (CLOCK_REALTIME − raw), at the same moment: of a few
// tries the quickest, since the process may be put aside in between.
func (k *Kernel) Now() (raw, correction time.Duration, err error) {
	quickest := time.Duration(math.MaxInt64)
	for range 3 {
		before, err := gettime(unix.CLOCK_MONOTONIC_RAW)
		if err != nil {
			return 0, 0, err
		}
		real := time.Duration(time.Now().UnixNano()) // also on 32-bit machines, where gettime ends in 2038
		after, err := gettime(unix.CLOCK_MONOTONIC_RAW)
		if err != nil {
			return 0, 0, err
		}
		if took := after - before; took < quickest {
			quickest, raw = took, before+took/2
			correction = real - raw
		}
	}
	return raw, correction, nil
}

// Suspended is for how long this machine has been suspended since boot.
func (k *Kernel) Suspended() (time.Duration, error) {
	monotonic, err := gettime(unix.CLOCK_MONOTONIC)
	if err != nil {
		return 0, err
	}
	boot, err := gettime(unix.CLOCK_BOOTTIME)
	return boot - monotonic, err
}

func gettime(id int32) (time.Duration, error) {
	var ts unix.Timespec
	if err := unix.ClockGettime(id, &ts); err != nil {
		return 0, fmt.Errorf("read the kernel's clock %d: %w", id, err)
	}
	return time.Duration(ts.Nano()), nil
}

// Rate is by how much the kernel's clock runs faster than the raw clock, s/s.
func (k *Kernel) Rate() (float64, error) {
	var t timex
	if err := k.adjtime(&t); err != nil {
		return 0, failed("read the kernel's clock", err)
	}
	return rateOf(&t), nil
}

// Begin takes the clock over: what an earlier slew left is dropped, and so is
// what a loop in the kernel (STA_PLL) left. Frequency and synchronized state
// stay as they are.
func (k *Kernel) Begin() error {
	var now timex
	if err := k.adjtime(&now); err != nil {
		return failed("read the kernel's clock", err)
	}
	unsync := now.status & unix.STA_UNSYNC
	for _, t := range []timex{
		{modes: unix.ADJ_OFFSET_SINGLESHOT},
		// An offset that the kernel's own loop makes up can be replaced only
		// while that is on.
		{modes: unix.ADJ_STATUS | unix.ADJ_OFFSET, status: unix.STA_PLL | unix.STA_FREQHOLD | unsync},
		{modes: unix.ADJ_STATUS, status: unsync},
	} {
		if err := k.adjtime(&t); err != nil {
			return failed("take over the clock", err)
		}
	}
	k.last = &steered{freq: now.freq, tick: now.tick}
	return nil
}

// Steer lets the kernel's clock run by rate (s/s) faster than the raw clock.
func (k *Kernel) Steer(rate float64) error {
	t := steerRequest(rate)
	wrote := steered{freq: t.freq, tick: t.tick}
	if err := k.adjtime(&t); err != nil {
		return failed(fmt.Sprintf("set the clock's frequency to %+.3f ppm", rate*1e6), err)
	}
	if k.last != nil {
		wrote.status = k.last.status
	}
	k.last = &wrote
	return nil
}

// Declare says that the clock is synchronized: right within maxError, and
// probably within estError; and that the UTC day ends with a second more (leap
// is 1), or less (-1), or with none of that.
func (k *Kernel) Declare(maxError, estError time.Duration, leap int) error {
	t := stateRequest(maxError, estError, k.rtcLocal())
	flag := [...]int32{unix.STA_DEL, 0, unix.STA_INS}[leap+1]
	t.status |= flag
	if err := k.adjtime(&t); err != nil {
		return failed("declare the clock synchronized", err)
	}
	if k.last != nil {
		k.last.status = flag
	}
	return nil
}

// Interference says in words what another program changed since Begin, Steer
// and Declare wrote last; empty: nothing.
func (k *Kernel) Interference() (string, error) {
	if k.last == nil {
		return "", nil
	}
	var now timex
	if err := k.adjtime(&now); err != nil {
		return "", failed("read the kernel's clock", err)
	}
	slew := timex{modes: unix.ADJ_OFFSET_SS_READ}
	if err := k.adjtime(&slew); err != nil {
		slew.offset = 0 // forbidden in some containers
	}
	var found []string
	// The kernel counts finer than it tells.
	if d := now.freq - k.last.freq; d < -2 || d > 2 || now.tick != k.last.tick {
		found = append(found, fmt.Sprintf("its frequency is %+.3f ppm, and was set to %+.3f ppm",
			rateOf(&now)*1e6, rateOf(&timex{freq: k.last.freq, tick: k.last.tick})*1e6))
	}
	const others = unix.STA_PLL | unix.STA_FLL | unix.STA_FREQHOLD | unix.STA_PPSFREQ | unix.STA_PPSTIME
	if now.status&others != 0 {
		found = append(found, fmt.Sprintf("the kernel's own loop is on (status %#x)", now.status))
	}
	const leaps = unix.STA_INS | unix.STA_DEL
	if now.status&leaps != k.last.status&leaps {
		found = append(found, fmt.Sprintf("the flags of leap seconds are %#x, and were set to %#x", now.status&leaps, k.last.status&leaps))
	}
	if slew.offset != 0 {
		found = append(found, fmt.Sprintf("it is being slewed by %v", time.Duration(slew.offset)*time.Microsecond))
	}
	return strings.Join(found, "; "), nil
}

// Changes tells whenever the clock was set, by whomever, and after each
// suspend. It ends with ctx.
func (k *Kernel) Changes(ctx context.Context) (<-chan struct{}, error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_REALTIME, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("watch the clock: %w", err)
	}
	f := os.NewFile(uintptr(fd), "timerfd")
	// It need not be armed: that the clock was set is told all the same.
	err = unix.TimerfdSettime(fd, unix.TFD_TIMER_ABSTIME|unix.TFD_TIMER_CANCEL_ON_SET, new(unix.ItimerSpec), nil)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("watch the clock: %w", err)
	}
	changes := make(chan struct{}, 1)
	go func() {
		defer close(changes)
		defer context.AfterFunc(ctx, func() { f.Close() })()
		var ticks [8]byte
		for {
			if _, err := f.Read(ticks[:]); !errors.Is(err, unix.ECANCELED) {
				return // closed
			}
			select {
			case changes <- struct{}{}:
			default:
			}
		}
	}()
	return changes, nil
}
