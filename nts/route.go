package nts

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"syscall"
)

// Route is the way that packets take: through which proxy, and from where. The
// zero Route is direct, as the system routes. A session's cookies are never to
// be sent by another proxy than that of its key exchange, or without it: that
// would link the two.
type Route struct {
	Proxy *Proxy // for both legs; nil: none
	Bind  Bind
}

// Proxy is a SOCKS5 proxy that carries TCP and UDP (RFC 1928).
type Proxy struct {
	Host           string // name or address; the only name that is looked up here
	Port           uint16
	User, Password string // RFC 1929: 1 to 255 octets each; both empty: none
}

// Bind is what sockets are bound to; of the zero Bind, to nothing.
type Bind struct {
	Interface string     // its name; empty: any
	Addr      netip.Addr // source address; the zero one: any
}

// errAround is a defect of ours that came to nothing.
var errAround = errors.New("nothing goes around the proxy")

// dial opens a socket. Nothing else in this package does, and nothing else asks
// the resolver than resolve: so that, where there is a proxy, nobody but the
// proxy is ever sent anything.
func (r *Route) dial(ctx context.Context, network string, to netip.AddrPort) (net.Conn, error) {
	if r.Proxy != nil {
		return nil, fail(StageInternal, Internal, "%w", errAround)
	}
	var d net.Dialer
	if a := r.Bind.Addr; a.IsValid() {
		d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(a, 0))
		if network == "udp" {
			d.LocalAddr = net.UDPAddrFromAddrPort(netip.AddrPortFrom(a, 0))
		}
	}
	if name := r.Bind.Interface; name != "" {
		d.Control = func(_, _ string, conn syscall.RawConn) (err error) {
			if cerr := conn.Control(func(fd uintptr) { err = bindToInterface(fd, name) }); cerr != nil {
				return cerr
			}
			return err
		}
	}
	conn, err := d.DialContext(ctx, network, to.String())
	if err != nil {
		return nil, r.Bind.explain(err)
	}
	return conn, nil
}

func (r *Route) resolve(ctx context.Context, network, host string) ([]netip.Addr, error) {
	if r.Proxy != nil {
		return nil, errAround
	}
	return net.DefaultResolver.LookupNetIP(ctx, network, host)
}

// dialTCP connects to the first of addrs that takes it. Attempts start a
// stagger apart, or as soon as the one before failed, and then run side by
// side (RFC 8305 §5).
func (r *Route) dialTCP(ctx context.Context, addrs []netip.Addr, port uint16) (net.Conn, error) {
	return race(ctx, addrs, func(ctx context.Context, addr netip.Addr) (net.Conn, error) {
		return r.dial(ctx, "tcp", netip.AddrPortFrom(addr, port))
	})
}

// dialUDP makes a socket with a new random port (RFC 9109), that hears nobody
// else. It does not wait.
func (r *Route) dialUDP(to netip.AddrPort) (*net.UDPConn, error) {
	conn, err := r.dial(context.Background(), "udp", to)
	if err != nil {
		return nil, noSocket(StageExchange, err)
	}
	return conn.(*net.UDPConn), nil
}

// fits tells whether the source address can send to addr.
func (b *Bind) fits(addr netip.Addr) bool {
	return !b.Addr.IsValid() || b.Addr.Unmap().Is4() == addr.Unmap().Is4()
}

// explain says what is wrong with what sockets are to be bound to, if that is
// why there is none.
func (b *Bind) explain(err error) error {
	failed := func(format string, args ...any) *Error {
		return fail(StageConnect, ConnectUnreachable, "`bind`: "+format, args...)
	}
	switch {
	case b.Interface != "" && errors.Is(err, syscall.ENODEV):
		return failed("this machine has no network interface %s", b.Interface).hint("`ip link` lists those that it has")
	case b.Interface != "" && errors.Is(err, syscall.EPERM):
		return failed("this kernel lets only root use the network interface %s", b.Interface).hint("give its address instead")
	case b.Interface != "" && errors.Is(err, errors.ErrUnsupported):
		return failed("on this system only an address can be bound to, not the network interface %s", b.Interface).
			hint("give its address instead")
	case b.Addr.IsValid() && errors.Is(err, syscall.EADDRNOTAVAIL):
		return failed("%s is no address of this machine", b.Addr).hint("`ip address` lists those that it has")
	}
	return err
}
