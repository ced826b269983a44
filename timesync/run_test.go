package timesync

import (
	"math"
	"testing"
	"time"

	"ntsclient/timesync/report"
)

// Left to itself for a day the loop keeps the clock right, asks in growing
// intervals, exchanges keys once, and says little.
func TestRunKeepsTheClock(t *testing.T) {
	simulate(t, 4, func(m *machine) {
		m.start()
		wait(30 * time.Second) // 10 ms at 400 ppm
		m.right(ms)
		if m.see().steps != 0 || m.see().beginning != 1 {
			t.Errorf("%d steps, begun %d times", m.see().steps, m.see().beginning)
		}
		wait(10 * time.Minute)
		for range 24 {
			m.right(200 * time.Microsecond)
			wait(time.Hour)
		}
		r := m.latest()
		if k := r.Keeping; k == nil || !k.Loop || !k.Synchronized || k.Steps != 0 ||
			k.Frequency > -29.9 || k.Frequency < -30.1 || k.FrequencyUncertainty <= 0 || k.Poll < report.Seconds(64*time.Second) {
			t.Errorf("%+v", k)
		}
		if w := r.Servers[0].Watched; w == nil || w.Reach != "11111111" || w.KeyAge < report.Seconds(23*time.Hour) || w.LastAnswer > report.Seconds(time.Second) {
			t.Errorf("%+v", w)
		}
		for name, s := range m.servers {
			if ke, n := m.exchanges(name), m.requests(name); ke != 1 || n > 24*3600/60+20 || n < 24*3600/1100 || s.replayed {
				t.Errorf("%s: %d key exchanges, %d requests in a day, replayed %v", name, ke, n, s.replayed)
			}
		}
		m.wantSaid(0, "WARN")
		m.wantSaid(4, "server agrees")
		m.wantSaid(1, "the clock is being kept")
		m.end()
		if e := m.see().rate*1e6 + 30; e > 0.1 || e < -0.1 {
			t.Errorf("left with a frequency of %v ppm", m.see().rate*1e6)
		}
		if got := m.boss.heard; len(got) != 2 || got[0] != "ready" || got[1] != "stopping" {
			t.Errorf("the supervisor heard %v", got)
		}
	})
}

// The first polls are 2 s apart; the intervals of all have a random part.
func TestRunStartsQuickly(t *testing.T) {
	simulate(t, 1, func(m *machine) {
		m.start()
		wait(10 * time.Minute)
		when := m.servers["a"].when
		var gaps []time.Duration
		for i := range when[1:] {
			gaps = append(gaps, when[i+1].Sub(when[i]))
		}
		same := 0
		for i, want := range []time.Duration{2, 2, 2, 2, 2, 2, 2, 4, 8, 16, 32, 64, 64, 64} {
			want *= time.Second
			if gaps[i] < max(2*time.Second, want-want/16) || gaps[i] > want+want/8+time.Second {
				t.Errorf("gap %d: %v, not about %v", i, gaps[i], want)
			}
			if gaps[i] == want {
				same++
			}
		}
		if same > 4 {
			t.Errorf("%d gaps without a random part: %v", same, gaps)
		}
	})
}

// A slew ends by itself, and not at a next poll, which may bring nothing.
func TestSlewEnds(t *testing.T) {
	simulate(t, 2, func(m *machine) {
		m.start()
		wait(2 * time.Hour)
		m.jump(50 * ms) // a poll of slewing
		wait(5 * time.Second)
		base := m.client.Latest().Frequency / 1e6
		if slew := m.see().rate - base; slew > -45e-6 {
			t.Errorf("slews by %v", slew)
		}
		for _, s := range m.servers {
			s.set(func(s *loopServer) { s.down = true })
		}
		wait(time.Hour)
		m.wantResult(report.NoAgreement)
		if m.see().rate-base > 1e-7 || m.see().rate-base < -1e-7 {
			t.Errorf("an hour later the rate is %v, not %v", m.see().rate, base)
		}
		m.right(ms)
	})
}

// The first correction of a kernel that nothing has set is a step, however
// small; then step_above and the policy count.
func TestRunSteps(t *testing.T) {
	for policy, want := range map[StepPolicy][2]int{StepAlways: {1, 2}, StepFirst: {1, 1}, StepNever: {0, 0}} {
		simulate(t, 3, func(m *machine) {
			m.options.Policy.Step, m.maxError = policy, unsynchronized
			m.start()
			wait(time.Minute)
			m.right(2 * ms)
			if m.see().steps != want[0] {
				t.Errorf("%s: %d steps at first", policy, m.see().steps)
			}
			m.jump(-500 * ms)
			wait(time.Minute)
			if m.see().steps != want[1] {
				t.Errorf("%s: %d steps after half a second", policy, m.see().steps)
			}
			wait(30 * time.Minute)
			m.right(ms)
		})
	}
}

// What is too far off is left alone, but watched: the kernel's idea of its error
// grows, it is said each hour, and a reload that allows more ends it.
func TestHold(t *testing.T) {
	simulate(t, 3, func(m *machine) {
		m.start()
		wait(time.Hour)
		m.jump(time.Hour)
		wait(5 * time.Second)
		m.wantSaid(1, "WARN", "the clock was set by another program", "+1.00 h")
		m.wantResult(report.Held)
		before := m.see().declared
		wait(4*time.Hour + 30*time.Minute)
		m.wantResult(report.Held)
		if n := m.said("WARN", "the clock is left alone", "max_step"); n < 4 || n > 5 {
			t.Errorf("said %d times in four and a half hours", n)
		}
		if maxError, _ := m.MaxError(); m.see().declared != before || maxError < 8*time.Second {
			t.Errorf("declared %d times more; maxerror %v", m.see().declared-before, maxError)
		}
		if e := m.error() - time.Hour; e.Abs() > 10*ms {
			t.Errorf("the clock went on by %v", e)
		}
		if s := m.boss.sentence(); s != "holding: the correction of -1h0m0s exceeds max_step (15m0s); set the clock by hand, or raise `[clock] max_step` and reload" {
			t.Errorf("status %q", s)
		}
		policy := m.options.Policy
		policy.MaxStep = 2 * time.Hour
		m.hup <- Config{m.options.Servers, policy}
		wait(5 * time.Second)
		m.wantResult(report.Agreed)
		m.right(ms)
		if m.see().steps != 1 || m.exchanges("a") != 1 {
			t.Errorf("%d steps, %d key exchanges", m.see().steps, m.exchanges("a"))
		}
		m.end()
	})
}

// A hold also ends when the clock is set right by hand.
func TestHoldEndsByHand(t *testing.T) {
	simulate(t, 2, func(m *machine) {
		m.correct += 3600
		m.start()
		wait(10 * time.Minute)
		m.wantResult(report.Held)
		m.jump(-time.Hour)
		wait(5 * time.Second)
		m.wantResult(report.Agreed)
		wait(5 * time.Minute)
		m.right(ms)
	})
}

// One server that does harm to nobody, whatever it does.
func TestOneBadServer(t *testing.T) {
	const best = 300 * time.Microsecond
	for name, c := range map[string]struct {
		bad            func(*machine, *loopServer)
		said           []string
		ke, requests   int           // at most, in a day; and one key exchange at least
		off            time.Duration // at most
		reach, verdict string
	}{
		"dead from the start": {
			func(_ *machine, s *loopServer) { s.down = true },
			[]string{"d:4460", "connect_timeout"},
			25, 0, best, "00000000", "failed",
		},
		"refuses": {
			func(_ *machine, s *loopServer) { s.keError = connRefused },
			[]string{"d:4460", "connect_refused"},
			25, 0, best, "00000000", "failed",
		},
		"lies": {
			func(_ *machine, s *loopServer) { s.lie = func() time.Duration { return 50 * ms } },
			[]string{"d:4460", "outside_agreement"},
			1, 1500, best, "11111111", "falseticker",
		},
		"asks for fewer": {
			func(_ *machine, s *loopServer) { s.kiss = "RATE" },
			[]string{"d:4460", "exchange_kiss"},
			1, 30, best, "00000000", "failed",
		},
		"denies": {
			func(_ *machine, s *loopServer) { s.kiss = "DENY" },
			[]string{"d:4460", "exchange_kiss"},
			1, 30, best, "00000000", "failed",
		},
		"runs away": { // 100 ppm
			func(m *machine, s *loopServer) {
				s.lie = func() time.Duration { return m.age() / 10000 }
			},
			[]string{"d:4460", "outside_agreement"},
			1, 1500, 5 * ms, "11111111", "falseticker",
		},
		"slow": {
			func(_ *machine, s *loopServer) { s.delay = 900 * ms },
			nil, 1, 1500, best, "11111111", "agreed",
		},
		"loses packets": {
			func(_ *machine, s *loopServer) { s.loss = 0.2 },
			nil, 1, 1900, best, "", "",
		},
	} {
		t.Run(name, func(t *testing.T) {
			simulate(t, 4, func(m *machine) {
				s := m.servers["d"]
				c.bad(m, s)
				m.start()
				wait(time.Minute)
				m.right(max(ms, c.off))
				for range 24 {
					wait(time.Hour)
					m.right(c.off)
					m.wantResult(report.Agreed)
				}
				if ke := m.exchanges("d"); ke > c.ke || ke < 1 {
					t.Errorf("%d key exchanges", ke)
				}
				if n := m.requests("d"); n > c.requests {
					t.Errorf("%d requests", n)
				}
				if c.said != nil {
					m.wantSaid(1, append(c.said, "WARN")...)
				}
				bad := m.latest().Servers[3]
				if c.verdict != "" && (string(bad.Verdict) != c.verdict || bad.Reach[max(0, len(bad.Reach)-8):] != c.reach[8-len(bad.Reach):]) {
					t.Errorf("%s, reach %s", bad.Verdict, bad.Reach)
				}
				if m.exchanges("a") != 1 || s.replayed {
					t.Errorf("%d key exchanges with another; replayed %v", m.exchanges("a"), s.replayed)
				}
			})
		})
	}
}

// Without a saved frequency the loop begins at the kernel's own, which it may have
// from another program: a clock that is held loses nothing by the loop. But what no
// crystal is off by is a slew that a crash left behind.
func TestBeginsAtTheKernelsFrequency(t *testing.T) {
	for _, c := range []struct{ before, held float64 }{
		{-30e-6, -30e-6},
		{400e-6, 0},
	} {
		simulate(t, 3, func(m *machine) {
			m.set(func(l *loopClock) { l.rate = c.before })
			m.correct += 3600
			m.start()
			wait(time.Minute)
			m.wantResult(report.Held)
			if rate := m.see().rate; math.Abs(rate-c.held) > 1e-9 {
				t.Errorf("begun at %g: held at %g", c.before, rate)
			}
			m.end()
			if rate := m.see().rate; math.Abs(rate-c.held) > 1e-9 {
				t.Errorf("begun at %g: left at %g", c.before, rate)
			}
		})
	}
}
