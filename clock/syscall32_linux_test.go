//go:build 386 || arm || mips || mipsle

package clock

import (
	"errors"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestOldAdjtime(t *testing.T) {
	req := stepRequest(-300*time.Millisecond, 11*time.Millisecond, time.Millisecond, true)
	var got unix.Timex
	err := oldAdjtime(&req, func(o *unix.Timex) error {
		got = *o
		o.Maxerror, o.Status, o.Freq = 16000000, 0x2040, -65536
		return nil
	})
	want := unix.Timex{Modes: 0x211c, Maxerror: 11000, Esterror: 1000, Status: 0x40}
	want.Time.Sec, want.Time.Usec = -1, 700000000
	if err != nil || got != want {
		t.Errorf("%v\n got %+v\nwant %+v", err, got, want)
	}
	if req.maxError != 16000000 || req.status != 0x2040 || req.freq != -65536 {
		t.Errorf("read back %+v", req)
	}
}

// A jump that 32 bits cannot hold must not wrap round into another one.
func TestOldAdjtimeTooFar(t *testing.T) {
	req := stepRequest(69*366*24*time.Hour, 0, 0, false)
	err := oldAdjtime(&req, func(*unix.Timex) error {
		t.Error("the call was made")
		return nil
	})
	if !errors.Is(err, unix.ENOSYS) {
		t.Error(err)
	}
}

// Both calls read the same clock: reading cannot change it.
func TestBothCallsRead(t *testing.T) {
	var wide, old timex
	if err := clockAdjtime(&wide); err != nil {
		t.Fatal(err)
	}
	err := oldAdjtime(&old, func(o *unix.Timex) error {
		_, err := unix.ClockAdjtime(unix.CLOCK_REALTIME, o)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if wide.tick != old.tick || wide.status != old.status || wide.freq != old.freq {
		t.Errorf("wide %+v, old %+v", wide, old)
	}
}
