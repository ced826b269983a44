//go:build linux

package interop

import (
	"fmt"
	"strings"
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
		{title: "drops", kind: Chrony12, extra: "ratelimit interval 0 burst 1 leak 4"},
		{title: "drops or kisses", kind: Chrony13, extra: "ratelimit interval 0 burst 1 leak 4 kod 1"},
		{title: "drops", kind: NTPdRS, serving: "rate-limiting-cache-size = 32\nrate-limiting-cutoff-ms = 1000"},
	} {
		t.Run(c.title+" "+string(c.kind), func(t *testing.T) {
			if c.kind != NTPsec {
				t.Parallel()
			}
			needPort123(t, c.kind)
			for _, manners := range []bool{true, false} {
				s := &Server{Kind: c.kind, Identity: l.issuing.Issue(t, name, -1, 10), Extra: c.extra, Serving: c.serving}
				s.Start(t)
				samples, interval := 3, "2s" // the default
				if !manners {                // chrony lets 1 of 16 through all the same
					samples, interval = 5, "10ms"
				}
				lines := fmt.Sprintf("[measure]\nsamples = %d\ninterval = %q\nanswer_timeout = \"300ms\"", samples, interval)
				r := run(t, configure(t, l.entries([]*Server{s}, "127.0.0.1"), lines), 0, "query", "--json")
				checkRound(t, r, "query")
				if got := r.Servers[0].Samples; (got == samples) != manners {
					t.Errorf("%d of %d samples; with manners: %v", got, samples, manners)
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
	kisser := l.kisser(t)
	servers := append(l.start(t, Chrony12, Chrony13), kisser)
	run := startLoop(t, configure(t, l.entries(servers, "127.0.0.1"), ""))
	kissed := func(r *report.Report) bool {
		e := r.Servers[2].Error
		return r.Result == report.Agreed && e != nil && e.Code == "exchange_kiss"
	}
	r := run.await("kissed", kissed)
	if w := r.Servers[2].Watched; w == nil || w.Poll < seconds(64) || w.Reach != "10" {
		t.Errorf("%+v", w)
	}
	const packets = "NTP packets received"
	before := servers[0].Count(t, packets)
	r = run.await("going on with the others", func(r *report.Report) bool {
		return kissed(r) && servers[0].Count(t, packets) > before+3
	})
	if w := r.Servers[2].Watched; w.Reach != "10" || w.Failures["exchange_kiss"] != 1 {
		t.Errorf("asked again: %+v", w)
	}
	for _, s := range r.Servers[:2] {
		if s.Verdict != report.ServerAgreed {
			t.Errorf("%s: %s", s.Name, s.Verdict)
		}
	}
}

// kisser answers once, and then asks for less for a quarter of an hour.
func (l lab) kisser(t *testing.T) *Server {
	t.Helper()
	needPort123(t, NTPsec)
	s := &Server{
		Kind: NTPsec, Identity: l.issuing.Issue(t, name, -1, 10),
		Extra: "restrict default kod limited\nlimit average 0.001 burst 2 kod 100",
	}
	s.Start(t)
	return s
}

// A single correction that comes too early for the server ends with its kiss,
// without a second try; and the next one does not ask at all.
func TestRateSync(t *testing.T) {
	l := newLab(t)
	config := configure(t, l.entries([]*Server{l.kisser(t)}, "127.0.0.1"), "")
	round(t, config, true)
	for _, asked := range []bool{true, false} {
		r := run(t, config, 3, "sync", "--dry-run", "--json")
		checkFailed(t, r.Servers[0], "exchange", "exchange_kiss")
		if got := r.Servers[0].Error.Message; strings.Contains(got, "not asked again") == asked {
			t.Error(got)
		}
		// the kiss is authenticated, and brings another
		if n := len(savedSession(t, config).Cookies); n != 8 {
			t.Errorf("%d cookies are left", n)
		}
	}
}
