//go:build !unix

package main

import "os"

var remeasureSignals []os.Signal
