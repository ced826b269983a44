//go:build unix && !darwin

package config

import "syscall"

// A pipe is opened without waiting for its writer.
const nonblock = syscall.O_NONBLOCK
