package timesync

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"ntsclient/timesync/report"
)

func (m *machine) each(change func(*loopServer)) {
	for _, s := range m.servers {
		s.set(change)
	}
}

// In a month there is one key exchange more, before four weeks are over, and not
// at the same time with all servers.
func TestMonth(t *testing.T) {
	simulate(t, 4, func(m *machine) {
		m.start()
		wait(27*24*time.Hour + 10*time.Hour)
		for name := range m.servers {
			if n := m.exchanges(name); n != 1 {
				t.Errorf("%s: %d key exchanges after 27 days", name, n)
			}
		}
		when := map[string]time.Duration{}
		for len(when) < 4 && m.age() < 29*24*time.Hour {
			wait(10 * time.Minute)
			for name := range m.servers {
				if when[name] == 0 && m.exchanges(name) > 1 {
					when[name] = m.age()
				}
			}
		}
		moments := map[time.Duration]bool{}
		for _, at := range when {
			moments[at] = true
			if at > keyLife {
				t.Errorf("renewed after %v", at)
			}
		}
		if len(moments) < 2 {
			t.Errorf("all at once: %v", when)
		}
		wait(24 * time.Hour)
		for name := range m.servers {
			if n := m.exchanges(name); n != 2 {
				t.Errorf("%s: %d key exchanges in a month", name, n)
			}
		}
		m.right(200 * time.Microsecond)
		m.wantSaid(0, "WARN")
	})
}

// A server that cannot renew its keys in time is asked with the old ones for as
// long as they live, and not asked for new ones at every poll.
func TestRenewalFails(t *testing.T) {
	simulate(t, 3, func(m *machine) {
		m.start()
		wait(24 * time.Hour)
		m.each(func(s *loopServer) { s.keError = connRefused })
		wait(27*24*time.Hour - 10*time.Minute) // it begins an hour before their end and two polls later at the latest
		if n := m.exchanges("a"); n < 2 || n > 25 {
			t.Errorf("%d key exchanges", n)
		}
		m.wantResult(report.Agreed)
		if r := m.latest(); r.Servers[0].Verdict != report.ServerAgreed {
			t.Errorf("%+v", r.Servers[0])
		}
		m.each(func(s *loopServer) { s.keError = nil })
		before := m.exchanges("a")
		wait(5 * 24 * time.Hour)
		if n := m.exchanges("a") - before; n != 1 {
			t.Errorf("%d key exchanges when it can be had again", n)
		}
		m.wantResult(report.Agreed)
	})
}

// New keys of a server cost one key exchange, and no word.
func TestServerRestarts(t *testing.T) {
	simulate(t, 4, func(m *machine) {
		m.start()
		wait(time.Hour)
		m.servers["b"].set(func(s *loopServer) { s.forgot = s.cookies })
		wait(time.Hour)
		if n := m.exchanges("b"); n != 2 {
			t.Errorf("%d key exchanges", n)
		}
		if s := m.latest().Servers[1]; s.NAKs != 1 || s.Verdict != report.ServerAgreed {
			t.Errorf("%+v", s)
		}
		m.wantSaid(0, "WARN")
	})
}

// While nobody can be reached the clock goes on at its frequency, and the
// kernel is not told that it is right. When the network is back that is noticed
// soon, and there is no back-off.
func TestWeekWithoutNetwork(t *testing.T) {
	simulate(t, 4, func(m *machine) {
		m.start()
		wait(24 * time.Hour)
		declared := m.see().declared
		m.each(func(s *loopServer) { s.down = true })
		wait(7 * 24 * time.Hour)
		m.wantResult(report.NoAgreement)
		if r := m.latest(); r.Synchronized || r.Agreement != nil {
			t.Errorf("synchronized %v, %+v", r.Synchronized, r.Agreement)
		}
		if maxError, _ := m.MaxError(); maxError < unsynchronized || m.see().declared-declared > 2 {
			t.Errorf("maxerror %v, declared %d times", maxError, m.see().declared-declared)
		}
		m.right(100 * ms) // 600,000 s at a hundredth of a ppm
		m.wantSaid(1, "WARN", "no agreed time")
		m.wantSaid(1, "WARN") // and none for each server
		if s := m.boss.sentence(); !strings.HasPrefix(s, "no agreed time for 16") {
			t.Errorf("status %q", s)
		}
		m.each(func(s *loopServer) { s.down = false })
		wait(30 * time.Second)
		m.wantResult(report.Agreed)
		wait(10 * time.Minute)
		m.right(ms)
		m.end()
	})
}

// Servers in other places after an outage: names are looked up again.
func TestSilentServerGetsNewKeys(t *testing.T) {
	simulate(t, 4, func(m *machine) {
		m.start()
		wait(time.Hour)
		s := m.servers["c"]
		s.set(func(s *loopServer) { s.down = true })
		wait(2 * time.Hour)
		if n := m.exchanges("c"); n < 2 || n > 12 {
			t.Errorf("%d key exchanges while it was away", n)
		}
		s.set(func(s *loopServer) { s.down = false })
		wait(3 * time.Hour)
		if r := m.latest().Servers[2]; r.Verdict != report.ServerAgreed {
			t.Errorf("%+v: %+v", r, r.Error)
		}
		if n := m.said("WARN", "c:4460"); n < 1 || n > 2 { // no answer, and then no connection
			t.Errorf("said %d times", n)
		}
		m.wantSaid(2, "INFO", "server agrees", "c:4460")
	})
}

// After a day of suspend, on whatever network, what was measured is forgotten
// and the clock measured at once.
func TestSuspend(t *testing.T) {
	simulate(t, 4, func(m *machine) {
		m.start()
		wait(5 * time.Hour)
		before := m.requests("a")
		m.suspend(24*time.Hour, 2*time.Second)
		wait(5 * time.Second)
		if m.requests("a") == before {
			t.Error("not measured")
		}
		m.right(ms)
		wait(2 * time.Hour)
		m.right(200 * time.Microsecond)
		m.wantSaid(1, "resumed", "suspended=24h0m0s")
		m.wantSaid(0, "another program")
		if m.see().steps != 1 || m.exchanges("a") != 1 {
			t.Errorf("%d steps, %d key exchanges", m.see().steps, m.exchanges("a"))
		}
	})
}

// A clock that an administrator set, and one that is told of another network.
func TestMeasuredAtOnce(t *testing.T) {
	for name, do := range map[string]func(*machine){
		"set back":    func(m *machine) { m.jump(-10 * time.Minute) },
		"set forward": func(m *machine) { m.jump(300 * ms) },
		"a little":    func(m *machine) { m.jump(20 * ms) },
		"twice":       func(m *machine) { m.jump(ms * 300); wait(5 * time.Second); m.jump(-5 * time.Minute) },
		"signal":      func(m *machine) { m.usr1 <- struct{}{} },
	} {
		t.Run(name, func(t *testing.T) {
			simulate(t, 4, func(m *machine) {
				m.start()
				wait(5 * time.Hour)
				before := m.requests("a")
				do(m)
				wait(5 * time.Second)
				if m.requests("a") == before {
					t.Error("not measured")
				}
				set := 1
				switch name {
				case "signal":
					set = 0
				case "twice":
					set = 2
				}
				m.wantSaid(set, "WARN", "the clock was set by another program")
				wait(time.Hour)
				m.right(200 * time.Microsecond)
			})
		})
	}
}

// A leap second that most servers tell of is armed on the last day of the
// month, made by the kernel, and not taken for somebody else's doing.
func TestLeapSecond(t *testing.T) {
	simulate(t, 4, func(m *machine) { // the bubble begins on the 1st of January
		m.servers["d"].leap = 0
		for _, name := range []string{"a", "b", "c"} {
			m.servers[name].leap = 1
		}
		m.start()
		wait(30*24*time.Hour - time.Hour)
		if m.see().leap != 0 {
			t.Error("armed before the last day")
		}
		wait(24*time.Hour + time.Hour - time.Second)
		if m.see().leap != 1 {
			t.Error("not armed on the last day")
		}
		m.wantSaid(1, "leap second at the end of this day")
		wait(time.Second)
		m.loopClock.set(func(c *loopClock) { c.gone -= time.Second }) // true time, and the kernel's clock
		m.each(func(s *loopServer) { s.leap = 0 })
		m.jump(-time.Second)
		wait(time.Minute)
		m.right(200 * time.Microsecond)
		m.wantSaid(1, "the clock made the leap second")
		m.wantSaid(0, "WARN")
		if m.see().steps != 0 || m.see().leap != 0 {
			t.Errorf("%d steps; armed: %d", m.see().steps, m.see().leap)
		}
		wait(time.Hour)
		m.right(200 * time.Microsecond)
	})
}

// One that only a minority tells of is not.
func TestLeapSecondOfFew(t *testing.T) {
	simulate(t, 4, func(m *machine) {
		m.servers["a"].leap, m.servers["b"].leap = 1, 2
		m.start()
		wait(31*24*time.Hour - time.Hour)
		if m.see().leap != 0 {
			t.Errorf("armed: %d", m.see().leap)
		}
	})
}

func TestMeddling(t *testing.T) {
	simulate(t, 2, func(m *machine) {
		m.start()
		wait(time.Hour)
		m.loopClock.set(func(c *loopClock) { c.meddled = "its frequency is 7 ppm" })
		wait(3 * time.Hour)
		m.wantSaid(1, "WARN", "another program is steering the clock", "7 ppm")
	})
}

// A dry run measures and says, and does nothing.
func TestRunDry(t *testing.T) {
	simulate(t, 3, func(m *machine) {
		m.options.StateDir = t.TempDir()
		m.dry, m.run.DryRun, m.correct = true, true, 20
		m.start()
		wait(time.Hour)
		r := m.latest()
		if r.Result != report.Agreed || r.Action != report.Step || !r.DryRun || m.see().rate != 0 || m.see().steps+m.see().declared != 0 {
			t.Errorf("%s, %s; rate %v, %d steps, %d declared", r.Result, r.Action, m.see().rate, m.see().steps, m.see().declared)
		}
		m.wantSaid(1, "dry run: the clock would be stepped")
		if e := m.error() - 20*time.Second; e.Abs() > time.Second {
			t.Errorf("off by %v", m.error())
		}
		m.end()
		if c := m.client.saved.Crystal; c.Frequency.Uncertainty != 0 {
			t.Errorf("keeps %v", c.Frequency)
		}
	})
}

// Ended in the middle of a round with a server that does not answer.
func TestEndsAtOnce(t *testing.T) {
	simulate(t, 4, func(m *machine) {
		m.options.StateDir = t.TempDir()
		m.servers["a"].down = true
		m.start()
		wait(5 * time.Second)
		if m.client.Latest() != nil {
			t.Fatal("the first round is over already")
		}
		m.end()
	})
}

func TestWatchdog(t *testing.T) {
	simulate(t, 2, func(m *machine) {
		m.run.Watchdog = 90 * time.Second
		m.start()
		wait(10 * time.Hour)
		if n := m.boss.lives(); n < 400 {
			t.Errorf("%d signs of life in ten hours", n)
		}
		// A loop that hangs gives none.
		hangs := make(chan struct{})
		m.loopClock.set(func(c *loopClock) { c.hangs = hangs })
		before := m.boss.lives()
		wait(time.Hour)
		if n := m.boss.lives() - before; n > 15 {
			t.Errorf("%d signs of life while the clock could not be read", n)
		}
		close(hangs)
	})
}

func TestRunRefused(t *testing.T) {
	denied, broken := errors.New("denied"), errors.New("broken")
	for name, c := range map[string]struct {
		change func(*machine)
		want   error
	}{
		"not permitted": {func(m *machine) { m.denied = denied }, denied},
		"no clock":      {func(m *machine) { m.broken = broken }, broken},
	} {
		simulate(t, 2, func(m *machine) {
			c.change(m)
			if err := New(m.options).Run(m.t.Context(), m.run); !errors.Is(err, c.want) || m.requests("a") != 0 {
				t.Errorf("%s: %v, %d requests", name, err, m.requests("a"))
			}
		})
	}
}

// A clock that can no longer be set ends the loop, which says so, whatever it was
// about to do.
func TestClockBreaks(t *testing.T) {
	broken := errors.New("broken")
	for name, then := range map[string]func(*machine){
		"at a poll":            func(*machine) {},
		"at a step":            func(m *machine) { m.jump(time.Minute) },
		"at the end of a slew": func(m *machine) { m.each(func(s *loopServer) { s.down = true }) },
	} {
		t.Run(name, func(t *testing.T) {
			simulate(t, 2, func(m *machine) {
				m.start()
				wait(2 * time.Hour)
				m.jump(50 * ms) // to be slewed
				wait(5 * time.Second)
				m.loopClock.set(func(c *loopClock) { c.broken = broken })
				then(m)
				wait(time.Hour)
				select {
				case err := <-m.ended:
					if !errors.Is(err, broken) || !strings.HasPrefix(err.Error(), "correcting the clock: ") {
						t.Errorf("ended with %v", err)
					}
				default:
					t.Error("goes on")
				}
			})
		})
	}
}

// Configured anew, servers that are the same keep their keys.
func TestReload(t *testing.T) {
	simulate(t, 3, func(m *machine) {
		m.options.StateDir = t.TempDir()
		m.start()
		wait(time.Hour)
		m.add("d", &loopServer{clock: m.loopClock, delay: 20 * ms, rng: m.servers["a"].rng})
		servers := m.options.Servers[1:]
		servers[0].Binding = "another CA"
		policy := m.options.Policy
		policy.MinPoll, policy.MaxPoll = 16*time.Second, 16*time.Second
		m.hup <- Config{servers, policy}
		wait(5 * time.Second)
		for name, want := range map[string]int{"a": 1, "b": 2, "c": 1, "d": 1} {
			if n := m.exchanges(name); n != want {
				t.Errorf("%s: %d key exchanges, not %d", name, n, want)
			}
		}
		before, gone := m.requests("c"), m.requests("a")
		wait(160 * time.Second)
		if n := m.requests("c") - before; n < 9 || n > 12 || m.requests("a") != gone {
			t.Errorf("%d requests in 160 s, %d to the one that is gone", n, m.requests("a")-gone)
		}
		m.end()
		if s := m.client.saved.Servers; len(s) != 3 || s["d:4460"] == nil {
			t.Errorf("keeps %v", s)
		}
	})
}

// All but a few cookies are out of the state while the loop runs, and in it
// afterwards, with the frequency: the next loop needs no key exchange, and is
// right at once.
func TestStateOfLoop(t *testing.T) {
	simulate(t, 3, func(m *machine) {
		m.options.StateDir, m.options.BootID = t.TempDir(), "this boot"
		file := filepath.Join(m.options.StateDir, stateName)
		has := func(words ...string) {
			t.Helper()
			b, err := os.ReadFile(file)
			for _, w := range words {
				if err != nil || strings.Contains(string(b), strings.TrimPrefix(w, "!")) == (w[0] == '!') {
					t.Errorf("%v; %q in %s", err, w, b)
				}
			}
		}
		left := func() int {
			t.Helper()
			saved, notes, err := decodeState(must(os.ReadFile(file)), "")
			if err != nil || len(notes) > 0 {
				t.Fatal(notes, err)
			}
			return len(cookiesOf(saved))
		}
		m.start()
		wait(5 * time.Hour)
		has(`"agreed"`, `"crystal"`)
		if n := left(); n != 3*leaves {
			t.Errorf("%d cookies are left on the disk", n)
		}
		if _, err := os.Stat(filepath.Join(m.options.StateDir, reportName)); err != nil {
			t.Error(err)
		}
		m.end()
		has(`"agreed"`, `"crystal"`)
		if n := left(); n < 3*7 {
			t.Errorf("%d cookies are saved at the end", n)
		}
		if a := m.client.saved.Agreed; a.BootID != "this boot" || a.Raw == 0 || a.Uncertainty == 0 {
			t.Errorf("%+v", a)
		}

		m.rate = 0 // another boot
		m.start()
		wait(0)
		if m.see().rate > -29.9e-6 {
			t.Errorf("begins with %v ppm", m.see().rate*1e6)
		}
		has(`!"session"`)
		wait(time.Minute)
		m.right(200 * time.Microsecond)
		if n := m.exchanges("a"); n != 1 || m.servers["a"].replayed {
			t.Errorf("%d key exchanges, replayed %v", n, m.servers["a"].replayed)
		}
		m.end()
	})
}

// After a power cut the loop goes on with the cookies that were left on the
// disk, without a key exchange, as often as that happens. None was sent before,
// nor is any later.
func TestPowerCut(t *testing.T) {
	simulate(t, 3, func(m *machine) {
		m.options.StateDir = t.TempDir()
		file := filepath.Join(m.options.StateDir, stateName)
		for _, up := range []time.Duration{5 * time.Hour, time.Minute, 90 * time.Minute, 30 * time.Hour} {
			m.start()
			wait(up)
			m.right(ms)
			disk := must(os.ReadFile(file))
			wait(10 * time.Minute)
			m.end()
			writeFile(t, file, disk) // as if it had not
		}
		for name, s := range m.servers {
			if n := m.exchanges(name); n != 1 || s.replayed {
				t.Errorf("%s: %d key exchanges, replayed %v", name, n, s.replayed)
			}
		}
	})
}

// Two loops: the second one says so and ends. A dry run goes on beside it.
func TestTwoLoops(t *testing.T) {
	simulate(t, 2, func(m *machine) {
		m.options.StateDir = t.TempDir()
		m.start()
		wait(time.Minute)
		if err := New(m.options).Run(m.t.Context(), m.run); !errors.Is(err, ErrLoopRunning) {
			t.Errorf("a second loop: %v", err)
		}
		ctx, cancel := context.WithTimeout(m.t.Context(), time.Minute)
		defer cancel()
		dry := m.run
		dry.DryRun = true
		client := New(m.options)
		if err := client.Run(ctx, dry); err != nil || client.Latest() == nil {
			t.Errorf("a dry run beside it: %v", err)
		}
		m.wantSaid(1, "another loop keeps this clock")
	})
}

// Without a place for state, or one that goes away, the loop goes on.
func TestLoopWithoutState(t *testing.T) {
	simulate(t, 2, func(m *machine) {
		file := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		m.options.StateDir = filepath.Join(file, "state")
		m.start()
		wait(time.Hour)
		m.right(ms)
		m.wantSaid(1, "WARN", "nothing is kept")
		m.end()
	})
	simulate(t, 2, func(m *machine) {
		m.options.StateDir = filepath.Join(t.TempDir(), "state")
		m.start()
		wait(time.Hour)
		if err := os.RemoveAll(m.options.StateDir); err != nil {
			t.Fatal(err)
		}
		wait(5 * time.Hour)
		m.right(ms)
		m.wantSaid(1, "WARN", "state not saved")
		if err := os.Mkdir(m.options.StateDir, 0o711); err != nil {
			t.Fatal(err)
		}
		wait(2 * time.Hour)
		m.wantSaid(1, "INFO", "state saved again")
		m.end()
	})
}

// A sync that waits for the network has the state for as long as it waits. A loop
// that is started meanwhile is ready, stays alive, and begins when it has ended.
func TestLoopWaitsForSync(t *testing.T) {
	simulate(t, 3, func(m *machine) {
		m.options.StateDir = t.TempDir()
		sync, err := OpenStore(t.Context(), m.options.StateDir, StoreOptions{})
		if err != nil {
			t.Fatal(err)
		}
		m.start()
		wait(10 * time.Minute)
		if m.boss.lives() < 10 || m.requests("a") > 0 || !slices.Contains(m.boss.heard, "ready") {
			t.Errorf("while it waits: %v, alive %d times, %d requests", m.boss.heard, m.boss.lives(), m.requests("a"))
		}
		if said := m.boss.sentence(); !strings.Contains(said, m.options.StateDir) {
			t.Errorf("status %q", said)
		}
		sync.Close()
		wait(time.Minute)
		m.wantResult(report.Agreed)
	})
}
