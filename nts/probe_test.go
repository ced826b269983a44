package nts

import (
	"net"
	"net/netip"
	"reflect"
	"slices"
	"testing"

	"ntsclient/nts/ntstest"
)

// carry puts a path before a server.
func carry(t *testing.T, s *ntstest.Server, p *ntstest.Path) *ntstest.Path {
	t.Helper()
	if err := p.Carry(s); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

// What came back is told for what it is, whoever sent it, and no cookie is
// spent.
func TestProbe(t *testing.T) {
	t.Parallel()
	over := func(n int) func(bool, []byte) bool {
		return func(_ bool, packet []byte) bool { return len(packet) > n }
	}
	back := func(n int) func(bool, []byte) bool {
		return func(forth bool, packet []byte) bool { return !forth && len(packet) > n }
	}
	plain := func(packet []byte) []byte {
		if len(packet) > headerLen {
			return nil
		}
		return ntstest.PlainAnswer(packet)
	}
	changed := func(edit func([]byte)) func([]byte) []byte {
		return func(packet []byte) []byte {
			answer := ntstest.PlainAnswer(packet)
			edit(answer)
			return answer
		}
	}
	kissing := func(packet []byte) []byte {
		answer := ntstest.PlainAnswer(packet)
		answer[1] = 0
		copy(answer[12:], "RATE")
		return append(answer, packet[headerLen:min(len(packet), headerLen+36)]...) // with the identifier
	}
	for name, c := range map[string]struct {
		path           *ntstest.Path
		plain, refusal Reply
	}{
		"an NTS server":          {&ntstest.Path{}, Silence, Refusal},
		"and plain NTP":          {&ntstest.Path{Reply: plain}, Bare, Refusal},
		"nothing passes":         {&ntstest.Path{Lost: over(0)}, Silence, Silence},
		"only small requests":    {&ntstest.Path{Lost: over(48), Reply: plain}, Bare, Silence},
		"only small answers":     {&ntstest.Path{Lost: back(100), Reply: plain}, Bare, Refusal},
		"answered on the way":    {&ntstest.Path{Reply: ntstest.PlainAnswer}, Bare, Bare},
		"an old version":         {&ntstest.Path{Reply: changed(func(b []byte) { b[0] = 3<<3 | 4 })}, Bare, Bare},
		"a client, as we are":    {&ntstest.Path{Reply: changed(func(b []byte) { b[0] = 4<<3 | 3 })}, Strange, Strange},
		"to another request":     {&ntstest.Path{Reply: changed(func(b []byte) { b[24]++ })}, Strange, Strange},
		"what is no NTP":         {&ntstest.Path{Reply: func([]byte) []byte { return []byte("no") }}, Strange, Strange},
		"a kiss without our id":  {&ntstest.Path{Reply: changed(func(b []byte) { b[1] = 0; copy(b[12:], "RATE") })}, Kissed, Bare},
		"a kiss":                 {&ntstest.Path{Reply: kissing}, Kissed, Kissed},
		"a request comes back":   {&ntstest.Path{Reply: func(b []byte) []byte { return b }}, Strange, Strange},
		"half an answer":         {&ntstest.Path{Reply: func(b []byte) []byte { return ntstest.PlainAnswer(b)[:47] }}, Strange, Strange},
		"octets after an answer": {&ntstest.Path{Reply: func(b []byte) []byte { return append(ntstest.PlainAnswer(b), 1, 2, 3) }}, Bare, Bare},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t, ntstest.Options{AEADs: []uint16{15}})
			p := carry(t, s, c.path)
			session := establish(t, s)
			before := len(session.Cookies)
			if got := session.ProbePlain(brief(t), clientOf(s)); got != c.plain {
				t.Errorf("plain NTP: %s, want %s", got, c.plain)
			}
			got, octets := session.ProbeRefusal(brief(t), clientOf(s))
			if got != c.refusal || octets != 228 {
				t.Errorf("a cookie of nobody's: %s to %d octets, want %s", got, octets, c.refusal)
			}
			var lengths []int
			for _, r := range p.Requests() {
				lengths = append(lengths, len(r))
			}
			if !slices.Equal(lengths, []int{48, 228}) || len(session.Cookies) != before {
				t.Errorf("requests of %d octets, and %d cookies of %d left", lengths, len(session.Cookies), before)
			}
		})
	}
}

// Where nobody listens, the system says so: a socket that hears somebody else
// holds the port.
func TestProbeClosed(t *testing.T) {
	t.Parallel()
	s := start(t, ntstest.Options{})
	elsewhere, err := net.Dial("udp", "127.0.0.1:9")
	if err != nil {
		t.Fatal(err)
	}
	defer elsewhere.Close()
	session := establish(t, s)
	session.Servers = []netip.AddrPort{elsewhere.LocalAddr().(*net.UDPAddr).AddrPort()}
	if got := session.ProbePlain(brief(t), clientOf(s)); got != Closed {
		t.Errorf("%s", got)
	}
}

// With a proxy nothing is sent, and nothing is told.
func TestProbeProxy(t *testing.T) {
	t.Parallel()
	s := start(t, ntstest.Options{})
	o, session := clientOf(s), establish(t, s)
	o.Proxy = &Proxy{Host: "127.0.0.1", Port: 9}
	plain := session.ProbePlain(t.Context(), o)
	refusal, _ := session.ProbeRefusal(t.Context(), o)
	if n := s.Stats().Requests; plain != "" || refusal != "" || n != 0 {
		t.Errorf("%q, %q, and %d packets sent", plain, refusal, n)
	}
}

// There is no time in what a probe returns: it could not be used if one wanted
// to.
func TestProbeTellsNoTime(t *testing.T) {
	t.Parallel()
	for _, f := range []any{(*Session).ProbePlain, (*Session).ProbeRefusal} {
		for i := range reflect.TypeOf(f).NumOut() {
			if out := reflect.TypeOf(f).Out(i); out != reflect.TypeFor[Reply]() && out != reflect.TypeFor[int]() {
				t.Errorf("%v", out)
			}
		}
	}
}
