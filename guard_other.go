//go:build !linux

package main

import "ntsclient/config"

// guardedReader is for Linux, where programs have capabilities.
func guardedReader() config.Reader { return config.ReadFile }
