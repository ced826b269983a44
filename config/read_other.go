//go:build !unix || darwin

package config

// Windows has no such pipes, and of those of macOS Go cannot wait for a writer
// that is slow.
const nonblock = 0
