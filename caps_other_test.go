//go:build !linux

package main

func withoutSysTime() {} // nothing there can set the clock

func asProcess() {}
