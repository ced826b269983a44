//go:build !linux

package confine

import (
	"errors"
	"fmt"
)

func (Needs) apply() (rest func() error, err error) {
	return func() error { return nil }, fmt.Errorf("confining the process: %w", errors.ErrUnsupported)
}
