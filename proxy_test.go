package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ntsclient/nts/ntstest"
	"ntsclient/timesync/report"
)

// proxy starts a proxy to which time.test is known, and to nobody else.
func proxy(t *testing.T, o ntstest.ProxyOptions) (*ntstest.Proxy, string) {
	t.Helper()
	o.Names = map[string]string{"time.test": "127.0.0.1"}
	p, err := ntstest.StartProxy(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.Close()
		if bad := p.Stats().Bad; len(bad) > 0 {
			t.Errorf("the proxy was asked what no right client asks: %q", bad)
		}
	})
	login := ""
	if o.User != "" {
		login = o.User + ":" + o.Password + "@"
	}
	return p, "socks5h://" + login + p.Addr().String()
}

// noNames fails the test when a name is looked up.
func noNames(t *testing.T) {
	t.Helper()
	before := net.DefaultResolver
	t.Cleanup(func() { net.DefaultResolver = before })
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		t.Error("a name is looked up")
		return nil, errors.New("no resolver")
	}}
}

// onlyVia fails the test if the servers got more than the proxies sent.
func onlyVia(t *testing.T, servers []*ntstest.Server, proxies ...*ntstest.Proxy) {
	t.Helper()
	var got, sent [2]int
	for _, s := range servers {
		stats := s.Stats()
		got[0] += stats.Connections
		got[1] += stats.Requests
	}
	for _, p := range proxies {
		stats := p.Stats()
		for _, r := range stats.Requests {
			if r.Command == ntstest.SocksConnect {
				sent[0]++
			}
		}
		sent[1] += len(stats.Datagrams)
	}
	if got[0] > sent[0] || got[1] > sent[1] {
		t.Errorf("the servers got %d connections and %d requests, the proxies sent %d and %d", got[0], got[1], sent[0], sent[1])
	}
}

// proxiedFile is a configuration of servers by name only.
func proxiedFile(t *testing.T, top string, servers ...*ntstest.Server) string {
	t.Helper()
	file := configure(t, top, servers...)
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return write(t, file, strings.ReplaceAll(string(text), "ips = [\"127.0.0.1\"]\n", ""))
}

// Whatever asks for it and whatever becomes of it: all goes through the proxy,
// and no name is looked up here.
func TestProxy(t *testing.T) {
	noNames(t)
	s := serve(t, ntstest.Options{})
	p, url := proxy(t, ntstest.ProxyOptions{User: "u:ser", Password: "p@ss"})
	url = strings.Replace(url, "u:ser:p@ss", "u%3Aser:p%40ss", 1)
	ca := write(t, filepath.Join(t.TempDir(), "ca.pem"), string(s.CA().PEM()))
	host := fmt.Sprintf("time.test:%d", s.KE().Port())
	plain, proxied := proxiedFile(t, "", s), proxiedFile(t, "proxy = \""+url+"\"", s)
	other := proxiedFile(t, "proxy = \"socks5h://127.0.0.1:9\"", s)
	usual(t, other)
	for _, args := range []string{
		"query -c PROXIED", "query -c PLAIN --proxy URL", "query -c OTHER --proxy URL", "query HOST --ca CA --proxy URL",
		"query HOST --ca CA -c PROXIED", "sync --dry-run -c PROXIED", "sync --dry-run --proxy URL -c PLAIN", "sync --dry-run --proxy URL",
	} {
		args = strings.NewReplacer("PLAIN", plain, "PROXIED", proxied, "OTHER", other, "HOST", host, "CA", ca, "URL", url).Replace(args)
		r := try(append(strings.Fields(args), "--json")...)
		out := r.report(t, exitOK)
		if out.Result != report.Agreed || out.Servers[0].Address != "" || strings.Contains(r.stdout, "address\"") {
			t.Errorf("%s: %s", args, r.stdout)
		}
	}
	if r := try("query", "-c", proxied); r.code != exitOK || !strings.Contains(r.stdout, "time.test") { // as people read it
		t.Errorf("%+v", r)
	}
	if r := try("check", "-c", proxied, "--json"); strings.Contains(r.stdout, "name resolved") || !strings.Contains(r.stdout, "authenticated answer") {
		t.Errorf("%+v", r)
	}
	for mode, want := range map[os.FileMode]bool{0o640: false, 0o644: true} {
		if err := os.Chmod(proxied, mode); err != nil {
			t.Fatal(err)
		}
		r := try("check", "--offline", "-c", proxied, "--json")
		if strings.Contains(r.stdout, "password_readable") != want || strings.Contains(r.stdout, "p@ss") {
			t.Errorf("mode %o: %s", mode, r.stdout)
		}
	}
	onlyVia(t, []*ntstest.Server{s}, p)
	for _, r := range p.Stats().Requests {
		if r.User != "u:ser" {
			t.Errorf("%+v", r)
		}
	}
}

// What is to go through a proxy never goes out directly, and no message holds
// the password.
func TestNothingGoesAround(t *testing.T) {
	noNames(t)
	s := serve(t, ntstest.Options{Names: []string{"time.test", "127.0.0.1"}})
	ca := write(t, filepath.Join(t.TempDir(), "ca.pem"), string(s.CA().PEM()))
	udpless, noUDP := proxy(t, ntstest.ProxyOptions{Refuse: func(command byte, _ string, _ uint16) byte {
		if command == ntstest.SocksAssociate {
			return 7
		}
		return 0
	}})
	_, locked := proxy(t, ntstest.ProxyOptions{User: "u", Password: "right"})
	const gone = "socks5h://u:secret@127.0.0.1:9"
	wrong := strings.Replace(locked, "right", "secret", 1)
	plain, proxied := configure(t, "", s), configure(t, "proxy = \""+gone+"\"", s)
	usual(t, plain)
	host := s.KE().String() // which needs no proxy to be found
	for _, c := range []struct{ args, code, part string }{
		{"query -c PROXIED", "proxy_failed", "the proxy cannot be reached: connection refused"},
		{"sync --dry-run -c PROXIED", "proxy_failed", "the proxy cannot be reached"},
		{"sync --dry-run -c PLAIN --proxy GONE", "proxy_failed", "the proxy cannot be reached"},
		{"query HOST --ca CA --proxy GONE", "proxy_failed", "the proxy cannot be reached"},
		{"query HOST --ca CA -c PROXIED", "proxy_failed", "the proxy cannot be reached"},
		{"query HOST --ca CA --proxy NOUDP", "proxy_no_udp", "the proxy carries no UDP, which time needs: command not supported"},
		{"sync --dry-run --proxy NOUDP", "proxy_no_udp", "the proxy carries no UDP"},
		{"query --proxy WRONG", "proxy_failed", "the proxy refuses user and password"},
	} {
		args := strings.NewReplacer("PLAIN", plain, "PROXIED", proxied, "HOST", host, "CA", ca, "GONE", gone, "NOUDP", noUDP, "WRONG", wrong).Replace(c.args)
		r := try(append(strings.Fields(args), "--json", "--log-level", "debug")...)
		out := r.report(t, exitNoAgreement)
		e := out.Servers[0].Error
		if e == nil || e.Stage != "proxy" || e.Code != c.code || !strings.Contains(e.Message, c.part) || !strings.Contains(out.Reason, c.part) {
			t.Errorf("%s: %s", args, r.stdout)
		}
		if strings.Contains(r.stdout+r.stderr, "secret") {
			t.Errorf("%s: it says the password: %s%s", args, r.stdout, r.stderr)
		}
		if c.code == "proxy_no_udp" && !strings.Contains(e.Hint, "Tor") {
			t.Errorf("%s: %s", args, e.Hint)
		}
	}
	usual(t, proxied)
	if r := try("query", host, "--ca", ca); r.code != exitNoAgreement || !strings.Contains(r.stdout, "the proxy cannot be reached") {
		t.Errorf("%+v", r)
	}
	for _, args := range []string{"query -4 --proxy " + noUDP, "query -6 -c " + proxied} {
		try(strings.Fields(args)...).usage(t, "-4 and -6 say how this machine connects")
	}
	try("query", "--proxy", "").usage(t, "--proxy needs a value")
	try("query", "--proxy", "socks5://127.0.0.1:1080").usage(t, "--proxy: socks5:// looks names up")
	// Nobody's environment is heeded.
	t.Setenv("ALL_PROXY", "socks5h://127.0.0.1:9")
	t.Setenv("all_proxy", "socks5h://127.0.0.1:9")
	onlyVia(t, []*ntstest.Server{s}, udpless)
	if n := s.Stats().Requests; n != 0 {
		t.Errorf("%d requests", n)
	}
	usual(t, plain)
	try("query", host, "--ca", ca, "--json").report(t, exitOK)
}

// What is bound to an address comes from there.
func TestBind(t *testing.T) {
	s := serve(t, ntstest.Options{RawConn: func(conn net.Conn) bool {
		from := conn.RemoteAddr().(*net.TCPAddr).IP.String()
		if from != "127.0.0.8" {
			t.Errorf("a connection from %s", from)
		}
		return false
	}})
	file := configure(t, "bind = \"127.0.0.8\"", s)
	for _, args := range []string{"query --json -c " + file, "sync --dry-run --json -c " + file} {
		try(strings.Fields(args)...).report(t, exitOK)
	}
	seen := s.Stats()
	for bind, want := range map[string]string{
		"192.0.2.7": "`bind`: 192.0.2.7 is no address of this machine",
		"::1":       "`bind`: time.test has no address of the family of ::1",
		"missing0":  "`bind`: ", // which some systems cannot
	} {
		r := try("query", "--json", "-c", configure(t, "bind = \""+bind+"\"", s)).report(t, exitNoAgreement)
		if e := r.Servers[0].Error; e.Code != "connect_unreachable" || !strings.Contains(e.Message, want) {
			t.Errorf("%s: %+v", bind, e)
		}
	}
	if after := s.Stats(); after.Connections != seen.Connections || after.Requests != seen.Requests {
		t.Errorf("something went out from elsewhere: %+v", after)
	}
}

// cookieOf is the cookie in a request (RFC 8915 §5.4).
func cookieOf(request []byte) string {
	for at := 48; at+4 <= len(request); {
		kind, length := binary.BigEndian.Uint16(request[at:]), int(binary.BigEndian.Uint16(request[at+2:]))
		if kind == 0x0204 {
			return string(request[at+4 : at+length])
		}
		at += max(length, 4)
	}
	return ""
}

// Cookies that were got through one proxy are never sent through another, or
// directly, and those that were got directly through none: by them a server
// would know its clients again.
func TestIdentities(t *testing.T) {
	var identity string // whose run it is
	owner := map[string]string{}
	s := serve(t, ntstest.Options{
		KE: func(records []ntstest.Record) []ntstest.Record {
			for _, r := range records {
				if r.Type == 5 {
					owner[string(r.Body)] = identity
				}
			}
			return records
		},
		Seal: func(p *ntstest.Packet) {
			for _, f := range p.Encrypted {
				owner[string(f.Body)] = identity
			}
		},
	})
	a, urlA := proxy(t, ntstest.ProxyOptions{})
	b, urlB := proxy(t, ntstest.ProxyOptions{})
	c, urlC := proxy(t, ntstest.ProxyOptions{User: "u", Password: "secret"})
	dir := t.TempDir()
	file := keeping(t, configure(t, "", s), dir)
	for n, run := range []struct {
		url string
		new bool // keys
	}{
		{"", true},
		{"", false},
		{urlA, true},
		{urlA, false},
		{urlB, true},
		{urlB, false},
		{urlC, true},
		{urlC, false},
		{urlA, true},
		{"", true},
		{"", false},
		{urlC, true},
	} {
		identity = run.url
		before := s.Stats().KeyExchanges
		sent := len(s.Requests())
		args := []string{"sync", "--dry-run", "--json", "-c", file}
		if run.url != "" {
			args = append(args, "--proxy", run.url)
		}
		r := try(args...).report(t, exitOK)
		if got := s.Stats().KeyExchanges != before; got != run.new || r.Servers[0].KeyExchange != run.new {
			t.Errorf("run %d (%q): new keys: %v, want %v", n, run.url, got, run.new)
		}
		for _, request := range s.Requests()[sent:] {
			if of := owner[cookieOf(request)]; of != identity {
				t.Errorf("run %d (%q) sends a cookie of %q", n, run.url, of)
			}
		}
		state, err := os.ReadFile(filepath.Join(dir, "state.json"))
		if err != nil {
			t.Fatal(err)
		}
		for _, secret := range []string{"secret", "socks", a.Addr().String(), b.Addr().String(), fmt.Sprint(c.Addr().Port())} {
			if bytes.Contains(state, []byte(secret)) {
				t.Errorf("run %d: the state holds %q", n, secret)
			}
		}
	}
	if len(owner) < 50 || len(s.Requests()) != 12 {
		t.Errorf("%d cookies, %d requests", len(owner), len(s.Requests()))
	}
}

// keeping has a configuration's state kept in dir.
func keeping(t *testing.T, file, dir string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return write(t, file, strings.Replace(string(text), "state_dir = \"\"", fmt.Sprintf("state_dir = %q", dir), 1))
}

// grantAndReset grants whatever it is asked for, and resets a connection as soon
// as something is sent over it.
func grantAndReset(conn net.Conn) bool {
	b := make([]byte, 512)
	for _, answer := range []string{"\x05\x00", "\x05\x00\x00\x01\x00\x00\x00\x00\x00\x09"} {
		conn.Read(b)
		io.WriteString(conn, answer)
	}
	conn.Read(b[:1])
	conn.(*net.TCPConn).SetLinger(0)
	return true
}

// What fails at the proxy costs a server no key exchange and is not held against
// it, and nothing that is kept of a failure names the proxy.
func TestProxyFailureKept(t *testing.T) {
	for _, test := range []struct {
		name    string
		end     bool // of the connection, in TLS
		code    string
		backOff bool
	}{
		{"no UDP, late", false, "proxy_no_udp", false},
		{"ends the connection", true, "tls_failed", true},
	} {
		t.Run(test.name, func(t *testing.T) {
			connected := make(chan bool, 10)
			s := serve(t, ntstest.Options{RawConn: func(net.Conn) bool {
				connected <- true
				return false
			}})
			o := ntstest.ProxyOptions{Refuse: func(command byte, _ string, _ uint16) byte {
				if command == ntstest.SocksAssociate {
					<-connected
					return 7
				}
				return 0
			}}
			if test.end {
				o.Raw = grantAndReset
			}
			p, url := proxy(t, o)
			dir := t.TempDir()
			file := keeping(t, proxiedFile(t, "proxy = \""+url+"\"", s), dir)
			for range 2 {
				r := try("sync", "--dry-run", "--json", "-c", file).report(t, exitNoAgreement)
				if got := r.Servers[0].Error.Code; got != test.code {
					t.Errorf("%s, want %s", got, test.code)
				}
			}
			if n := s.Stats().KeyExchanges; n != 0 {
				t.Errorf("%d key exchanges", n)
			}
			for _, name := range []string{"state.json", "report.json"} {
				kept, err := os.ReadFile(filepath.Join(dir, name))
				if err != nil {
					t.Fatal(err)
				}
				if bytes.Contains(kept, []byte(p.Addr().Addr().String())) {
					t.Errorf("%s names the proxy: %s", name, kept)
				}
				if got := bytes.Contains(kept, []byte("\"backoff\"")); got != test.backOff && name == "state.json" {
					t.Errorf("back-off: %v, want %v", got, test.backOff)
				}
			}
		})
	}
}

// While there is a proxy no message names a server, unless debugging asks for
// it.
func TestProxyLog(t *testing.T) {
	s := serve(t, ntstest.Options{Kiss: "DENY"})
	_, url := proxy(t, ntstest.ProxyOptions{})
	for _, c := range []struct {
		url, level string
		told       bool // the reason, which may name a server
	}{{"", "info", true}, {url, "info", false}, {url, "warn", false}, {url, "debug", true}} {
		top := ""
		if c.url != "" {
			top = "proxy = \"" + c.url + "\""
		}
		file := proxiedFile(t, top, s)
		if c.url == "" {
			file = configure(t, top, s)
		}
		r := try("sync", "--dry-run", "--json", "--wait", "1s", "--log-level", c.level, "-c", file)
		r.report(t, exitNoAgreement)
		if got := strings.Contains(r.stderr, "reason="); got != c.told {
			t.Errorf("%s, %s: %s", c.url, c.level, r.stderr)
		}
		if c.level != "warn" && !strings.Contains(r.stderr, "trying again") {
			t.Errorf("%s, %s: %s", c.url, c.level, r.stderr)
		}
	}
}
