package clock

import (
	"errors"
	"fmt"
	"math"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Kernel is the machine's clock. What only reads may be called by several
// goroutines at once.
type Kernel struct {
	adjtime func(*timex) error
	rtcFile string   // where hwclock(8) notes whether the RTC keeps UTC or local time
	last    *steered // what a loop wrote; nil: nothing
}

// New returns the machine's clock.
func New() *Kernel {
	return &Kernel{adjtime: adjtime, rtcFile: "/etc/adjtime"}
}

// Permitted finds out, without an effect on the clock, whether this process may
// set it. If not, the error wraps ErrNotPermitted and says why, and the mend.
func (k *Kernel) Permitted() error {
	t := probeRequest()
	err := k.adjtime(&t)
	if errors.Is(err, unix.EINVAL) { // permission is checked before the value
		return nil
	}
	if err == nil {
		err = errors.New("the kernel took a request that it should refuse")
	}
	return failed("ask whether the clock may be set", err)
}

// MaxError is the error that the kernel's clock may have by its own account.
func (k *Kernel) MaxError() (time.Duration, error) {
	var t timex
	if err := k.adjtime(&t); err != nil {
		return 0, failed("read the kernel's clock", err)
	}
	return time.Duration(t.maxError) * time.Microsecond, nil
}

// Synchronized says whether something set the clock since boot, and not too
// long ago: by the maximum error, not by STA_UNSYNC, which stays set where the
// RTC keeps local time.
func (k *Kernel) Synchronized() (bool, error) {
	maxError, err := k.MaxError()
	return err == nil && maxError < Unsynchronized, err
}

// Step adds offset to the clock at once, and declares it synchronized: right
// within maxError, and probably within estError.
func (k *Kernel) Step(offset, maxError, estError time.Duration) error {
	t := stepRequest(offset, maxError, estError, k.rtcLocal())
	if err := k.adjtime(&t); err != nil {
		return failed(fmt.Sprintf("step the clock by %v", offset), err)
	}
	return nil
}

// Slew makes the clock run 500 µs/s fast or slow until offset is made up, which
// the kernel finishes after this process has ended, and declares it
// synchronized as Step does. An earlier slew that has not ended yet is replaced.
func (k *Kernel) Slew(offset, maxError, estError time.Duration) error {
	if offset.Abs() > math.MaxInt32*time.Microsecond {
		return fmt.Errorf("slew the clock by %v: too far, more than 49 days would go by", offset)
	}
	t := slewRequest(offset)
	if err := k.adjtime(&t); err != nil {
		return failed(fmt.Sprintf("slew the clock by %v", offset), err)
	}
	t = stateRequest(maxError, estError, k.rtcLocal())
	if err := k.adjtime(&t); err != nil {
		return failed("declare the clock synchronized", err)
	}
	return nil
}

// rtcLocal says whether the RTC keeps local time: the third line of the file is
// LOCAL. Without a file it keeps UTC.
func (k *Kernel) rtcLocal() bool {
	b, err := os.ReadFile(k.rtcFile)
	if err != nil {
		return false
	}
	lines := strings.Split(string(b), "\n")
	return len(lines) > 2 && strings.TrimSpace(lines[2]) == "LOCAL"
}

// failed names what failed; where permission is missing, it says why.
func failed(what string, err error) error {
	if !errors.Is(err, unix.EPERM) {
		return fmt.Errorf("%s: %w", what, err)
	}
	uids, _ := os.ReadFile("/proc/self/uid_map")
	// Fails only for what is no capability.
	bounding, _ := unix.PrctlRetInt(unix.PR_CAPBSET_READ, unix.CAP_SYS_TIME, 0, 0, 0)
	program, err := os.Executable()
	if err != nil {
		program = "PROGRAM"
	}
	return fmt.Errorf("%w: %s", ErrNotPermitted, whyNot(string(uids), bounding == 1, program))
}

// whyNot tells from the process's user ID map (user_namespaces(7)) and from
// whether CAP_SYS_TIME can be had at all why the kernel said no.
func whyNot(uidMap string, attainable bool, program string) string {
	switch m := strings.Fields(uidMap); {
	case len(m) > 0 && strings.Join(m, " ") != "0 0 4294967295":
		return "in a user namespace (a rootless container) no capability suffices; run it on the host"
	case !attainable:
		return "CAP_SYS_TIME was taken from all processes here (by a container or a unit); give it there: " +
			"`--cap-add SYS_TIME`, or CapabilityBoundingSet=CAP_SYS_TIME, or run it on the host"
	default:
		return "CAP_SYS_TIME is missing; start it as root or by its systemd unit, " +
			"or give it the capability once: `setcap cap_sys_time+ep " + program + "`"
	}
}
