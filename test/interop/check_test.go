//go:build linux

package interop

import (
	"context"
	"encoding/json"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"ntsclient/nts"
	"ntsclient/nts/ntstest"
	"ntsclient/timesync/report"
)

// What check concludes from replies to its probes rests on this: every server
// answers plain NTP, and all but NTPsec refuse a cookie that they did not give.
func TestProbes(t *testing.T) {
	l := newLab(t)
	authority, err := os.ReadFile(l.root.File)
	check(t, err)
	for _, s := range l.start(t, Chrony12, Chrony13, NTPsec, NTPdRS) {
		t.Run(string(s.Kind), func(t *testing.T) {
			within := func(d time.Duration) context.Context {
				ctx, cancel := context.WithTimeout(t.Context(), d)
				t.Cleanup(cancel)
				return ctx
			}
			o := &nts.Options{Host: name, Port: uint16(s.KE), IPs: []netip.Addr{netip.MustParseAddr("127.0.0.1")}}
			o.Trust(authority)
			session, err := nts.KeyExchange(within(20*time.Second), o)
			check(t, err)
			if got := session.ProbePlain(within(20*time.Second), o); got != nts.Bare {
				t.Errorf("plain NTP: %q", got)
			}
			want, patience := nts.Refusal, 20*time.Second
			if s.Kind == NTPsec {
				want, patience = nts.Silence, 2*time.Second
			}
			if got, octets := session.ProbeRefusal(within(patience), o); got != want || octets < 100 {
				t.Errorf("a cookie of nobody's: %q to %d octets, want %q", got, octets, want)
			}
			_, err = session.Exchange(within(20*time.Second), o.Route) // all the same
			check(t, err)
		})
	}
}

// Of a real server, too, a check tells by which packets it is reached.
func TestCheckPath(t *testing.T) {
	l := newLab(t)
	const here, there = "127.0.0.3", "127.0.0.2" // where the server is said to be, and where it is
	back := func(n int) func(bool, []byte) bool {
		return func(forth bool, packet []byte) bool { return !forth && len(packet) > n }
	}
	for _, c := range []struct {
		name string
		lost func(bool, []byte) bool
		want string // the codes of what is not fine
	}{
		{"all passes", nil, ""},
		{"nothing passes", func(bool, []byte) bool { return true }, "exchange_timeout udp_filtered"},
		{"small packets pass", func(_ bool, packet []byte) bool { return len(packet) > 100 }, "exchange_timeout udp_filtered_by_size"},
		{"small packets come back", back(100), "exchange_timeout udp_filtered_by_size"},
		{"plain NTP comes back", back(48), "exchange_timeout udp_filtered_by_size"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := &Server{
				Kind: Chrony12, Identity: l.issuing.Issue(t, name, -30, 90),
				Listen: []string{there}, Extra: "ntsntpserver " + here,
			}
			s.Start(t)
			p := ntstest.Path{Lost: c.lost}
			at := func(ip string) netip.AddrPort { return netip.AddrPortFrom(netip.MustParseAddr(ip), uint16(s.NTP)) }
			check(t, p.Connect(at(here), at(there)))
			defer p.Close()
			file := configure(t, l.entries([]*Server{s}, there), "[measure]\nanswer_timeout = \"500ms\"\ninterval = \"100ms\"\n")
			out, _ := exec.Command(Binary(), "check", "--json", "--config", file).Output() // it may not set the clock
			var all struct{ Findings []report.Finding }
			check(t, json.Unmarshal(out, &all))
			var got []string
			for _, f := range all.Findings {
				if strings.HasPrefix(f.Subject, "server ") && f.Level != report.OK {
					got = append(got, f.Code)
				}
			}
			if strings.Join(got, " ") != c.want {
				t.Errorf("%q, want %q: %s", got, c.want, out)
			}
		})
	}
}
