//go:build unix

package main

import (
	"os"
	"syscall"
)

// remeasureSignals are sent when this may be another network.
var remeasureSignals = []os.Signal{syscall.SIGUSR1}
