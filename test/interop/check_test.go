//go:build linux

package interop

import (
	"context"
	"net/netip"
	"os"
	"testing"
	"time"

	"ntsclient/nts"
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
