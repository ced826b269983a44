package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"ntsclient/clock"
	"ntsclient/nts/ntstest"
	"ntsclient/timesync/report"
)

// quick makes rounds short: nobody is far away.
const quick = "[bootstrap]\nmin_operators = 1\n[measure]\ninterval = \"10ms\"\nanswer_timeout = \"400ms\"\ndeadline = \"5s\"\n"

// carried starts a server behind a path of its own.
func carried(t *testing.T, o ntstest.Options, p *ntstest.Path) *ntstest.Server {
	t.Helper()
	s := serve(t, o)
	if err := p.Carry(s); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return s
}

// found are the findings about servers and the way to them: what is not ok.
func found(all []report.Finding) (some []report.Finding) {
	for _, f := range all {
		if f.Level != report.OK && (strings.HasPrefix(f.Subject, "server ") || f.Subject == "network") {
			some = append(some, f)
		}
	}
	return some
}

// longer loses packets that are longer than n octets.
func longer(n int) func(bool, []byte) bool {
	return func(_ bool, packet []byte) bool { return len(packet) > n }
}

// back does so with those from the server only.
func back(n int) func(bool, []byte) bool {
	return func(forth bool, packet []byte) bool { return !forth && len(packet) > n }
}

// strange answers with what another request would be answered with.
func strange(packet []byte) []byte {
	answer := ntstest.PlainAnswer(packet)
	answer[24]++ // origin timestamp
	return answer
}

// plainly answers plain NTP, as servers with NTS do, too.
func plainly(packet []byte) []byte {
	if len(packet) != 48 {
		return nil
	}
	return ntstest.PlainAnswer(packet)
}

// What is wrong with NTP on the way is told apart, for one server among others
// and for all of them.
func TestCheckNTP(t *testing.T) {
	machineOf(t, nil, nil)
	siv := ntstest.Options{AEADs: []uint16{15}} // requests of 228 octets
	for _, c := range []struct {
		name string
		path func() *ntstest.Path
		o    ntstest.Options
		code string // of the error
		note string // that explains it
		one  string // in the note for one of several
		all  string // in that for all
	}{
		{
			"nothing passes", func() *ntstest.Path { return &ntstest.Path{Lost: longer(0)} }, siv,
			"exchange_timeout", "udp_filtered", "it is filtered on the way, or its NTP service is down", "of 48: it is filtered on the way →",
		},
		{
			"only small packets pass", func() *ntstest.Path { return &ntstest.Path{Lost: longer(48), Reply: plainly} }, siv,
			"exchange_timeout", "udp_filtered_by_size", "plain NTP of 48 octets is answered, NTS requests of 228 are not", "larger NTP packets are dropped on the way →",
		},
		{
			"only small packets come back", func() *ntstest.Path { return &ntstest.Path{Lost: back(100)} }, siv,
			"exchange_timeout", "udp_filtered_by_size", "requests of 228 octets arrive", "do not come back",
		},
		{
			"a router answers", func() *ntstest.Path { return &ntstest.Path{Reply: ntstest.PlainAnswer} }, siv,
			"exchange_unauthenticated", "ntp_intercepted", "the answers are of NTP without NTS", "answers in place of them all",
		},
		{
			"what comes answers nothing", func() *ntstest.Path { return &ntstest.Path{Reply: strange} }, siv,
			"exchange_timeout", "ntp_intercepted", "answer nothing that was asked", "answers in its place, or floods this machine",
		},
		{
			"answers are changed", func() *ntstest.Path { return &ntstest.Path{} },
			ntstest.Options{AEADs: siv.AEADs, Answer: func(_, answer []byte) [][]byte { answer[40]++; return [][]byte{answer} }},
			"exchange_unauthenticated", "ntp_intercepted", "its answers to others do not authenticate", "its answers to others do not authenticate",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			var broken []*ntstest.Server
			for range 2 {
				broken = append(broken, carried(t, c.o, c.path()))
			}
			all := configure(t, quick, broken...)
			one := configure(t, quick, broken[0], serve(t, ntstest.Options{}))
			some := found(try("check", "--json", "-c", one).findings(t, exitNoAgreement))
			if len(some) != 2 || some[0].Code != c.code || some[0].Level != report.Blocks || some[1].Code != c.note || some[1].Level != report.Note {
				t.Fatalf("%+v", some)
			}
			if some[0].Subject != some[1].Subject || some[0].Subject == "network" || some[0].Hint != "" || some[1].Hint == "" ||
				!strings.Contains(some[1].Message, c.one) {
				t.Errorf("%+v", some)
			}
			text := try("check", "-c", all)
			if text.code != exitNoAgreement || text.stderr != "" || !strings.Contains(squeeze(text.stdout), squeeze(c.all)) ||
				strings.Count(text.stdout, " network  ") != 2 {
				t.Errorf("%+v", text)
			}
			for l := range strings.Lines(text.stdout) {
				if utf8.RuneCountInString(l) > 81 {
					t.Errorf("a line of %d columns: %s", utf8.RuneCountInString(l), l)
				}
			}
		})
	}
}

// squeeze leaves out what a page has between words.
func squeeze(s string) string { return strings.Join(strings.Fields(s), "") }

// Where large requests are lost and small ones are not, a server that gives few
// cookies shows it. It stops nothing. One that was lost by chance says nothing.
func TestCheckSize(t *testing.T) {
	machineOf(t, nil, nil)
	once := true
	for _, c := range []struct {
		name, want string
		lost       func(bool, []byte) bool
	}{
		{"by size", "NTP packets of 436 octets pass, those of 540 do not", longer(500)},
		{"the way back", "NTP packets of 436 octets pass, those of 540 do not", back(500)},
		{"by chance", "", func(_ bool, packet []byte) bool {
			lost := once && len(packet) > 500
			once = once && !lost
			return lost
		}},
	} {
		p := &ntstest.Path{Lost: c.lost}
		s := carried(t, ntstest.Options{AEADs: []uint16{15}, Cookies: 4}, p)
		some := found(try("check", "--json", "-c", configure(t, quick, s, serve(t, ntstest.Options{}))).findings(t, exitOK))
		if c.want == "" && len(some) == 0 {
			continue
		}
		if len(some) != 1 || some[0].Code != "udp_filtered_by_size" || !strings.Contains(some[0].Message, c.want) || some[0].Level != report.Note {
			t.Errorf("%s: %+v", c.name, some)
		}
		var sizes []int
		for _, r := range p.Requests() {
			sizes = append(sizes, len(r))
		}
		if c.want != "" && !slices.Equal(sizes, []int{644, 228, 748, 436, 540}) {
			t.Errorf("%s: requests of %d octets", c.name, sizes)
		}
		if st := s.Stats(); len(st.Bad) > 0 || st.Replayed > 0 || len(p.Requests()) > 5 {
			t.Errorf("%s: %+v", c.name, st)
		}
	}
}

// A path that only loses packets now and then is told from one that is
// filtered.
func TestCheckLossy(t *testing.T) {
	machineOf(t, nil, nil)
	n := 0
	p := &ntstest.Path{Reply: plainly, Lost: func(forth bool, packet []byte) bool {
		if forth && len(packet) > 48 {
			n++
		}
		return n <= 3
	}}
	some := found(try("check", "--json", "-c", configure(t, quick, carried(t, ntstest.Options{}, p))).findings(t, exitNoAgreement))
	if len(some) != 2 || some[0].Code != "exchange_timeout" || some[1].Code != "packets_lost" {
		t.Errorf("%+v", some)
	}
}

// A server that answers is sent nothing that it would not be sent by a query:
// nor is one that cannot be reached, or that refuses.
func TestCheckSendsLittle(t *testing.T) {
	machineOf(t, nil, nil)
	for _, c := range []struct {
		name, code string
		o          ntstest.Options
		exit       int
		requests   int
	}{
		{"it answers", "", ntstest.Options{}, exitOK, 1},
		{"NAK", "exchange_nak", ntstest.Options{Kiss: "NTSN"}, exitNoAgreement, 1},
		{"RATE", "exchange_kiss", ntstest.Options{Kiss: "RATE"}, exitNoAgreement, 1},
		{"DENY, bare", "exchange_kiss", ntstest.Options{Kiss: "DENY", KissBare: true}, exitNoAgreement, 1},
		{"no key exchange", "tls_failed", ntstest.Options{RawConn: func(c net.Conn) bool { return true }}, exitNoAgreement, 0},
	} {
		p := &ntstest.Path{}
		s := carried(t, c.o, p)
		some := found(try("check", "--json", "-c", configure(t, quick, s)).findings(t, c.exit))
		if (len(some) == 0) != (c.code == "") || c.code != "" && (some[0].Code != c.code || len(some) != 1) || len(p.Requests()) != c.requests {
			t.Errorf("%s: %d requests, %+v", c.name, len(p.Requests()), some)
		}
		if strings.HasPrefix(c.code, "exchange_") && some[0].Hint == "" {
			t.Errorf("%s: no mend: %+v", c.name, some)
		}
	}
}

// What all servers fail at alike is one finding, with what is to be seen of
// who is in between.
func TestCheckNetwork(t *testing.T) {
	machineOf(t, nil, nil)
	strange := serve(t, ntstest.Options{}).CA().PEM()
	closed := func(s *ntstest.Server) { s.Close() }
	for _, c := range []struct {
		name, code, message string
		o                   ntstest.Options
		edit                func(*ntstest.Server)
		trust               []byte
	}{
		{"nobody listens", "connect_refused", "each of the 2 servers refuses TCP", ntstest.Options{}, closed, nil},
		{
			"no ALPN", "tls_no_alpn", "none of the 2 servers speaks NTS key exchange",
			ntstest.Options{TLS: func(c *tls.Config) { c.NextProtos = nil }},
			nil, nil,
		},
		{"an authority in between", "certificate_unknown_authority", `one and the same authority: certificate is from an authority not trusted here: "CN=`, ntstest.Options{}, nil, strange},
		{"no TLS", "tls_failed", "TLS fails with each of the 2 servers", ntstest.Options{RawConn: func(net.Conn) bool { return true }}, nil, nil},
	} {
		var servers []*ntstest.Server
		for range 2 {
			servers = append(servers, serve(t, c.o))
		}
		file := configure(t, quick, servers...)
		for _, s := range servers {
			if c.edit != nil {
				c.edit(s)
			}
			if c.trust != nil {
				write(t, filepath.Join(filepath.Dir(file), fmt.Sprintf("%d.pem", s.KE().Port())), string(c.trust))
			}
		}
		some := found(try("check", "--json", "-c", file).findings(t, exitNoAgreement))
		if len(some) != 1 || some[0].Subject != "network" || some[0].Code != c.code || !strings.Contains(some[0].Message, c.message) ||
			some[0].Hint == "" || some[0].Level != report.Blocks {
			t.Errorf("%s: %+v", c.name, some)
		}
	}
}

// Through a proxy nothing is probed, neither directly nor by its way: the
// servers get what the proxy sent, which is what a query takes.
func TestCheckProxy(t *testing.T) {
	machineOf(t, nil, nil)
	noNames(t)
	for _, c := range []struct {
		name, code string
		path       func() *ntstest.Path
		hint       string
	}{
		{"nothing passes", "exchange_timeout", func() *ntstest.Path { return &ntstest.Path{Lost: longer(0)} }, "does the proxy send UDP"},
		{"a router answers", "exchange_unauthenticated", func() *ntstest.Path { return &ntstest.Path{Reply: ntstest.PlainAnswer} }, "in between"},
		{"only small packets pass", "exchange_timeout", func() *ntstest.Path { return &ntstest.Path{Lost: longer(48), Reply: plainly} }, "does the proxy send UDP"},
	} {
		p, url := proxy(t, ntstest.ProxyOptions{})
		var servers []*ntstest.Server
		var paths []*ntstest.Path
		for range 2 {
			path := c.path()
			servers, paths = append(servers, carried(t, ntstest.Options{}, path)), append(paths, path)
		}
		file := proxiedFile(t, "proxy = \""+url+"\"\n"+quick, servers...)
		some := found(try("check", "--json", "-c", file).findings(t, exitNoAgreement))
		if len(some) != 1 || some[0].Subject != "network" || some[0].Code != c.code || !strings.Contains(some[0].Hint, c.hint) {
			t.Errorf("%s: %+v", c.name, some)
		}
		requests := 0
		for _, path := range paths {
			for _, r := range path.Requests() {
				if requests++; len(r) == 48 {
					t.Errorf("%s: plain NTP was sent", c.name)
				}
			}
		}
		if n := len(p.Stats().Datagrams); requests != n || n != 6 { // three tries each
			t.Errorf("%s: %d requests, of which the proxy sent %d", c.name, requests, n)
		}
	}
	two := []*ntstest.Server{serve(t, ntstest.Options{}), serve(t, ntstest.Options{})}
	some := found(try("check", "--json", "-c", proxiedFile(t, "proxy = \"socks5h://127.0.0.1:9\"\n"+quick, two...)).findings(t, exitNoAgreement))
	if len(some) != 1 || some[0].Subject != "network" || some[0].Code != "proxy_failed" || some[0].Hint == "" {
		t.Errorf("%+v", some)
	}
	for _, s := range two {
		untouched(t, s)
	}
}

// askNames makes a resolver of the test's own answer each question with a
// response code of DNS; below 0 it is silent.
func askNames(t *testing.T, rcode int) {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	before := net.DefaultResolver
	t.Cleanup(func() { net.DefaultResolver = before; conn.Close() })
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", conn.LocalAddr().String())
	}}
	go func() {
		for b := make([]byte, 512); ; {
			n, from, err := conn.ReadFrom(b)
			if err != nil {
				return
			}
			if b[2], b[3] = b[2]|0x80, byte(rcode); rcode >= 0 {
				conn.WriteTo(b[:n], from)
			}
		}
	}()
}

// Names that cannot be looked up are one finding if it is all of them; a clock
// in doubt may be why.
func TestCheckNames(t *testing.T) {
	honest, dir := serve(t, ntstest.Options{}), t.TempDir()
	text := "state_dir = \"\"\n[measure]\ndeadline = \"1s\"\n[bootstrap]\nmin_operators = 1\n"
	own := entry(t, dir, honest)
	for i := range 3 {
		text += fmt.Sprintf("[[server]]\naddress = \"time%d.test\"\noperator = \"%d\"\nca_file = \"%d.pem\"\n", i, i, honest.KE().Port())
	}
	file := write(t, filepath.Join(dir, "none.toml"), text)
	mixed := write(t, filepath.Join(dir, "some.toml"), "agreement.min_operators = 1\n"+text+own)
	for _, c := range []struct {
		name  string
		rcode int
		doubt bool
		want  string
	}{
		{"no such names", 3, false, "network dns_not_found"},
		{"no such names, and a clock in doubt", 3, true, "network dns_not_found"},
		{"the resolver fails", 2, false, "network dns_failed"},
		{"the resolver fails, and the clock is in doubt", 2, true, "network dns_failed, network dns_needs_time"},
		{"no resolver", -1, true, "network dns_failed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			machineOf(t, nil, nil)
			if c.doubt {
				here.clock = &clock.Simulated{Error: clock.Unsynchronized}
			}
			askNames(t, c.rcode)
			for path, level := range map[string]report.Level{file: report.Blocks, mixed: report.Note} {
				var got []string
				code := exitNoAgreement
				if level == report.Note {
					code = exitOK
				}
				some := found(try("check", "--json", "-c", path).findings(t, code))
				for _, f := range some {
					got = append(got, f.Subject+" "+f.Code)
					if f.Hint == "" {
						t.Errorf("no mend: %+v", f)
					}
				}
				if strings.Join(got, ", ") != c.want || some[0].Level != level || !strings.Contains(some[0].Message, "of the 3 names") {
					t.Errorf("%s: %+v", path, some)
				}
			}
		})
	}
}
