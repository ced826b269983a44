//go:build 386 || arm || mips || mipsle

package clock

import (
	"errors"
	"fmt"
	"math"
	"unsafe"

	"golang.org/x/sys/unix"
)

// clockAdjtime is clock_adjtime64, the call with 64-bit seconds that 32-bit
// machines have since Linux 5.1, or else the old one.
func clockAdjtime(t *timex) error {
	_, _, errno := unix.Syscall(unix.SYS_CLOCK_ADJTIME64, unix.CLOCK_REALTIME, uintptr(unsafe.Pointer(t)), 0)
	switch {
	case errno == 0:
		return nil
	case errors.Is(errno, unix.ENOSYS):
		return oldAdjtime(t, func(o *unix.Timex) error {
			_, err := unix.ClockAdjtime(unix.CLOCK_REALTIME, o)
			return err
		})
	default:
		return errno
	}
}

// oldAdjtime goes by way of the call with 32-bit seconds.
func oldAdjtime(t *timex, call func(*unix.Timex) error) error {
	if t.sec != int64(int32(t.sec)) {
		return fmt.Errorf("a clock that is off by more than %d years needs Linux 5.1 or later on a 32-bit machine: %w",
			math.MaxInt32/(366*86400), unix.ENOSYS)
	}
	o := unix.Timex{
		Modes: t.modes, Offset: int32(t.offset), Freq: int32(t.freq),
		Maxerror: int32(t.maxError), Esterror: int32(t.estError),
		Status: t.status, Constant: int32(t.constant), Tick: int32(t.tick),
	}
	o.Time.Sec, o.Time.Usec = int32(t.sec), int32(t.frac)
	if err := call(&o); err != nil {
		return err
	}
	t.offset, t.freq = int64(o.Offset), int64(o.Freq)
	t.maxError, t.estError = int64(o.Maxerror), int64(o.Esterror)
	t.status, t.constant, t.tick = o.Status, int64(o.Constant), int64(o.Tick)
	return nil
}
