// Package clock reads and corrects the kernel's clock.
//
// Offsets are what must be added to the clock: positive where it is slow.
package clock

import (
	"errors"
	"time"
)

// Unsynchronized is the maximum error from which on the kernel itself gives up
// its clock: it stands there after every boot until something sets the clock.
const Unsynchronized = 16 * time.Second

// ErrNotPermitted says that this process may not set the clock. An error that
// wraps it tells why, and the mend.
var ErrNotPermitted = errors.New("not permitted to set the clock")

// DryRun is the machine's clock with its hands tied: what it reads is real, and
// what it is told to do it does not.
type DryRun struct{ *Kernel }

// Permitted is nil: nothing needs permission.
func (DryRun) Permitted() error { return nil }

// Step changes nothing.
func (DryRun) Step(_, _, _ time.Duration) error { return nil }

// Slew changes nothing.
func (DryRun) Slew(_, _, _ time.Duration) error { return nil }

// Begin changes nothing: what others do to the clock is no interference.
func (DryRun) Begin() error { return nil }

// Steer changes nothing.
func (DryRun) Steer(float64) error { return nil }

// Declare changes nothing.
func (DryRun) Declare(_, _ time.Duration, _ int) error { return nil }

// Correction is one that a Simulated clock was given.
type Correction struct {
	Slewed                     bool
	Offset, MaxError, EstError time.Duration
}

// Simulated is a clock for tests. It is not safe for concurrent use.
type Simulated struct {
	Offset   time.Duration // what must be added to it; a correction takes from it at once
	Error    time.Duration // its maximum error: Unsynchronized, as after boot, until it is set
	Denied   error         // what Permitted, Step and Slew return
	Received []Correction
}

// Permitted returns s.Denied.
func (s *Simulated) Permitted() error { return s.Denied }

// MaxError returns s.Error.
func (s *Simulated) MaxError() (time.Duration, error) { return s.Error, nil }

// Synchronized says whether s.Error is below Unsynchronized.
func (s *Simulated) Synchronized() (bool, error) { return s.Error < Unsynchronized, nil }

// Step records the correction and makes it.
func (s *Simulated) Step(offset, maxError, estError time.Duration) error {
	return s.correct(Correction{false, offset, maxError, estError})
}

// Slew records the correction and makes it.
func (s *Simulated) Slew(offset, maxError, estError time.Duration) error {
	return s.correct(Correction{true, offset, maxError, estError})
}

func (s *Simulated) correct(c Correction) error {
	if s.Denied != nil {
		return s.Denied
	}
	s.Offset -= c.Offset
	s.Error = c.MaxError
	s.Received = append(s.Received, c)
	return nil
}
