//go:build linux

package interop

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/net/dns/dnsmessage"

	"ntsclient/timesync/report"
)

// The three parties' addresses (of RFC 2544). The servers are in this process's
// own network.
var (
	lanProxy = netip.MustParseAddr("198.18.1.1")
	farProxy = "198.18.2.2"
	nameHost = netip.MustParseAddr("198.18.2.53")
	socks    = netip.AddrPortFrom(lanProxy, 1080)
	socks6   = netip.MustParseAddrPort("[fd00::1]:1080")

	// what servers are called: the proxy's machine knows it, and the server of
	// names that the client's machine asks
	hosts = map[string]netip.Addr{
		"one.nts.test":   netip.MustParseAddr("198.18.2.11"),
		"two.nts.test":   netip.MustParseAddr("198.18.2.12"),
		"three.nts.test": netip.MustParseAddr("198.18.2.13"),
		"four.nts.test":  netip.MustParseAddr("198.18.2.14"),
		"time4.nts.test": netip.MustParseAddr("198.18.2.24"), // of four's key exchange
	}
)

// wires is a client, a proxy, and servers behind it. Where it has a way around
// the proxy, the client can reach servers and names directly.
type wires struct {
	lab
	client, proxy *Party
	servers       []*Server

	capture *Capture
	begin   int           // of the packets to look at
	earlier map[flow]bool // connections that began before them
}

type flow struct{ from, to netip.AddrPort }

func newWires(t *testing.T, wayAround bool) *wires {
	t.Helper()
	w := &wires{lab: newLab(t), earlier: map[flow]bool{}}
	if !Isolated() {
		skip(t, "namespaces are not allowed here")
	}
	file := "127.0.0.1 localhost\n"
	servers := []string{"198.18.2.1/24", nameHost.String() + "/24"}
	for name, addr := range hosts {
		file += addr.String() + " " + name + "\n"
		servers = append(servers, addr.String()+"/24")
	}
	resolver := fmt.Sprintf("nameserver %v\n", nameHost)
	w.client = NewParty(t, map[string]string{"/etc/hosts": "198.18.1.1 proxy.test\n", "/etc/resolv.conf": resolver})
	w.proxy = NewParty(t, map[string]string{
		"/etc/hosts": file, "/etc/resolv.conf": "",
		"/etc/passwd": "root:x:0:0::/:/bin/sh\nalice:x:0:0::/:/bin/sh\n",
		"/etc/shadow": "root:*:19000::::::\nalice:$6$salt$aYIgyX7fqH6ghwzyVAOL2sIqJqBdlT3dY0FxMfoqr0L.komU5a6cj5ZoT6kcJ7ZeimiTDLJNlOOcsXrwSZjsv.:19000::::::\n",
	})
	Link(t, w.client, w.proxy, "lan", "lan", []string{"198.18.1.2/24", "fd00::2/64"}, []string{"198.18.1.1/24", "fd00::1/64"})
	Link(t, w.proxy, nil, "far", "near", []string{farProxy + "/24"}, servers)
	if wayAround {
		Link(t, w.client, nil, "around", "back", []string{"198.18.3.2/24"}, []string{"198.18.3.1/24"})
		ip(t, w.client, "route add 198.18.2.0/24 via 198.18.3.1")
	}
	serveNames(t)
	w.capture = w.client.Capture(t)
	return w
}

// watch leaves out of what follows all packets so far, and what may still end
// the connections that began with them.
func (w *wires) watch(t *testing.T) {
	t.Helper()
	all := w.capture.Packets(t)
	for _, p := range all[w.begin:] {
		if p.Protocol == "TCP" {
			w.earlier[flow{p.From, p.To}] = true
		}
	}
	w.begin = len(all)
}

// serveNames answers every question for the addresses of hosts.
func serveNames(t *testing.T) {
	t.Helper()
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(nameHost, 53)))
	check(t, err)
	t.Cleanup(func() { conn.Close() })
	go func() {
		for data := make([]byte, 1500); ; {
			n, from, err := conn.ReadFromUDPAddrPort(data)
			if err != nil {
				return
			}
			var m dnsmessage.Message
			if m.Unpack(data[:n]) != nil || len(m.Questions) != 1 {
				continue
			}
			q := m.Questions[0]
			addr, known := hosts[strings.TrimSuffix(q.Name.String(), ".")]
			m.Response, m.Additionals = true, nil
			if !known {
				m.RCode = dnsmessage.RCodeNameError
			}
			if known && q.Type == dnsmessage.TypeA {
				m.Answers = []dnsmessage.Resource{{
					Header: dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, TTL: 60},
					Body:   &dnsmessage.AResource{A: addr.As4()},
				}}
			}
			if answer, err := m.Pack(); err == nil {
				conn.WriteToUDPAddrPort(answer, from)
			}
		}
	}()
}

func hostOf(server int) string {
	return []string{"one", "two", "three", "four"}[server] + ".nts.test"
}

// start starts servers with these names.
func (w *wires) start(t *testing.T, kinds ...Kind) {
	t.Helper()
	for i, kind := range kinds {
		host := hostOf(i)
		s := &Server{Kind: kind, Identity: w.issuing.Issue(t, host, -30, 90), Listen: []string{hosts[host].String()}}
		switch kind {
		case NTPsec:
			s.Extra = "unrestrict default limited"
		case NTPdRS: // its key exchange names another server
			s.Listen = append(s.Listen, hosts["time4.nts.test"].String())
			s.Extra = `ntp-server = "time4.nts.test"`
		}
		s.Start(t)
		w.servers = append(w.servers, s)
	}
}

// configure writes a configuration of the servers by their names alone.
func (w *wires) configure(t *testing.T, more string) string {
	t.Helper()
	var text strings.Builder
	dir := t.TempDir()
	fmt.Fprintf(&text, "state_dir = %q\ncontrol_socket = \"\"\n%s\n", filepath.Join(dir, "state"), more)
	check(t, os.Mkdir(filepath.Join(dir, "state"), 0o711))
	for i, s := range w.servers {
		fmt.Fprintf(&text, "[[server]]\naddress = \"%s:%d\"\noperator = \"operator-%d.test\"\nca_file = %q\n",
			hostOf(i), s.KE, i+1, w.root.File)
	}
	file := filepath.Join(dir, "ntsclient.toml")
	check(t, os.WriteFile(file, []byte(text.String()), 0o600))
	return file
}

// run runs ntsclient on the client's machine.
func (w *wires) run(t *testing.T, config string, wantExit int, args ...string) report.Report {
	t.Helper()
	return runUnder(t, w.client.Inside(), config, wantExit, args...)
}

// dante starts one on the proxy's machine, at its usual address.
func (w *wires) dante(t *testing.T, method, commands string) *Proxy {
	t.Helper()
	p := Dante(w.proxy, socks, farProxy, method, commands)
	p.Start(t)
	return p
}

// sent is what has left the client's machine, to the proxy's and to elsewhere,
// without ARP and IPv6's talk with its neighbours.
func (w *wires) sent(t *testing.T) (toProxy, around []Packet) {
	t.Helper()
	for _, p := range w.capture.Packets(t)[w.begin:] {
		switch {
		case p.Protocol == "ARP", p.Protocol == "ND", p.Protocol == "TCP" && w.earlier[flow{p.From, p.To}]:
		case (p.To.Addr() == lanProxy || p.To.Addr() == socks6.Addr()) && p.To.Port() != 53:
			toProxy = append(toProxy, p)
		default:
			around = append(around, p)
		}
	}
	return toProxy, around
}

// onlyToProxy fails the test for each packet that left for elsewhere. It returns
// how many went there, by protocol.
func (w *wires) onlyToProxy(t *testing.T) map[string]int {
	t.Helper()
	toProxy, around := w.sent(t)
	for _, p := range around {
		t.Errorf("goes around the proxy: %v", p)
	}
	count := map[string]int{}
	for _, p := range toProxy {
		count[p.Protocol]++
	}
	return count
}
