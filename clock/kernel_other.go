//go:build !linux

package clock

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"
)

// Kernel is the machine's clock, which this program can read and set on Linux only.
type Kernel struct{}

// New returns the machine's clock.
func New() *Kernel { return &Kernel{} }

// Permitted returns an error that wraps errors.ErrUnsupported.
func (*Kernel) Permitted() error { return missing("setting the clock") }

// MaxError returns an error that wraps errors.ErrUnsupported.
func (*Kernel) MaxError() (time.Duration, error) { return 0, missing("reading the clock's error") }

// Synchronized returns an error that wraps errors.ErrUnsupported.
func (*Kernel) Synchronized() (bool, error) { return false, missing("reading the clock's error") }

// Step returns an error that wraps errors.ErrUnsupported.
func (*Kernel) Step(_, _, _ time.Duration) error { return missing("setting the clock") }

// Slew returns an error that wraps errors.ErrUnsupported.
func (*Kernel) Slew(_, _, _ time.Duration) error { return missing("setting the clock") }

// Now returns an error that wraps errors.ErrUnsupported.
func (*Kernel) Now() (raw, correction time.Duration, err error) {
	return 0, 0, missing("reading the raw clock")
}

// Suspended returns an error that wraps errors.ErrUnsupported.
func (*Kernel) Suspended() (time.Duration, error) { return 0, missing("reading the raw clock") }

// Rate returns an error that wraps errors.ErrUnsupported.
func (*Kernel) Rate() (float64, error) { return 0, missing("reading the clock's frequency") }

// Begin returns an error that wraps errors.ErrUnsupported.
func (*Kernel) Begin() error { return missing("steering the clock") }

// Steer returns an error that wraps errors.ErrUnsupported.
func (*Kernel) Steer(float64) error { return missing("steering the clock") }

// Declare returns an error that wraps errors.ErrUnsupported.
func (*Kernel) Declare(_, _ time.Duration, _ int) error { return missing("steering the clock") }

// Interference returns an error that wraps errors.ErrUnsupported.
func (*Kernel) Interference() (string, error) { return "", missing("reading the clock's frequency") }

// Changes returns an error that wraps errors.ErrUnsupported.
func (*Kernel) Changes(context.Context) (<-chan struct{}, error) {
	return nil, missing("watching the clock")
}

func missing(what string) error {
	return fmt.Errorf("%s is only there on Linux, not on %s: %w", what, runtime.GOOS, errors.ErrUnsupported)
}
