package nts

import (
	"bytes"
	"context"
	"encoding/json"
	"net"
	"net/netip"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"testing"
	"time"

	"ntsclient/nts/ntstest"
)

// What the server says reaches the sample.
func TestSample(t *testing.T) {
	s := start(t, ntstest.Options{
		Offset: 90 * time.Second, Stratum: 3, Leap: 1, RootDelay: 500 * time.Millisecond, RootDispersion: 250 * time.Millisecond,
	})
	session := establish(t, s)
	before := time.Now()
	sample, err := session.Exchange(enough(t), Route{})
	after := time.Now()
	if err != nil {
		t.Fatal(err)
	}
	if sample.Stratum != 3 || sample.Leap != 1 || sample.Precision != 29 || sample.Server != s.NTP() ||
		sample.RootDelay != 500*time.Millisecond || sample.RootDispersion != 250*time.Millisecond {
		t.Errorf("%+v", sample)
	}
	if sample.T1.Before(before) || sample.T4.After(after) || sample.T4.Before(sample.T1) || sample.T3.Before(sample.T2) ||
		sample.At.Before(before) || sample.At.After(after) {
		t.Errorf("%v, %v, %v, %v, read at %v", sample.T1, sample.T2, sample.T3, sample.T4, sample.At)
	}
	// Whatever the way took, half the round trip bounds the error.
	if e := sample.Offset() - 90*time.Second; e.Abs() > sample.RoundTrip()/2+time.Microsecond {
		t.Errorf("offset %v with a round trip of %v", sample.Offset(), sample.RoundTrip())
	}
	if sample.Delay() != sample.RoundTrip()-sample.T3.Sub(sample.T2) || sample.Delay() > sample.RoundTrip() {
		t.Errorf("delay %v of %v", sample.Delay(), sample.RoundTrip())
	}
}

// The size of requests and the jar over many exchanges, with losses between.
func TestPlaceholders(t *testing.T) {
	steps := []struct {
		lose         bool
		octets, left int
	}{
		{false, 228 + 7*104, 8}, // a jar of one is filled at once
		{false, 228, 8},
		{true, 228, 7},
		{true, 228, 6}, // none, though two are missing
		{true, 228, 5},
		{true, 228, 4},
		{false, 228, 4},         // still none after a loss
		{false, 228 + 104, 5},   // and then one by one
		{false, 228 + 2*104, 7}, // though four were missing
		{false, 228 + 104, 8},   // no more than the jar lacks
		{false, 228, 8},
	}
	s := start(t, ntstest.Options{AEADs: []uint16{15}, Cookies: 1, Loss: func(n int) bool { return steps[n].lose }})
	session := establish(t, s)
	for i, step := range steps {
		if step.lose {
			_, err := session.Exchange(lossContext(t, s), Route{})
			wantError(t, err, StageExchange, ExchangeTimeout, "")
		} else if _, err := session.Exchange(enough(t), Route{}); err != nil {
			t.Fatal(err)
		}
		if got := s.Stats().Octets; got != step.octets || len(session.Cookies) != step.left {
			t.Errorf("request %d: %d octets, %d cookies left; want %+v", i, got, len(session.Cookies), step)
		}
	}
	if session.Largest != 956 {
		t.Errorf("the largest that was answered had %d octets", session.Largest)
	}
	clean(t, s)
}

// lossContext ends when the server has got one more request.
func lossContext(t *testing.T, s *ntstest.Server) context.Context {
	ctx, cancel := context.WithCancel(enough(t))
	before := s.Stats().Requests
	go func() {
		defer cancel()
		for ctx.Err() == nil && s.Stats().Requests == before {
			time.Sleep(time.Millisecond)
		}
	}()
	return ctx
}

// Each request is new in all that could be recognized (RFC 8915 §5.3, §9.1;
// RFC 9109): identifier, transmit timestamp, cookie, port. The server looks
// at all but the port.
func TestRequestsAreUnlinkable(t *testing.T) {
	s := start(t, ntstest.Options{})
	session := establish(t, s)
	relay := newRelay(t, s.NTP())
	session.Servers[0] = relay.addr
	const n = 20
	for range n {
		if _, err := session.Exchange(enough(t), Route{}); err != nil {
			t.Fatal(err)
		}
	}
	clean(t, s)
	ports := map[uint16]bool{}
	for _, from := range relay.clients() {
		ports[from.Port()] = true
	}
	if len(ports) < n-2 { // the kernel may give one twice by chance
		t.Errorf("%d ports for %d requests", len(ports), n)
	}
	if stats := s.Stats(); stats.Requests != n || stats.KeyExchanges != 1 {
		t.Errorf("%+v", stats)
	}
	for _, b := range s.Requests() {
		if !bytes.Equal(b[:4], []byte{4<<3 | 3, 0, 0, 32}) || !bytes.Equal(b[4:40], make([]byte, 36)) {
			t.Errorf("header %x", b[:headerLen])
		}
	}
}

// relay stands between client and server, and can answer from elsewhere.
type relay struct {
	addr  netip.AddrPort
	froms chan netip.AddrPort
}

func listenUDP(t *testing.T, addr string) *net.UDPConn {
	t.Helper()
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.MustParseAddrPort(addr)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// newRelay answers from each of via, and from the address asked where none
// is given.
func newRelay(t *testing.T, server netip.AddrPort, via ...*net.UDPConn) *relay {
	t.Helper()
	front := listenUDP(t, "127.0.0.1:0")
	back, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(server))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { back.Close() })
	if len(via) == 0 {
		via = []*net.UDPConn{front}
	}
	r := &relay{front.LocalAddr().(*net.UDPAddr).AddrPort(), make(chan netip.AddrPort, 100)}
	go func() {
		for b := make([]byte, 2048); ; {
			n, from, err := front.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			r.froms <- from
			back.Write(b[:n])
			if n, err = back.Read(b); err != nil {
				return
			}
			for _, conn := range via {
				conn.WriteToUDPAddrPort(b[:n], from)
			}
		}
	}()
	return r
}

// clients are those who asked since the last call.
func (r *relay) clients() (all []netip.AddrPort) {
	for len(r.froms) > 0 {
		all = append(all, <-r.froms)
	}
	return all
}

// An answer counts from the address and port that were asked, and from
// nowhere else.
func TestSource(t *testing.T) {
	s := start(t, ntstest.Options{})
	for _, test := range []struct {
		name string
		via  []*net.UDPConn
		code Code
	}{
		{"the same", nil, ""},
		{"another port", []*net.UDPConn{listenUDP(t, "127.0.0.1:0")}, ExchangeTimeout},
		{"another address", []*net.UDPConn{listenUDP(t, "127.0.0.2:0")}, ExchangeTimeout},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			session := establish(t, s)
			session.Servers[0] = newRelay(t, s.NTP(), test.via...).addr
			ctx := enough(t)
			if test.code != "" {
				ctx = brief(t)
			}
			_, err := session.Exchange(ctx, Route{})
			wantError(t, err, StageExchange, test.code, "")
		})
	}
}

// An answer to one request is none to the next, be it late or swapped.
func TestOldAnswers(t *testing.T) {
	t.Parallel()
	kept := make(chan []byte, 1)
	s := start(t, ntstest.Options{Answer: func(_, answer []byte) [][]byte {
		kept <- answer
		return nil
	}})
	session := establish(t, s)
	_, err := session.Exchange(lossContext(t, s), Route{})
	wantError(t, err, StageExchange, ExchangeTimeout, "")
	old := <-kept
	s.Change(func(o *ntstest.Options) {
		o.Answer = func(_, answer []byte) [][]byte { return [][]byte{old} }
	})
	_, err = session.Exchange(brief(t), Route{})
	wantError(t, err, StageExchange, ExchangeTimeout, "")
	s.Change(func(o *ntstest.Options) {
		o.Answer = func(_, answer []byte) [][]byte { return [][]byte{old, answer, old} }
	})
	if _, err = session.Exchange(enough(t), Route{}); err != nil {
		t.Error(err)
	}
	clean(t, s)
}

// A server that exports the keys of AEAD 30 in one way or the other is got on
// with, and that costs a NAK at most.
func TestChangeOfKeys(t *testing.T) {
	hide := func(all []ntstest.Record) []ntstest.Record {
		return slices.DeleteFunc(all, func(r ntstest.Record) bool { return r.Type == recCompliantGCM })
	}
	for _, test := range []struct {
		name    string
		options ntstest.Options
		naks    int
	}{
		{"says so", ntstest.Options{}, 0},
		{"chrony before 4.6.1", ntstest.Options{NoCompliant: true}, 0},
		{"keeps to the RFC and does not say so", ntstest.Options{KE: hide}, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := start(t, test.options)
			session := establish(t, s)
			session.Servers = append(session.Servers, netip.MustParseAddrPort("127.0.0.1:9"))
			for range 3 {
				if _, err := session.Exchange(enough(t), Route{}); err != nil {
					t.Fatal(err)
				}
			}
			stats := s.Stats()
			if stats.NAKs != test.naks || stats.KeyExchanges != 1 || stats.Replayed != 0 || session.Other != nil {
				t.Errorf("%+v; other keys %v", stats, session.Other)
			}
		})
	}
	t.Run("knows neither", func(t *testing.T) {
		s := start(t, ntstest.Options{NoCompliant: true})
		session := establish(t, s)
		s.Rekey()
		_, err := session.Exchange(enough(t), Route{})
		wantError(t, err, StageExchange, ExchangeNAK, "")
		if stats := s.Stats(); stats.NAKs != 2 || stats.Requests != 2 {
			t.Errorf("%+v; want one request with each pair of keys", stats)
		}
	})
	t.Run("the last cookie", func(t *testing.T) {
		t.Parallel()
		s := start(t, ntstest.Options{KE: hide, Cookies: 1})
		session := establish(t, s)
		_, err := session.Exchange(brief(t), Route{})
		wantError(t, err, StageExchange, ExchangeNAK, "")
		if s.Stats().Requests != 1 {
			t.Error("a request without a cookie")
		}
	})
}

// After a loss the next address is asked, and after the last the first.
func TestNextAddress(t *testing.T) {
	t.Parallel()
	s := start(t, ntstest.Options{})
	deaf := listenUDP(t, "127.0.0.1:0")
	session := establish(t, s)
	session.Servers = []netip.AddrPort{deaf.LocalAddr().(*net.UDPAddr).AddrPort(), s.NTP()}
	_, err := session.Exchange(brief(t), Route{})
	wantError(t, err, StageExchange, ExchangeTimeout, "")
	for range 2 { // an address that answers is kept
		if sample, err := session.Exchange(enough(t), Route{}); err != nil || sample.Server != s.NTP() {
			t.Errorf("%v, %v", sample, err)
		}
	}
}

// A port where nobody listens is silence: anyone can send what says so.
func TestRefusedPort(t *testing.T) {
	t.Parallel()
	s := start(t, ntstest.Options{})
	session := establish(t, s)
	gone := listenUDP(t, "127.0.0.1:0")
	session.Servers[0] = gone.LocalAddr().(*net.UDPAddr).AddrPort()
	gone.Close()
	ctx := brief(t)
	_, err := session.Exchange(ctx, Route{})
	wantError(t, err, StageExchange, ExchangeTimeout, "")
	if ctx.Err() == nil {
		t.Error("it gave up before its time")
	}
}

// Without a way to the server no cookie is spent.
func TestNoRoute(t *testing.T) {
	session := establish(t, start(t, ntstest.Options{}))
	session.Servers[0] = netip.MustParseAddrPort("[fe80::1%nowhere]:123")
	_, err := session.Exchange(enough(t), Route{})
	wantError(t, err, StageExchange, ConnectUnreachable, "")
	if len(session.Cookies) != 8 {
		t.Errorf("%d cookies left", len(session.Cookies))
	}
}

// A cookie that no datagram holds, as a damaged file may bring, is not sent.
func TestRequestTooLong(t *testing.T) {
	s := start(t, ntstest.Options{})
	session := establish(t, s)
	session.Cookies[0] = make([]byte, 70000)
	_, err := session.Exchange(enough(t), Route{})
	wantError(t, err, StageExchange, ConnectUnreachable, "too long")
	if len(session.Cookies) != 7 || s.Stats().Requests != 0 {
		t.Errorf("%d cookies left, %d requests", len(session.Cookies), s.Stats().Requests)
	}
}

// A session that cannot be used says so, and sends nothing.
func TestUnusableSession(t *testing.T) {
	s := start(t, ntstest.Options{})
	for _, test := range []struct {
		part  string
		spoil func(*Session)
	}{
		{"no cookie left", func(s *Session) { s.Cookies = nil }},
		{"no cookie left", func(s *Session) { s.Servers = nil }},
		{"AEAD 17 with a key of 16", func(s *Session) { s.AEAD = 17 }},
		{"GCM-SIV with a key of 3", func(s *Session) { s.Keys.C2S = make([]byte, 3) }},
		{"GCM-SIV with a key of 0", func(s *Session) { s.Keys.S2C = nil }},
	} {
		session := establish(t, s)
		test.spoil(session)
		_, err := session.Exchange(enough(t), Route{})
		wantError(t, err, StageInternal, Internal, test.part)
	}
	if n := s.Stats().Requests; n != 0 {
		t.Errorf("%d requests", n)
	}
}

// A server may give more cookies than it was asked for: the jar holds eight.
func TestFullJar(t *testing.T) {
	s := start(t, ntstest.Options{Seal: func(p *ntstest.Packet) {
		p.Encrypted = slices.Repeat(p.Encrypted, 5)
	}})
	session := establish(t, s)
	for _, want := range []int{8, 8} {
		if _, err := session.Exchange(enough(t), Route{}); err != nil || len(session.Cookies) != want {
			t.Errorf("%d cookies, %v", len(session.Cookies), err)
		}
	}
	session.Cookies = session.Cookies[:5]
	if _, err := session.Exchange(enough(t), Route{}); err != nil || len(session.Cookies) != 8 {
		t.Errorf("%d cookies, %v", len(session.Cookies), err)
	}
}

// A session goes on after it was stored.
func TestStoredSession(t *testing.T) {
	s := start(t, ntstest.Options{NoCompliant: true})
	session := establish(t, s)
	for range 3 {
		text, err := json.Marshal(session)
		if err != nil {
			t.Fatal(err)
		}
		session = new(Session)
		if err := json.Unmarshal(text, session); err != nil {
			t.Fatal(err)
		}
		if _, err := session.Exchange(enough(t), Route{}); err != nil {
			t.Fatal(err)
		}
	}
	clean(t, s)
}

// Nothing stays open, whatever way an exchange ends.
func TestNothingLeaks(t *testing.T) {
	if runtime.GOOS != "linux" {
		skip(t, "open files are counted in /proc")
	}
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // which closes what was forgotten
	s := start(t, ntstest.Options{})
	deaf := start(t, ntstest.Options{Loss: func(int) bool { return true }})
	_, good := startProxy(t, ntstest.ProxyOptions{})
	_, bad := startProxy(t, refuse(ntstest.SocksAssociate, 7))
	_, dying := startProxy(t, ntstest.ProxyOptions{Ends: func(int) bool { return true }})
	one := func() {
		establish(t, s).Exchange(enough(t), Route{})
		establish(t, deaf).Exchange(lossContext(t, deaf), Route{})
		o := clientOf(s)
		o.Roots = deaf.CA().Pool()
		KeyExchange(enough(t), o)
		o.Port = 1
		KeyExchange(enough(t), o)
		o.IPs, o.Port = []netip.Addr{netip.MustParseAddr("127.0.0.3"), netip.MustParseAddr("127.0.0.1")}, s.KE().Port()
		KeyExchange(enough(t), o)
		for _, route := range []Route{good, bad, dying} {
			via := clientOf(s)
			via.Route = route
			if session, err := KeyExchange(enough(t), via); err == nil {
				session.Exchange(enough(t), route)
			}
		}
	}
	count := func() (files, goroutines int) {
		entries, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(entries), runtime.NumGoroutine()
	}
	one()
	const n = 10
	files, goroutines := count()
	for range n {
		one()
	}
	// What ends on its own, as the other end of a connection, is given time.
	for range 5000 {
		if f, g := count(); f < files+n && g < goroutines+n {
			return
		}
		time.Sleep(time.Millisecond)
	}
	f, g := count()
	t.Errorf("%d more files and %d more goroutines after %d rounds", f-files, g-goroutines, n)
}

// A cookie that a server gives twice is kept once: it would be sent twice.
func TestSameCookieTwice(t *testing.T) {
	one, two := []byte("0123456789abcdef"), []byte("fedcba9876543210")
	var a keAnswer
	for _, c := range [][]byte{one, two, one, two} {
		if err := a.cookie(c); err != nil {
			t.Fatal(err)
		}
	}
	s := &Session{Cookies: a.cookies}
	s.put([][]byte{two, []byte("another cookie..")})
	if len(a.cookies) != 2 || len(s.Cookies) != 3 {
		t.Errorf("%d and %d cookies", len(a.cookies), len(s.Cookies))
	}
}
