package clock

import (
	"encoding/hex"
	"errors"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const ms = time.Millisecond

// The numbers are those of linux/timex.h, so that a wrong constant shows.
func TestStepRequest(t *testing.T) {
	for _, c := range []struct {
		offset, maxError, estError time.Duration
		rtcLocal                   bool
		want                       timex
	}{
		{offset: 0, want: timex{modes: 0x211c}},
		{offset: 300 * ms, maxError: 11 * ms, estError: ms, want: timex{modes: 0x211c, frac: 300000000, maxError: 11000, estError: 1000}},
		{offset: -300 * ms, want: timex{modes: 0x211c, sec: -1, frac: 700000000}},
		{offset: -2 * time.Second, want: timex{modes: 0x211c, sec: -2}},
		{offset: -1, want: timex{modes: 0x211c, sec: -1, frac: 999999999}},
		{offset: math.MinInt64, want: timex{modes: 0x211c, sec: -9223372037, frac: 145224192}},
		{offset: math.MaxInt64, want: timex{modes: 0x211c, sec: 9223372036, frac: 854775807}},
		{offset: time.Second, rtcLocal: true, want: timex{modes: 0x211c, sec: 1, status: 0x40}},
		{maxError: 1, estError: 1001, want: timex{modes: 0x211c, maxError: 1, estError: 2}},
		{maxError: time.Hour, estError: -1, want: timex{modes: 0x211c, maxError: 16000000}},
	} {
		if got := stepRequest(c.offset, c.maxError, c.estError, c.rtcLocal); got != c.want {
			t.Errorf("stepRequest(%v, %v, %v, %v)\n got %+v\nwant %+v", c.offset, c.maxError, c.estError, c.rtcLocal, got, c.want)
		}
	}
}

func TestSlewRequest(t *testing.T) {
	for offset, want := range map[time.Duration]int64{
		80 * ms: 80000, -80 * ms: -80000, 499: 0, 500: 1, -500: -1, 0: 0,
	} {
		if got := slewRequest(offset); got != (timex{modes: 0x8001, offset: want}) {
			t.Errorf("slewRequest(%v) = %+v, want %d µs", offset, got, want)
		}
	}
}

// recorder stands in for the system call. It never reaches a clock.
type recorder struct {
	got  []timex
	errs []error // one a call; then nil
	give timex
}

func (r *recorder) call(t *timex) error {
	r.got = append(r.got, *t)
	if len(r.errs) >= len(r.got) && r.errs[len(r.got)-1] != nil {
		return r.errs[len(r.got)-1]
	}
	if t.modes == 0 {
		*t = r.give
	}
	return nil
}

func (r *recorder) kernel(t *testing.T, adjtime string) *Kernel {
	t.Helper()
	k := &Kernel{adjtime: r.call, rtcFile: filepath.Join(t.TempDir(), "adjtime")}
	if adjtime != "" {
		if err := os.WriteFile(k.rtcFile, []byte(adjtime), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return k
}

func TestStepAndSlewCalls(t *testing.T) {
	for name, c := range map[string]struct {
		adjtime string
		do      func(*Kernel) error
		want    []timex
	}{
		"step": {
			"", func(k *Kernel) error { return k.Step(-300*ms, 11*ms, 2*ms) },
			[]timex{{modes: 0x211c, sec: -1, frac: 700000000, maxError: 11000, estError: 2000}},
		},
		"step, RTC in UTC": {
			"0.0 0 0.0\n0\nUTC\n", func(k *Kernel) error { return k.Step(time.Second, 0, 0) },
			[]timex{{modes: 0x211c, sec: 1}},
		},
		"step, RTC in local time": {
			"0.0 0 0.0\n0\nLOCAL\n", func(k *Kernel) error { return k.Step(time.Second, 0, 0) },
			[]timex{{modes: 0x211c, sec: 1, status: 0x40}},
		},
		"slew": {
			"", func(k *Kernel) error { return k.Slew(80*ms, 11*ms, 2*ms) },
			[]timex{{modes: 0x8001, offset: 80000}, {modes: 0x1c, maxError: 11000, estError: 2000}},
		},
		"slew, RTC in local time": {
			"0.0 0 0.0\n0\nLOCAL", func(k *Kernel) error { return k.Slew(-ms, 0, 0) },
			[]timex{{modes: 0x8001, offset: -1000}, {modes: 0x1c, status: 0x40}},
		},
	} {
		var r recorder
		if err := c.do(r.kernel(t, c.adjtime)); err != nil || !reflect.DeepEqual(r.got, c.want) {
			t.Errorf("%s: %v\n got %+v\nwant %+v", name, err, r.got, c.want)
		}
	}
}

func TestSlewTooFar(t *testing.T) {
	var r recorder
	if err := r.kernel(t, "").Slew(-time.Hour, 0, 0); err == nil || len(r.got) != 0 {
		t.Errorf("got %v after %+v", err, r.got)
	}
}

func TestRefusals(t *testing.T) {
	for name, do := range map[string]func(*Kernel) error{
		"step":      func(k *Kernel) error { return k.Step(time.Second, 0, 0) },
		"slew":      func(k *Kernel) error { return k.Slew(time.Second, 0, 0) },
		"permitted": (*Kernel).Permitted,
	} {
		for _, c := range []struct {
			errno   error
			not, is error
		}{
			{errno: unix.EPERM, is: ErrNotPermitted},
			{errno: unix.ENOSYS, is: unix.ENOSYS, not: ErrNotPermitted},
		} {
			r := recorder{errs: []error{c.errno}}
			err := do(r.kernel(t, ""))
			if !errors.Is(err, c.is) || (c.not != nil && errors.Is(err, c.not)) || len(r.got) != 1 {
				t.Errorf("%s, %v: %v after %d calls", name, c.errno, err, len(r.got))
			}
		}
	}
	r := recorder{errs: []error{nil, unix.EPERM}}
	if err := r.kernel(t, "").Slew(time.Second, 0, 0); !errors.Is(err, ErrNotPermitted) {
		t.Errorf("slew whose state is refused: %v", err)
	}
}

// The probe must be one that the kernel never carries out.
func TestPermittedProbe(t *testing.T) {
	r := recorder{errs: []error{unix.EINVAL}}
	if err := r.kernel(t, "").Permitted(); err != nil {
		t.Error(err)
	}
	if want := []timex{{modes: 0x4000}}; !reflect.DeepEqual(r.got, want) {
		t.Errorf("asked %+v", r.got)
	}
	if err := (&recorder{}).kernel(t, "").Permitted(); err == nil {
		t.Error("a probe that was carried out passed for permission")
	}
}

func TestMaxError(t *testing.T) {
	for maxError, synchronized := range map[int64]bool{0: true, 15999999: true, 16000000: false, 16000500: false} {
		// STA_UNSYNC says nothing here: it stays set where the RTC keeps local time.
		for _, status := range []int32{0, 0x40} {
			r := recorder{give: timex{maxError: maxError, status: status}}
			k := r.kernel(t, "")
			d, err := k.MaxError()
			ok, err2 := k.Synchronized()
			if err != nil || err2 != nil || d != time.Duration(maxError)*time.Microsecond || ok != synchronized {
				t.Errorf("maxerror %d: %v, synchronized %v, %v, %v", maxError, d, ok, err, err2)
			}
		}
	}
	r := recorder{errs: []error{unix.ENOSYS, unix.ENOSYS}}
	k := r.kernel(t, "")
	if _, err := k.MaxError(); !errors.Is(err, unix.ENOSYS) {
		t.Error(err)
	}
	if ok, err := k.Synchronized(); ok || !errors.Is(err, unix.ENOSYS) {
		t.Error(ok, err)
	}
}

func TestWhyNot(t *testing.T) {
	const host = "         0          0 4294967295\n"
	for _, c := range []struct {
		uidMap     string
		attainable bool
		want       string
	}{
		{host, true, "setcap cap_sys_time+ep /usr/bin/prog"},
		{"", true, "setcap cap_sys_time+ep /usr/bin/prog"},
		{host, false, "CapabilityBoundingSet=CAP_SYS_TIME"},
		{"0 1000 1\n", true, "user namespace"},
		{"0 1000 1\n1 100000 65536\n", false, "user namespace"},
	} {
		if got := whyNot(c.uidMap, c.attainable, "/usr/bin/prog"); !strings.Contains(got, c.want) {
			t.Errorf("whyNot(%q, %v) = %q, want %q in it", c.uidMap, c.attainable, got, c.want)
		}
	}
}

// The layout of struct __kernel_timex, octet for octet, on every processor.
func TestTimexLayout(t *testing.T) {
	v := timex{
		modes: 0x01, offset: 0x02, freq: 0x03, maxError: 0x04, estError: 0x05, status: 0x06,
		constant: 0x07, precision: 0x08, tolerance: 0x09, sec: -1, frac: 0x0b, tick: 0x0c, ppsFreq: 0x0d,
		jitter: 0x0e, shift: 0x0f, stabil: 0x10, jitCnt: 0x11, calCnt: 0x12, errCnt: 0x13, stbCnt: 0x14, tai: 0x15,
	}
	var want strings.Builder
	for i := 1; i <= 0x15; i++ {
		octet := hex.EncodeToString([]byte{byte(i)})
		if i == 0x0a {
			want.WriteString("ffffffffffffffff") // seconds
		} else {
			want.WriteString(octet + "00000000000000") // 8 octets, or 4 and as many to fill up
		}
	}
	want.WriteString(strings.Repeat("00", 40))
	got := (*[unsafe.Sizeof(v)]byte)(unsafe.Pointer(&v))
	if one := uint16(1); *(*byte)(unsafe.Pointer(&one)) == 0 {
		t.Skip("written down for little-endian machines")
	}
	if h := hex.EncodeToString(got[:]); h != want.String() || len(got) != 208 {
		t.Errorf("%d octets\n got %s\nwant %s", len(got), h, want.String())
	}
}

// The machine's own clock, in ways that cannot change it: reading, and a probe
// that is always refused.
func TestRealClockReadOnly(t *testing.T) {
	k := New()
	d, err := k.MaxError()
	if err != nil || d < 0 {
		t.Errorf("maxerror %v, %v", d, err)
	}
	if err := k.Permitted(); err != nil && !errors.Is(err, ErrNotPermitted) {
		t.Error(err)
	}
}

// The kernel's answer to the probe goes with the capability, whichever this
// process has.
func TestPermittedFollowsCapability(t *testing.T) {
	uids, err := os.ReadFile("/proc/self/uid_map")
	if err != nil {
		t.Fatal(err)
	}
	data, err := capabilities()
	if err != nil {
		t.Fatal(err)
	}
	initial := strings.Join(strings.Fields(string(uids)), " ") == "0 0 4294967295"
	capable := initial && data[0].Effective&(1<<unix.CAP_SYS_TIME) != 0
	err = New().Permitted()
	if capable != (err == nil) {
		t.Errorf("capable %v, permitted: %v", capable, err)
	}
	result := make(chan error, 1)
	go func() { result <- withoutSysTime(New().Permitted) }()
	if err := <-result; !errors.Is(err, ErrNotPermitted) {
		t.Errorf("without the capability: %v", err)
	}
}

func capabilities() (data [2]unix.CapUserData, err error) {
	h := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	err = unix.Capget(&h, &data[0])
	return data, err
}

// withoutSysTime calls f in a thread that has no CAP_SYS_TIME. The thread ends
// with the goroutine, because it stays locked to it.
func withoutSysTime(f func() error) error {
	runtime.LockOSThread()
	data, err := capabilities()
	if err != nil {
		return err
	}
	data[0].Effective &^= 1 << unix.CAP_SYS_TIME
	h := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	if err := unix.Capset(&h, &data[0]); err != nil {
		return err
	}
	return f()
}
