package ntstest

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
)

// associate relays datagrams until the connection ends.
func (p *Proxy) associate(conn net.Conn, o ProxyOptions, reply func(byte, []byte)) error {
	listen := func(addr string) (*net.UDPConn, error) {
		return net.ListenUDP("udp", &net.UDPAddr{IP: net.ParseIP(addr)})
	}
	relay, err := listen(p.Addr().Addr().String())
	if err != nil {
		return err
	}
	defer p.keep(relay)()
	out, err := listen(o.From)
	if err != nil {
		return err
	}
	defer p.keep(out)()
	at := relay.LocalAddr().(*net.UDPAddr).AddrPort()
	bound := target(at)
	if o.Bound != nil {
		bound = o.Bound(at)
	}
	client := conn.RemoteAddr().(*net.TCPAddr).AddrPort().Addr()
	p.wg.Go(func() { p.relay(conn, relay, out, client) })
	reply(0, bound)
	if n, _ := conn.Read(make([]byte, 1)); n > 0 {
		return errors.New("the client talks over an association's connection")
	}
	return nil
}

// relay sends on what comes from the client, and back what comes for it.
func (p *Proxy) relay(control net.Conn, relay, out *net.UDPConn, client netip.Addr) {
	var from netip.AddrPort
	b := make([]byte, 1<<16)
	for n := 0; ; n++ {
		length, source, err := relay.ReadFromUDPAddrPort(b)
		if err != nil {
			return // the association is over
		}
		o := p.get()
		at, payload := p.takeIn(b[:length], source, client, n, o)
		p.mu.Lock()
		count := p.relayed
		p.relayed++
		p.mu.Unlock()
		if o.Ends != nil && o.Ends(count) {
			control.Close()
			return
		}
		if !at.IsValid() {
			continue
		}
		if from = source; n == 0 {
			p.wg.Go(func() { p.back(relay, out, from) })
		}
		out.WriteToUDPAddrPort(payload, at)
	}
}

// takeIn checks a datagram of the client, and says where its payload goes.
func (p *Proxy) takeIn(b []byte, source netip.AddrPort, client netip.Addr, n int, o ProxyOptions) (at netip.AddrPort, payload []byte) {
	p.mu.Lock()
	again := p.sources[source]
	p.sources[source] = true
	p.mu.Unlock()
	switch {
	case source.Addr().Unmap() != client.Unmap():
		p.bad("a datagram from %v to the association of %v", source, client)
	case n > 0 || again:
		p.bad("a second datagram from %v", source)
	}
	if len(b) < 4 || b[0]|b[1]|b[2] != 0 {
		p.bad("a datagram with the head %x", b[:min(len(b), 4)])
		return at, nil
	}
	r := &counted{b: b[3:]}
	host, port, err := readTarget(r)
	if err != nil {
		p.bad("a datagram: %v", err)
		return at, nil
	}
	p.note(func(s *ProxyStats) { s.Datagrams = append(s.Datagrams, ProxyRequest{0, host, port, ""}) })
	at, ok := o.resolve(host, port)
	if !ok {
		return netip.AddrPort{}, nil
	}
	return at, r.b
}

// counted reads, and keeps what is left.
type counted struct{ b []byte }

func (c *counted) Read(b []byte) (int, error) {
	if len(c.b) == 0 {
		return 0, io.EOF
	}
	n := copy(b, c.b)
	c.b = c.b[n:]
	return n, nil
}

// back sends answers to the client.
func (p *Proxy) back(relay, out *net.UDPConn, client netip.AddrPort) {
	b := make([]byte, 1<<16)
	for {
		n, from, err := out.ReadFromUDPAddrPort(b)
		if err != nil {
			return
		}
		head := append([]byte{0, 0, 0}, target(from)...)
		packets := [][]byte{slices.Concat(head, b[:n])}
		if o := p.get(); o.Back != nil {
			packets = o.Back(head, slices.Clone(b[:n]))
		}
		for _, packet := range packets {
			relay.WriteToUDPAddrPort(packet, client)
		}
	}
}
