//go:build linux

package interop

import (
	"testing"

	"ntsclient/timesync/report"
)

// Servers that limit the rate of requests, with a kiss or without a word; as
// Debian ships NTPsec it is 1 packet a second after a burst of 20. The default
// settings never make them kiss, whatever the number of samples; that they do is
// shown by asking too fast: what came before is used, and no more is asked for.
func TestRateLimit(t *testing.T) {
	l := newLab(t)
	for _, c := range []struct {
		title, extra, serving string
		kind                  Kind
	}{
		{title: "kisses", kind: NTPsec, extra: "restrict default kod limited\nlimit burst 2"},
		{title: "drops", kind: NTPsec, extra: "restrict default limited\nlimit burst 2"},
		{title: "drops", kind: Chrony12, extra: "ratelimit interval 1 burst 1 leak 4"},
		{title: "kisses", kind: Chrony13, extra: "ratelimit interval 1 burst 1 leak 4 kod 1"},
		{title: "kisses", kind: NTPdRS, serving: "rate-limiting-cache-size = 32\nrate-limiting-cutoff-ms = 1000"},
	} {
		t.Run(c.title+" "+string(c.kind), func(t *testing.T) {
			if c.kind != NTPsec {
				t.Parallel()
			}
			needPort123(t, c.kind)
			for _, manners := range []bool{true, false} {
				s := &Server{Kind: c.kind, Identity: l.issuing.Issue(t, name, -1, 10), Extra: c.extra, Serving: c.serving}
				s.Start(t)
				lines := "[measure]\nsamples = 3\nanswer_timeout = \"300ms\"\n"
				if !manners {
					lines += "interval = \"10ms\"\n"
				}
				r := run(t, configure(t, l.entries([]*Server{s}, "127.0.0.1"), lines), 0, "query", "--json")
				checkRound(t, r, "query")
				if got := r.Servers[0].Samples; (got == 3) != manners {
					t.Errorf("%d samples; with manners: %v", got, manners)
				}
				s.Stop()
			}
		})
	}
}

// A loop that a server asks for less leaves it alone from then on, and the
// others are polled on.
func TestRateLoop(t *testing.T) {
	l := newLab(t)
	kisser := &Server{Kind: Chrony13, Identity: l.issuing.Issue(t, name, -1, 10), Extra: "ratelimit interval 12 burst 1 leak 4 kod 1"}
	kisser.Start(t)
	servers := append(l.start(t, Chrony12, Chrony13), kisser)
	run := startLoop(t, configure(t, l.entries(servers, "127.0.0.1"), ""))
	kissed := func(r *report.Report) bool {
		e := r.Servers[2].Error
		return r.Result == report.Agreed && e != nil && e.Code == "exchange_kiss"
	}
	r := run.await("kissed", kissed)
	if w := r.Servers[2].Watched; w == nil || w.Poll < seconds(64) {
		t.Errorf("polled each %+v", w)
	}
	const packets = "NTP packets received"
	limited, other := kisser.Count(t, packets), servers[0].Count(t, packets)
	r = run.await("going on with the others", func(r *report.Report) bool {
		return kissed(r) && servers[0].Count(t, packets) > other+3
	})
	if n := kisser.Count(t, packets) - limited; n != 0 {
		t.Errorf("%d packets more for a server that asked for less", n)
	}
	for _, s := range r.Servers[:2] {
		if s.Verdict != report.ServerAgreed {
			t.Errorf("%s: %s", s.Name, s.Verdict)
		}
	}
}

// Single corrections of which each is too early for the server: answers, kisses
// and silence are told as what they are, and the kisses without a second try.
func TestRateSync(t *testing.T) {
	l := newLab(t)
	s := &Server{Kind: Chrony13, Identity: l.issuing.Issue(t, name, -1, 10), Extra: "ratelimit interval 12 burst 1 leak 4 kod 1"}
	s.Start(t)
	config := configure(t, l.entries([]*Server{s}, "127.0.0.1"), fast)
	run(t, config, 0, "sync", "--dry-run", "--json")
	code := ""
	for range 20 {
		r := run(t, config, anyExit, "sync", "--dry-run", "--json").Servers[0]
		if r.Verdict == report.ServerAgreed {
			continue
		}
		if code = r.Error.Code; code == "exchange_kiss" {
			checkFailed(t, r, "exchange", code)
			return
		}
		if code != "exchange_timeout" {
			checkFailed(t, r, "exchange", "exchange_timeout")
		}
	}
	t.Error("never kissed")
}
