//go:build !linux

package nts

import "errors"

func bindToInterface(uintptr, string) error { return errors.ErrUnsupported }
