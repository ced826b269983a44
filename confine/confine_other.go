//go:build !linux

package confine

import (
	"errors"
	"fmt"
)

func (Needs) apply() error {
	return fmt.Errorf("confining the process: %w", errors.ErrUnsupported)
}
