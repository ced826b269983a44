package report

import (
	"cmp"
	"fmt"
	"slices"
)

// stages are those that a server's authenticated answer has passed, in order, and
// what that is to people. A failure outside of them, as in a proxy, tells of none.
var stages = [...][2]string{
	{"dns", "name resolved"},
	{"connect", "connected"},
	{"tls", "TLS 1.3"},
	{"certificate", "certificate verified"},
	{"key_exchange", "keys exchanged"},
	{"exchange", "authenticated answer"},
}

// passed is how many of the stages a server has passed.
func (s *Server) passed() int {
	if s.Error == nil {
		return len(stages)
	}
	return max(0, slices.IndexFunc(stages[:], func(stage [2]string) bool { return stage[0] == s.Error.Stage }))
}

// common are the failures that have one cause if they meet every server that
// came so far: what they come to then, for how many, and the mend.
var common = map[string][2]string{
	"dns_failed":    {"none of the %d names can be looked up"},
	"dns_not_found": {"none of the %d names exists, says the resolver", "does it know the names of the internet? `ips` needs none"},

	"connect_unreachable": {"there is no way to any of the %d servers", "is the network up? does it have a default route (`ip route`)?"},
	"connect_timeout":     {"none of the %d servers answers to TCP", "if the network is up (does anything else work?), it is filtered: let TCP to this port out"},
	"connect_refused":     {"each of the %d servers refuses TCP", "a firewall on the way may do that: let TCP to this port out"},

	"tls_failed":  {"TLS fails with each of the %d servers", "something on the way breaks it: let TCP to the key exchange (port 4460) out as it is"},
	"tls_timeout": {"TLS ends in time with none of the %d servers", "something on the way stops it: let TCP to the key exchange (port 4460) out as it is"},
	"tls_no_alpn": {"none of the %d servers speaks NTS key exchange", "something on the way answers in their place: let TCP to the key exchange (port 4460) out as it is"},

	"certificate_unknown_authority": {
		"each of the %d servers shows a certificate of one and the same authority",
		"something on the way intercepts TLS: exempt the key exchange (port 4460) from that. Only if the servers are your own and that is your authority, set `ca_file`",
	},

	"proxy_failed": {"none of the %d servers is asked"},
	"proxy_no_udp": {"none of the %d servers is asked"},

	"exchange_timeout":         {"none of the %d servers answers NTP"},
	"exchange_unauthenticated": {"NTP answers come in the name of each of the %d servers, and none authenticates"},
}

// shared are the servers that fail with an error that all fail with that came
// as far as its stage, if they are of several operators; a group for each stage.
func (r *Report) shared() (groups [][]*Server) {
	for i, stage := range stages {
		var came []*Server
		for j := range r.Servers {
			if s := &r.Servers[j]; s.passed() >= i && (i > 0 || !s.given()) {
				came = append(came, s)
			}
		}
		if alike(came, stage[0]) {
			groups = append(groups, came)
		}
	}
	var all []*Server
	for i := range r.Servers {
		all = append(all, &r.Servers[i])
	}
	if alike(all, "proxy") {
		groups = append(groups, all)
	}
	return groups
}

// alike tells whether servers of several operators fail at a stage for what must
// be one reason.
func alike(servers []*Server, stage string) bool {
	operators := map[string]bool{}
	for _, s := range servers {
		e, first := s.Error, servers[0].Error
		if e == nil || first == nil || e.Stage != stage || e.Code != first.Code || s.why().Code != servers[0].why().Code ||
			stage == "certificate" && e.Message != first.Message { // which names the authority
			return false
		}
		operators[s.Operator] = true
	}
	return len(operators) > 1 && common[servers[0].Error.Code][0] != ""
}

// Findings are what a round found out about each server, about the way to all
// of them, and about their agreement. Doubt tells that the clock may be far off.
func (r *Report) Findings(doubt bool) []Finding {
	var f Findings
	trouble := Note // for one server, as long as the others agree
	if r.Agreement == nil {
		trouble = Blocks
	}
	groups := r.shared()
	for i := range r.Servers {
		s := &r.Servers[i]
		f.server(s)
		if !slices.ContainsFunc(groups, func(g []*Server) bool { return slices.Contains(g, s) }) {
			f.trouble(r, s, trouble)
		}
	}
	for _, g := range groups {
		f.network(g, trouble)
	}
	if doubt && slices.ContainsFunc(r.Servers, func(s Server) bool { return s.Probed != nil && s.Probed.Unresolved }) {
		f.Add(Note, "network", "dns", "dns_needs_time",
			"this clock is in doubt, and a resolver that checks DNSSEC or speaks DNS over TLS needs the right time to look up names",
			"give `ips` for the servers: then no name is looked up")
	}
	sentences := r.closing()
	level, stage, code := OK, "agreement", "ok"
	switch {
	case r.Agreement == nil:
		level, code = Blocks, r.ReasonCode
	case r.ReasonCode == "would_refuse":
		level, stage, code = Blocks, "decision", r.ReasonCode
	}
	f.Add(level, "agreement", stage, code, sentences[len(sentences)-1], "")
	return f.List
}

func (s *Server) subject() string { return "server " + s.Name }

// server adds what a server has passed.
func (f *Findings) server(s *Server) {
	for i, stage := range stages[:s.passed()] {
		if i > 0 || !s.given() {
			f.OK(s.subject(), stage[0], stage[1])
		}
	}
}

// trouble adds what is wrong with one server.
func (f *Findings) trouble(r *Report, s *Server, level Level) {
	why := s.explain(r.others(s), false)
	switch {
	case s.Error != nil:
		f.explained(Finding{s.subject(), s.Error.Stage, level, s.Error.Code, s.Error.Message, s.Error.Hint}, why)
	case s.Verdict != ServerAgreed:
		f.explained(Finding{s.subject(), "agreement", level, s.ReasonCode, s.Reason, ""}, why)
	case why.Code != "":
		why.Subject = s.subject()
		f.List = append(f.List, why)
	}
}

// explained adds a finding and what explains it, if anything does. That has the
// mend then.
func (f *Findings) explained(g, why Finding) {
	if why.Code == "" {
		f.List = append(f.List, g)
		return
	}
	g.Hint, why.Subject = "", g.Subject
	f.List = append(f.List, g, why)
}

// why explains a failure that all servers share.
func (s *Server) why() Finding { return s.explain(false, true) }

// network adds what is wrong on the way to all servers alike. The first of them
// is the example.
func (f *Findings) network(group []*Server, level Level) {
	e, words := group[0].Error, common[group[0].Error.Code]
	message, hint := fmt.Sprintf(words[0], len(group)), cmp.Or(words[1], e.Hint)
	switch p := group[0].Probed; {
	case p != nil && p.Proxied:
		hint = e.Hint
	case e.Code == "connect_timeout" && !group[0].given():
		hint = "names are looked up, so that a network seems to be there: let TCP to this port out"
	}
	if e.Stage != "exchange" {
		message += ": " + e.Message
	}
	f.explained(Finding{"network", e.Stage, level, e.Code, message, hint}, group[0].why())
}

// others tells whether other servers answer by the port that this one does not
// answer by.
func (r *Report) others(s *Server) bool {
	return s.Probed != nil && slices.ContainsFunc(r.Servers, func(o Server) bool {
		return o.Measured != nil && port(o.Address) == port(s.Probed.Address)
	})
}
