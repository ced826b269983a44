//go:build linux

package interop

import (
	"os"
	"path/filepath"
	"testing"
)

// A key exchange that names another server for NTP, by name or address, or one
// that there is not.
func TestNamedServer(t *testing.T) {
	l := newLab(t)
	hosts := filepath.Join(t.TempDir(), "hosts")
	check(t, os.WriteFile(hosts, []byte("127.0.0.1 four.nts.test\n::1 six.nts.test\n"), 0o644))
	resolving := []string{"unshare", "--mount", "sh", "-c", "mount --bind " + hosts + ` /etc/hosts && exec "$@"`, "sh"}
	for _, c := range []struct {
		named string
		want  string // empty: it does not exist
		kinds []Kind
	}{
		{"127.0.0.2", "127.0.0.2", []Kind{NTPdRS}}, // chronyd has one address of a family; see TestSharedKeys
		{"::1", "::1", []Kind{Chrony12, Chrony13, NTPdRS}},
		{"four.nts.test", "127.0.0.1", []Kind{Chrony12, Chrony13, NTPdRS}},
		{"six.nts.test", "::1", []Kind{Chrony12, Chrony13, NTPdRS}},
		{"none.nts.test", "", []Kind{Chrony12, Chrony13, NTPdRS}},
	} {
		for _, kind := range c.kinds {
			t.Run(c.named+"/"+string(kind), func(t *testing.T) {
				if !Isolated() {
					skip(t, "this machine's names would be looked up")
				}
				s := &Server{
					Kind: kind, Identity: l.issuing.Issue(t, name, -1, 10),
					Listen: Loopback(), Extra: "ntsntpserver " + c.named,
				}
				if kind == NTPdRS {
					s.Listen, s.Extra = append(s.Listen, "127.0.0.2"), `ntp-server = "`+c.named+`"`
				}
				s.Start(t)
				config := configure(t, l.entries([]*Server{s}, "127.0.0.1"), "")
				if c.want == "" {
					r := runUnder(t, resolving, config, 3, "query", "--json")
					checkFailed(t, r.Servers[0], "dns", "dns_failed")
					return
				}
				r := runUnder(t, resolving, config, 0, "query", "--json")
				checkRound(t, r, "query")
				if got, want := r.Servers[0].Address, join(c.want, s.NTP); got != want {
					t.Errorf("address %s, want %s", got, want)
				}
			})
		}
	}
}

// Of a name's addresses, the one that a server listens at is found, unless it is
// of a family that is not wanted.
func TestFamilies(t *testing.T) {
	l := newLab(t)
	if len(Loopback()) < 2 {
		t.Skip("no IPv6 here")
	}
	for _, listen := range Loopback() {
		t.Run(listen, func(t *testing.T) {
			s := &Server{Kind: NTPdRS, Identity: l.issuing.Issue(t, name, -1, 10), Listen: []string{listen}}
			s.Start(t)
			both := configure(t, l.entries([]*Server{s}, `::1", "127.0.0.1`), strict)
			r := run(t, both, 0, "query", "--json")
			checkRound(t, r, "query")
			if got, want := r.Servers[0].Address, join(listen, s.NTP); got != want {
				t.Errorf("address %s, want %s", got, want)
			}
			for flag, family := range map[string]string{"-4": "127.0.0.1", "-6": "::1"} {
				if family == listen {
					run(t, both, 0, "query", flag, "--json")
					continue
				}
				r := run(t, both, 3, "query", flag, "--json")
				checkFailed(t, r.Servers[0], "connect", "connect_refused")
			}
		})
	}
}
