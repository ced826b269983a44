package ntstest

import (
	"bytes"
	"crypto/tls"
	"slices"
	"strings"
	"time"
)

// malformed is what becomes of an answer that is not as the RFC says.
func malformed(part string) Outcome { return failed("ke_malformed", part) }

// recordMalices are of the records of the key exchange, but for those that say
// where NTP is.
func recordMalices() []Malice {
	filler := func(n int) Edit { return With(slices.Repeat([]Record{ordinary(4711, make([]byte, 1020)...)}, n)...) }
	reversed := func(all []Record) []Record { slices.Reverse(all[:len(all)-1]); return all }
	cookies := func(n, length int) Edit {
		return Instead(recordCookie, slices.Repeat([]Record{ordinary(recordCookie, make([]byte, length)...)}, n)...)
	}
	return []Malice{
		{Section: "4", Name: "an unknown record", Behave: edited(With(ordinary(4711, 1))), Outcome: agreed},
		{Section: "4", Name: "an unknown record twice", Behave: edited(With(ordinary(0x4000), ordinary(0x4000))), Outcome: agreed},
		{Section: "4", Name: "an unknown critical record", Behave: edited(With(critical(4711))), Outcome: malformed("critical record of type 4711")},
		{Section: "4", Name: "records in reverse", Behave: edited(reversed), Outcome: agreed},
		{Section: "4", Name: "64 KiB of unknown records", Behave: edited(filler(64)), Outcome: agreed},
		{Section: "4", Name: "one unknown record as long as can be", Behave: edited(With(ordinary(4711, make([]byte, 65535)...))), Outcome: agreed},
		{Section: "4", Name: "200 KiB of unknown records", Behave: edited(filler(200)), Outcome: failed("ke_too_large", "131072")},
		{Section: "4", Name: "endless records of no octets", Behave: talk(func(c *tls.Conn) { endlessly(c, bytes.Repeat([]byte{0x12, 0, 0, 0}, 1<<12)) }), Outcome: failed("ke_too_large", "131072")},
		{Section: "4", Name: "endless zeros", Behave: talk(func(c *tls.Conn) { endlessly(c, make([]byte, 1<<14)) }), Outcome: malformed("")},
		{Section: "4", Name: "HTTP", Behave: talk(func(c *tls.Conn) { c.Write([]byte("HTTP/1.1 200 OK\r\n\r\n\x1b[31m<html>")) }), Outcome: malformed("without End of Message")},

		{Section: "4", Name: "octet by octet", Behave: slowly(0, 0), Outcome: agreed},
		{Section: "4", Name: "an octet now and then", Behave: slowly(200*time.Millisecond, 0), Outcome: failed("ke_timeout", "no complete answer in time")},
		{Section: "4", Name: "silent after the request", Behave: talk(func(c *tls.Conn) { untilClosed(c) }), Outcome: failed("ke_timeout", "no complete answer in time")},
		{Section: "4", Name: "silent within the answer", Behave: slowly(0, 9), Outcome: failed("ke_timeout", "no complete answer in time")},
		{Section: "4", Name: "closed without an answer", Behave: talk(func(*tls.Conn) {}), Outcome: malformed("closed the connection without an answer")},
		{Section: "4", Name: "closed within a record", Behave: talk(func(c *tls.Conn) { c.Write([]byte{0x80, 1, 0, 2, 0, 0, 0x80, 4, 0}) }), Outcome: malformed("after 9 octets")},
		{Section: "4", Name: "reset after the request", Behave: talk(func(c *tls.Conn) { reset(c.NetConn().(*countingConn).Conn) }), Outcome: malformed("reading the answer")},
		{Section: "4", Name: "no TLS any more after the request", Behave: talk(func(c *tls.Conn) {
			c.NetConn().Write(append([]byte{23, 3, 3, 0, 64}, make([]byte, 64)...))
			untilClosed(c)
		}), Outcome: failed("tls_failed", "bad record MAC")},
		{Section: "4", Name: "gone without goodbye after the answer", Behave: func(o *Options) {
			o.KEWrite = func(c *tls.Conn, b []byte) { c.Write(b); c.NetConn().Close() }
		}, Outcome: agreed},

		{Section: "4.1.1", Name: "end: not critical", Behave: edited(Instead(recordEnd, ordinary(recordEnd))), Outcome: malformed("type 0 without its critical bit")},
		{Section: "4.1.1", Name: "end: not empty", Behave: edited(Instead(recordEnd, critical(recordEnd, 1))), Outcome: malformed("End of Message of 1")},
		{Section: "4.1.1", Name: "end: missing", Behave: edited(Instead(recordEnd)), Outcome: malformed("without End of Message")},
		{Section: "4.1.1", Name: "end: records follow", Behave: edited(Instead(recordEnd, critical(recordEnd), ordinary(4711, 1, 2))), Outcome: malformed("6 octets follow End of Message")},
		{Section: "4.1.1", Name: "end: twice", Behave: edited(Instead(recordEnd, critical(recordEnd), critical(recordEnd))), Outcome: malformed("4 octets follow End of Message")},
		{Section: "4.1.1", Name: "end: and nothing else", Behave: edited(func(all []Record) []Record { return all[len(all)-1:] }), Outcome: failed("ke_no_protocol", "")},
		{Section: "4.1.1", Name: "end: first", Behave: edited(func(all []Record) []Record { slices.Reverse(all); return all }), Outcome: malformed("follow End of Message")},

		{Section: "4.1.2", Name: "protocol: none", Behave: edited(Instead(recordNextProtocol)), Outcome: failed("ke_no_protocol", "names no protocol")},
		{Section: "4.1.2", Name: "protocol: empty", Behave: edited(Instead(recordNextProtocol, critical(recordNextProtocol))), Outcome: failed("ke_no_protocol", "does not offer NTPv4")},
		{Section: "4.1.2", Name: "protocol: another", Behave: edited(Instead(recordNextProtocol, critical(recordNextProtocol, 0x80, 1))), Outcome: failed("ke_no_protocol", "8001")},
		{Section: "4.1.2", Name: "protocol: two in one", Behave: edited(Instead(recordNextProtocol, critical(recordNextProtocol, 0, 0, 0, 1))), Outcome: malformed("next protocol record of 4")},
		{Section: "4.1.2", Name: "protocol: two records", Behave: edited(With(critical(recordNextProtocol, 0, 0))), Outcome: malformed("two records of type 1")},
		{Section: "4.1.2", Name: "protocol: odd length", Behave: edited(Instead(recordNextProtocol, critical(recordNextProtocol, 0))), Outcome: malformed("next protocol record of 1")},
		{Section: "4.1.2", Name: "protocol: not critical", Behave: edited(Instead(recordNextProtocol, ordinary(recordNextProtocol, 0, 0))), Outcome: malformed("type 1 without")},

		{Section: "4.1.3", Name: "error 0", Behave: edited(With(critical(recordError, 0, 0))), Outcome: failed("ke_error", "error 0: unrecognized critical record")},
		{Section: "4.1.3", Name: "error 1", Behave: edited(With(critical(recordError, 0, 1))), Outcome: failed("ke_error", "error 1: bad request")},
		{Section: "4.1.3", Name: "error 2, and nothing else", Behave: edited(func(all []Record) []Record { return []Record{critical(recordError, 0, 2), all[len(all)-1]} }), Outcome: failed("ke_error", "error 2: internal server error")},
		{Section: "4.1.3", Name: "error 99", Behave: edited(With(critical(recordError, 0, 99))), Outcome: failed("ke_error", "error 99: which is not known")},
		{Section: "4.1.3", Name: "error: odd length", Behave: edited(With(critical(recordError, 0))), Outcome: malformed("error record of 1")},
		{Section: "4.1.3", Name: "error: not critical", Behave: edited(With(ordinary(recordError, 0, 1))), Outcome: malformed("type 2 without")},
		{Section: "4.1.3", Name: "error: empty", Behave: edited(With(critical(recordError))), Outcome: malformed("error record of 0")},
		{Section: "4.1.4", Name: "warning", Behave: edited(With(critical(recordWarning, 0, 7))), Outcome: failed("ke_warning", "code 7")},
		{Section: "4.1.4", Name: "warning: odd length", Behave: edited(With(critical(recordWarning, 0, 0, 0))), Outcome: malformed("warning record of 3")},
		{Section: "4.1.4", Name: "warning: not critical", Behave: edited(With(ordinary(recordWarning, 0, 1))), Outcome: malformed("type 3 without")},

		{Section: "4.1.5", Name: "AEAD: none", Behave: edited(Instead(recordAEAD)), Outcome: failed("ke_no_aead", "names no AEAD")},
		{Section: "4.1.5", Name: "AEAD: empty, as chronyd has it", Behave: edited(Instead(recordAEAD, critical(recordAEAD))), Outcome: failed("ke_no_aead", "none of the AEAD algorithms offered")},
		{Section: "4.1.5", Name: "AEAD: two in one", Behave: edited(Instead(recordAEAD, critical(recordAEAD, 0, 30, 0, 15))), Outcome: malformed("AEAD record of 4")},
		{Section: "4.1.5", Name: "AEAD: two records", Behave: edited(With(critical(recordAEAD, 0, 15))), Outcome: malformed("two records of type 4")},
		{Section: "4.1.5", Name: "AEAD: odd length", Behave: edited(Instead(recordAEAD, critical(recordAEAD, 15))), Outcome: malformed("AEAD record of 1")},
		{Section: "4.1.5", Name: "AEAD: not offered", Behave: edited(Instead(recordAEAD, critical(recordAEAD, 0, 17))), Outcome: failed("ke_no_aead", "17, which was not offered")},
		{Section: "4.1.5", Name: "AEAD: not critical", Behave: edited(Instead(recordAEAD, ordinary(recordAEAD, 0, 30))), Outcome: agreed},
		{Section: "4.1.5", Name: "AEAD: not the one of the keys", Behave: edited(Instead(recordAEAD, critical(recordAEAD, 0, 15))), Outcome: failed("exchange_nak", ""), Blames: true},
		{Section: "4.1.5", Name: "AEAD: 15 only", Behave: func(o *Options) { o.AEADs = []uint16{15} }, Outcome: agreed},
		{Section: "5.1", Name: "record 1024: not empty", Behave: edited(With(ordinary(recordCompliant, 0))), Outcome: malformed("record 1024 of 1")},
		{Section: "5.1", Name: "record 1024: with AEAD 15", Behave: func(o *Options) { o.AEADs = []uint16{15}; o.KE = With(ordinary(recordCompliant)) }, Outcome: agreed},
		{Section: "5.1", Name: "record 1024: kept to, and not said", Behave: edited(Instead(recordCompliant)), Outcome: agreed, Requests: 2, Blames: true},
		{Section: "5.1", Name: "record 1024: neither, as chrony before 4.6.1", Behave: func(o *Options) { o.NoCompliant = true }, Outcome: agreed},
		{Section: "5.1", Name: "record 1024: said, and not kept to", Behave: func(o *Options) { o.NoCompliant, o.KE = true, With(ordinary(recordCompliant)) }, Outcome: failed("exchange_nak", ""), Blames: true},

		{Section: "4.1.6", Name: "cookies: none", Behave: edited(Instead(recordCookie)), Outcome: failed("ke_no_cookies", "")},
		{Section: "4.1.6", Name: "cookies: one", Behave: func(o *Options) { o.Cookies = 1 }, Outcome: agreed, Cookies: 8},
		{Section: "4.1.6", Name: "cookies: nine", Behave: func(o *Options) { o.Cookies = 9 }, Outcome: agreed, Cookies: 8},
		{Section: "4.1.6", Name: "cookies: a thousand", Behave: func(o *Options) { o.Cookies = 1000 }, Outcome: agreed, Cookies: 8},
		{Section: "4.1.6", Name: "cookies: the same eight times", Behave: edited(func(all []Record) []Record {
			for i := range all {
				if all[i].Type == recordCookie {
					all[i] = all[len(all)-2]
				}
			}
			return all
		}), Outcome: agreed, Cookies: 8},
		{Section: "4.1.6", Name: "cookies: critical", Behave: edited(func(all []Record) []Record {
			for i := range all {
				all[i].Critical = all[i].Critical || all[i].Type == recordCookie
			}
			return all
		}), Outcome: agreed},
		{Section: "4.1.6", Name: "cookies: no octet", Behave: edited(With(ordinary(recordCookie))), Outcome: malformed("cookie of 0")},
		{Section: "4.1.6", Name: "cookies: one octet", Behave: edited(cookies(8, 1)), Outcome: failed("exchange_nak", "NAK")},
		{Section: "4.1.6", Name: "cookies: 101 octets", Behave: func(o *Options) { o.CookieLength = 101 }, Outcome: agreed},
		{Section: "4.1.6", Name: "cookies: 1000 octets", Behave: func(o *Options) { o.CookieLength = 1000 }, Outcome: agreed},
		{Section: "4.1.6", Name: "cookies: 1325 octets, more than fits", Behave: func(o *Options) { o.CookieLength = 1325 }, Outcome: malformed("cookie of 1325")},
		{Section: "4.1.6", Name: "cookies: 65000 octets", Behave: edited(cookies(1, 65000)), Outcome: malformed("cookie of 65000")},
	}
}

// slowly sends the octets of a good answer one by one, and nothing after the
// first so many, if that is not 0.
func slowly(pause time.Duration, stall int) func(*Options) {
	return func(o *Options) {
		o.KEWrite = func(c *tls.Conn, b []byte) {
			for i := range b {
				if stall > 0 && i == stall {
					untilClosed(c)
					return
				}
				time.Sleep(pause)
				if _, err := c.Write(b[i : i+1]); err != nil {
					return
				}
			}
		}
	}
}

// serverMalices are of the records that say where NTP is.
func serverMalices() []Malice {
	at := func(name string) func(*Options) { return edited(With(critical(recordServer, []byte(name)...))) }
	port := func(body ...byte) func(*Options) { return edited(Instead(recordPort, critical(recordPort, body...))) }
	bad := func(name, server string) Malice {
		return Malice{Section: "4.1.7", Name: "server: " + name, Behave: at(server), Outcome: malformed("NTP server")}
	}
	return []Malice{
		{Section: "4.1.7", Name: "server: another address", Behave: func(o *Options) { o.ListenNTP = "127.0.0.2:0" }, Outcome: agreed},
		{Section: "4.1.7", Name: "server: itself", Behave: at("time.test"), Outcome: agreed},
		{Section: "4.1.7", Name: "server: a name", Behave: at("one.test"), Outcome: agreed},
		{Section: "4.1.7", Name: "server: an absolute name", Behave: at("one.test."), Outcome: agreed},
		{Section: "4.1.7", Name: "server: a name with an address where nobody is", Behave: at("both.test"), Outcome: agreed},
		{Section: "4.1.7", Name: "server: a name that does not exist", Behave: at("missing.test"), Outcome: failed("dns_not_found", "the name missing.test. does not exist")},
		{Section: "4.1.7", Name: "server: a name without an answer", Behave: at("silent.test"), Outcome: failed("dns_failed", "in time")},
		{Section: "4.1.7", Name: "server: a name that fails", Behave: at("broken.test"), Outcome: failed("dns_failed", "looking up broken.test.")},
		{Section: "4.1.7", Name: "server: a name with addresses of nobody", Behave: at("none.test"), Outcome: failed("dns_not_found", "none.test.")},
		{Section: "4.1.7", Name: "server: an address where nobody is", Behave: at("127.0.0.9"), Outcome: failed("exchange_timeout", "no answer from 127.0.0.9")},
		{Section: "4.1.7", Name: "server: not critical", Behave: edited(With(ordinary(recordServer, []byte("127.0.0.1")...))), Outcome: agreed},
		{Section: "4.1.7", Name: "server: two records", Behave: edited(With(critical(recordServer, 'a'), critical(recordServer, 'b'))), Outcome: malformed("two records of type 6")},
		bad("empty", ""),
		bad("NUL", "time.test\x00"),
		bad("escape sequences", "\x1b[2J\x1b]0;x\a"),
		bad("two lines", "time.test\nntsclient: all is well"),
		bad("other letters", "tïme.test"),
		bad("with a port", "127.0.0.1:123"),
		bad("part of an address", "127.0.1"),
		bad("unspecified", "0.0.0.0"),
		bad("unspecified, IPv6", "::"),
		bad("multicast", "224.0.1.1"),
		bad("multicast, IPv6", "ff02::101"),
		bad("broadcast", "255.255.255.255"),
		bad("with a zone", "fe80::1%\x1b[31m"),
		bad("300 octets", strings.Repeat("abcdefghi.", 30)),
		bad("65535 octets", strings.Repeat("\x1b", 65535)),
		{Section: "4.1.8", Name: "port: 0", Behave: port(0, 0), Outcome: malformed("port record 0000")},
		{Section: "4.1.8", Name: "port: empty", Behave: port(), Outcome: malformed("port record")},
		{Section: "4.1.8", Name: "port: one octet", Behave: port(123), Outcome: malformed("port record 7b")},
		{Section: "4.1.8", Name: "port: three octets", Behave: port(0, 0, 123), Outcome: malformed("port record 00007b")},
		{Section: "4.1.8", Name: "port: 60000 octets", Behave: port(make([]byte, 60000)...), Outcome: malformed("port record")},
		{Section: "4.1.8", Name: "port: two records", Behave: edited(With(critical(recordPort, 0, 123))), Outcome: malformed("two records of type 7")},
		{Section: "4.1.8", Name: "port: where nobody is", Behave: port(0, 1), Outcome: failed("exchange_timeout", ":1")},
	}
}
