//go:build linux

package interop

import (
	"bytes"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"ntsclient/timesync/report"
)

func all(t *testing.T, r report.Report, want report.Verdict) {
	t.Helper()
	for _, s := range r.Servers {
		if s.Verdict != want {
			t.Errorf("%s: %s", s.Name, s.Verdict)
		}
	}
}

// failed checks the error of each server.
func failed(t *testing.T, r report.Report, code string, said ...string) {
	t.Helper()
	for _, s := range r.Servers {
		if s.Error == nil || s.Error.Stage != "proxy" || s.Error.Code != code {
			t.Errorf("%s: %s, %+v", s.Name, s.Verdict, s.Error)
			continue
		}
		for _, said := range said {
			if !strings.Contains(s.Error.Message+s.Error.Hint, said) {
				t.Errorf("%s: %q is not said: %+v", s.Name, said, s.Error)
			}
		}
	}
}

// Real servers through real proxies. The client's machine has a way around the
// proxy, and a server of names there; what it sends is captured.
func TestProxies(t *testing.T) {
	w := newWires(t, true)
	w.start(t, Chrony12, Chrony13, NTPsec, NTPdRS)
	for _, c := range []struct {
		title string
		test  func(*testing.T, *wires)
	}{
		{"none", withoutProxy},
		{"Dante", withDante},
		{"state", withState},
		{"password", withPassword},
		{"no UDP", withoutUDP},
		{"Tor", withTor},
		{"check", checked},
		{"killed", killed},
		{"silent", silent},
		{"loop", looping},
		{"bind", bound},
		{"no way around", noWayAround},
	} {
		t.Run(c.title, func(t *testing.T) {
			w.watch(t)
			c.test(t, w)
		})
	}
}

const (
	viaProxy  = "socks5h://198.18.1.1:1080"
	proxyLine = `proxy = "` + viaProxy + `"`
)

// Without a proxy the same configuration asks the server of names, and every
// server: the capture sees it.
func withoutProxy(t *testing.T, w *wires) {
	r := w.run(t, w.configure(t, ""), 0, "query", "--json")
	checkRound(t, r, "query")
	all(t, r, report.ServerAgreed)
	seen := map[string]bool{}
	_, around := w.sent(t)
	for _, p := range around {
		seen[fmt.Sprintf("%s %v", p.Protocol, p.To)] = true
	}
	want := []string{"UDP " + join(nameHost.String(), 53)}
	for _, s := range w.servers {
		want = append(want, "TCP "+join(s.Listen[0], s.KE), "UDP "+join(s.Listen[len(s.Listen)-1], s.NTP))
	}
	for _, want := range want {
		if !seen[want] {
			t.Errorf("not seen: %s", want)
		}
	}
}

// Names that only the proxy's machine knows, and one that it does not, where
// the address in the configuration serves.
func withDante(t *testing.T, w *wires) {
	w.dante(t, "none", "connect udpassociate")
	r := w.run(t, w.configure(t, ""), 0, "query", "--json", "--proxy", viaProxy)
	checkRound(t, r, "query")
	all(t, r, report.ServerAgreed)
	if to := w.onlyToProxy(t); to["TCP"] == 0 || to["UDP"] < len(w.servers) {
		t.Errorf("packets to the proxy: %v", to)
	}
	unknown := &Server{Kind: Chrony12, Identity: w.issuing.Issue(t, name, -30, 90), Listen: w.servers[0].Listen}
	unknown.Start(t)
	config := configure(t, []entry{{join(name, unknown.KE), "operator-1.test", unknown.Listen[0], w.root.File}}, proxyLine)
	r = w.run(t, config, 0, "query", "--json")
	checkRound(t, r, "query")
	if got, want := r.Servers[0].Address, join(unknown.Listen[0], unknown.NTP); got != want {
		t.Errorf("address %s, want %s", got, want)
	}
	// the name serves, where the proxy knows it
	config = configure(t, []entry{{join(hostOf(0), w.servers[0].KE), "operator-1.test", "198.18.2.99", w.root.File}}, proxyLine)
	checkRound(t, w.run(t, config, 0, "query", "--json"), "query")
	w.onlyToProxy(t)
}

// The proxy is all that there is, over IPv4 and over IPv6.
func noWayAround(t *testing.T, w *wires) {
	ip(t, w.client, "link delete around")
	for listen, proxy := range map[netip.AddrPort]string{socks: viaProxy, socks6: "socks5h://[fd00::1]:1080"} {
		if listen == socks6 && len(Loopback()) < 2 {
			continue
		}
		Dante(w.proxy, listen, farProxy, "none", "connect udpassociate").Start(t)
		r := w.run(t, w.configure(t, fmt.Sprintf("proxy = %q", proxy)), 0, "sync", "--dry-run", "--json")
		checkRound(t, r, "sync")
		all(t, r, report.ServerAgreed)
	}
	w.onlyToProxy(t)
}

// Cookies go only the way that they came.
func withState(t *testing.T, w *wires) {
	w.dante(t, "none", "connect udpassociate")
	other := Dante(w.proxy, netip.AddrPortFrom(lanProxy, 1081), farProxy, "none", "connect udpassociate")
	other.Start(t)
	config := w.configure(t, "")
	for _, c := range []struct {
		proxy     string
		exchanges int
	}{{viaProxy, 1}, {viaProxy, 0}, {"", 1}, {"", 0}, {"socks5h://198.18.1.1:1081", 1}} {
		before := w.servers[0].KeyExchanges(t)
		args := []string{"sync", "--dry-run", "--json"}
		if c.proxy != "" {
			args = append(args, "--proxy", c.proxy)
		}
		r := w.run(t, config, 0, args...)
		checkRound(t, r, "sync")
		if got := w.servers[0].KeyExchanges(t) - before; got != c.exchanges {
			t.Errorf("%d key exchanges by way of %q, want %d", got, c.proxy, c.exchanges)
		}
		for _, s := range r.Servers {
			if s.Verdict != report.ServerAgreed || s.KeyExchange != (c.exchanges > 0) {
				t.Errorf("%s by way of %q: %s, key exchange %v", s.Name, c.proxy, s.Verdict, s.KeyExchange)
			}
		}
	}
}

// Dante looks users up where the system does. The password is not kept.
func withPassword(t *testing.T, w *wires) {
	w.dante(t, "username", "connect udpassociate")
	config := w.configure(t, "")
	r := w.run(t, config, 0, "sync", "--dry-run", "--json", "--proxy", "socks5h://alice:wonderland@proxy.test:1080")
	checkRound(t, r, "sync")
	all(t, r, report.ServerAgreed)
	state := os.DirFS(filepath.Join(filepath.Dir(config), "state"))
	files, err := fs.Glob(state, "*")
	check(t, err)
	for _, file := range files {
		text, err := fs.ReadFile(state, file)
		check(t, err)
		if bytes.Contains(text, []byte("wonderland")) {
			t.Errorf("the password is in %s", file)
		}
	}
	for _, who := range []string{"alice:wrong@", ""} {
		r = w.run(t, config, 3, "query", "--json", "--proxy", "socks5h://"+who+"198.18.1.1:1080")
		failed(t, r, "proxy_failed", "user and password")
	}
	if w.onlyToProxy(t); len(files) == 0 {
		t.Error("no state was kept")
	}
}

// A proxy whose rules let only TCP through.
func withoutUDP(t *testing.T, w *wires) {
	w.dante(t, "none", "connect")
	r := w.run(t, w.configure(t, proxyLine), 3, "query", "--json")
	failed(t, r, "proxy_no_udp", "rules have to allow")
	if to := w.onlyToProxy(t); to["UDP"] != 0 {
		t.Errorf("packets to the proxy: %v", to)
	}
}

// Tor reaches no relay here, and would wait for one: that it carries no UDP is
// known without.
func withTor(t *testing.T, w *wires) {
	Tor(w.proxy, socks, t.TempDir()).Start(t)
	r := w.run(t, w.configure(t, proxyLine), 3, "query", "--json", "--timeout", "5s")
	failed(t, r, "proxy_no_udp", "Tor")
	if to := w.onlyToProxy(t); to["UDP"] != 0 {
		t.Errorf("packets to Tor: %v", to)
	}
}

// answerless changes a Dante's configuration so that it lets no answer through.
var answerless = strings.NewReplacer("udpreply", "bindreply")

// queryUntil queries through such a Dante, to which something happens when all
// keys are there and each server was asked for time.
func (w *wires) queryUntil(t *testing.T, happens func(*Proxy)) report.Report {
	t.Helper()
	p := Dante(w.proxy, socks, farProxy, "none", "connect udpassociate")
	p.Config = answerless.Replace(p.Config)
	p.Start(t)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		w.capture.Await(t, func(all []Packet) bool { return w.asked(all) >= len(w.servers) })
		happens(p)
	}()
	r := w.run(t, w.configure(t, proxyLine), 3, "query", "--json", "--timeout", "3s")
	<-ended
	w.onlyToProxy(t)
	return r
}

// asked is how many requests for time went to the proxy.
func (w *wires) asked(all []Packet) (n int) {
	for _, p := range all[w.begin:] {
		if p.Protocol == "UDP" && p.To.Addr() == lanProxy {
			n++
		}
	}
	return n
}

// A check looks closer at what gets no answer, and that by the same way.
func checked(t *testing.T, w *wires) {
	p := Dante(w.proxy, socks, farProxy, "none", "connect udpassociate")
	p.Config = answerless.Replace(p.Config)
	p.Start(t)
	config := w.configure(t, proxyLine+"\n[measure]\nanswer_timeout = \"300ms\"\ndeadline = \"2s\"")
	command := append(w.client.Inside(), Binary(), "check", "--config", config)
	out, err := exec.Command(command[0], command[1:]...).CombinedOutput()
	t.Logf("check: %v\n%s", err, out)
	if to := w.onlyToProxy(t); err == nil || to["UDP"] < len(w.servers) {
		t.Errorf("error %v, packets to the proxy: %v", err, to)
	}
}

func killed(t *testing.T, w *wires) {
	failed(t, w.queryUntil(t, (*Proxy).Kill), "proxy_failed")
	failed(t, w.run(t, w.configure(t, proxyLine), 3, "query", "--json"), "proxy_failed", "refused")
	w.onlyToProxy(t)
}

func silent(t *testing.T, w *wires) {
	for _, s := range w.queryUntil(t, (*Proxy).Pause).Servers {
		if s.Error == nil || s.Error.Code != "proxy_failed" && s.Error.Code != "exchange_timeout" {
			t.Errorf("%s: %s, %+v", s.Name, s.Verdict, s.Error)
		}
	}
}

// A loop asks through the proxy, waits where there is none, and goes on when it
// is back. It logs nothing about servers.
func looping(t *testing.T, w *wires) {
	const yes, no = report.ServerAgreed, report.Failed
	before := w.servers[0].KeyExchanges(t)
	dante := w.dante(t, "none", "connect udpassociate")
	loop := startLoop(t, w.configure(t, proxyLine), w.client.Inside()...)
	loop.await("agreed", verdicts(yes, yes, yes, yes))
	w.capture.Await(t, func(all []Packet) bool { return w.asked(all) >= 3*len(w.servers) })
	dante.Kill()
	loop.await("without a proxy", func(r *report.Report) bool {
		return !slices.ContainsFunc(r.Servers, func(s report.Server) bool { return s.Verdict != no })
	})
	w.dante(t, "none", "connect udpassociate")
	loop.await("agreed again", verdicts(yes, yes, yes, yes))
	if n := w.servers[0].KeyExchanges(t) - before; n != 1 {
		t.Errorf("%d key exchanges", n)
	}
	w.onlyToProxy(t)
	for host, addr := range hosts {
		if said := loop.said(); strings.Contains(said, host) || strings.Contains(said, addr.String()) {
			t.Errorf("%s is named:\n%s", host, said)
		}
	}
}

// A second way to the servers, which the system takes only when told to. Names
// are looked up as it likes.
func bound(t *testing.T, w *wires) {
	defer ip(t, w.client, "link delete second")
	Link(t, w.client, nil, "second", "back2", []string{"198.18.4.2/24"}, []string{"198.18.4.1/24"})
	ip(t, w.client,
		"route add 198.18.2.0/24 via 198.18.4.1 metric 100",
		"route add 198.18.2.0/24 via 198.18.4.1 table 4", "rule add from 198.18.4.2 table 4")
	device := map[string]int{}
	w.client.Do(func() {
		for _, name := range []string{"around", "second"} {
			if i, err := net.InterfaceByName(name); err == nil {
				device[name] = i.Index
			}
		}
	})
	for bind, name := range map[string]string{"": "around", "second": "second", "198.18.4.2": "second"} {
		w.watch(t)
		var entries []entry
		for i, s := range w.servers {
			entries = append(entries, entry{join(hostOf(i), s.KE), fmt.Sprintf("operator-%d.test", i+1), s.Listen[0], w.root.File})
		}
		r := w.run(t, configure(t, entries, fmt.Sprintf("bind = %q", bind)), 0, "query", "--json")
		checkRound(t, r, "query")
		all(t, r, report.ServerAgreed)
		_, sent := w.sent(t)
		for _, p := range sent {
			if p.To.Port() != 53 && p.Device != device[name] {
				t.Errorf("bound to %q: %v", bind, p)
			}
		}
		if len(sent) < 2*len(w.servers) {
			t.Errorf("bound to %q: only %v", bind, sent)
		}
	}
	for bind, said := range map[string]string{"third": "no network interface third", "198.18.4.9": "no address of this machine"} {
		r := w.run(t, w.configure(t, fmt.Sprintf("bind = %q", bind)), 3, "query", "--json")
		for _, s := range r.Servers {
			if s.Error == nil || !strings.Contains(s.Error.Message, said) {
				t.Errorf("bound to %q: %+v", bind, s.Error)
			}
		}
	}
}
