package timesync

import (
	"context"
	"errors"
	"testing"
	"time"

	"ntsclient/nts/ntstest"
	"ntsclient/timesync/report"
)

// A check finds out about servers that give no good answer, each by itself, and
// changes nothing of what is agreed on. The others are left alone.
func TestCheck(t *testing.T) {
	longer := func(n int) func(bool, []byte) bool { return func(_ bool, b []byte) bool { return len(b) > n } }
	paths := map[int]*ntstest.Path{
		2: {Lost: longer(0)},
		3: {Lost: longer(48), Reply: func(b []byte) []byte {
			if len(b) > 48 {
				return nil
			}
			return ntstest.PlainAnswer(b)
		}},
		4: {Lost: longer(500)},
	}
	w := newWorld(t, 6, func(i int, o *ntstest.Options) {
		o.AEADs = []uint16{15}
		if i == 4 {
			o.Cookies = 4
		}
		if i == 5 {
			o.Kiss = "RATE"
		}
	})
	for i, p := range paths {
		if err := p.Carry(w.servers[i]); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { p.Close() })
	}
	w.options.Policy.AnswerTimeout = 500 * ms
	r := must(New(w.options).Check(t.Context()))
	checkReport(t, r)
	wantReport(t, r, report.Agreed, report.None, "", "aaffaf")
	if r.Command != "check" || len(w.clock.done) > 0 {
		t.Errorf("%+v, %v", r, w.clock.done)
	}
	for i, want := range []report.Probed{
		{},
		{},
		{Plain: report.Silence, Unknown: report.Silence, Octets: 228},
		{Plain: report.Bare, Unknown: report.Silence, Octets: 228},
		{Passed: 436, Lost: 540},
		{},
	} {
		got := *r.Servers[i].Probed
		if (got.Address != "") != (want.Octets > 0) {
			t.Errorf("server %d: probed at %q", i, got.Address)
		}
		want.Given, got.Address = true, "" // they are named by their addresses
		if got != want {
			t.Errorf("server %d: %+v, want %+v", i, got, want)
		}
	}
	if n := w.servers[0].Stats().Requests + w.servers[1].Stats().Requests + w.servers[5].Stats().Requests; n != 3 {
		t.Errorf("%d requests to those that answered", n)
	}
	for i, most := range map[int]int{2: tries + 2, 3: tries + 3, 4: 2 + 3} {
		if n := len(paths[i].Requests()); n > most {
			t.Errorf("%d requests to server %d, more than %d", n, i, most)
		}
	}
}

// Without time left, nothing is probed and nothing told; broken off, there is
// no report, even if it had measured.
func TestCheckEnds(t *testing.T) {
	w := newWorld(t, 1, func(_ int, o *ntstest.Options) { o.Loss = func(int) bool { return true } })
	w.options.Policy.AnswerTimeout = 100 * ms
	w.options.Policy.Interval = time.Hour
	w.options.Policy.Deadline = 2 * time.Second
	if p := must(New(w.options).Check(t.Context())).Servers[0].Probed; p.Plain != "" || p.Unknown != "" || p.Later {
		t.Errorf("%+v", p)
	}
	if n := w.total(requests); n > 1 {
		t.Errorf("%d requests, an hour apart", n)
	}
	over := errors.New("over")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(over)
	if r, err := New(w.options).Check(ctx); r != nil || !errors.Is(err, over) {
		t.Errorf("%v, %v", r, err)
	}
	ctx, cancel = context.WithCancelCause(t.Context())
	p := &ntstest.Path{Lost: func(_ bool, b []byte) bool {
		if len(b) == 48 { // the first probe
			cancel(over)
		}
		return true
	}}
	if err := p.Carry(w.servers[0]); err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	w.options.Policy.Interval, w.options.Policy.Deadline = ms, 20*time.Second
	if r, err := New(w.options).Check(ctx); r != nil || !errors.Is(err, over) {
		t.Errorf("%v, %v", r, err)
	}
}
