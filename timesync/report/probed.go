package report

import (
	"fmt"
	"strings"
)

// Reply is what came back to a packet that was sent only to explain a failure.
type Reply string

// The replies. The zero Reply is that nothing was sent.
const (
	Silence Reply = "silence"
	Closed  Reply = "closed"  // ICMP says that nobody is there, or that a firewall rejects
	Strange Reply = "strange" // packets that are no answer to what was sent
	Bare    Reply = "bare"    // an NTP answer without NTS
	Refusal Reply = "refusal" // of an NTS server, of a cookie that it does not know
	Kissed  Reply = "kissed"  // the server has no time, or none for us
)

// Probed is what a check finds out about a server besides. It explains, and
// holds no time.
type Probed struct {
	Unresolved bool // a resolver answered that it cannot look up the name
	Given      bool // nothing was looked up here to reach it
	Proxied    bool // a proxy reached it, and so nothing was probed

	Address string // address:port where NTP was probed
	Plain   Reply  // to NTP of 48 octets, without NTS
	Unknown Reply  // to an NTS request of Octets, with a cookie that nobody gave
	Octets  int
	Later   bool // a request that was sent after these was answered

	Passed, Lost int // octets of the largest request that was answered, and of the smallest that was not; Lost 0: none
}

// given tells whether nothing was looked up to reach a server.
func (s *Server) given() bool { return s.Probed != nil && s.Probed.Given }

// port is that of address:port.
func port(address string) string { return address[strings.LastIndexByte(address, ':')+1:] }

func exchangeNote(code, message, hint string) Finding {
	return Finding{"", "exchange", Note, code, message, hint}
}

// explain says more of a failure than its error does, and nothing that is not
// known. Others tells that other servers answer, by the same port; all, that no
// server does, and all fail alike. Without a code it has nothing to say. The
// subject is left to the caller.
func (s *Server) explain(others, all bool) Finding {
	p := s.Probed
	switch {
	case p == nil:
	case s.Error == nil && p.Lost > 0:
		return exchangeNote("udp_filtered_by_size",
			fmt.Sprintf("NTP packets of %d octets pass, those of %d do not: something on the way drops the larger ones", p.Passed, p.Lost),
			"nothing needs to be done: where large requests are lost, small ones are sent")
	case s.Error == nil:
	case p.Later:
		return exchangeNote("packets_lost", "a later request was answered: packets are lost on the way, or answers come too late",
			"check again; if it stays so, raise `answer_timeout` and `deadline` in [measure]")
	case p.Plain == Kissed || p.Unknown == Kissed:
		return exchangeNote("server_refuses", "it is there, and refuses what was sent to find out more: it has no time itself, limits how often your address asks, or denies it",
			"try again in some minutes; if it stays so, ask its operator, or leave it out")
	case s.Error.Code == "exchange_unauthenticated" || p.Unknown == Bare:
		return p.intercepted(all)
	case s.Error.Code == "exchange_timeout":
		return p.silent(others, all)
	}
	return Finding{}
}

func redirects(port string) string {
	return "intercepts or redirects NTP there (UDP port " + port + ")"
}

// intercepted explains answers that do not authenticate.
func (p *Probed) intercepted(all bool) Finding {
	const code = "ntp_intercepted"
	redirects := redirects(port(p.Address))
	switch {
	case p.Unknown == Bare && all:
		return exchangeNote(code, "the answers are of NTP without NTS, whichever server is asked: a router or firewall answers in place of them all",
			"turn off for this machine what "+redirects)
	case p.Unknown == Bare:
		return exchangeNote(code, "the answers are of NTP without NTS: something on the way answers in its place, or what stands there has no NTS",
			"turn off for this machine what "+redirects+"; if nothing does, ask the server's operator")
	case p.Unknown == Refusal:
		return exchangeNote(code, "it refuses a cookie that nobody gave, as it should, but its answers to others do not authenticate: "+
			"they are changed on the way, or its NTP service has other keys than its key exchange",
			"try from another network; if it is the same there, ask the server's operator")
	}
	return Finding{}
}

// silent explains that no answer comes.
func (p *Probed) silent(others, all bool) Finding {
	const bySize = "udp_filtered_by_size"
	port := port(p.Address)
	open := "let UDP to port " + port + " out, and its answers in: here, in the router, or ask the provider"
	pass := "have the firewall or provider that drops larger NTP packets let them through, or use another network"
	leave := "ask its operator, or leave it out"
	or := func(words string) string { // which cannot be the cause if all fail alike
		if all {
			return ""
		}
		return ", or " + words
	}
	silent := func(r Reply) bool { return r == Silence || r == Closed }
	switch {
	case p.Unknown == "": // there was no time for it
	case p.Unknown == Refusal:
		return exchangeNote(bySize, fmt.Sprintf("requests of %d octets arrive, since one with a cookie that nobody gave is refused, in a short packet; "+
			"but answers, which are as long as requests, do not come back", p.Octets), pass)
	case p.Unknown == Strange:
		return exchangeNote("ntp_intercepted", "packets come back that answer nothing that was asked: something on the way answers in its place, or floods this machine",
			"turn off what "+redirects(port)+", or try from another network")
	case p.Plain == Bare && others:
		return exchangeNote(bySize, fmt.Sprintf("plain NTP of 48 octets is answered, NTS requests of %d are not, while other servers answer those: "+
			"larger packets are dropped near it, or its NTP service has no NTS", p.Octets), leave)
	case p.Plain == Bare:
		return exchangeNote(bySize, fmt.Sprintf("plain NTP of 48 octets is answered, NTS requests of %d are not: "+
			"larger NTP packets are dropped on the way%s", p.Octets, or("its NTP service has no NTS")), pass)
	case p.Plain == Closed && p.Unknown == Closed:
		return exchangeNote("udp_rejected", "ICMP says that UDP port "+port+" is closed: a firewall rejects it"+or("no NTP service is there"), open)
	case silent(p.Plain) && silent(p.Unknown) && others:
		return exchangeNote("udp_filtered", fmt.Sprintf("nothing comes back from its UDP port %s, neither to NTS requests of %d octets nor to plain NTP of 48, "+
			"while other servers answer: its NTP service is down, or filtered near it", port, p.Octets), leave)
	case silent(p.Plain) && silent(p.Unknown):
		return exchangeNote("udp_filtered", fmt.Sprintf("keys are exchanged, but nothing comes back from UDP port %s, neither to NTS requests of %d octets "+
			"nor to plain NTP of 48: it is filtered on the way%s", port, p.Octets, or("its NTP service is down")), open)
	}
	return Finding{}
}
