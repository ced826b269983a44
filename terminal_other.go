//go:build !unix

package main

func terminalWidth(uintptr) (int, bool) { return 0, false }
