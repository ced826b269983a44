package ntstest

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"time"
)

// tlsMalices are of TLS, up to the request.
func tlsMalices() []Malice {
	version := func(v uint16) func(*Options) {
		return config(func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS10, v })
	}
	alert := func(level, code byte) []byte { return []byte{21, 3, 3, 0, 2, level, code} }
	hello := func(version, method byte) []byte { // without extensions
		b := append([]byte{2, 0, 0, 38, 3, version}, make([]byte, 32)...)
		b = append(b, 0, 0xc0, 0x2f, method)
		return append([]byte{22, 3, 3, 0, byte(len(b))}, b...)
	}
	tooLong := append([]byte{22, 3, 3, 0x40, 0, 2, 0xff, 0xff, 0xff}, make([]byte, 1<<14-4)...)
	const text = "HTTP/1.1 400 Bad Request\r\nServer: \x1b[31mnginx\r\nContent-Length: 0\r\n\r\n"
	return []Malice{
		{Section: "3", Name: "TLS 1.2 only", Behave: version(tls.VersionTLS12), Outcome: failed("tls_version", "no TLS 1.3")},
		{Section: "3", Name: "TLS 1.0 only", Behave: version(tls.VersionTLS10), Outcome: failed("tls_version", "no TLS 1.3")},
		{Section: "3", Name: "TLS 1.2 chosen, which was not offered", Behave: afterHello(hello(3, 0)...), Outcome: failed("tls_version", "no TLS 1.3")},
		{Section: "3", Name: "SSL 3 chosen, which was not offered", Behave: afterHello(hello(0, 0)...), Outcome: failed("tls_version", "no TLS 1.3")},
		{Section: "3", Name: "no ALPN", Behave: config(func(c *tls.Config) { c.NextProtos = nil }), Outcome: failed("tls_no_alpn", "no ALPN ntske/1")},
		{Section: "3", Name: "another ALPN", Behave: config(func(c *tls.Config) { c.NextProtos = []string{"h2"} }), Outcome: failed("tls_no_alpn", "no ALPN ntske/1")},
		{Section: "3", Name: "an ALPN that looks alike", Behave: config(func(c *tls.Config) { c.NextProtos = []string{"ntske/2", "NTSKE/1"} }), Outcome: failed("tls_no_alpn", "")},
		{Section: "3", Name: "a client certificate is demanded", Behave: config(func(c *tls.Config) { c.ClientAuth = tls.RequireAnyClientCert }), Outcome: failed("tls_failed", "certificate required")},
		{Section: "3", Name: "a client certificate is asked for", Behave: config(func(c *tls.Config) { c.ClientAuth = tls.RequestClientCert }), Outcome: agreed},
		{Section: "3", Name: "session tickets", Behave: config(func(c *tls.Config) { c.SessionTicketsDisabled = false }), Outcome: agreed},
		{Section: "3", Name: "another curve is asked for", Behave: config(func(c *tls.Config) { c.CurvePreferences = []tls.CurveID{tls.CurveP521} }), Outcome: agreed},
		{Section: "3", Name: "a curve that was not offered", Behave: config(func(c *tls.Config) { c.CurvePreferences = []tls.CurveID{tls.X25519MLKEM768} }), Outcome: failed("tls_failed", "handshake")},

		{Section: "3", Name: "octets that are no TLS", Behave: afterHello(bytes.Repeat([]byte{22, 3, 3, 255}, 5000)...), Outcome: failed("tls_failed", "TLS handshake")},
		{Section: "3", Name: "plain HTTP", Behave: afterHello([]byte(text)...), Outcome: failed("tls_failed", "TLS handshake")},
		{Section: "3", Name: "a banner before anything was asked", Behave: raw(func(c net.Conn) { io.WriteString(c, "SSH-2.0-\x1b[31m\r\n"); untilClosed(c) }), Outcome: failed("tls_failed", "TLS handshake")},
		{Section: "3", Name: "the client's own hello", Behave: raw(func(c net.Conn) { io.Copy(c, c) }), Outcome: failed("tls_failed", "TLS handshake")},
		{Section: "3", Name: "alert: handshake failure", Behave: afterHello(alert(2, 40)...), Outcome: failed("tls_failed", "handshake failure")},
		{Section: "3", Name: "alert: protocol version", Behave: afterHello(alert(2, 70)...), Outcome: failed("tls_version", "no TLS 1.3")},
		{Section: "3", Name: "alert: unrecognized name", Behave: afterHello(alert(2, 112)...), Outcome: failed("tls_failed", "unrecognized name")},
		{Section: "3", Name: "alert: of no known kind", Behave: afterHello(alert(2, 255)...), Outcome: failed("tls_failed", "TLS handshake")},
		{Section: "3", Name: "alert: close notify", Behave: afterHello(alert(1, 0)...), Outcome: failed("tls_failed", "TLS handshake")},
		{Section: "3", Name: "endless warnings", Behave: raw(func(c net.Conn) { endlessly(c, bytes.Repeat(alert(1, 90), 500)) }), Outcome: failed("tls_failed", "TLS handshake")},
		{Section: "3", Name: "endless changes of cipher", Behave: raw(func(c net.Conn) { endlessly(c, bytes.Repeat([]byte{20, 3, 3, 0, 1, 1}, 500)) }), Outcome: failed("tls_failed", "TLS handshake")},
		{Section: "3", Name: "a hello of 16 MB", Behave: raw(func(c net.Conn) { endlessly(c, tooLong) }), Outcome: failed("tls_failed", "TLS handshake")},
		{Section: "3", Name: "a hello with compression", Behave: afterHello(hello(3, 1)...), Outcome: failed("tls_version", "")},
		{Section: "3", Name: "a changed octet of the hello", Behave: wrapped(wire{flip: 20}), Outcome: failed("tls_failed", "TLS handshake")},
		{Section: "3", Name: "a changed octet of the certificate", Behave: wrapped(wire{flip: 400}), Outcome: failed("tls_failed", "bad record MAC")},

		{Section: "3", Name: "closed at once", Behave: raw(func(net.Conn) {}), Outcome: failed("tls_failed", "TLS handshake")},
		{Section: "3", Name: "closed after the hello", Behave: raw(func(c net.Conn) { c.Read(make([]byte, 4096)) }), Outcome: failed("tls_failed", "TLS handshake")},
		{Section: "3", Name: "reset after the hello", Behave: raw(func(c net.Conn) { c.Read(make([]byte, 4096)); reset(c) }), Outcome: failed("tls_failed", "TLS handshake")},
		{Section: "3", Name: "reset within the handshake", Behave: wrapped(wire{stall: 300, cut: true}), Outcome: failed("tls_failed", "TLS handshake")},

		{Section: "3", Name: "silent from the start", Behave: raw(untilClosed), Outcome: failed("tls_timeout", "did not end in time")},
		{Section: "3", Name: "silent after 3 octets", Behave: wrapped(wire{stall: 3}), Outcome: failed("tls_timeout", "did not end in time")},
		{Section: "3", Name: "silent within the hello", Behave: wrapped(wire{stall: 60}), Outcome: failed("tls_timeout", "did not end in time")},
		{Section: "3", Name: "silent within the certificate", Behave: wrapped(wire{stall: 400}), Outcome: failed("tls_timeout", "did not end in time")},
		{Section: "3", Name: "a handshake octet by octet, too slow", Behave: wrapped(wire{size: 1, pause: 100 * time.Millisecond}), Outcome: failed("tls_timeout", "did not end in time")},
		{Section: "3", Name: "a handshake octet by octet", Behave: wrapped(wire{size: 1}), Outcome: agreed},
	}
}
