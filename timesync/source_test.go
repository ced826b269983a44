package timesync

import (
	"encoding/json"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"
	"unsafe"

	"ntsclient/nts"
	"ntsclient/timesync/report"
)

// clockSet is t as it would read if the wall clock had been set by so many
// seconds before, and nothing else had happened.
func clockSet(t *testing.T, at time.Time, seconds int) time.Time {
	t.Helper()
	set := at
	*(*uint64)(unsafe.Pointer(&set)) += uint64(seconds) << 30 // see package time: wall seconds above 30 bits of nanoseconds
	if set.Sub(at) != 0 || set.Round(0).Sub(at.Round(0)) != time.Duration(seconds)*time.Second {
		t.Skip("package time has changed its Time: this test cannot set the clock")
	}
	return set
}

// sampleAt is a good sample that was read at at: the clock is slow by offset,
// and the way there and back took 10 ms each.
func sampleAt(at time.Time, offset time.Duration) *nts.Sample {
	wall := at.Round(0)
	return &nts.Sample{
		T1: wall.Add(-21 * ms), T2: wall.Add(-11*ms + offset), T3: wall.Add(-10*ms + offset), T4: wall, At: at,
		Stratum: 1,
	}
}

func TestHeld(t *testing.T) {
	at := time.Now()
	s := sampleAt(at, time.Second)
	for _, c := range []struct {
		name string
		now  time.Time
		want time.Duration
	}{
		{"at once", at, time.Second},
		{"later", at.Add(3 * time.Second), time.Second},
		{"the clock was set to what the sample said", clockSet(t, at, 1), 0},
		{"and some time ago", clockSet(t, at.Add(3*time.Second), 1), 0},
		{"the clock was set back by an hour", clockSet(t, at.Add(time.Second), -3600), time.Second + time.Hour},
	} {
		if got := held(s, c.now); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

// Each part of the uncertainty adds what it must, and nothing else does.
func TestUncertainty(t *testing.T) {
	at := time.Now()
	// Half of 21 ms, though the server says that it had the packet for 1 ms; and
	// what a clock may drift in 21 ms, while it is slewed.
	base := 10500*time.Microsecond + stampError + 12600*time.Nanosecond
	for _, c := range []struct {
		name string
		edit func(m *measurement, now *time.Time)
		more time.Duration
	}{
		{"nothing but the round trip", func(*measurement, *time.Time) {}, 0},
		{"half of the root delay", func(m *measurement, _ *time.Time) { m.sample.RootDelay = 8 * ms }, 4 * ms},
		{"the root dispersion", func(m *measurement, _ *time.Time) { m.sample.RootDispersion = 8 * ms }, 8 * ms},
		{"the server's precision", func(m *measurement, _ *time.Time) { m.sample.Precision = ms }, ms},
		{"the spread of its samples", func(m *measurement, _ *time.Time) { m.jitter = 3 * ms }, 3 * ms},
		{"drift since", func(_ *measurement, now *time.Time) { *now = now.Add(10 * time.Second) }, 6 * ms},
		{"drift before, for a moment in the past", func(_ *measurement, now *time.Time) { *now = now.Add(-10 * time.Second) }, 6 * ms},
		{"a long round trip", func(m *measurement, _ *time.Time) { m.sample.T1 = m.sample.T1.Add(-time.Second) }, 500*ms + 600*time.Microsecond},
	} {
		m, now := &measurement{sample: sampleAt(at, 0)}, at
		c.edit(m, &now)
		if got := m.uncertainty(now); got != base+c.more {
			t.Errorf("%s: %v, want %v", c.name, got, base+c.more)
		}
	}
}

func TestChoose(t *testing.T) {
	at := time.Now()
	slow := func(s *nts.Sample, by time.Duration) *nts.Sample { // more delay, half of it on the way back
		s.T1, s.T2, s.T3 = s.T1.Add(-by), s.T2.Add(-by/2), s.T3.Add(-by/2)
		return s
	}
	best := sampleAt(at.Add(2*time.Second), 4*ms)
	for _, c := range []struct {
		name   string
		all    []*nts.Sample
		want   *nts.Sample
		jitter time.Duration
	}{
		{"none", nil, nil, 0},
		{"one", []*nts.Sample{best}, best, 0},
		{"the one with the least delay", []*nts.Sample{slow(sampleAt(at, 4*ms), 5*ms), best, slow(sampleAt(at.Add(4*time.Second), 4*ms), 9*ms)}, best, 0},
		{"spread", []*nts.Sample{slow(sampleAt(at, 7*ms), 5*ms), best}, best, 3 * ms},
		{"the first of equals", []*nts.Sample{best, sampleAt(at.Add(3*time.Second), 4*ms)}, best, 0},
	} {
		m := &measurement{err: errors.New("one was lost")}
		m.choose(c.all)
		if m.sample != c.want || m.samples != len(c.all) || (m.jitter-c.jitter).Abs() > time.Nanosecond {
			t.Errorf("%s: sample %+v of %d, spread %v", c.name, m.sample, m.samples, m.jitter)
		}
		if (m.err == nil) != (len(c.all) > 0) {
			t.Errorf("%s: error %v", c.name, m.err)
		}
	}
}

// Every reason for which an authenticated answer may not vote.
func TestUnfit(t *testing.T) {
	at := time.Now()
	for _, c := range []struct {
		name, code, reason string
		edit               func(m *measurement)
	}{
		{"good", "", "", func(*measurement) {}},
		{"stratum 15", "", "", func(m *measurement) { m.sample.Stratum = 15 }},
		{"stratum 16", "unsynchronized", "stratum 16", func(m *measurement) { m.sample.Stratum = 16 }},
		{"stratum 0", "unsynchronized", "stratum 0", func(m *measurement) { m.sample.Stratum = 0 }},
		{"leap 3", "unsynchronized", "leap 3", func(m *measurement) { m.sample.Leap = 3 }},
		{"leap 1", "", "", func(m *measurement) { m.sample.Leap = 1 }},
		{"no receive time", "impossible_times", "", func(m *measurement) { m.sample.T2 = time.Time{} }},
		{"no transmit time", "impossible_times", "", func(m *measurement) { m.sample.T3 = time.Time{} }},
		{"sent before received", "impossible_times", "-1ms", func(m *measurement) { m.sample.T2 = m.sample.T3.Add(ms) }},
		{"had it for longer than it was away", "impossible_times", "22ms", func(m *measurement) { m.sample.T2 = m.sample.T3.Add(-22 * ms) }},
		{"had it for all of the time", "", "", func(m *measurement) { m.sample.T2 = m.sample.T3.Add(-21 * ms) }},
		{"too distant", "too_distant", "max_distance (1s)", func(m *measurement) { m.sample.RootDispersion = time.Second }},
		{"answer before its window", "outside_window", "its certificate is good from", func(m *measurement) { m.session.Chain.NotBefore = at.AddDate(0, 0, 1) }},
		{"answer after its window", "outside_window", "its certificate is good from", func(m *measurement) { m.session.Chain.NotAfter = at.AddDate(0, 0, -1) }},
		{"answer after its window, dated before", "", "", func(m *measurement) { m.session.Chain.NotAfter, m.dated = at.AddDate(0, 0, -1), true }},
	} {
		m := &measurement{
			source: &source{Server: Server{Operator: "a"}}, sample: sampleAt(at, 0),
			session: &nts.Session{Chain: nts.Chain{NotBefore: at.AddDate(0, 0, -2), NotAfter: at.AddDate(0, 0, 2)}},
		}
		c.edit(m)
		b := m.ballot(at, time.Second)
		if b.out.Code != c.code || !strings.Contains(b.out.Reason, c.reason) || b.fit != (c.code == "") ||
			(b.out.Verdict == report.Unusable) != (c.code != "") {
			t.Errorf("%s: %+v", c.name, b)
		}
	}
}

func TestAddAddr(t *testing.T) {
	addr := func(i byte) netip.Addr { return netip.AddrFrom4([4]byte{192, 0, 2, i}) }
	session := func(i byte) *nts.Session { return &nts.Session{KEAddr: addr(i)} }
	var addrs []netip.Addr
	for _, i := range []byte{1, 2, 3, 2, 4, 5} {
		addrs = addAddr(addrs, session(i))
	}
	addrs = addAddr(addAddr(addrs, nil), new(nts.Session))
	got, err := json.Marshal(addrs)
	if want := `["192.0.2.5","192.0.2.4","192.0.2.2","192.0.2.3"]`; err != nil || string(got) != want {
		t.Errorf("%s, want %s", got, want)
	}
}
