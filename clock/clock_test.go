package clock

import (
	"errors"
	"testing"
	"time"
)

// Whatever the operating system, a dry run is permitted and reports success.
func TestDryRunDoesNothing(t *testing.T) {
	c := DryRun{} // a kernel's clock touched would be a nil dereference
	if err := errors.Join(c.Permitted(), c.Step(time.Hour, 0, 0), c.Slew(time.Second, 0, 0),
		c.Begin(), c.Steer(1), c.Declare(0, 0, 1)); err != nil {
		t.Error(err)
	}
}

func TestSimulated(t *testing.T) {
	s := Simulated{Offset: time.Hour, Error: Unsynchronized}
	if ok, _ := s.Synchronized(); ok {
		t.Error("synchronized before it was set")
	}
	if err := s.Step(time.Hour-time.Second, time.Millisecond, time.Microsecond); err != nil {
		t.Fatal(err)
	}
	if err := s.Slew(time.Second, 2*time.Millisecond, 0); err != nil {
		t.Fatal(err)
	}
	if ok, _ := s.Synchronized(); !ok || s.Offset != 0 || s.Error != 2*time.Millisecond {
		t.Errorf("after step and slew: synchronized %v, %+v", ok, s)
	}
	if len(s.Received) != 2 || s.Received[0].Slewed || !s.Received[1].Slewed {
		t.Errorf("recorded %+v", s.Received)
	}
	s.Denied = ErrNotPermitted
	if err := s.Step(1, 0, 0); !errors.Is(err, ErrNotPermitted) || len(s.Received) != 2 {
		t.Errorf("a denied step: %v, %+v", err, s)
	}
}
