package report

import (
	"bytes"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// kept is a loop's report, with a liar and a server that is lost.
func kept() *Report {
	const us = Seconds(time.Microsecond)
	r := agreed(-12*us, 3*ms,
		server("time.cloudflare.com:4460", "cloudflare.com", ServerAgreed, -40*us, 3100*us, 6*ms),
		server("nts.netnod.se:4460", "netnod.se", ServerAgreed, 15*us, 11*ms, 21*ms),
		server("ptbtime1.ptb.de:4460", "ptb.de", ServerAgreed, -9*us, 9*ms, 17*ms),
		liar(500*ms, "its interval lies 486 ms above the agreed one"),
		failed("virginia.time.system76.com:4460", "system76.com", "no answer to 3 requests within 2 s each", ""))
	r.Command, r.Action = "run", Slew
	r.Servers[0].AEAD = "AES-128-GCM-SIV"
	r.Keeping = &Keeping{
		Loop: true, Synchronized: true, Frequency: -12.3456, FrequencyUncertainty: 0.0123,
		NextPoll: Seconds(64 * time.Second), Poll: Seconds(64 * time.Second), Steps: 1, LastAgreement: r.Time,
	}
	for i := range 64 {
		r.Offsets = append(r.Offsets, Seconds(80e3*math.Sin(float64(i)/5)*math.Exp(-float64(i)/40)))
	}
	for i := range r.Servers {
		r.Servers[i].Watched = &Watched{
			Reach: "11111111", KeyBits: 256, KeyAge: Seconds(50 * time.Hour), LastAnswer: Seconds(time.Second), Poll: r.Poll,
		}
	}
	r.Servers[0].KeyBits = 128
	*r.Servers[4].Watched = Watched{
		Reach: "11101000", LastAnswer: Seconds(250 * time.Second), NAKs: 1, Poll: r.Poll,
		Failures: map[string]int{"exchange_timeout": 4, "dns_failed": 1},
	}
	return r
}

// statuses are reports of `status`, 34 s after they were made.
func statuses() map[string]*Report {
	stand := func(r *Report, loop, synchronized bool) *Report {
		r.StandAt(r.Clock.Add(34*time.Second), loop, synchronized)
		return r
	}
	held := kept()
	held.Result, held.ReasonCode, held.Action = Held, "exceeds_max_step", None
	held.Reason = "held: 2.00 h is more than max_step, 15 min"
	lost := kept()
	lost.Agreement, lost.Result, lost.Action, lost.ReasonCode = nil, NoAgreement, None, "no_agreement"
	lost.Reason, lost.Servers = "no server gave a usable answer", lost.Servers[4:]
	dry := kept()
	dry.DryRun = true
	once := goldens()["one_liar"]
	once.DryRun = false
	nothing := &Report{Schema: Schema, Result: NoAgreement, Reason: "no loop answers at /run/ntsclient/control.sock, and no `sync` left a report in /var/lib/ntsclient"}
	dead := kept()
	return map[string]*Report{
		"status_loop":    stand(kept(), true, true),
		"status_held":    stand(held, true, true),
		"status_lost":    stand(lost, true, false),
		"status_dry_run": stand(dry, true, false),
		"status_sync":    stand(once, false, true),
		"status_dead":    stand(dead, false, true),
		"status_failed":  stand(goldens()["all_failed"], false, true),
		"status_nothing": stand(nothing, false, false),
	}
}

func renderStatus(t *testing.T, r *Report, o Style) string {
	t.Helper()
	var b bytes.Buffer
	if err := r.WriteStatus(&b, o); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestStatusGolden(t *testing.T) {
	for name, r := range statuses() {
		for set, o := range map[string]Style{"utf8": {Draw: true, UTF8: true}, "ascii": {Draw: true}} {
			got := renderStatus(t, r, o)
			checkPage(t, got, o)
			path := filepath.Join("testdata", name+"."+set+".txt")
			if *update {
				if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("%s is not what is written now (go test -update writes it anew):\n%s", path, got)
			}
		}
	}
}

// What was counted from the last round is counted from now on.
func TestStandAt(t *testing.T) {
	const s = Seconds(time.Second)
	r := kept()
	r.StandAt(r.Clock.Add(34*time.Second), true, false)
	if *r.Standing.Age != 34*s || r.NextPoll != 30*s || r.Synchronized || r.Standing.Synchronized ||
		r.Servers[0].LastAnswer != 35*s || r.Servers[0].KeyAge != 180034*s || r.Servers[4].KeyAge != 0 || r.Command != "status" {
		t.Errorf("%+v %+v %+v", r.Standing, r.Keeping, r.Servers[0].Watched)
	}
	r = kept()
	r.StandAt(r.Clock.Add(time.Hour), false, true)
	if r.Keeping != nil || r.Servers[0].Watched != nil || r.Standing.Loop || r.Standing.Of != "run" {
		t.Errorf("of a loop that is gone: %+v", r)
	}
	r = kept()
	if r.StandAt(r.Clock.Add(time.Hour), true, true); r.NextPoll != 0 {
		t.Errorf("next poll in %v", r.NextPoll)
	}
	// A step of 56 years is no age, and one that the clock has not reached is none.
	r = goldens()["bootstrap_1970"]
	if r.StandAt(r.Time.Add(time.Minute), false, true); *r.Standing.Age != 60*s {
		t.Errorf("age %v after a step", *r.Standing.Age)
	}
	r = kept()
	if r.StandAt(r.Clock.Add(-time.Hour), true, true); r.Standing.Age != nil || r.NextPoll != 64*s {
		t.Errorf("%+v", r.Standing)
	}
	r = kept()
	if r.StandAt(r.Clock.Add(-time.Millisecond), true, true); *r.Standing.Age != 0 {
		t.Errorf("age %v in the middle of a slew", *r.Standing.Age)
	}
}

// Keys that are not known are not there.
func TestStatusJSON(t *testing.T) {
	all := statuses()
	keysOf := func(name string) map[string]string { return keys(t, all[name]) }
	for name, want := range map[string]string{
		"status_loop":    "loop=true synchronized=true age_s=34 frequency_ppm=-12.3456 frequency_uncertainty_ppm=0.0123 next_poll_s=30 poll_s=64 steps=1",
		"status_sync":    "loop=false synchronized=true age_s=? frequency_ppm= frequency_uncertainty_ppm= next_poll_s= poll_s= steps=",
		"status_nothing": "loop=false synchronized=false frequency_ppm= steps= offset_s= time=",
	} {
		got := keysOf(name)
		got["age_s"] = strings.Replace(got["age_s"], got["age_s"], map[bool]string{true: "34", false: "?"}[name == "status_loop"], 1)
		for _, pair := range strings.Fields(want + ` command="status"`) {
			key, value, _ := strings.Cut(pair, "=")
			if got[key] != value {
				t.Errorf("%s: %s is %q, want %q", name, key, got[key], value)
			}
		}
	}
	s := keys(t, all["status_loop"].Servers[0])
	for key, want := range map[string]string{
		"reach": `"11111111"`, "key_bits": "128", "key_age_s": "180034", "naks": "0", "last_answer_s": "35", "poll_s": "64", "failures": "",
	} {
		if s[key] != want {
			t.Errorf("%s is %q, want %q", key, s[key], want)
		}
	}
	if run := keys(t, kept()); run["loop"] != "true" || run["synchronized"] != "true" {
		t.Errorf("the loop's own report: %v", run)
	}
}

// Whatever Parse takes can be shown and written again.
func FuzzParse(f *testing.F) {
	for _, r := range []*Report{kept(), example(), goldens()["all_failed"], goldens()["bootstrap_1970"]} {
		var b bytes.Buffer
		if err := r.WriteJSON(&b); err != nil {
			f.Fatal(err)
		}
		f.Add(b.Bytes())
	}
	f.Add([]byte(`{"schema":1,"servers":[{"name":"a","reach":"\u001b[2J","poll_s":1e3}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		r, err := Parse(text)
		if err != nil {
			return
		}
		r.StandAt(evening, len(text)%2 == 0, len(text)%3 == 0)
		var b bytes.Buffer
		if err := r.WriteJSON(&b); err != nil {
			t.Fatal(err)
		}
		if _, err := Parse(b.Bytes()); err != nil {
			t.Fatalf("%v\n%s", err, b.Bytes())
		}
		for _, o := range []Style{{Draw: true}, {Draw: true, UTF8: true, Width: 100}, {Width: 40}} {
			checkPage(t, renderStatus(t, r, o), o)
		}
		checkMetrics(t, r)
	})
}

func TestParseRefuses(t *testing.T) {
	for want, change := range map[string][2]string{
		"schema 9":            {`"schema": 1`, `"schema": 9`},
		"not a report":        {`"schema": 1`, `"schema": "one"`},
		"no number":           {`"offset_s": 0.000123`, `"offset_s": 1e3`},
		"before it begins":    {`"uncertainty_s": 0.0113,` + "\n  \"agreed", `"uncertainty_s": -1,` + "\n  \"agreed"},
		"uncertainty below":   {`"uncertainty_s": 0.0113,` + "\n      \"stratum", `"uncertainty_s": -1,` + "\n      \"stratum"},
		"the year 10000":      {`"clock": "2026-11-21T21:00:00.123333789Z"`, `"clock": "9999-12-31T23:00:00-02:00"`},
		"a server twice":      {`"name": "old.example.org:4460"`, `"name": "time.example.net:4460"`},
		"cannot unmarshal":    {`"servers": [`, `"servers": {}, "x": [`},
		"its agreed interval": {`-0.0101,`, `1,`},
	} {
		text := strings.Replace(documented, change[0], change[1], 1)
		if text == documented {
			t.Fatalf("%q is not in the report", change[0])
		}
		if _, err := Parse([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	if _, err := Parse([]byte(`{"schema":1,"result":"agreed"}`)); err == nil {
		t.Error("agreed, on nothing")
	}
}

func TestNoStatusLineIsTooLong(t *testing.T) {
	r := rand.New(rand.NewPCG(80, 25))
	for range 500 {
		all := randomReport(r)
		all.Keeping = kept().Keeping
		all.NextPoll, all.Frequency, all.Steps = Seconds(r.Uint64()), r.NormFloat64()*1e6, r.IntN(1e9)
		for i := range all.Offsets {
			all.Offsets[i] = Seconds(r.Uint64())
		}
		for i := range all.Servers {
			all.Servers[i].Watched = &Watched{
				Reach: hostile[r.IntN(len(hostile))], KeyBits: int(r.Int64()), NAKs: int(r.Int64()),
				KeyAge: Seconds(r.Uint64()), LastAnswer: Seconds(r.Uint64()), Poll: Seconds(r.Uint64()),
			}
		}
		all.StandAt(evening, r.IntN(3) > 0, r.IntN(2) == 0)
		o := Style{[]int{0, 40, 60, 80, 100}[r.IntN(5)], r.IntN(2) == 0, r.IntN(4) > 0, r.IntN(2) == 0}
		checkPage(t, renderStatus(t, all, o), o)
	}
}
