package nts

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"ntsclient/nts/ntstest"
)

func record(kind uint16, critical bool, body ...byte) ntstest.Record {
	return ntstest.Record{Type: kind, Critical: critical, Body: body}
}

// edit is a change to the records of an answer.
type edit func([]ntstest.Record) []ntstest.Record

// with puts records before End of Message.
func with(records ...ntstest.Record) edit {
	return func(all []ntstest.Record) []ntstest.Record {
		return slices.Insert(all, len(all)-1, records...)
	}
}

// instead replaces all records of a type.
func instead(kind uint16, records ...ntstest.Record) edit {
	return func(all []ntstest.Record) []ntstest.Record {
		at := slices.IndexFunc(all, func(r ntstest.Record) bool { return r.Type == kind })
		all = slices.DeleteFunc(all, func(r ntstest.Record) bool { return r.Type == kind })
		return slices.Insert(all, at, records...)
	}
}

// The answer of a server, record by record (RFC 8915 §4.1): what is made of
// it, end to end.
func TestRecords(t *testing.T) {
	jar := func(n, length int) func(*testing.T, *Session) {
		return func(t *testing.T, s *Session) {
			if len(s.Cookies) != n || len(s.Cookies[0]) != length {
				t.Errorf("%d cookies, the first of %d octets; want %d of %d", len(s.Cookies), len(s.Cookies[0]), n, length)
			}
		}
	}
	servers := func(want ...string) func(*testing.T, *Session) {
		return func(t *testing.T, s *Session) {
			var got []string
			for _, server := range s.Servers {
				got = append(got, server.String())
			}
			if !slices.Equal(got, want) {
				t.Errorf("NTP at %q, want %q", got, want)
			}
		}
	}
	name := func(s string) edit { return instead(6, record(6, true, []byte(s)...)) }
	port := []edit{instead(7, record(7, true, 0x11, 0x5c))} // 4444
	for _, test := range []struct {
		name  string
		edits []edit
		code  Code
		part  string
		check func(*testing.T, *Session)
	}{
		{name: "unknown record", edits: []edit{with(record(4711, false, 1))}},
		{name: "unknown record of the experimental range, twice", edits: []edit{with(record(0x4000, false), record(0x4000, false))}},
		{name: "unknown critical record", edits: []edit{with(record(4711, true))}, code: KEMalformed, part: "critical record of type 4711"},

		{name: "end: not critical", edits: []edit{instead(0, record(0, false))}, code: KEMalformed, part: "type 0 without its critical bit"},
		{name: "end: not empty", edits: []edit{instead(0, record(0, true, 1))}, code: KEMalformed, part: "End of Message of 1"},
		{name: "end: missing", edits: []edit{instead(0)}, code: KEMalformed, part: "without End of Message"},
		{name: "end: records follow", edits: []edit{instead(0, record(0, true), record(4711, false, 1, 2))}, code: KEMalformed, part: "6 octets follow End of Message"},
		{name: "end: and nothing else", edits: []edit{func(all []ntstest.Record) []ntstest.Record { return all[len(all)-1:] }}, code: KENoProtocol},
		{name: "nothing at all", edits: []edit{func([]ntstest.Record) []ntstest.Record { return nil }}, code: KEMalformed, part: "closed the connection without an answer"},

		{name: "protocol: none", edits: []edit{instead(1)}, code: KENoProtocol, part: "names no protocol"},
		{name: "protocol: empty", edits: []edit{instead(1, record(1, true))}, code: KENoProtocol, part: "does not offer NTPv4"},
		{name: "protocol: another", edits: []edit{instead(1, record(1, true, 0x80, 1))}, code: KENoProtocol, part: "8001"},
		{name: "protocol: two in one", edits: []edit{instead(1, record(1, true, 0, 0, 0, 1))}, code: KEMalformed, part: "next protocol record of 4"},
		{name: "protocol: two records", edits: []edit{with(record(1, true, 0, 0))}, code: KEMalformed, part: "two records of type 1"},
		{name: "protocol: odd length", edits: []edit{instead(1, record(1, true, 0))}, code: KEMalformed, part: "next protocol record of 1"},
		{name: "protocol: not critical", edits: []edit{instead(1, record(1, false, 0, 0))}, code: KEMalformed, part: "type 1 without"},

		{name: "error 0", edits: []edit{with(record(2, true, 0, 0))}, code: KEError, part: "error 0: unrecognized critical record"},
		{name: "error 1", edits: []edit{with(record(2, true, 0, 1))}, code: KEError, part: "error 1: bad request"},
		{name: "error 2", edits: []edit{with(record(2, true, 0, 2))}, code: KEError, part: "error 2: internal server error"},
		{name: "error 99", edits: []edit{with(record(2, true, 0, 99))}, code: KEError, part: "error 99: which is not known"},
		{name: "error: odd length", edits: []edit{with(record(2, true, 0))}, code: KEMalformed, part: "error record of 1"},
		{name: "error: not critical", edits: []edit{with(record(2, false, 0, 1))}, code: KEMalformed, part: "type 2 without"},
		{name: "warning", edits: []edit{with(record(3, true, 0, 7))}, code: KEWarning, part: "code 7"},
		{name: "warning: odd length", edits: []edit{with(record(3, true, 0, 0, 0))}, code: KEMalformed, part: "warning record of 3"},
		{name: "warning: not critical", edits: []edit{with(record(3, false, 0, 1))}, code: KEMalformed, part: "type 3 without"},

		{name: "AEAD: none", edits: []edit{instead(4)}, code: KENoAEAD, part: "names no AEAD"},
		{name: "AEAD: empty", edits: []edit{instead(4, record(4, true))}, code: KENoAEAD, part: "none of the AEAD algorithms offered"},
		{name: "AEAD: two in one", edits: []edit{instead(4, record(4, true, 0, 30, 0, 15))}, code: KEMalformed, part: "AEAD record of 4"},
		{name: "AEAD: two records", edits: []edit{with(record(4, true, 0, 15))}, code: KEMalformed, part: "two records of type 4"},
		{name: "AEAD: odd length", edits: []edit{instead(4, record(4, true, 15))}, code: KEMalformed, part: "AEAD record of 1"},
		{name: "AEAD: not offered", edits: []edit{instead(4, record(4, true, 0, 17))}, code: KENoAEAD, part: "17, which was not offered"},
		{name: "AEAD: not critical", edits: []edit{instead(4, record(4, false, 0, 15))}},
		{name: "record 1024: not empty", edits: []edit{with(record(1024, false, 0))}, code: KEMalformed, part: "record 1024 of 1"},

		{name: "cookies: none", edits: []edit{instead(5)}, code: KENoCookies},
		{name: "cookies: one", edits: []edit{instead(5, record(5, false, make([]byte, 100)...))}, check: jar(1, 100)},
		{name: "cookies: nine", edits: []edit{with(record(5, false, 9))}, check: jar(8, 68)},
		{name: "cookies: one octet", edits: []edit{instead(5, record(5, false, 9))}, check: jar(1, 1)},
		{name: "cookies: no octet", edits: []edit{with(record(5, false))}, code: KEMalformed, part: "cookie of 0"},
		{name: "cookies: as long as fits", edits: []edit{instead(5, record(5, false, make([]byte, maxCookie)...))}, check: jar(1, maxCookie)},
		{name: "cookies: longer", edits: []edit{with(record(5, false, make([]byte, maxCookie+1)...))}, code: KEMalformed, part: "cookie of 1325"},
		{name: "cookies: 65000 octets", edits: []edit{with(record(5, false, make([]byte, 65000)...))}, code: KEMalformed, part: "cookie of 65000"},

		{name: "server: not given", edits: port, check: servers("127.0.0.1:4444")},
		{name: "port: not given", edits: []edit{instead(7)}, check: servers("127.0.0.1:123")},
		{name: "server: IPv4", edits: append(port, with(record(6, true, []byte("192.0.2.1")...))), check: servers("192.0.2.1:4444")},
		{name: "server: not critical", edits: append(port, with(record(6, false, []byte("192.0.2.1")...))), check: servers("192.0.2.1:4444")},
		{name: "server: IPv6", edits: append(port, with(record(6, true, []byte("2001:db8::1")...))), check: servers("[2001:db8::1]:4444")},
		{name: "server: name", edits: append(port, with(record(6, true, []byte("two.test")...))), check: servers("127.0.0.1:4444", "127.0.0.2:4444")},
		{name: "server: absolute name", edits: append(port, with(record(6, true, []byte("one.test.")...))), check: servers("127.0.0.1:4444")},
		{name: "server: itself", edits: append(port, with(record(6, true, []byte("127.0.0.1")...))), check: servers("127.0.0.1:4444")},
		{name: "server: two records", edits: []edit{with(record(6, true, 'a'), record(6, true, 'b'))}, code: KEMalformed, part: "two records of type 6"},
		{name: "port: two records", edits: []edit{with(record(7, true, 0, 123))}, code: KEMalformed, part: "two records of type 7"},
		{name: "port: 0", edits: []edit{instead(7, record(7, true, 0, 0))}, code: KEMalformed, part: "port record 0000"},
		{name: "port: one octet", edits: []edit{instead(7, record(7, true, 123))}, code: KEMalformed, part: "port record 7b"},
		{name: "port: three octets", edits: []edit{instead(7, record(7, true, 0, 0, 123))}, code: KEMalformed, part: "port record 00007b"},
		{name: "port: 60000 octets", edits: []edit{instead(7, record(7, true, make([]byte, 60000)...))}, code: KEMalformed, part: "port record"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := start(t, ntstest.Options{KE: func(all []ntstest.Record) []ntstest.Record {
				for _, e := range test.edits {
					all = e(all)
				}
				return all
			}})
			session, err := KeyExchange(enough(t), clientOf(s))
			wantError(t, err, StageKeyExchange, test.code, test.part)
			if err != nil && session != nil {
				t.Error("a session and an error")
			}
			if test.check != nil && err == nil {
				test.check(t, session)
			}
			clean(t, s)
		})
	}
	for _, bad := range []string{
		"", ".", "..", "a..b", "a b", "a\x00", "\x1b[31mred", "host\n", "ü.test", "a/b", "[::1]", "127.0.0.1:123", "1.2.3", "256.1.1.1",
		"0.0.0.0", "::", "224.0.0.1", "ff02::1", "255.255.255.255", "::ffff:0.0.0.0", "fe80::1%eth0", "fe80::1%\x1b[31m",
		strings.Repeat("a", 64) + ".test", strings.Repeat("a.", 127) + "test", strings.Repeat("\x1b", 65535),
	} {
		t.Run("server: "+strings.ToValidUTF8(bad[:min(len(bad), 20)], "?"), func(t *testing.T) {
			_, err := parseKE(message(name(bad)(answerRecords())))
			wantError(t, err, StageKeyExchange, KEMalformed, "NTP server")
		})
	}
}

// What goes on before there are records: TLS (RFC 8915 §3).
func TestTLS(t *testing.T) {
	raw := func(f func(net.Conn)) func(*ntstest.Options, func()) {
		return func(o *ntstest.Options, _ func()) {
			o.RawConn = func(c net.Conn) bool { f(c); return true }
		}
	}
	config := func(f func(*tls.Config)) func(*ntstest.Options, func()) {
		return func(o *ntstest.Options, _ func()) { o.TLS = f }
	}
	for _, test := range []struct {
		name   string
		behave func(o *ntstest.Options, cancel func())
		code   Code
		part   string
	}{
		{"only TLS 1.2", config(func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS12, tls.VersionTLS12 }), TLSVersion, "no TLS 1.3"},
		{"answers with TLS 1.2", raw(func(c net.Conn) {
			c.Read(make([]byte, 4096))
			hello := append([]byte{2, 0, 0, 38, 3, 3}, make([]byte, 32)...) // ServerHello without extensions
			hello = append(hello, 0, 0xc0, 0x2f, 0)
			c.Write(append([]byte{22, 3, 3, 0, byte(len(hello))}, hello...))
			io.Copy(io.Discard, c)
		}), TLSVersion, "no TLS 1.3"},
		{"no ALPN", config(func(c *tls.Config) { c.NextProtos = nil }), TLSNoALPN, "no ALPN ntske/1"},
		{"another ALPN", config(func(c *tls.Config) { c.NextProtos = []string{"h2"} }), TLSNoALPN, "no ALPN ntske/1"},
		{"another service", raw(func(c net.Conn) { io.WriteString(c, "SSH-2.0-\x1b[31m\r\n"); io.Copy(io.Discard, c) }), TLSFailed, "TLS handshake"},
		{"random octets", raw(func(c net.Conn) { c.Write(bytes.Repeat([]byte{22, 3, 3, 255}, 5000)) }), TLSFailed, "TLS handshake"},
		{"closed at once", raw(func(net.Conn) {}), TLSFailed, "TLS handshake"},
		{"reset", raw(func(c net.Conn) { c.Read(make([]byte, 1)); c.(*net.TCPConn).SetLinger(0); c.Close() }), TLSFailed, "TLS handshake"},
		{"silent", func(o *ntstest.Options, cancel func()) {
			o.RawConn = func(c net.Conn) bool { c.Read(make([]byte, 1)); cancel(); io.Copy(io.Discard, c); return true }
		}, TLSTimeout, "did not end in time"},
		{"good", config(func(*tls.Config) {}), "", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithCancel(enough(t))
			var o ntstest.Options
			test.behave(&o, cancel)
			_, err := KeyExchange(ctx, clientOf(start(t, o)))
			wantError(t, err, StageTLS, test.code, test.part)
		})
	}
}

// What a server can do to the stream of records (RFC 8915 §4).
func TestStream(t *testing.T) {
	filler := func(n int) []ntstest.Record {
		return slices.Repeat([]ntstest.Record{record(4711, false, make([]byte, 1020)...)}, n)
	}
	for _, test := range []struct {
		name   string
		behave func(o *ntstest.Options, cancel func())
		code   Code
		part   string
	}{
		{"64 KiB of unknown records", func(o *ntstest.Options, _ func()) { o.KE = with(filler(64)...) }, "", ""},
		{"one unknown record as long as can be", func(o *ntstest.Options, _ func()) { o.KE = with(record(4711, false, make([]byte, 65535)...)) }, "", ""},
		{"200 KiB of unknown records", func(o *ntstest.Options, _ func()) { o.KE = with(filler(200)...) }, KETooLarge, "131072"},
		{"endless records of no octets", func(o *ntstest.Options, _ func()) {
			o.KERaw = func(c *tls.Conn, _ []ntstest.Record) bool {
				for b := bytes.Repeat([]byte{0x12, 0, 0, 0}, 1<<12); ; {
					if _, err := c.Write(b); err != nil {
						return true
					}
				}
			}
		}, KETooLarge, "131072"},
		{"octet by octet", func(o *ntstest.Options, _ func()) {
			o.KERaw = func(c *tls.Conn, _ []ntstest.Record) bool {
				for _, b := range message(answerRecords()) {
					c.Write([]byte{b})
				}
				return true
			}
		}, "", ""},
		{"slower than there is time", func(o *ntstest.Options, cancel func()) {
			o.KERaw = func(c *tls.Conn, _ []ntstest.Record) bool {
				c.Write([]byte{0x80})
				cancel()
				io.Copy(io.Discard, c)
				return true
			}
		}, KETimeout, "no complete answer in time"},
		{"silent", func(o *ntstest.Options, cancel func()) {
			o.KERaw = func(c *tls.Conn, _ []ntstest.Record) bool {
				cancel()
				io.Copy(io.Discard, c)
				return true
			}
		}, KETimeout, "no complete answer in time"},
		{"closed", func(o *ntstest.Options, _ func()) {
			o.KERaw = func(*tls.Conn, []ntstest.Record) bool { return true }
		}, KEMalformed, "closed the connection without an answer"},
		{"closed within a record", func(o *ntstest.Options, _ func()) {
			o.KERaw = func(c *tls.Conn, _ []ntstest.Record) bool { c.Write(message(answerRecords())[:9]); return true }
		}, KEMalformed, "after 9 octets"},
		{"reset", func(o *ntstest.Options, _ func()) {
			var raw net.Conn
			o.RawConn = func(c net.Conn) bool { raw = c; return false }
			o.KERaw = func(*tls.Conn, []ntstest.Record) bool {
				raw.(*net.TCPConn).SetLinger(0)
				raw.Close()
				return true
			}
		}, KEMalformed, "reading the answer"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithCancel(enough(t))
			var o ntstest.Options
			test.behave(&o, cancel)
			s := start(t, o)
			_, err := KeyExchange(ctx, clientOf(s))
			wantError(t, err, StageKeyExchange, test.code, test.part)
			clean(t, s)
		})
	}
}

// The keys are those of the exporter and its context (RFC 8915 §5.1), and of
// the other context where a server does not say that it keeps to the RFC.
func TestKeys(t *testing.T) {
	type pair struct{ c2s, s2c []byte }
	for _, test := range []struct {
		name    string
		options ntstest.Options
		aead    AEAD
		keys    byte // the AEAD in the context
		other   byte
	}{
		{"15", ntstest.Options{AEADs: []uint16{15}}, SIVCMAC, 15, 0},
		{"30", ntstest.Options{}, GCMSIV, 30, 0},
		{"30 without record 1024", ntstest.Options{NoCompliant: true}, GCMSIV, 15, 30},
	} {
		t.Run(test.name, func(t *testing.T) {
			exported := map[byte]pair{}
			test.options.KERaw = func(c *tls.Conn, _ []ntstest.Record) bool {
				cs := c.ConnectionState()
				for _, id := range []byte{15, 30} {
					var p pair
					p.c2s, _ = cs.ExportKeyingMaterial("EXPORTER-network-time-security", []byte{0, 0, 0, id, 0}, test.aead.keyLen())
					p.s2c, _ = cs.ExportKeyingMaterial("EXPORTER-network-time-security", []byte{0, 0, 0, id, 1}, test.aead.keyLen())
					exported[id] = p
				}
				return false
			}
			session := establish(t, start(t, test.options))
			same := func(k *Keys, p pair) bool { return bytes.Equal(k.C2S, p.c2s) && bytes.Equal(k.S2C, p.s2c) }
			if session.AEAD != test.aead || !same(&session.Keys, exported[test.keys]) {
				t.Errorf("%v: not the keys of context %d", session.AEAD, test.keys)
			}
			if (session.Other != nil) != (test.other != 0) || session.Other != nil && !same(session.Other, exported[test.other]) {
				t.Errorf("the other keys are %v", session.Other)
			}
		})
	}
}

// A server learns by an alert why it is not talked to.
func TestAlertIsSent(t *testing.T) {
	told := make(chan error, 1)
	s := start(t, ntstest.Options{})
	s.Change(func(o *ntstest.Options) {
		cert := o.Certificate
		o.RawConn = func(c net.Conn) bool {
			told <- tls.Server(c, &tls.Config{Certificates: []tls.Certificate{*cert}, NextProtos: []string{alpn}}).Handshake()
			return true
		}
	})
	o := clientOf(s)
	o.Roots = x509.NewCertPool()
	_, err := KeyExchange(enough(t), o)
	wantError(t, err, StageCertificate, CertificateUnknownAuthority, "")
	if err := <-told; err == nil || !strings.Contains(err.Error(), "bad certificate") {
		t.Errorf("the server saw %v", err)
	}
}

// The request leaves in one TLS record, together with the end of the
// handshake, and no session is resumed, though the server gives tickets.
func TestRequestOfKeyExchange(t *testing.T) {
	var resumed, asked bool
	s := start(t, ntstest.Options{
		TLS: func(c *tls.Config) { c.SessionTicketsDisabled = false },
		KERaw: func(c *tls.Conn, request []ntstest.Record) bool {
			asked = len(request) == 4
			resumed = resumed || c.ConnectionState().DidResume
			return false
		},
	})
	o := clientOf(s)
	for range 2 {
		if _, err := KeyExchange(enough(t), o); err != nil {
			t.Fatal(err)
		}
	}
	clean(t, s)
	if stats := s.Stats(); stats.KEWrites != 1 || stats.KESegments != 1 || stats.KeyExchanges != 2 || !asked || resumed {
		t.Errorf("%+v; asked %v, resumed %v", stats, asked, resumed)
	}
}

// A session is ready where the whole of it was made, IPv6 included.
func TestAddresses(t *testing.T) {
	for _, test := range []struct{ listen, ntp string }{
		{"127.0.0.1:0", ""}, {"[::1]:0", ""}, {"127.0.0.1:0", "127.0.0.2:0"}, {"127.0.0.1:0", "[::1]:0"},
	} {
		t.Run(test.listen+" "+test.ntp, func(t *testing.T) {
			if conn, err := net.Listen("tcp", "[::1]:0"); err != nil {
				if strings.Contains(test.listen+test.ntp, "::1") {
					skip(t, "no IPv6 loopback here")
				}
			} else {
				conn.Close()
			}
			s := start(t, ntstest.Options{Listen: test.listen, ListenNTP: test.ntp})
			session := establish(t, s)
			if session.KEAddr != s.KE().Addr() || !slices.Equal(session.Servers, []netip.AddrPort{s.NTP()}) {
				t.Errorf("key exchange with %v, NTP at %v", session.KEAddr, session.Servers)
			}
			if sample, err := session.Exchange(enough(t), Route{}); err != nil || sample.Server != s.NTP() {
				t.Errorf("%+v, %v", sample, err)
			}
		})
	}
}

// Both families in one answer: only the one that was asked for is used.
func TestFamily(t *testing.T) {
	s := start(t, ntstest.Options{KE: with(record(6, true, []byte("both.test")...))})
	for network, want := range map[string][]string{
		"": {"::1", "127.0.0.1", "127.0.0.2"}, "ip4": {"127.0.0.1", "127.0.0.2"}, "ip6": {"::1"},
	} {
		o := clientOf(s)
		o.Network = network
		if network == "ip6" {
			// Only the answer's name is looked up in this family.
			addrs, err := o.lookup(enough(t), "both.test.")
			if err != nil || len(addrs) != 1 || addrs[0].String() != want[0] {
				t.Errorf("%v, %v", addrs, err)
			}
			continue
		}
		session, err := KeyExchange(enough(t), o)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, server := range session.Servers {
			got = append(got, server.Addr().String())
		}
		if !slices.Equal(got, want) {
			t.Errorf("network %q: %q", network, got)
		}
	}
}

// message is what records are on the wire.
func message(records []ntstest.Record) (b []byte) {
	for _, r := range records {
		kind := r.Type
		if r.Critical {
			kind |= critical
		}
		b = binary.BigEndian.AppendUint16(b, kind)
		b = binary.BigEndian.AppendUint16(b, uint16(len(r.Body)))
		b = append(b, r.Body...)
	}
	return b
}

// answerRecords is a good answer that names a server.
func answerRecords() []ntstest.Record {
	return []ntstest.Record{
		record(1, true, 0, 0), record(4, true, 0, 15), record(5, false, make([]byte, 100)...),
		record(6, true, []byte("127.0.0.1")...), record(7, true, 0, 123), record(0, true),
	}
}
