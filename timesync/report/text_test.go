package report

import (
	"bytes"
	"flag"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"
)

var update = flag.Bool("update", false, "write the golden files anew")

const ms = Seconds(time.Millisecond)

var evening = time.Date(2026, 11, 21, 21, 0, 0, 0, time.UTC)

func server(name, operator string, v Verdict, offset, uncertainty, delay Seconds) Server {
	return Server{
		Name: name, Operator: operator, Verdict: v,
		Measured: &Measured{
			Offset: offset, Uncertainty: uncertainty, Delay: delay, Stratum: 1, Leap: "none",
			AEAD: "AES-SIV-CMAC-256", Cookies: 8, Samples: 1, Timestamps: "kernel",
		},
	}
}

func failed(name, operator, message, hint string) Server {
	return Server{Name: name, Operator: operator, Verdict: Failed, Error: &Error{"certificate", "certificate_expired", message, hint}}
}

func out(s Server, code, reason string) Server {
	s.ReasonCode, s.Reason = code, reason
	return s
}

// honest are four servers that agree on offset; the first speaks the other AEAD.
func honest(offset Seconds) []Server {
	servers := []Server{
		server("time.cloudflare.com:4460", "cloudflare.com", ServerAgreed, offset-2*ms, 15*ms/2, 12*ms),
		server("nts.netnod.se:4460", "netnod.se", ServerAgreed, offset+ms/2, 113*ms/10, 203*ms/10),
		server("ptbtime1.ptb.de:4460", "ptb.de", ServerAgreed, offset+ms, 99*ms/10, 19*ms),
		server("virginia.time.system76.com:4460", "system76.com", ServerAgreed, offset-3*ms, 58*ms, 113*ms),
	}
	servers[0].AEAD, servers[0].Stratum, servers[3].Stratum = "AES-128-GCM-SIV", 3, 2
	return servers
}

func agreed(offset, uncertainty Seconds, servers ...Server) *Report {
	return &Report{
		Schema: Schema, Command: "query", Result: Agreed, Action: None,
		Clock: evening.Add(-time.Duration(offset)),
		Agreement: &Agreement{
			Time: evening, Offset: offset, Uncertainty: uncertainty,
			Interval: [2]Seconds{offset - uncertainty, offset + uncertainty*9/10},
		},
		Servers: servers,
	}
}

func noAgreement(reason string, servers ...Server) *Report {
	return &Report{
		Schema: Schema, Command: "sync", Result: NoAgreement, Action: None, Clock: evening,
		ReasonCode: "no_agreement", Reason: reason, Servers: servers,
	}
}

// liar answers, and disagrees.
func liar(offset Seconds, reason string) Server {
	return out(server("ntppool1.time.nl:4460", "time.nl", Falseticker, offset, 113*ms/10, 203*ms/10), "outside_agreement", reason)
}

func goldens() map[string]*Report {
	oneLiar := agreed(123*ms/10, 99*ms/10, append(honest(12*ms),
		liar(512*ms, "its interval lies 478 ms above the agreed one"))...)
	oneLiar.Command, oneLiar.DryRun, oneLiar.Action = "sync", true, Step

	nearLiar := agreed(123*ms/10, 8*ms, append(honest(12*ms),
		liar(-18*ms, "its interval lies 11.0 ms below the agreed one"))...)
	nearLiar.Command, nearLiar.Action = "sync", Slew

	years := Seconds(evening.Sub(time.Unix(8, 0)))
	at1970 := agreed(years, 99*ms/10, append(honest(years),
		out(server("stolen.example.org:4460", "example.org", Unusable, 365*24*Seconds(time.Hour)-8*Seconds(time.Second), 10*ms, 20*ms),
			"below_floor", "its time, 1971-01-01 00:00:00 UTC, is below the floor"))...)
	at1970.Command, at1970.Action = "sync", Step
	at1970.Bootstrap = &Bootstrap{
		Deferred: true, Floor: time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC), FloorFrom: "certificates", Reverified: 4,
	}

	twelve := agreed(-40*Seconds(time.Microsecond), 310*Seconds(time.Microsecond))
	for i := range Seconds(9) {
		twelve.Servers = append(twelve.Servers, server("time"+string(rune('a'+i))+".example.net:4460", "example.net",
			ServerAgreed, (i-5)*20000, 300000+i*20000, 450000+i*9000))
	}
	twelve.Servers = append(twelve.Servers,
		out(server("tick.example.com:4460", "example.com", Unusable, 90000, 2500000, 400000), "unsynchronized", "says that it is not synchronized"),
		liarAt("a-very-long-name-of-a-host.in.some.department.university.example.edu:4461", -86400*Seconds(time.Second)),
		failed("old.example.org:4460", "example.org", "certificate expired 3 days ago, on 2026-11-18",
			"ask its operator to renew it, or remove the server from the configuration"))

	refused := agreed(7200*Seconds(time.Second), 99*ms/10, honest(7200*Seconds(time.Second))...)
	refused.Command, refused.Result = "sync", Refused
	refused.ReasonCode, refused.Reason = "max_step", "2.00 h is more than max_step, 15 min; ntsclient sync --max-step 3h allows it once"

	return map[string]*Report{
		"agreed":       agreed(123*ms/10, 99*ms/10, honest(12*ms)...),
		"one_liar":     oneLiar,
		"near_liar":    nearLiar,
		"no_agreement": noAgreement("no majority: 4 operators answered and at most 2 agree", divided()...),
		"all_failed": noAgreement("no server gave a usable answer",
			failed("time.cloudflare.com:4460", "cloudflare.com", "connection refused", ""),
			failed("nts.netnod.se:4460", "netnod.se", "certificate is not yet valid: it begins on 2026-11-01, and this clock says 1970-01-01",
				"this clock is wrong; ntsclient sync can set it all the same")),
		"bootstrap_1970": at1970,
		"one_server":     agreed(123*ms/10, 113*ms/10, server("ntp.example.net:4460", "example.net", ServerAgreed, 123*ms/10, 113*ms/10, 203*ms/10)),
		"twelve_servers": twelve,
		"refused":        refused,
	}
}

func liarAt(name string, offset Seconds) Server {
	s := liar(offset, "its interval lies 1.00 days below the agreed one")
	s.Name, s.Operator = name, "example.edu"
	return s
}

// divided are four servers of which two say one time, and two another.
func divided() []Server {
	servers := honest(0)
	for i := range servers {
		servers[i].Uncertainty = 9 * ms
		if i%2 == 1 {
			servers[i].Offset += 70 * ms
		}
		servers[i] = out(servers[i], "outside_agreement", "there is no agreement that it could be inside of")
		servers[i].Verdict = Falseticker
	}
	return servers
}

func render(t *testing.T, r *Report, o Style) string {
	t.Helper()
	var b bytes.Buffer
	if err := r.WriteText(&b, o); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestGolden(t *testing.T) {
	for name, r := range goldens() {
		for set, o := range map[string]Style{
			"utf8":  {Draw: true, UTF8: true},
			"ascii": {Draw: true},
		} {
			got := render(t, r, o)
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

// hostile are texts that servers and resolvers could send.
var hostile = []string{
	"\x1b[2J\x1b[1;1Hall is well",    // clears the screen
	"\x1b]0;title\x07",               // renames the window
	"\u009b31m",                      // an escape sequence in one character
	"first\r\nsecond\tthird\vfourth", // more lines than one
	"\xff\xfe\xc3(",                  // no UTF-8
	"safe\u202egpj.exe\u2066\u200b\ufeff",
	"z\u0300\u0301\u0302\u0489algo", // marks above and below
	"a\u00a0b\u2028c\u3000d",        // blanks that are none
	"\x00\x7f\U000e0041",
	strings.Repeat("long", 5000),
	strings.Repeat("many words ", 5000),
	"",
	"日本.example",
}

func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{
		"plain text, µs ± … ü ß 日本": "plain text, µs ± … ü ß 日本",
		"\x1b[31mred\x07":           `\x1b[31mred\a`,
		"\u009b31m":                 `\u009b31m`,
		"a\r\nb\tc":                 `a\r\nb\tc`,
		"\xff\x80ok\x00":            `\xff\x80ok\x00`,
		"\u202eabc":                 `\u202eabc`,
		"e\u0301":                   `e\u0301`,
		"a\u00a0b":                  `a\u00a0b`,
		"\U000e0041":                `\U000e0041`,
		`back\slash "quoted"`:       `back\slash "quoted"`,
		"\ufffd":                    "\ufffd",
	} {
		if got := Printable(in); got != want {
			t.Errorf("Printable(%q) = %q, want %q", in, got, want)
		}
	}
	for _, s := range hostile {
		if once := Printable(s); Printable(once) != once {
			t.Errorf("%q changes when it is done twice", s)
		}
	}
	if got := plain(`µ ± … → ü "q" \x1b`); got != `u +/- ... -> \u00fc "q" \x1b` {
		t.Error(got)
	}
}

var escapes = regexp.MustCompile("\x1b\\[[0-9]{1,2}m")

// checkPage holds what is true of everything that WriteText writes.
func checkPage(t *testing.T, text string, o Style) {
	t.Helper()
	if o.Color {
		text = escapes.ReplaceAllString(text, "")
	}
	if !strings.HasSuffix(text, "\n") || !utf8.ValidString(text) {
		t.Fatalf("%+v: no line end, or no UTF-8: %q", o, text)
	}
	width := min(max(o.Width, 40), 100)
	if o.Width == 0 {
		width = 80
	}
	for l := range strings.Lines(text) {
		l = strings.TrimSuffix(l, "\n")
		if n := utf8.RuneCountInString(l); n > width || strings.HasSuffix(l, " ") {
			t.Fatalf("%+v: %d columns, or a blank at the end: %q", o, n, l)
		}
		for _, r := range l {
			if !unicode.IsPrint(r) || unicode.Is(unicode.M, r) || (!o.UTF8 && r > unicode.MaxASCII) {
				t.Fatalf("%+v: %q in %q", o, r, l)
			}
		}
	}
}

func TestHostileTexts(t *testing.T) {
	for _, s := range hostile {
		measured := server(s, s, Falseticker, 1, 2, 3)
		measured.AEAD, measured.Reason, measured.Leap, measured.Address, measured.Timestamps = s, s, s, s, s
		lost := failed(s, s, s, s)
		lost.Error.Code = s
		ok := server("ok", "ok", ServerAgreed, 1, 2, 3)
		with := agreed(1, 2, ok, measured, lost)
		with.Reason = s
		with.Bootstrap = &Bootstrap{Deferred: true, FloorFrom: s}
		for _, r := range []*Report{with, noAgreement(s, measured, lost)} {
			for _, o := range []Style{{Draw: true}, {Draw: true, UTF8: true}, {Draw: true, UTF8: true, Color: true}} {
				checkPage(t, render(t, r, o), o)
			}
		}
	}
}

// randomReport has offsets of all sizes, and names of all lengths.
func randomReport(r *rand.Rand) *Report {
	size := func() Seconds {
		d := Seconds(r.Uint64() >> r.IntN(64))
		if d < 0 || r.IntN(50) == 0 {
			return []Seconds{0, math.MaxInt64, math.MinInt64}[r.IntN(3)]
		}
		return d
	}
	signed := func() Seconds { return size() * Seconds(1-2*r.IntN(2)) }
	verdicts := []Verdict{ServerAgreed, ServerAgreed, Falseticker, Unusable, Failed, ""}
	report := noAgreement(hostile[r.IntN(len(hostile))])
	if r.IntN(2) == 0 {
		report = agreed(signed(), size())
		report.Interval = [2]Seconds{signed(), signed()}
		report.Result = []Result{Agreed, Refused, NotPermitted}[r.IntN(3)]
		report.Action = []Action{None, Slew, Step}[r.IntN(3)]
		report.DryRun = r.IntN(2) == 0
	}
	near := signed()
	for range r.IntN(14) {
		name := strings.Repeat("abc.", r.IntN(30)) + hostile[r.IntN(len(hostile))]
		s := server(name, name, verdicts[r.IntN(len(verdicts))], signed(), size(), size())
		if r.IntN(2) == 0 {
			s.Offset = near + Seconds(r.IntN(1000))
		}
		s.Reason, s.AEAD, s.Stratum = hostile[r.IntN(len(hostile))], hostile[r.IntN(len(hostile))], uint8(r.Uint32())
		if s.Verdict == Failed {
			s = failed(name, name, hostile[r.IntN(len(hostile))], hostile[r.IntN(len(hostile))])
		}
		report.Servers = append(report.Servers, s)
	}
	return report
}

func TestNoLineIsTooLong(t *testing.T) {
	r := rand.New(rand.NewPCG(80, 24))
	widths := []int{0, -5, 1, 40, 41, 53, 60, 72, 80, 81, 100, 200}
	for range 1000 {
		o := Style{widths[r.IntN(len(widths))], r.IntN(2) == 0, r.IntN(4) > 0, r.IntN(2) == 0}
		checkPage(t, render(t, randomReport(r), o), o)
	}
}

// What is written in colours says the same without them.
func TestColorIsNeverTheOnlySign(t *testing.T) {
	for name, r := range goldens() {
		bare, colored := Style{Draw: true, UTF8: true}, Style{Draw: true, UTF8: true, Color: true}
		got := render(t, r, colored)
		if !escapes.MatchString(got) {
			t.Errorf("%s has no colours", name)
		}
		if want := render(t, r, bare); escapes.ReplaceAllString(got, "") != want || strings.Contains(want, "\x1b") {
			t.Errorf("%s differs in more than colours:\n%s", name, got)
		}
	}
}

func TestOnlyTheDrawingIsLeftOut(t *testing.T) {
	for name, r := range goldens() {
		parts := strings.Split(render(t, r, Style{Draw: true}), "\n\n")
		bare := render(t, r, Style{})
		if want := parts[0] + "\n\n" + parts[len(parts)-1]; bare != want {
			t.Errorf("%s:\n%s\nwant\n%s", name, bare, want)
		}
	}
}

func TestHuman(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0 s", 1: "1 ns", 999: "999 ns", 1000: "1.00 µs", 12_345: "12.3 µs", 99_949: "99.9 µs", 99_950: "100 µs",
		999_499: "999 µs", 999_500: "1.00 ms", 12_300_000: "12.3 ms", 500 * time.Millisecond: "500 ms",
		-500 * time.Millisecond: "500 ms", 59 * time.Second: "59.0 s", 90 * time.Second: "1.50 min",
		5 * time.Hour: "5.00 h", 36 * time.Hour: "1.50 days", 100 * 24 * time.Hour: "100 days",
		400 * 24 * time.Hour: "1.10 years", math.MaxInt64: "292 years", math.MinInt64: "292 years",
	} {
		if got := Duration(d); got != want {
			t.Errorf("%d ns is %s, want %s", d, got, want)
		}
	}
	for d, want := range map[time.Duration]string{0: "0 s", 1500: "+1.50 µs", -1500: "-1.50 µs", math.MinInt64: "-292 years"} {
		if got := Offset(d); got != want {
			t.Errorf("%d ns is %s, want %s", d, got, want)
		}
	}
}

// Every outcome has its own last words.
func TestClosing(t *testing.T) {
	for _, c := range []struct {
		want   string
		change func(*Report)
	}{
		{"not touched (query)", func(r *Report) {}},
		{"not touched", func(r *Report) { r.Command = "sync" }},
		{"not touched: a loop holds the state", func(r *Report) { r.Command, r.Reason = "sync", "a loop holds the state" }},
		{"stepped", func(r *Report) { r.Command, r.Action = "sync", Step }},
		{"slewing", func(r *Report) { r.Command, r.Action = "sync", Slew }},
		{"dry run: would step", func(r *Report) { r.Command, r.Action, r.DryRun = "sync", Step, true }},
		{"dry run: would slew", func(r *Report) { r.Command, r.Action, r.DryRun = "sync", Slew, true }},
		{"refused: why; the clock was not touched", func(r *Report) { r.Result, r.Reason = Refused, "why" }},
		{"not permitted to set the clock: why", func(r *Report) { r.Result, r.Reason = NotPermitted, "why" }},
	} {
		r := agreed(-ms, 2*ms, honest(0)[:3]...)
		r.Servers[1].Operator = r.Servers[0].Operator
		r.Servers[2].Verdict = Falseticker
		c.change(r)
		all := r.closing()
		if want := "the clock is fast by 1.00 ms ± 2.00 ms; 2 of 3 servers (1 of 2 operators) agree; " + c.want; all[len(all)-1] != want {
			t.Errorf("%q, want %q", all, want)
		}
	}
	if got := agreed(0, ms).slowOrFast(); got != "the clock is right within ± 1.00 ms" {
		t.Error(got)
	}
	for reason, want := range map[string]string{
		"":                       "no agreed time: 0 of 1 server answered; the clock was not touched",
		"is the network up?":     "no agreed time: is the network up? the clock was not touched",
		"who knows? nobody does": "no agreed time: who knows? nobody does; the clock was not touched",
	} {
		if got := noAgreement(reason, failed("a", "a", "", "")).closing()[0]; got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
