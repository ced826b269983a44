package nts

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
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

// with puts records before End of Message, and instead replaces all of a type.
var with, instead = ntstest.With, ntstest.Instead

// What a session takes from the records of an answer (RFC 8915 §4.1.6 to §4.1.8).
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
	name := func(s string) ntstest.Edit { return instead(6, record(6, true, []byte(s)...)) }
	port := []ntstest.Edit{instead(7, record(7, true, 0x11, 0x5c))} // 4444
	for _, test := range []struct {
		name  string
		edits []ntstest.Edit
		check func(*testing.T, *Session)
	}{
		{name: "cookies: one", edits: []ntstest.Edit{instead(5, record(5, false, make([]byte, 100)...))}, check: jar(1, 100)},
		{name: "cookies: nine", edits: []ntstest.Edit{with(record(5, false, 9))}, check: jar(8, 68)},
		{name: "cookies: one octet", edits: []ntstest.Edit{instead(5, record(5, false, 9))}, check: jar(1, 1)},
		{name: "cookies: as long as fits", edits: []ntstest.Edit{instead(5, record(5, false, make([]byte, maxCookie)...))}, check: jar(1, maxCookie)},

		{name: "server: not given", edits: port, check: servers("127.0.0.1:4444")},
		{name: "port: not given", edits: []ntstest.Edit{instead(7)}, check: servers("127.0.0.1:123")},
		{name: "server: IPv4", edits: append(port, with(record(6, true, []byte("192.0.2.1")...))), check: servers("192.0.2.1:4444")},
		{name: "server: not critical", edits: append(port, with(record(6, false, []byte("192.0.2.1")...))), check: servers("192.0.2.1:4444")},
		{name: "server: IPv6", edits: append(port, with(record(6, true, []byte("2001:db8::1")...))), check: servers("[2001:db8::1]:4444")},
		{name: "server: name", edits: append(port, with(record(6, true, []byte("two.test")...))), check: servers("127.0.0.1:4444", "127.0.0.2:4444")},
		{name: "server: absolute name", edits: append(port, with(record(6, true, []byte("one.test.")...))), check: servers("127.0.0.1:4444")},
		{name: "server: itself", edits: append(port, with(record(6, true, []byte("127.0.0.1")...))), check: servers("127.0.0.1:4444")},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := start(t, ntstest.Options{KE: func(all []ntstest.Record) []ntstest.Record {
				for _, e := range test.edits {
					all = e(all)
				}
				return all
			}})
			test.check(t, establish(t, s))
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
