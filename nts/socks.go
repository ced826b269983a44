package nts

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"time"
)

// The numbers of RFC 1928.
const (
	socksVersion   = 5
	methodNone     = 0
	methodPassword = 2
	methodsRefused = 0xff

	commandConnect   = 1
	commandAssociate = 3

	addrIPv4 = 1
	addrName = 3
	addrIPv6 = 4
)

// ErrNoProxy says that the network is missing, perhaps, or that the proxy does
// not run.
var ErrNoProxy = errors.New("the proxy cannot be reached")

// socksReply is a refusal by a proxy (RFC 1928 §6).
type socksReply byte

func (r socksReply) Error() string {
	words := [...]string{
		1: "general failure", "its rules forbid it", "network unreachable", "host unreachable",
		"connection refused", "timeout", "command not supported", "type of address not supported",
	}
	if r == 0 || int(r) >= len(words) {
		return fmt.Sprintf("unknown reply %d", byte(r))
	}
	return words[r]
}

func proxyFailed(format string, args ...any) *Error {
	return fail(StageProxy, ProxyFailed, format, args...)
}

func noUDP(format string, args ...any) *Error {
	return fail(StageProxy, ProxyNoUDP, "the proxy carries no UDP, which time needs: "+format, args...).
		hint("Tor and ssh -D carry none, so that NTS cannot be had through them: take a SOCKS5 proxy with UDP ASSOCIATE")
}

func noAssociation(err error) *Error {
	return proxyFailed("the proxy makes no way for UDP: %w", bare(err)).hint("try again; does it allow UDP ASSOCIATE?")
}

// tunnel is a connection through the proxy.
type tunnel struct {
	net.Conn
	peer netip.Addr // at its other end; not valid: known by name only
}

// Read and Write name no address in their errors.
func (t *tunnel) Read(b []byte) (int, error) {
	n, err := t.Conn.Read(b)
	return n, bare(err)
}

func (t *tunnel) Write(b []byte) (int, error) {
	n, err := t.Conn.Write(b)
	return n, bare(err)
}

// bare is err without the addresses that package net puts before it: among them
// is the proxy's, which what is kept with the state does not name.
func bare(err error) error {
	for op := new(net.OpError); errors.As(err, &op); {
		err = op.Err
	}
	return err
}

// connectVia has the proxy connect to the server by its name, which the proxy
// looks up. Addresses serve only where that fails there.
func (o *Options) connectVia(ctx context.Context) (*tunnel, error) {
	connect := func(ctx context.Context, host string) (*tunnel, error) {
		conn, _, err := o.command(ctx, commandConnect, host, o.Port)
		if err != nil {
			return nil, err
		}
		peer, _ := netip.ParseAddr(host)
		return &tunnel{conn, peer}, nil
	}
	t, err := connect(ctx, strings.TrimSuffix(o.Host, "."))
	var reply socksReply
	if !errors.As(err, &reply) || reply != 1 && reply != 3 && reply != 4 {
		return t, err
	}
	known := o.IPs
	if len(known) == 0 {
		known = o.Fallback
	}
	addrs, none := o.order(o.Host, known)
	if none != nil {
		return nil, err
	}
	conn, err := race(ctx, addrs, func(ctx context.Context, addr netip.Addr) (net.Conn, error) {
		t, err := connect(ctx, addr.String())
		if err != nil {
			return nil, err
		}
		return t, nil
	})
	if err != nil {
		return nil, err
	}
	return conn.(*tunnel), nil
}

// refusedConnect is a failure beyond the proxy, as far as it says so.
func refusedConnect(reply socksReply) *Error {
	switch reply {
	case 1, 3, 4: // many say 1 for whatever fails beyond them
		return fail(StageConnect, ConnectUnreachable, "the proxy cannot resolve or reach it: %w", reply).
			hint("does the proxy know the name, and does the server run? `ips` are tried where the name fails there")
	case 5:
		return fail(StageConnect, ConnectRefused, "by way of the proxy: %w", reply).
			hint("no NTS key exchange there: check the port (4460 is usual)")
	case 6:
		return fail(StageConnect, ConnectTimeout, "by way of the proxy: %w", reply)
	}
	return proxyFailed("the proxy does not connect: %w", reply).
		hint("it has to allow TCP to the key exchange and UDP to the time server")
}

// near is the way to the proxy itself, and to nothing else.
func (r *Route) near() Route { return Route{Bind: r.Bind} }

// toProxy connects to the proxy itself. Errors name neither it nor its address,
// since some are kept with the state.
func (r *Route) toProxy(ctx context.Context) (net.Conn, error) {
	o := &Options{Host: r.Proxy.Host, Port: r.Proxy.Port, Route: r.near()}
	conn, _, err := o.connect(ctx)
	if err == nil {
		return conn, nil
	}
	var e *Error
	var errno syscall.Errno
	words := bare(err).Error()
	switch errors.As(err, &e); {
	case e.Stage == StageInternal:
		e.Err = bare(e.Err)
		return nil, e
	case e.Code == DNSNotFound:
		words = "its name has no address"
	case e.Code == DNSFailed:
		words = "its name cannot be looked up"
	case e.Code == ConnectTimeout:
		words = "no connection in time"
	case errors.As(err, &errno):
		words = errno.Error()
	}
	return nil, proxyFailed("%w: %s", ErrNoProxy, words).hint("nothing was sent another way: see `proxy` and `bind`")
}

// command asks the proxy for one thing, over a new connection. Where that is an
// association, it needs no host, and bound is where its relay is.
func (r *Route) command(ctx context.Context, command byte, host string, port uint16) (_ net.Conn, bound netip.AddrPort, err error) {
	conn, err := r.toProxy(ctx)
	if err != nil {
		return nil, bound, err
	}
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	if command == commandAssociate {
		// We may be seen from elsewhere than here, so that we name no source; but
		// its family, as Dante takes no other than that of the connection.
		if host = "0.0.0.0"; addrOf(conn.RemoteAddr()).Is6() {
			host = "::"
		}
	}
	err = r.Proxy.greet(conn)
	greeted := err == nil
	if greeted {
		bound, err = request5(conn, command, host, port)
	}
	if stop() && err == nil { // else its deadline is over
		return conn, bound, nil
	}
	conn.Close()
	var ours *Error
	switch {
	case errors.As(err, &ours): // the proxy said so
	case ctx.Err() != nil && greeted && command == commandConnect:
		err = fail(StageConnect, ConnectTimeout, "by way of the proxy: no connection in time").
			hint("does the server run, and is TCP to that port filtered behind the proxy?")
	case ctx.Err() != nil:
		err = proxyFailed("the proxy did not answer in time").hint("does it run, and does it allow UDP ASSOCIATE?")
	default:
		err = proxyFailed("talking to the proxy: %w", bare(err))
	}
	return nil, bound, err
}

// greet agrees on a method and makes us known by it (RFC 1928 §3, RFC 1929).
func (p *Proxy) greet(conn io.ReadWriter) error {
	methods := []byte{socksVersion, 1, methodNone}
	if p.User != "" {
		methods = []byte{socksVersion, 2, methodNone, methodPassword}
	}
	var answer [2]byte
	if err := ask(conn, methods, answer[:]); err != nil {
		return err
	}
	switch {
	case answer[0] != socksVersion:
		return proxyFailed("what answers there is no SOCKS5 proxy")
	case answer[1] == methodNone:
		return nil
	case answer[1] == methodPassword && p.User != "":
	case answer[1] == methodsRefused && p.User == "", answer[1] == methodPassword:
		return proxyFailed("the proxy lets nobody in without user and password").hint("write socks5h://user:password@host:port")
	default:
		return proxyFailed("the proxy takes no method of authentication that there is here (it says %d)", answer[1])
	}
	login := append([]byte{1, byte(len(p.User))}, p.User...)
	login = append(append(login, byte(len(p.Password))), p.Password...)
	if err := ask(conn, login, answer[:]); err != nil {
		return err
	}
	if answer[1] != 0 {
		return proxyFailed("the proxy refuses user and password")
	}
	return nil
}

// request5 makes a request and reads what the proxy says to it (RFC 1928 §4, §6).
func request5(conn io.ReadWriter, command byte, host string, port uint16) (bound netip.AddrPort, err error) {
	var answer [3]byte
	err = ask(conn, appendTarget([]byte{socksVersion, command, 0}, host, port), answer[:])
	reply := socksReply(answer[1])
	switch {
	case errors.Is(err, io.EOF) && command == commandAssociate: // as OpenSSH does
		return bound, noUDP("it closes the connection when asked for it")
	case err != nil && command == commandAssociate && !timedOut(err):
		return bound, noAssociation(err)
	case err != nil:
		return bound, err
	case answer[0] != socksVersion:
		return bound, proxyFailed("what answers there is no SOCKS5 proxy")
	case reply == 2 && command == commandAssociate:
		return bound, noUDP("%w", reply).hint("its rules have to allow UDP ASSOCIATE, and the answers")
	case reply == 7 && command == commandAssociate:
		return bound, noUDP("%w", reply)
	case reply != 0 && command == commandAssociate: // which may be otherwise the next time
		return bound, noAssociation(reply)
	case reply != 0:
		return bound, refusedConnect(reply)
	}
	return readAddr(conn)
}

func timedOut(err error) bool {
	var nerr net.Error
	return errors.As(err, &nerr) && nerr.Timeout()
}

// ask writes b in one go and reads as many octets as answer has.
func ask(conn io.ReadWriter, b, answer []byte) error {
	if _, err := conn.Write(b); err != nil {
		return err
	}
	_, err := io.ReadFull(conn, answer)
	return err
}

// appendTarget appends type, address and port (RFC 1928 §5).
func appendTarget(b []byte, host string, port uint16) []byte {
	addr, err := netip.ParseAddr(host)
	switch addr = addr.Unmap(); {
	case err != nil: // of at most 253 octets
		b = append(append(b, addrName, byte(len(host))), host...)
	case addr.Is4():
		b = append(append(b, addrIPv4), addr.AsSlice()...)
	default:
		b = append(append(b, addrIPv6), addr.AsSlice()...)
	}
	return binary.BigEndian.AppendUint16(b, port)
}

// readAddr reads what appendTarget appends. Of a name only the port is returned.
func readAddr(r io.Reader) (netip.AddrPort, error) {
	var b [255 + 2]byte
	if _, err := io.ReadFull(r, b[:1]); err != nil {
		return netip.AddrPort{}, err
	}
	kind, n := b[0], 0
	switch kind {
	case addrIPv4:
		n = 4
	case addrIPv6:
		n = 16
	case addrName:
		if _, err := io.ReadFull(r, b[:1]); err != nil {
			return netip.AddrPort{}, err
		}
		n = int(b[0])
	default:
		return netip.AddrPort{}, proxyFailed("the proxy sends an address of the unknown type %d", kind)
	}
	if _, err := io.ReadFull(r, b[:n+2]); err != nil {
		return netip.AddrPort{}, err
	}
	var addr netip.Addr
	if kind != addrName {
		addr, _ = netip.AddrFromSlice(b[:n])
	}
	return netip.AddrPortFrom(addr.Unmap(), binary.BigEndian.Uint16(b[n:])), nil
}
