package main

import (
	"bytes"
	"os"
	"strings"
	"testing"
	"time"
)

// The table, of few machines: every measure is worth something on one of the
// days, and together they are worth a factor of a hundred.
func TestFleet(t *testing.T) {
	const machines = 10_000
	rows := simulate(machines)
	for _, m := range misses(rows) {
		t.Error(m)
	}
	for _, c := range []struct {
		name          string
		day           day
		with, without measures
	}{
		{"saved cookies", powerCut, variants[0].has, measures{random: true, backoff: true}},
		{"random delays", keysLost, variants[0].has, measures{cookies: true, backoff: true}},
		{"back-off", powerCut, measures{backoff: true}, measures{}},
		{"back-off", keysLost, measures{backoff: true}, measures{}},
	} {
		with, without := find(rows, c.day, c.with), find(rows, c.day, c.without)
		if with.peak*5 > without.peak || with.total > without.total {
			t.Errorf("%s, %s: with it %+v, without %+v", c.day, c.name, with, without)
		}
	}
	for _, r := range rows {
		if !r.has.cookies && r.total < machines || r.day == keysLost && r.total < machines {
			t.Errorf("%s, %+v: %d key exchanges are too few", r.day, r.has, r.total)
		}
	}
	near := func(a, b int) bool { return 10*max(a-b, b-a) <= max(a, b) } // each back-off has a random part
	for i, again := range simulate(machines) {
		if r := rows[i]; again.day != r.day || again.has != r.has || !near(again.peak, r.peak) || !near(again.total, r.total) {
			t.Errorf("another time it is %+v and not %+v", again, r)
		}
	}
	var text bytes.Buffer
	table(&text, machines, rows)
	if n := strings.Count(text.String(), "as shipped"); n != 2 {
		t.Errorf("%d days in the table:\n%s", n, text.String())
	}
}

func TestMisses(t *testing.T) {
	for _, c := range []struct{ shipped, missed int }{{10, 0}, {11, 3}} {
		var rows []row
		for _, d := range []day{powerCut, keysLost} {
			rows = append(rows, row{d, variants[0].has, c.shipped, 0}, row{d, measures{backoff: true}, 1000, 0}, row{d, measures{}, 1000, 0})
		}
		if got := misses(rows); len(got) != c.missed {
			t.Errorf("a peak of %d: %q", c.shipped, got)
		}
	}
}

// Machines that were refused wait as long as RFC 8915 §4.2 says, and ask in the
// first round after that.
func TestRefused(t *testing.T) {
	for k := range share {
		f := newFleet(1000, powerCut, variants[0].has)
		m := machine{kind: kind(k), at: time.Minute, began: time.Minute}
		if m.kind != loop {
			m.at, m.began = bootLeast, bootLeast
		}
		for range 12 {
			before := m.at
			f.refused(&m)
			if gap := m.at - before; gap < m.backoff.Wait {
				t.Errorf("kind %d: tries again after %v, not %v", k, gap, m.backoff.Wait)
			}
		}
	}
}

// What is modelled is what ships.
func TestAsShipped(t *testing.T) {
	for file, lines := range map[string][]string{
		"packaging/systemd/ntsclient-sync.timer":   {"OnBootSec=1h", "OnUnitActiveSec=1h", "RandomizedDelaySec=10min"},
		"packaging/systemd/ntsclient-sync.service": {"ExecStart=/usr/bin/ntsclient sync --wait 5m"},
		"packaging/cron": {
			"@reboot      root  ntsclient sync --wait 5m --quiet",
			"17 */6 * * * root  ntsclient sync --random-delay 5m --quiet",
		},
		"ntsclient.toml":   {`#min_poll = "64s"`, `#max_poll = "1024s"`},
		"timesync/run.go":  {"\tleaves = 2"},
		"timesync/sync.go": {"\tfor pause := c.retry; ; pause = min(2*pause, 15*c.retry) {"},
	} {
		text, err := os.ReadFile("../../" + file)
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range lines {
			if !strings.Contains("\n"+string(text), "\n"+line+"\n") {
				t.Errorf("%s has no line %q", file, line)
			}
		}
	}
}
