package ntstest

import (
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"
)

// A Path carries NTP packets to a server and back, as networks do: some are
// lost, and some are answered on the way. Clients find it where the key
// exchange says that the server is.
type Path struct {
	// Lost tells whether a packet is lost, to the server (forth) or from it.
	Lost func(forth bool, packet []byte) bool
	// Reply is what answers a request in place of the server; nil: nothing, and
	// the request goes on.
	Reply func(request []byte) []byte

	near   *net.UDPConn
	far    netip.AddrPort
	mu     sync.Mutex
	away   map[netip.AddrPort]*net.UDPConn // towards the server, by client
	closed bool
	seen   [][]byte
	wg     sync.WaitGroup
}

// Carry puts the path before a server, whose key exchange names it from then
// on.
func (p *Path) Carry(s *Server) error {
	if err := p.Connect(netip.AddrPortFrom(s.NTP().Addr(), 0), s.NTP()); err != nil {
		return err
	}
	port := uint16Octets(p.near.LocalAddr().(*net.UDPAddr).AddrPort().Port())
	s.Change(func(o *Options) {
		o.KE = func(records []Record) []Record {
			for i := range records {
				if records[i].Type == recordPort {
					records[i].Body = port
				}
			}
			return records
		}
	})
	return nil
}

// Connect makes near the end of the path at which clients find the server that
// is at far.
func (p *Path) Connect(near, far netip.AddrPort) (err error) {
	p.near, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(near))
	if err != nil {
		return err
	}
	p.far, p.away = far, map[netip.AddrPort]*net.UDPConn{}
	p.wg.Go(p.forth)
	return nil
}

// Requests are the packets that clients sent, in their order.
func (p *Path) Requests() [][]byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([][]byte{}, p.seen...)
}

// Close ends it, and waits until nothing of it runs.
func (p *Path) Close() error {
	err := p.near.Close()
	p.mu.Lock()
	p.closed = true
	for _, conn := range p.away {
		err = errors.Join(err, conn.Close())
	}
	p.mu.Unlock()
	p.wg.Wait()
	return err
}

func (p *Path) forth() {
	buffer := make([]byte, 1<<16)
	for {
		n, client, err := p.near.ReadFromUDPAddrPort(buffer)
		if err != nil {
			return
		}
		packet := append([]byte{}, buffer[:n]...)
		p.mu.Lock()
		p.seen = append(p.seen, packet)
		p.mu.Unlock()
		if p.Lost != nil && p.Lost(true, packet) {
			continue
		}
		if p.Reply != nil {
			if reply := p.Reply(packet); reply != nil {
				p.near.WriteToUDPAddrPort(reply, client)
				continue
			}
		}
		if conn := p.to(client); conn != nil {
			conn.Write(packet)
		}
	}
}

// to is the socket by which a client's packets go on.
func (p *Path) to(client netip.AddrPort) *net.UDPConn {
	p.mu.Lock()
	defer p.mu.Unlock()
	conn := p.away[client]
	if conn != nil || p.closed {
		return conn
	}
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(p.far))
	if err != nil {
		return nil
	}
	p.away[client] = conn
	p.wg.Go(func() {
		buffer := make([]byte, 1<<16)
		for {
			n, err := conn.Read(buffer)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil && (p.Lost == nil || !p.Lost(false, buffer[:n])) {
				p.near.WriteToUDPAddrPort(buffer[:n], client)
			}
		}
	})
	return conn
}

// PlainAnswer is what a server or router without NTS answers to a request. To
// one with NTS it answers as well, as if there were nothing in it; nil: that is
// no request.
func PlainAnswer(request []byte) []byte {
	if len(request) < headerLength || request[0]&7 != 3 {
		return nil
	}
	o := Options{Stratum: 3}
	p := o.packet(request, nil, time.Now())
	p.Fields = nil
	return p.encode()
}
