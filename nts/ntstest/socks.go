package ntstest

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
)

// The commands of SOCKS5 that the proxy has (RFC 1928 §4).
const (
	SocksConnect   = 1
	SocksAssociate = 3
)

// ProxyOptions say how a SOCKS5 proxy behaves. The zero value is an honest one.
type ProxyOptions struct {
	Listen         string            // host:port; default 127.0.0.1:0
	From           string            // address that it sends from; default 127.0.0.9
	User, Password string            // that it wants; both empty: none
	Names          map[string]string // the only ones that it can resolve, with their addresses

	Raw    func(net.Conn) bool                               // takes a connection over; false: go on
	Refuse func(command byte, host string, port uint16) byte // the reply to a request; 0: go on
	Bound  func(relay netip.AddrPort) []byte                 // type, address and port that it gives for its relay
	Ends   func(n int) bool                                  // does it end the association instead of relaying its n-th datagram (from 0)?
	Back   func(head, answer []byte) [][]byte                // what is sent to the client instead of an answer
}

// ProxyRequest is what a proxy was asked.
type ProxyRequest struct {
	Command byte
	Host    string // as the client wrote it: name or address
	Port    uint16
	User    string
}

// ProxyStats is what a proxy has seen since its start.
type ProxyStats struct {
	Connections int
	Requests    []ProxyRequest
	Datagrams   []ProxyRequest // as far as one says where it is to go
	Bad         []string       // what no right client does
}

// A Proxy serves SOCKS5 from StartProxy to Close (RFC 1928, RFC 1929). It is
// strict about what it is sent, and resolves nothing but Names.
type Proxy struct {
	listener net.Listener
	ctx      context.Context
	cancel   context.CancelFunc
	wg       sync.WaitGroup

	mu      sync.Mutex
	options ProxyOptions
	open    map[io.Closer]bool
	sources map[netip.AddrPort]bool // of datagrams: a new one for each (RFC 9109)
	relayed int
	stats   ProxyStats
}

// StartProxy listens and serves.
func StartProxy(o ProxyOptions) (*Proxy, error) {
	if o.Listen == "" {
		o.Listen = "127.0.0.1:0"
	}
	if o.From == "" {
		o.From = "127.0.0.9"
	}
	listener, err := net.Listen("tcp", o.Listen)
	if err != nil {
		return nil, fmt.Errorf("listening for SOCKS: %w", err)
	}
	p := &Proxy{listener: listener, options: o, open: map[io.Closer]bool{}, sources: map[netip.AddrPort]bool{}}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	p.wg.Go(p.serve)
	return p, nil
}

// Addr is where it listens.
func (p *Proxy) Addr() netip.AddrPort { return p.listener.Addr().(*net.TCPAddr).AddrPort() }

// Change changes the behaviour from the next connection or datagram on.
func (p *Proxy) Change(edit func(*ProxyOptions)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	edit(&p.options)
}

// Stats tells what the proxy has seen.
func (p *Proxy) Stats() ProxyStats {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.stats
	s.Requests, s.Datagrams, s.Bad = slices.Clone(s.Requests), slices.Clone(s.Datagrams), slices.Clone(s.Bad)
	return s
}

// Close stops the proxy, and all that goes through it.
func (p *Proxy) Close() error {
	p.cancel()
	err := p.listener.Close()
	p.mu.Lock()
	for c := range maps.Keys(p.open) {
		c.Close()
	}
	p.mu.Unlock()
	p.wg.Wait()
	return err
}

func (p *Proxy) get() ProxyOptions {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.options
}

// keep has Close close c, and closes it when the function that it returns is
// called.
func (p *Proxy) keep(c io.Closer) (done func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open[c] = true
	if p.ctx.Err() != nil {
		c.Close()
	}
	return func() {
		c.Close()
		p.mu.Lock()
		delete(p.open, c)
		p.mu.Unlock()
	}
}

func (p *Proxy) note(edit func(*ProxyStats)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	edit(&p.stats)
}

func (p *Proxy) bad(format string, args ...any) {
	p.note(func(s *ProxyStats) { s.Bad = append(s.Bad, fmt.Sprintf(format, args...)) })
}

func (p *Proxy) serve() {
	for {
		conn, err := p.listener.Accept()
		if err != nil {
			return // closed
		}
		p.note(func(s *ProxyStats) { s.Connections++ })
		done := p.keep(conn)
		p.wg.Go(func() {
			defer done()
			o := p.get()
			if o.Raw != nil && o.Raw(conn) {
				return
			}
			if err := p.talk(conn, o); err != nil {
				p.bad("%v", err)
			}
		})
	}
}

// talk serves one connection. Its errors are the client's faults.
func (p *Proxy) talk(conn net.Conn, o ProxyOptions) error {
	user, ok, err := greet(conn, o)
	if err != nil || !ok {
		return err
	}
	head := make([]byte, 3)
	if _, err := io.ReadFull(conn, head); err != nil {
		return nil // it went away
	}
	host, port, err := readTarget(conn)
	var f fault
	switch {
	case head[0] != 5 || head[2] != 0 || errors.As(err, &f):
		return fmt.Errorf("request %x: %w", head, err)
	case err != nil:
		return nil // it went away
	}
	p.note(func(s *ProxyStats) { s.Requests = append(s.Requests, ProxyRequest{head[1], host, port, user}) })
	reply := func(code byte, bound []byte) { conn.Write(append([]byte{5, code, 0}, bound...)) }
	if o.Refuse != nil {
		if code := o.Refuse(head[1], host, port); code != 0 {
			reply(code, target(netip.AddrPort{}))
			return nil
		}
	}
	switch head[1] {
	case SocksConnect:
		return p.connect(conn, host, port, o, reply)
	case SocksAssociate:
		unspecified := "0.0.0.0" // in the family of the connection, as Dante wants it
		if p.Addr().Addr().Is6() {
			unspecified = "::"
		}
		if host != unspecified || port != 0 {
			return fmt.Errorf("an association for %s port %d", host, port)
		}
		return p.associate(conn, o, reply)
	}
	return fmt.Errorf("command %d", head[1])
}

// greet agrees on a method, and tells who it is.
func greet(conn net.Conn, o ProxyOptions) (user string, ok bool, err error) {
	head := make([]byte, 2)
	if _, err := io.ReadFull(conn, head); err != nil {
		return "", false, nil
	}
	methods := make([]byte, head[1])
	if _, err := io.ReadFull(conn, methods); err != nil {
		return "", false, nil
	}
	if head[0] != 5 {
		return "", false, fmt.Errorf("greeting %x %x", head, methods)
	}
	want := byte(0)
	if o.User != "" {
		want = 2
	}
	if !slices.Contains(methods, want) {
		conn.Write([]byte{5, 0xff})
		return "", false, nil
	}
	conn.Write([]byte{5, want})
	if want == 0 {
		return "", true, nil
	}
	part := func() string { // RFC 1929 §2
		length := make([]byte, 1)
		io.ReadFull(conn, length)
		b := make([]byte, length[0])
		io.ReadFull(conn, b)
		return string(b)
	}
	version := make([]byte, 1)
	if _, err := io.ReadFull(conn, version); err != nil {
		return "", false, nil
	}
	if version[0] != 1 {
		return "", false, fmt.Errorf("authentication of version %d", version[0])
	}
	user, password := part(), part()
	if user != o.User || password != o.Password {
		conn.Write([]byte{1, 1})
		return user, false, nil
	}
	conn.Write([]byte{1, 0})
	return user, true, nil
}

// fault is one of the client's.
type fault string

func (f fault) Error() string { return string(f) }

// readTarget reads type, address and port. What is an address must not be sent
// as a name.
func readTarget(r io.Reader) (host string, port uint16, err error) {
	kind := make([]byte, 1)
	if _, err := io.ReadFull(r, kind); err != nil {
		return "", 0, err
	}
	length := map[byte]int{1: 4, 4: 16}[kind[0]]
	if kind[0] == 3 {
		if _, err := io.ReadFull(r, kind); err != nil {
			return "", 0, err
		}
		length, kind[0] = int(kind[0]), 3
	}
	if length == 0 {
		return "", 0, fault(fmt.Sprintf("an address of type %d and no octets", kind[0]))
	}
	b := make([]byte, length+2)
	if _, err := io.ReadFull(r, b); err != nil {
		return "", 0, err
	}
	host, port = string(b[:length]), binary.BigEndian.Uint16(b[length:])
	if kind[0] == 3 {
		if _, err := netip.ParseAddr(host); err == nil {
			return "", 0, fault("the address " + host + " as a name")
		}
		return host, port, nil
	}
	addr, _ := netip.AddrFromSlice(b[:length])
	return addr.String(), port, nil
}

// target writes type, address and port.
func target(a netip.AddrPort) []byte {
	addr := a.Addr().Unmap()
	b := []byte{1, 0, 0, 0, 0}
	switch {
	case addr.Is4():
		b = append(b[:1], addr.AsSlice()...)
	case addr.Is6():
		b = append([]byte{4}, addr.AsSlice()...)
	}
	return binary.BigEndian.AppendUint16(b, a.Port())
}

// resolve is where host is.
func (o *ProxyOptions) resolve(host string, port uint16) (netip.AddrPort, bool) {
	if at, ok := o.Names[host]; ok {
		host = at
	}
	addr, err := netip.ParseAddr(host)
	return netip.AddrPortFrom(addr, port), err == nil
}

func (p *Proxy) connect(conn net.Conn, host string, port uint16, o ProxyOptions, reply func(byte, []byte)) error {
	at, ok := o.resolve(host, port)
	if !ok {
		reply(4, target(netip.AddrPort{}))
		return nil
	}
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(o.From)}}
	out, err := d.DialContext(p.ctx, "tcp", at.String())
	if err != nil {
		reply(5, target(netip.AddrPort{}))
		return nil
	}
	done := p.keep(out)
	defer done()
	reply(0, target(out.LocalAddr().(*net.TCPAddr).AddrPort()))
	// Copied without the pipes of the library's short cut: with the
	// race detector it forgets some, which looks like a leak.
	p.wg.Go(func() {
		io.Copy(struct{ io.Writer }{out}, conn)
		done()
		conn.Close()
	})
	io.Copy(struct{ io.Writer }{conn}, out)
	return nil
}
