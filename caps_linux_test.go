package main

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// withoutSysTime gives CAP_SYS_TIME up for good, by starting this program once
// more with a bounding set that lacks it.
func withoutSysTime() {
	if !haveSysTime() {
		return
	}
	runtime.LockOSThread() // capabilities are a thread's
	err := unix.Prctl(unix.PR_CAPBSET_DROP, unix.CAP_SYS_TIME, 0, 0, 0)
	if err == nil && os.Getenv("NTSCLIENT_TEST_DROPPED") == "" {
		err = syscall.Exec("/proc/self/exe", os.Args, append(os.Environ(), "NTSCLIENT_TEST_DROPPED=1"))
	}
	fmt.Fprintln(os.Stderr, "tests do not run with the right to set the clock, and it cannot be given up:", err)
	os.Exit(1)
}

func haveSysTime() bool {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return true
	}
	_, after, _ := strings.Cut(string(status), "\nCapEff:")
	line, _, _ := strings.Cut(after, "\n")
	caps, err := strconv.ParseUint(strings.TrimSpace(line), 16, 64)
	return err != nil || caps&(1<<unix.CAP_SYS_TIME) != 0
}
