package report

import (
	"fmt"
	"strings"
	"testing"
)

// faulty makes a server of an operator of its own that failed.
func faulty(n int, stage, code, message string) Server {
	return Server{
		Name: fmt.Sprintf("%d.test:4460", n), Operator: fmt.Sprint(n), Verdict: Failed, Probed: &Probed{},
		Error: &Error{stage, code, message, "its own mend"},
	}
}

// told are the findings that are not ok, in short.
func told(all []Finding) string {
	var out []string
	for _, f := range all {
		if f.Level != OK && f.Subject != "agreement" {
			out = append(out, f.Subject+" "+f.Code)
		}
	}
	return strings.Join(out, ", ")
}

// A failure of all servers alike has one cause, and is told once; those that
// came further, or failed earlier, or are all of one operator, have their own.
func TestShared(t *testing.T) {
	fail := func(n int, stage, code string) Server { return faulty(n, stage, code, "it failed") }
	given := func(s Server) Server { s.Probed.Given = true; return s }
	unprobed := func(s Server) Server { s.Probed = nil; return s }
	probed := func(s Server, plain, unknown Reply) Server {
		s.Probed = &Probed{Address: "192.0.2.1:123", Plain: plain, Unknown: unknown, Octets: 228}
		return s
	}
	of := func(s Server, operator string) Server { s.Operator = operator; return s }
	fine := Server{Name: "9.test:4460", Operator: "9", Verdict: ServerAgreed, Measured: &Measured{}, Address: "192.0.2.9:123"}
	for _, c := range []struct {
		name    string
		servers []Server
		want    string
	}{
		{"one", []Server{fail(1, "dns", "dns_failed")}, "server 1.test:4460 dns_failed"},
		{"two names", []Server{fail(1, "dns", "dns_failed"), fail(2, "dns", "dns_failed")}, "network dns_failed"},
		{"two names, without a check", []Server{unprobed(fail(1, "dns", "dns_failed")), unprobed(fail(2, "dns", "dns_failed"))}, "network dns_failed"},
		{
			"two names, and one that answers",
			[]Server{fail(1, "dns", "dns_failed"), fail(2, "dns", "dns_failed"), fine},
			"server 1.test:4460 dns_failed, server 2.test:4460 dns_failed",
		},
		{
			"two names, and one that does not need its own",
			[]Server{fail(1, "dns", "dns_failed"), fail(2, "dns", "dns_failed"), given(fail(3, "tls", "tls_failed"))},
			"server 3.test:4460 tls_failed, network dns_failed",
		},
		{
			"one operator",
			[]Server{of(fail(1, "dns", "dns_failed"), "a"), of(fail(2, "dns", "dns_failed"), "a")},
			"server 1.test:4460 dns_failed, server 2.test:4460 dns_failed",
		},
		{
			"not alike",
			[]Server{fail(1, "dns", "dns_failed"), fail(2, "dns", "dns_not_found")},
			"server 1.test:4460 dns_failed, server 2.test:4460 dns_not_found",
		},
		{"no way", []Server{fail(1, "connect", "connect_unreachable"), fail(2, "connect", "connect_unreachable")}, "network connect_unreachable"},
		{
			"no connection, and no name",
			[]Server{fail(1, "connect", "connect_timeout"), fail(2, "connect", "connect_timeout"), fail(3, "dns", "dns_not_found")},
			"server 3.test:4460 dns_not_found, network connect_timeout",
		},
		{"refused", []Server{fail(1, "connect", "connect_refused"), fail(2, "connect", "connect_refused")}, "network connect_refused"},
		{"no ALPN", []Server{fail(1, "tls", "tls_no_alpn"), fail(2, "tls", "tls_no_alpn")}, "network tls_no_alpn"},
		{
			"no time on any server's certificate",
			[]Server{fail(1, "certificate", "certificate_expired"), fail(2, "certificate", "certificate_expired")},
			"server 1.test:4460 certificate_expired, server 2.test:4460 certificate_expired",
		},
		{"one authority", []Server{fail(1, "certificate", "certificate_unknown_authority"), fail(2, "certificate", "certificate_unknown_authority")}, "network certificate_unknown_authority"},
		{
			"two authorities",
			[]Server{fail(1, "certificate", "certificate_unknown_authority"), faulty(2, "certificate", "certificate_unknown_authority", "another")},
			"server 1.test:4460 certificate_unknown_authority, server 2.test:4460 certificate_unknown_authority",
		},
		{"no proxy", []Server{fail(1, "proxy", "proxy_failed"), fail(2, "proxy", "proxy_failed")}, "network proxy_failed"},
		{"no UDP at the proxy", []Server{fail(1, "proxy", "proxy_no_udp"), fail(2, "proxy", "proxy_no_udp")}, "network proxy_no_udp"},
		{
			"a proxy that reaches one",
			[]Server{fail(1, "proxy", "proxy_failed"), fine, fail(2, "proxy", "proxy_failed")},
			"server 1.test:4460 proxy_failed, server 2.test:4460 proxy_failed",
		},
		{"no NTP, and nothing known", []Server{fail(1, "exchange", "exchange_timeout"), fail(2, "exchange", "exchange_timeout")}, "network exchange_timeout"},
		{
			"no NTP",
			[]Server{probed(fail(1, "exchange", "exchange_timeout"), Silence, Silence), probed(fail(2, "exchange", "exchange_timeout"), Silence, Silence)},
			"network exchange_timeout, network udp_filtered",
		},
		{
			"no NTP for different reasons",
			[]Server{probed(fail(1, "exchange", "exchange_timeout"), Bare, Silence), probed(fail(2, "exchange", "exchange_timeout"), Silence, Silence)},
			"server 1.test:4460 exchange_timeout, server 1.test:4460 udp_filtered_by_size, server 2.test:4460 exchange_timeout, server 2.test:4460 udp_filtered",
		},
		{"all is well", []Server{fine}, ""},
	} {
		r := Report{Command: "check", Servers: c.servers, ReasonCode: "no_agreement", Reason: "nobody"}
		all := r.Findings(false)
		if got := told(all); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
		for i, f := range all {
			if f.Level == Blocks && f.Subject == "network" && f.Hint == "" && !strings.HasPrefix(all[i+1].Code, "udp_") {
				t.Errorf("%s: no mend: %+v", c.name, f)
			}
			if f.Subject == "network" && f.Level == Blocks && !strings.Contains(f.Message, "the 2 ") && !strings.Contains(f.Message, "any of the 2") {
				t.Errorf("%s: of how many? %+v", c.name, f)
			}
		}
	}
}

// What a probe brought is explained as far as it is known, and not further.
func TestExplain(t *testing.T) {
	const lost, bad = "exchange_timeout", "exchange_unauthenticated"
	for _, c := range []struct {
		error          string
		plain, unknown Reply
		later          bool
		code           string // nothing: nothing is known
		one            string // in its message, where no other server answers
		others         string // where others do
		all            string // where all fail alike
	}{
		{lost, Silence, Silence, false, "udp_filtered", "filtered on the way, or its NTP service is down", "while other servers answer: its NTP service is down, or filtered near it", "it is filtered on the way."},
		{lost, Closed, Silence, false, "udp_filtered", "or its NTP service is down", "while other", "on the way."},
		{lost, Silence, Closed, false, "udp_filtered", "", "", ""},
		{lost, Closed, Closed, false, "udp_rejected", "a firewall rejects it, or no NTP service is there", "", "a firewall rejects it."},
		{lost, Bare, Silence, false, "udp_filtered_by_size", "on the way, or its NTP service has no NTS", "dropped near it, or its NTP service has no NTS", "dropped on the way."},
		{lost, Bare, Closed, false, "udp_filtered_by_size", "", "", ""},
		{lost, Bare, Strange, false, "ntp_intercepted", "", "", ""},
		{lost, Bare, "", false, "", "", "", ""}, // it was not asked
		{lost, Silence, Refusal, false, "udp_filtered_by_size", "requests of 228 octets arrive", "", ""},
		{lost, Bare, Refusal, false, "udp_filtered_by_size", "do not come back", "", ""},
		{lost, Bare, Refusal, true, "packets_lost", "", "", ""},
		{lost, Bare, Bare, false, "ntp_intercepted", "without NTS", "", "in place of them all"}, // as an old version, which is no answer to NTS
		{lost, Strange, Strange, false, "ntp_intercepted", "answer nothing that was asked", "", ""},
		{lost, Strange, Silence, false, "", "", "", ""},
		{lost, Kissed, "", false, "server_refuses", "limits how often your address asks", "", ""},
		{lost, Silence, Kissed, false, "server_refuses", "", "", ""},
		{lost, "", "", false, "", "", "", ""},
		{lost, Silence, "", false, "", "", "", ""},
		{bad, Bare, Bare, false, "ntp_intercepted", "in its place, or what stands there has no NTS", "", "in place of them all"},
		{bad, Silence, Refusal, false, "ntp_intercepted", "its answers to others do not authenticate", "", ""},
		{bad, Bare, Refusal, true, "packets_lost", "", "", ""},
		{bad, Bare, Silence, false, "", "", "", ""},
		{bad, "", "", false, "", "", "", ""},
		{"exchange_nak", Bare, Refusal, false, "", "", "", ""}, // which is not probed
	} {
		s := faulty(1, "exchange", c.error, "it failed")
		s.Probed = &Probed{Address: "[2001:db8::1]:123", Plain: c.plain, Unknown: c.unknown, Octets: 228, Later: c.later}
		for i, part := range []string{c.one, c.others, c.all} {
			f := s.explain(i == 1, i == 2)
			if f.Code != c.code || !strings.Contains(f.Message+".", part) || (f.Code != "") != (f.Message != "" && f.Hint != "" && f.Level == Note) {
				t.Errorf("%s, %q, %q: %+v, want %s: %s", c.error, c.plain, c.unknown, f, c.code, part)
			}
			if strings.Contains(f.Message+f.Hint, "2001") || f.Code == "udp_filtered" && !strings.Contains(f.Hint+f.Message, "UDP port 123") {
				t.Errorf("%+v", f)
			}
		}
	}
	size := Server{Name: "a.test:4460", Verdict: ServerAgreed, Probed: &Probed{Passed: 436, Lost: 540}}
	if f := size.explain(false, false); f.Code != "udp_filtered_by_size" || !strings.Contains(f.Message, "436") || !strings.Contains(f.Message, "540") {
		t.Errorf("%+v", f)
	}
}

// Names that are not looked up while the clock is in doubt may need the time.
func TestNamesNeedTime(t *testing.T) {
	for _, c := range []struct {
		code    string
		refused bool
		want    string
	}{
		{"dns_failed", true, "network dns_failed, network dns_needs_time"},
		{"dns_failed", false, "network dns_failed"}, // nobody answers
		{"dns_not_found", false, "network dns_not_found"},
		{"connect_timeout", false, "network connect_timeout"},
	} {
		stage, _, _ := strings.Cut(c.code, "_")
		r := Report{Command: "check", Servers: []Server{faulty(1, stage, c.code, "it failed"), faulty(2, stage, c.code, "it failed")}}
		r.Servers[1].Probed.Unresolved = c.refused
		if got := told(r.Findings(true)); got != c.want {
			t.Errorf("%s, want %s", got, c.want)
		}
		if got := told(r.Findings(false)); strings.Contains(got, "time ") {
			t.Errorf("with a clock that is right: %s", got)
		}
	}
}

// What is known besides chooses the mend.
func TestNetworkMend(t *testing.T) {
	for _, c := range []struct {
		name string
		Probed
		want string
	}{
		{"names were looked up", Probed{}, "names are looked up"},
		{"addresses are given", Probed{Given: true}, "if the network is up"},
		{"a proxy connects", Probed{Given: true, Proxied: true}, "its own mend"},
	} {
		r := Report{Command: "check"}
		for i := range 2 {
			s := faulty(i, "connect", "connect_timeout", "it failed")
			s.Probed = &c.Probed
			r.Servers = append(r.Servers, s)
		}
		for _, f := range r.Findings(false) {
			if f.Subject == "network" && !strings.Contains(f.Hint, c.want) {
				t.Errorf("%s: %+v", c.name, f)
			}
		}
	}
}
