package report

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
)

var someFindings = Findings{List: []Finding{
	{"configuration", "configuration", OK, "ok", "3 servers", ""},
	{"clock", "permission", Blocks, "not_permitted", "not permitted to set the clock: CAP_SYS_TIME is missing", "start it as root or by its systemd unit, or give it the capability once: `setcap cap_sys_time+ep ntsclient`"},
	{"clock", "clock", OK, "ok", "synchronized", ""},
	{"server a.test:4460", "dns", OK, "ok", "name resolved", ""},
	{"server a.test:4460", "connect", OK, "ok", "connected", ""},
	{"server a.test:4460", "tls", Note, "tls_no_alpn", "no <ALPN>", ""},
	{"server b.test:4461", "dns", OK, "ok", "name resolved", ""},
	{"agreement", "agreement", Blocks, "no_agreement", "none", ""},
}}

func TestFindingsText(t *testing.T) {
	const want = `✓ configuration  3 servers
✗ clock          not permitted to set the clock: CAP_SYS_TIME is missing
                 → start it as root or by its systemd unit, or give it the
                   capability once: ` + "`setcap cap_sys_time+ep ntsclient`" + `
✓ clock          synchronized
✓ a.test         name resolved, connected
– a.test         no <ALPN>
✓ b.test:4461    name resolved
✗ agreement      none

stopped by: clock, agreement; 1 thing to note
`
	var out bytes.Buffer
	if err := someFindings.WriteText(&out, Style{UTF8: true}); err != nil || out.String() != want {
		t.Errorf("%v\n%s", err, &out)
	}
	out.Reset()
	if err := someFindings.WriteText(&out, Style{}); err != nil {
		t.Fatal(err)
	}
	ascii := strings.NewReplacer("✓", "+", "✗", "x", "–", "o", "→ ", "-> ").Replace(want)
	if got := strings.Join(strings.Fields(out.String()), " "); got != strings.Join(strings.Fields(ascii), " ") {
		t.Errorf("\n%s", &out)
	}
}

func TestFindingsClosing(t *testing.T) {
	fine := []Finding{{Subject: "clock", Level: OK}}
	note := Finding{Subject: "state", Level: Note}
	for _, c := range []struct {
		f     Findings
		want  string
		first *Finding
	}{
		{Findings{}, "nothing stops it", nil},
		{Findings{List: fine, Offline: true}, "nothing stops it; nothing was sent (--offline)", nil},
		{Findings{List: append(fine, note)}, "nothing stops it; 1 thing to note", nil},
		{Findings{List: append(fine, note, note)}, "nothing stops it; 2 things to note", nil},
		{someFindings, "stopped by: clock, agreement; 1 thing to note", &someFindings.List[1]},
	} {
		if got := c.f.closing(); got != c.want || !reflect.DeepEqual(c.f.First(), c.first) {
			t.Errorf("%q, %+v, want %q", got, c.f.First(), c.want)
		}
	}
}

func TestFindingsJSON(t *testing.T) {
	for _, f := range []*Findings{{}, &someFindings, {Offline: true, List: hostileFindings()}} {
		var out bytes.Buffer
		if err := f.WriteJSON(&out); err != nil {
			t.Fatal(err)
		}
		var got struct {
			Schema   int
			Command  string
			Findings []Finding
		}
		d := json.NewDecoder(&out)
		d.DisallowUnknownFields()
		text := out.String()
		if err := d.Decode(&got); err != nil || got.Schema != Schema || got.Command != "check" || got.Findings == nil {
			t.Errorf("%v\n%s", err, text)
		}
		if len(got.Findings) != len(f.List) || !strings.HasSuffix(text, "}\n") || strings.ContainsAny(text, "\x1b\u202e\x00") {
			t.Errorf("%q", text)
		}
		if len(f.List) > 0 && f == &someFindings && !reflect.DeepEqual(got.Findings, f.List) {
			t.Errorf("%+v", got.Findings)
		}
	}
}

// hostileFindings are what servers could want to be shown.
func hostileFindings() (all []Finding) {
	for _, s := range hostile {
		all = append(all, Finding{"server " + s, "tls", Note, "tls_failed", s, s}, Finding{s, s, Level(s), s, s, s})
	}
	return all
}

func TestHostileFindings(t *testing.T) {
	f := Findings{List: hostileFindings()}
	for _, style := range []Style{{UTF8: true}, {}, {UTF8: true, Color: true, Width: 40}, {Width: 100}} {
		var out bytes.Buffer
		if err := f.WriteText(&out, style); err != nil {
			t.Fatal(err)
		}
		checkPage(t, out.String(), style)
	}
}

// What a round found out about a server is where it stopped, and all before.
func TestReportFindings(t *testing.T) {
	failed := func(stage, code string) Server {
		return Server{Name: "a.test:4460", Verdict: Failed, Error: &Error{stage, code, "it failed", "mend it"}}
	}
	const before = "dns connect tls certificate key_exchange exchange"
	for _, c := range []struct {
		server Server
		ok     string // stages
		stage  string // that is not
		code   string
	}{
		{failed("dns", "dns_not_found"), "", "dns", "dns_not_found"},
		{failed("connect", "connect_refused"), "dns", "connect", "connect_refused"},
		{failed("tls", "tls_no_alpn"), "dns connect", "tls", "tls_no_alpn"},
		{failed("certificate", "certificate_expired"), "dns connect tls", "certificate", "certificate_expired"},
		{failed("key_exchange", "ke_error"), "dns connect tls certificate", "key_exchange", "ke_error"},
		{failed("exchange", "exchange_timeout"), "dns connect tls certificate key_exchange", "exchange", "exchange_timeout"},
		{failed("proxy", "proxy_failed"), "", "proxy", "proxy_failed"},
		{failed("internal", "internal"), "", "internal", "internal"},
		{Server{Name: "a.test:4460", Verdict: ServerAgreed}, before, "", ""},
		{Server{Name: "a.test:4460", Verdict: Falseticker, ReasonCode: "outside_agreement", Reason: "far off"}, before, "agreement", "outside_agreement"},
		{Server{Name: "a.test:4460", Verdict: Unusable, ReasonCode: "too_distant", Reason: "far"}, before, "agreement", "too_distant"},
	} {
		for _, agreed := range []bool{true, false} {
			r := Report{Command: "check", Servers: []Server{c.server}, ReasonCode: "no_agreement", Reason: "nobody"}
			level, last := Blocks, Finding{"agreement", "agreement", Blocks, "no_agreement", "no agreed time: nobody; the clock was not touched", ""}
			if agreed {
				r.Agreement, r.ReasonCode, r.Reason, level = &Agreement{}, "", "", Note
			}
			all := r.Findings(false)
			if !agreed && all[len(all)-1] != last || agreed && all[len(all)-1].Level != OK {
				t.Errorf("%+v", all[len(all)-1])
			}
			var ok []string
			stage, code := "", ""
			for _, f := range all[:len(all)-1] {
				switch {
				case f.Subject != "server a.test:4460":
					t.Errorf("%+v", f)
				case f.Level == OK:
					ok = append(ok, f.Stage)
				default:
					stage, code = f.Stage, f.Code
					if f.Level != level || f.Message == "" || (c.server.Error != nil) != (f.Hint == "mend it") {
						t.Errorf("%+v", f)
					}
				}
			}
			if strings.Join(ok, " ") != c.ok || stage != c.stage || code != c.code {
				t.Errorf("%+v: ok %q, then %q %q", c.server, ok, stage, code)
			}
		}
	}
	refused := Report{Command: "check", Agreement: &Agreement{}, ReasonCode: "would_refuse", Reason: "sync would refuse: too far"}
	if f := refused.Findings(false); len(f) != 1 || f[0].Stage != "decision" || f[0].Level != Blocks || f[0].Code != "would_refuse" {
		t.Errorf("%+v", f)
	}
}
