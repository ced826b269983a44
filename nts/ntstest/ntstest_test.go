package ntstest

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// A client by hand: what one session holds.
type client struct {
	keys
	cookies [][]byte
	ntp     netip.AddrPort
	records []Record
}

// start starts a server that ends with the test.
func start(t *testing.T, o Options) *Server {
	t.Helper()
	s, err := Start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func kePayload(aeads ...uint16) []byte {
	var body []byte
	for _, id := range aeads {
		body = append(body, uint16Octets(id)...)
	}
	b := Record{recordNextProtocol, true, []byte{0, 0}}.append(nil)
	b = Record{recordAEAD, true, body}.append(b)
	if slices.Contains(aeads, aeadGCMSIV) {
		b = Record{recordCompliant, false, nil}.append(b)
	}
	return Record{recordEnd, true, nil}.append(b)
}

func dial(t *testing.T, s *Server, edit func(*tls.Config)) *tls.Conn {
	t.Helper()
	config := &tls.Config{
		RootCAs: s.CA().Pool(), ServerName: "127.0.0.1",
		MinVersion: tls.VersionTLS13, NextProtos: []string{"ntske/1"},
	}
	if edit != nil {
		edit(config)
	}
	conn, err := tls.Dial("tcp", s.KE().String(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// exchange makes a key exchange. exported is the AEAD in the exporter's
// context, 0 for the one agreed on.
func exchange(t *testing.T, s *Server, exported uint16, aeads ...uint16) *client {
	t.Helper()
	conn := dial(t, s, nil)
	if _, err := conn.Write(kePayload(aeads...)); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(conn)
	if err != nil {
		t.Fatal(err)
	}
	records, used := parseRecords(answer)
	if used != len(answer) || used == 0 {
		t.Fatalf("%d of %d octets are the message", used, len(answer))
	}
	c := &client{ntp: netip.AddrPortFrom(s.KE().Addr(), 123), records: records}
	for _, r := range records {
		switch r.Type {
		case recordAEAD:
			c.aead = binary.BigEndian.Uint16(r.Body)
		case recordCookie:
			c.cookies = append(c.cookies, r.Body)
		case recordServer:
			c.ntp = netip.AddrPortFrom(netip.MustParseAddr(string(r.Body)), c.ntp.Port())
		case recordPort:
			c.ntp = netip.AddrPortFrom(c.ntp.Addr(), binary.BigEndian.Uint16(r.Body))
		}
	}
	if exported == 0 {
		exported = c.aead
	}
	if c.keys, err = exportKeys(conn.ConnectionState(), c.aead, exported); err != nil {
		t.Fatal(err)
	}
	return c
}

// request is a right one; edit changes it before it is sealed.
func (c *client) request(t *testing.T, cookie []byte, placeholders int, edit func(*Packet)) []byte {
	t.Helper()
	aead, err := newAEAD(c.aead, c.c2s)
	if err != nil {
		t.Fatal(err)
	}
	p := &Packet{
		Version: 4, Mode: 3, Transmit: binary.BigEndian.Uint64(random(8)),
		Fields: []Field{{fieldUID, random(32)}, {fieldCookie, cookie}},
		Nonce:  random(nonceLength(c.aead)),
	}
	for range placeholders {
		p.Fields = append(p.Fields, Field{fieldPlaceholder, make([]byte, len(cookie))})
	}
	if edit != nil {
		edit(p)
	}
	return p.seal(aead)
}

// ask sends a request and waits for its answer.
func (c *client) ask(t *testing.T, request []byte) []byte {
	t.Helper()
	conn, err := net.Dial("udp", c.ntp.String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write(request); err != nil {
		t.Fatal(err)
	}
	conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	b := make([]byte, 1<<16)
	n, err := conn.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	return b[:n]
}

// open takes an answer apart; no cookies and false where it is not sealed.
func (c *client) open(t *testing.T, answer []byte) (cookies [][]byte, ok bool) {
	t.Helper()
	aead, err := newAEAD(c.aead, c.s2c)
	if err != nil {
		t.Fatal(err)
	}
	for rest := answer[headerLength:]; len(rest) > 0; {
		f, next, err := readField(rest)
		if err != nil {
			t.Fatal(err)
		}
		if f.Type == fieldAuthenticator {
			r := &request{}
			if err := r.parseAuthenticator(f.Body); err != nil {
				t.Fatal(err)
			}
			plain, err := aead.Open(nil, r.nonce, r.sealed, answer[:len(answer)-len(rest)])
			if err != nil {
				t.Fatal(err)
			}
			for len(plain) > 0 {
				if f, plain, err = readField(plain); err != nil {
					t.Fatal(err)
				}
				cookies = append(cookies, f.Body)
			}
			ok = true
		}
		rest = next
	}
	return cookies, ok
}

func noBad(t *testing.T, s *Server) {
	t.Helper()
	if bad := s.Stats().Bad; len(bad) > 0 {
		t.Errorf("right requests are called bad: %q", bad)
	}
}

func TestExchange(t *testing.T) {
	for _, test := range []struct {
		name     string
		options  Options
		aeads    []uint16
		exported uint16
		cookie   int // octets
	}{
		{"CMAC", Options{}, []uint16{15}, 15, 100},
		{"GCM", Options{}, []uint16{30, 15}, 30, 68},
		{"GCM of an old chronyd", Options{NoCompliant: true}, []uint16{30, 15}, 15, 68},
		{"the server has only CMAC", Options{AEADs: []uint16{15}}, []uint16{30, 15}, 15, 100},
		{"long cookies", Options{CookieLength: 136}, []uint16{30, 15}, 30, 136},
		{"IPv6", Options{Listen: "[::1]:0"}, []uint16{15}, 15, 100},
		{"NTP elsewhere", Options{ListenNTP: "127.0.0.2:0"}, []uint16{15}, 15, 100},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := start(t, test.options)
			c := exchange(t, s, test.exported, test.aeads...)
			if len(c.cookies) != 8 || len(c.cookies[0]) != test.cookie || c.ntp != s.NTP() {
				t.Fatalf("%d cookies of %d octets for %v", len(c.cookies), len(c.cookies[0]), c.ntp)
			}
			request := c.request(t, c.cookies[0], 2, nil)
			answer := c.ask(t, request)
			cookies, ok := c.open(t, answer)
			if !ok || len(cookies) != 3 || len(answer) > len(request) {
				t.Errorf("sealed: %v, %d cookies, %d octets for %d", ok, len(cookies), len(answer), len(request))
			}
			if !bytes.Equal(answer[24:32], request[40:48]) {
				t.Error("the origin is not the request's transmit timestamp")
			}
			for _, cookie := range cookies { // fresh ones are as good
				c.open(t, c.ask(t, c.request(t, cookie, 0, nil)))
			}
			noBad(t, s)
			stats := s.Stats()
			if stats.Answers != 4 || stats.Requests != 4 || stats.Replayed != 0 || stats.KEWrites != 1 || stats.KeyExchanges != 1 {
				t.Errorf("%+v", stats)
			}
		})
	}
}

func TestClock(t *testing.T) {
	now := time.Date(2036, 2, 7, 6, 28, 20, 5e8, time.UTC) // just past the end of era 0
	s := start(t, Options{
		Now: func() time.Time { return now }, NotBefore: time.Unix(0, 0),
		Offset: -500 * time.Millisecond, Delay: time.Millisecond, RootDelay: 250 * time.Millisecond,
	})
	c := exchange(t, s, 0, 15)
	answer := c.ask(t, c.request(t, c.cookies[0], 0, nil))
	for _, at := range []int{32, 40} {
		if got := binary.BigEndian.Uint64(answer[at:]); got != 4<<32 {
			t.Errorf("octet %d: %#x, want 4 s of era 1", at, got)
		}
	}
	if got := binary.BigEndian.Uint32(answer[4:]); got != 1<<14 {
		t.Errorf("root delay %#x", got)
	}
}

func TestNAKAfterRekey(t *testing.T) {
	s := start(t, Options{})
	c := exchange(t, s, 0, 15)
	s.Rekey()
	request := c.request(t, c.cookies[0], 0, nil)
	answer := c.ask(t, request)
	want := append(append([]byte{}, answer[:headerLength]...), request[headerLength:headerLength+36]...)
	if answer[1] != 0 || string(answer[12:16]) != "NTSN" || !bytes.Equal(answer, want) {
		t.Errorf("%x is no NAK with our identifier", answer)
	}
	if stats := s.Stats(); stats.NAKs != 1 || stats.Answers != 0 {
		t.Errorf("%+v", stats)
	}
	noBad(t, s)
	c = exchange(t, s, 0, 15)
	if _, ok := c.open(t, c.ask(t, c.request(t, c.cookies[0], 0, nil))); !ok {
		t.Error("no answer after a new key exchange")
	}
}

func TestReplayIsCounted(t *testing.T) {
	s := start(t, Options{})
	c := exchange(t, s, 0, 15)
	for range 3 {
		c.ask(t, c.request(t, c.cookies[0], 0, nil))
	}
	if got := s.Stats().Replayed; got != 2 {
		t.Errorf("%d replayed, want 2", got)
	}
}

func TestKisses(t *testing.T) {
	for _, test := range []struct {
		options Options
		sealed  bool
	}{
		{Options{Kiss: "NTSN"}, false},
		{Options{Kiss: "RATE"}, true},
		{Options{Kiss: "DENY", KissBare: true}, false},
	} {
		s := start(t, test.options)
		c := exchange(t, s, 0, 15)
		answer := c.ask(t, c.request(t, c.cookies[0], 0, nil))
		_, sealed := c.open(t, answer)
		if sealed != test.sealed || answer[1] != 0 || string(answer[12:16]) != test.options.Kiss {
			t.Errorf("%+v: sealed %v, %x", test.options, sealed, answer)
		}
	}
}

func TestHooks(t *testing.T) {
	s := start(t, Options{
		KE:     func(records []Record) []Record { return append([]Record{{4711, false, []byte("x")}}, records...) },
		Loss:   func(n int) bool { return n == 0 },
		Seal:   func(p *Packet) { p.Stratum, p.After = 7, []Field{{fieldCookie, make([]byte, 100)}} },
		Answer: func(_, answer []byte) [][]byte { return [][]byte{answer[:headerLength], answer} },
	})
	c := exchange(t, s, 0, 15)
	if c.records[0].Type != 4711 {
		t.Errorf("first record is %+v", c.records[0])
	}
	conn, err := net.Dial("udp", c.ntp.String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	for _, cookie := range c.cookies[:2] {
		conn.Write(c.request(t, cookie, 0, nil))
	}
	b := make([]byte, 1<<16)
	if n, err := conn.Read(b); n != headerLength {
		t.Fatalf("%d octets, %v; want the cut answer to the second request", n, err)
	}
	n, err := conn.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	if cookies, ok := c.open(t, b[:n]); b[1] != 7 || !ok || len(cookies) != 1 || n != headerLength+36+144+104 {
		t.Errorf("stratum %d, sealed %v, %d cookies, %d octets", b[1], ok, len(cookies), n)
	}
	if len(s.Requests()) != 2 {
		t.Errorf("%d requests kept", len(s.Requests()))
	}
}

// Nothing that a wrong client could send goes by unnoticed.
func TestBadRequests(t *testing.T) {
	uid := random(32)
	for _, test := range []struct {
		bad  string // part of the text
		edit func(*Packet)
	}{
		{"leap, version and mode", func(p *Packet) { p.Version = 3 }},
		{"leap, version and mode", func(p *Packet) { p.Mode = 4 }},
		{"something of the client", func(p *Packet) { p.Reference = 1 }},
		{"no transmit timestamp", func(p *Packet) { p.Transmit = 0 }},
		{"identifier of 28", func(p *Packet) { p.Fields[0].Body = random(28) }},
		{"extension field 0x0104", func(p *Packet) { p.Fields = append(p.Fields, p.Fields[0]) }},
		{"extension field 0x0204", func(p *Packet) { p.Fields = append(p.Fields, p.Fields[1]) }},
		{"no cookie", func(p *Packet) { p.Fields = p.Fields[:1] }},
		{"placeholder of 104", func(p *Packet) { p.Fields = append(p.Fields, Field{fieldPlaceholder, make([]byte, 104)}) }},
		{"or not zeros", func(p *Packet) {
			p.Fields = append(p.Fields, Field{fieldPlaceholder, append(make([]byte, 99), 1)})
		}},
		{"8 placeholders", func(p *Packet) {
			p.Fields = append(p.Fields, slices.Repeat([]Field{{fieldPlaceholder, make([]byte, 100)}}, 8)...)
		}},
		{"after the authenticator", func(p *Packet) { p.After = []Field{{fieldCookie, make([]byte, 100)}} }},
		{"nonce of 12", func(p *Packet) { p.Nonce = random(12) }},
		{"octets encrypted", func(p *Packet) { p.Encrypted = []Field{{fieldPlaceholder, make([]byte, 100)}} }},
		{"identifier for the second time", func(p *Packet) { p.Fields[0].Body = uid }},
	} {
		t.Run(test.bad, func(t *testing.T) {
			s := start(t, Options{})
			s.sawBefore("uid", uid)
			c := exchange(t, s, 0, 15)
			request := c.request(t, c.cookies[0], 0, test.edit)
			good := c.request(t, c.cookies[1], 0, nil)
			conn, err := net.Dial("udp", c.ntp.String())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			conn.Write(request)
			conn.Write(good)
			waitFor(t, s, func(stats Stats) bool { return len(stats.Bad) == 1 })
			if bad := s.Stats().Bad; !strings.Contains(bad[0], test.bad) {
				t.Errorf("%q", bad)
			}
		})
	}
}

// Each octet of a request is held by its authenticator or by the rules.
func TestFlippedRequests(t *testing.T) {
	s := start(t, Options{})
	c := exchange(t, s, 0, 15)
	k := c.keys
	request := c.request(t, c.cookies[0], 1, nil)
	for i := range request {
		flipped := slices.Clone(request)
		flipped[i] ^= 1
		r, err := parseRequest(flipped)
		if err != nil {
			continue
		}
		if aead, _ := s.open(r, new(Options)); aead != nil {
			t.Errorf("octet %d can be changed", i)
		}
	}
	r, err := parseRequest(request)
	if err != nil {
		t.Fatal(err)
	}
	if aead, got := s.open(r, new(Options)); aead == nil || !bytes.Equal(got.s2c, k.s2c) {
		t.Error("the request itself does not open")
	}
}

func TestBadKeyExchanges(t *testing.T) {
	good := kePayload(15)
	for _, test := range []struct {
		bad     string
		payload []byte
		edit    func(*tls.Config)
	}{
		{"after the end", append(slices.Clone(good), 0), nil},
		{"under the protocol", good, func(c *tls.Config) { c.NextProtos = nil }},
		{"0 records of type 1", good[6:], nil},
		{"2 records of type 4", append(good[6:12:12], good...), nil},
		{"record 5 ", append(Record{recordCookie, false, nil}.append(nil), good...), nil},
		{"record 4711 ", append(Record{4711, true, nil}.append(nil), good...), nil},
		{"0 records 1024", append(append(good[:6:6], 0x80, 4, 0, 2, 0, 30), good[12:]...), nil},
		{"record 0 ", append(good[:12:12], 0, 0, 0, 0), nil},
	} {
		t.Run(test.bad, func(t *testing.T) {
			s := start(t, Options{})
			conn := dial(t, s, test.edit)
			conn.Write(test.payload)
			answer, _ := io.ReadAll(conn)
			if records, _ := parseRecords(answer); len(records) != 2 || records[0].Type != recordError {
				t.Errorf("answered with %v", records)
			}
			if bad := s.Stats().Bad; len(bad) != 1 || !strings.Contains(bad[0], test.bad) {
				t.Errorf("%q", bad)
			}
		})
	}
	t.Run("cut", func(t *testing.T) {
		s := start(t, Options{})
		conn := dial(t, s, nil)
		conn.Write(good[:9])
		conn.CloseWrite()
		io.ReadAll(conn)
		if bad := s.Stats().Bad; len(bad) != 1 || !strings.Contains(bad[0], "within 9 octets") {
			t.Errorf("%q", bad)
		}
	})
	t.Run("two writes", func(t *testing.T) {
		s := start(t, Options{})
		conn := dial(t, s, nil)
		conn.Write(good[:9])
		conn.Write(good[9:])
		io.ReadAll(conn)
		if got := s.Stats().KEWrites; got != 2 {
			t.Errorf("%d writes counted", got)
		}
	})
	t.Run("no AEAD in common", func(t *testing.T) {
		s := start(t, Options{})
		c := dial(t, s, nil)
		c.Write(kePayload(17))
		answer, _ := io.ReadAll(c)
		if records, _ := parseRecords(answer); len(records) != 3 || len(records[1].Body) != 0 {
			t.Errorf("answered with %v", records)
		}
	})
}

// lazyConn sends what was written only when an answer is wanted.
type lazyConn struct {
	net.Conn
	held []byte
}

func (c *lazyConn) Write(b []byte) (int, error) {
	c.held = append(c.held, b...)
	return len(b), nil
}

func (c *lazyConn) Read(b []byte) (int, error) {
	if len(c.held) > 0 {
		if _, err := c.Conn.Write(c.held); err != nil {
			return 0, err
		}
		c.held = nil
	}
	return c.Conn.Read(b)
}

func TestRequestWithEndOfHandshake(t *testing.T) {
	s := start(t, Options{})
	raw, err := net.Dial("tcp", s.KE().String())
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	conn := tls.Client(&lazyConn{Conn: raw}, &tls.Config{RootCAs: s.CA().Pool(), ServerName: "127.0.0.1", NextProtos: []string{"ntske/1"}})
	conn.Write(kePayload(30, 15))
	if answer, err := io.ReadAll(conn); err != nil || len(answer) == 0 {
		t.Fatalf("%d octets, %v", len(answer), err)
	}
	if got := s.Stats().KESegments; got != 1 {
		t.Errorf("%d segments counted", got)
	}
}

func TestChain(t *testing.T) {
	root, err := NewCA("root")
	if err != nil {
		t.Fatal(err)
	}
	between, err := root.Intermediate("between", time.Time{}, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	s := start(t, Options{CA: between, Names: []string{"one.test", "127.0.0.1"}})
	conn := dial(t, s, func(c *tls.Config) { c.RootCAs, c.ServerName = root.Pool(), "one.test" })
	if n := len(conn.ConnectionState().PeerCertificates); n != 2 {
		t.Errorf("%d certificates presented", n)
	}
}

func TestClose(t *testing.T) {
	before := runtime.NumGoroutine()
	s, err := Start(Options{
		Delay: time.Hour,
		KERaw: func(conn *tls.Conn, _ []Record) bool { io.Copy(io.Discard, conn); return true },
	})
	if err != nil {
		t.Fatal(err)
	}
	silent, err := net.Dial("tcp", s.KE().String()) // stays in the handshake
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	dial(t, s, nil).Write(kePayload(15)) // stays in KERaw
	s.Change(func(o *Options) { o.KERaw = nil })
	c := exchange(t, s, 0, 15)
	udp, err := net.Dial("udp", c.ntp.String())
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	udp.Write(c.request(t, c.cookies[0], 0, nil)) // stays in Delay
	waitFor(t, s, func(stats Stats) bool { return stats.Requests == 1 && stats.Connections == 3 })
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	// What is left runs for the runtime's own reasons at most a moment longer.
	for range 1000 {
		if runtime.NumGoroutine() <= before {
			return
		}
		runtime.Gosched()
		time.Sleep(time.Millisecond)
	}
	stacks := make([]byte, 1<<16)
	t.Errorf("goroutines leak:\n%s", stacks[:runtime.Stack(stacks, true)])
}

// waitFor waits until the server has seen what was sent without an answer.
func waitFor(t *testing.T, s *Server, ok func(Stats) bool) {
	t.Helper()
	for range 10000 {
		if ok(s.Stats()) {
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Fatalf("the server never saw it: %+v", s.Stats())
}
