package nts

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"time"
)

const (
	alpn          = "ntske/1"
	exporterLabel = "EXPORTER-network-time-security"
)

// KeyExchange makes a new session (RFC 8915 §4). It takes as long as ctx lets
// it. Its errors are *Error.
func KeyExchange(ctx context.Context, o *Options) (*Session, error) {
	raw, peer, err := o.connect(ctx)
	if err != nil {
		return nil, err
	}
	defer raw.Close()
	// What is under way when ctx ends, ends with it.
	stop := context.AfterFunc(ctx, func() { raw.SetDeadline(time.Unix(1, 0)) })
	defer stop()

	s := &Session{Placeholders: maxJar - 1}
	conn, err := o.handshake(ctx, raw, s)
	if err != nil {
		return nil, err
	}
	answer, err := talk(conn)
	if err != nil {
		if ctx.Err() != nil {
			return nil, fail(StageKeyExchange, KETimeout, "no complete answer in time")
		}
		return nil, err
	}
	if err := s.keep(conn, answer); err != nil {
		return nil, err
	}
	s.KEAddr = peer
	if err := o.locate(ctx, s, answer); err != nil {
		return nil, err
	}
	return s, nil
}

// handshake ends with a TLS 1.3 connection to the right server, and puts its
// chain into s.
func (o *Options) handshake(ctx context.Context, raw net.Conn, s *Session) (*tls.Conn, error) {
	held := &holding{Conn: raw}
	conn := tls.Client(held, &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: []string{alpn},
		ServerName: strings.TrimSuffix(o.Host, "."),
		// No post-quantum key share: it would take the first flight over one
		// packet, to keep secret for decades what authenticates for weeks.
		CurvePreferences: []tls.CurveID{tls.X25519, tls.CurveP256, tls.CurveP384, tls.CurveP521},
		// The library's own verification is replaced by ours, which knows
		// pins and can put the dates off, and not left out.
		InsecureSkipVerify: true,
		VerifyConnection: func(cs tls.ConnectionState) error {
			now := time.Now()
			chain, deferred, err := o.verify(cs.PeerCertificates, now)
			if err != nil {
				return err
			}
			if deferred && !o.DeferDates {
				return dateError(chain, now)
			}
			s.Chain = *chain
			return nil
		},
	})
	if err := conn.HandshakeContext(ctx); err != nil {
		held.flush() // the alert that tells the server why
		return nil, o.tlsError(ctx, err)
	}
	if conn.ConnectionState().NegotiatedProtocol != alpn {
		return nil, noALPN()
	}
	return conn, nil
}

// holding is a connection that sends only when an answer is waited for, so
// that the request leaves together with the end of the handshake.
type holding struct {
	net.Conn
	unsent []byte
}

func (h *holding) Write(b []byte) (int, error) {
	h.unsent = append(h.unsent, b...)
	return len(b), nil
}

func (h *holding) Read(b []byte) (int, error) {
	if err := h.flush(); err != nil {
		return 0, err
	}
	return h.Conn.Read(b)
}

func (h *holding) flush() error {
	if len(h.unsent) == 0 {
		return nil
	}
	_, err := h.Conn.Write(h.unsent)
	h.unsent = h.unsent[:0]
	return err
}

func noALPN() *Error {
	return fail(StageTLS, TLSNoALPN, "the server does not speak NTS key exchange (no ALPN %s)", alpn).
		hint("another service listens on that port, or someone is in between")
}

// The library has types neither for the alerts of RFC 8446 §6 nor for a server
// that answers with an older version: these are its words for them.
const (
	alertProtocolVersion = "tls: protocol version not supported"
	alertNoALPN          = "tls: no application protocol"
	olderVersion         = "tls: server selected unsupported protocol version"
)

func (o *Options) tlsError(ctx context.Context, err error) *Error {
	var ours *Error
	var errno syscall.Errno
	said := func(words string) bool { return strings.Contains(err.Error(), words) }
	switch {
	case errors.As(err, &ours):
		return ours
	case said(alertNoALPN):
		return noALPN()
	case said(alertProtocolVersion), said(olderVersion):
		return fail(StageTLS, TLSVersion, "the server has no TLS 1.3, which NTS needs")
	case ctx.Err() != nil:
		return fail(StageTLS, TLSTimeout, "the TLS handshake did not end in time")
	case o.Proxy != nil && (errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.As(err, &errno)):
		return fail(StageTLS, TLSFailed, "the connection by way of the proxy ended in the TLS handshake: %w", err).
			hint("the proxy ended it, or the server: do both run?")
	}
	return fail(StageTLS, TLSFailed, "TLS handshake: %w", err)
}

// talk sends the request, in one TLS record and one TCP write, and reads up to
// End of Message.
func talk(conn *tls.Conn) (*keAnswer, error) {
	if _, err := conn.Write(keRequest); err != nil {
		return nil, fail(StageKeyExchange, KEMalformed, "sending the request: %w", err)
	}
	buf := make([]byte, 0, 2048)
	at := 0
	for {
		buf = slices.Grow(buf, 512)
		n, err := conn.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		var ended bool
		switch at, ended = scan(buf, at); {
		case errors.Is(err, io.EOF) && len(buf) == 0:
			return nil, fail(StageKeyExchange, KEMalformed, "the server closed the connection without an answer").
				hint("it may have run out of patience: chronyd waits for 2 seconds")
		case ended, errors.Is(err, io.EOF):
			return parseKE(buf)
		case len(buf) > maxMessage:
			return nil, fail(StageKeyExchange, KETooLarge, "the answer is longer than %d octets", maxMessage)
		case err != nil:
			return nil, readError(err)
		}
	}
}

// readError is why no more could be read. TLS may still fail then: a server that
// wants a certificate of the client says so only after the handshake.
func readError(err error) *Error {
	var op *net.OpError
	if errors.As(err, &op) && (op.Op == "remote error" || op.Op == "local error") { // of crypto/tls: an alert
		return fail(StageTLS, TLSFailed, "TLS after the handshake: %w", err)
	}
	return fail(StageKeyExchange, KEMalformed, "reading the answer: %w", err)
}

// keep takes the keys from the TLS session (RFC 8915 §5.1).
func (s *Session) keep(conn *tls.Conn, answer *keAnswer) error {
	cs := conn.ConnectionState()
	export := func(context AEAD) (k Keys, err error) {
		label := func(direction byte) []byte {
			return []byte{0, protocolNTPv4, byte(context >> 8), byte(context), direction}
		}
		k.C2S, err = cs.ExportKeyingMaterial(exporterLabel, label(0), answer.aead.keyLen())
		if err == nil {
			k.S2C, err = cs.ExportKeyingMaterial(exporterLabel, label(1), answer.aead.keyLen())
		}
		return k, err
	}
	var err error
	s.AEAD, s.Cookies = answer.aead, answer.cookies
	if s.Keys, err = export(answer.aead); err == nil && answer.aead == GCMSIV && !answer.compliant {
		// chrony before 4.6.1 exports with the number of the other algorithm.
		s.Other = new(Keys)
		*s.Other = s.Keys
		s.Keys, err = export(SIVCMAC)
	}
	if err != nil {
		return fail(StageInternal, Internal, "exporting keys: %w", err)
	}
	return nil
}

// locate says where to send requests: where the answer says, else to the
// address that the key exchange went to (§4.1.7).
func (o *Options) locate(ctx context.Context, s *Session, answer *keAnswer) error {
	addrs, host := []netip.Addr{s.KEAddr}, strings.TrimSuffix(o.Host, ".")
	elsewhere := answer.server != "" && !strings.EqualFold(answer.server, host)
	if elsewhere {
		host = answer.server
	}
	switch {
	case !elsewhere && s.KEAddr.IsValid():
	case o.Proxy != nil && !isAddr(host):
		s.Host, s.Port = host, answer.port // for the proxy to look up
		return nil
	default:
		if !isAddr(host) {
			host += "." // absolute: no search list (§4.1.7)
		}
		var err error
		if addrs, err = o.lookup(ctx, host); err != nil {
			return fail(stageOf(err), CodeOf(err), "the NTP server that the key exchange names: %w", err)
		}
	}
	for _, addr := range addrs {
		s.Servers = append(s.Servers, netip.AddrPortFrom(addr, answer.port))
	}
	return nil
}

func isAddr(host string) bool {
	_, err := netip.ParseAddr(host)
	return err == nil
}

// stageOf is the stage of the Error in err's chain.
func stageOf(err error) Stage {
	var e *Error
	errors.As(err, &e)
	return e.Stage
}
