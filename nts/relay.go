package nts

import (
	"bytes"
	"context"
	"net"
	"net/netip"
	"sync/atomic"
	"time"
)

// association is one for UDP at a proxy (RFC 1928 §7). It lives as long as the
// connection that it was asked for over. A nil one is none: packets go out as
// they are.
type association struct {
	control net.Conn
	at      netip.AddrPort // where the proxy takes our packets
	head    []byte         // before each of them
	ended   atomic.Bool
}

// associate asks the proxy for a new association, so that each request has new
// ports at both ends (RFC 9109). Its relay is to be at the proxy's own address.
func (r *Route) associate(ctx context.Context) (*association, error) {
	control, at, err := r.command(ctx, commandAssociate, "", 0)
	if err != nil {
		return nil, err
	}
	// Nothing protects what it says: who can change that must not have us send
	// straight to a time server.
	addr, proxy := at.Addr(), addrOf(control.RemoteAddr())
	switch {
	case !addr.IsValid() || at.Port() == 0:
		err = proxyFailed("the proxy names no address to send UDP to")
	case !addr.IsUnspecified() && addr != proxy.WithZone(""): // unspecified: where it is itself
		err = proxyFailed("the proxy names another address than its own as its relay: nothing is sent there").
			hint("it has to relay UDP where it is reached; behind NAT it may name 0.0.0.0")
	}
	if err != nil {
		control.Close()
		return nil, err
	}
	return &association{control: control, at: netip.AddrPortFrom(proxy, at.Port())}, nil
}

// connectBoth has the proxy connect to the key exchange and, at the same time,
// asks it for an association. It ends when both are there: keys are of no use
// without UDP, so that a proxy without it never costs a server their exchange.
func (o *Options) connectBoth(ctx context.Context) (*tunnel, error) {
	within, cancel := context.WithCancel(ctx)
	defer cancel()
	granted := make(chan error, 1)
	go func() {
		via, err := o.associate(within)
		if err == nil {
			via.control.Close()
		} else {
			cancel()
		}
		granted <- err
	}()
	t, err := o.connectVia(within)
	inTime := within.Err() == nil
	noUDP := <-granted
	switch {
	case noUDP == nil, err != nil && inTime && ctx.Err() != nil: // that is only late
		return t, err
	case t != nil:
		t.Close()
	}
	return nil, noUDP
}

// socket makes the socket for one request: new, and so with a new random port
// (RFC 9109). It is connected, so that it hears only whom it is for.
func (s *Session) socket(ctx context.Context, route *Route) (*exchange, error) {
	if route.Proxy == nil && len(s.Servers) == 0 {
		return nil, fail(StageInternal, Internal, "this session is of a proxy")
	}
	if route.Proxy == nil {
		conn, err := route.dialUDP(s.Servers[0])
		if err != nil {
			return nil, err
		}
		return newExchange(conn), nil
	}
	via, err := route.associate(ctx)
	if err != nil {
		return nil, err
	}
	host, port := s.target()
	via.head = appendTarget([]byte{0, 0, 0}, host, port)
	near := route.near()
	socket, err := near.dial(context.Background(), "udp", via.at) // which does not wait
	if err != nil {
		via.control.Close()
		return nil, noSocket(StageExchange, bare(err))
	}
	conn := socket.(*net.UDPConn)
	x := newExchange(conn)
	x.via = via
	go via.watch(conn)
	return x, nil
}

// watch ends the waiting for an answer when the association has ended. A proxy
// has nothing to say on its connection: what it says is as good as its end.
func (r *association) watch(conn *net.UDPConn) {
	r.control.Read(make([]byte, 1))
	r.ended.Store(true)
	conn.SetReadDeadline(time.Unix(1, 0))
}

// over is why nothing comes any more, or is to be sent.
func (r *association) over() error {
	if r == nil || !r.ended.Load() {
		return nil
	}
	return proxyFailed("the proxy ended the association for UDP").
		hint("is it running? nothing was sent another way")
}

// overhead is what each packet is longer by.
func (r *association) overhead() int {
	if r == nil {
		return 0
	}
	return len(r.head)
}

// unwrap takes the head off a packet. Fragments are dropped, as RFC 1928 §7
// allows. Where the head says that it comes from proves nothing, and some proxies
// write 0.0.0.0 there: whether it is the answer, its authentication tells.
func (r *association) unwrap(b []byte) (raw []byte, ok bool) {
	if r == nil {
		return b, true
	}
	if len(b) < 3 || b[2] != 0 {
		return nil, false
	}
	rest := bytes.NewReader(b[3:])
	if _, err := readAddr(rest); err != nil {
		return nil, false
	}
	return b[len(b)-rest.Len():], true
}

// write sends a request.
func (x *exchange) write(raw []byte) error {
	if err := x.via.over(); err != nil {
		return err
	}
	if x.via != nil {
		raw = append(x.via.head[:len(x.via.head):len(x.via.head)], raw...)
	}
	_, err := x.conn.Write(raw)
	switch {
	case err == nil:
		return nil
	case x.via != nil:
		err = bare(err)
	}
	return noSocket(StageExchange, err)
}

func (x *exchange) close() {
	x.conn.Close()
	if x.via != nil {
		x.via.control.Close() // which ends the association
	}
}
