package ntstest

import (
	"crypto/cipher"
	"encoding/binary"
	"net/netip"
	"slices"
	"time"
)

func (s *Server) serveNTP() {
	buffer := make([]byte, 1<<16)
	for n := 0; ; n++ {
		length, from, err := s.ntp.ReadFromUDPAddrPort(buffer)
		if err != nil {
			return // closed
		}
		o := s.get()
		received := o.clock()
		datagram := slices.Clone(buffer[:length])
		s.mu.Lock()
		s.stats.Requests++
		s.stats.Octets = length
		if len(s.requests) < 1000 {
			s.requests = append(s.requests, datagram)
		}
		s.mu.Unlock()
		s.wg.Go(func() { s.serveRequest(n, datagram, from, received, o) })
	}
}

// clock is what the server takes for the time.
func (o *Options) clock() time.Time { return o.Now().Add(o.Offset) }

func (s *Server) serveRequest(n int, datagram []byte, from netip.AddrPort, received time.Time, o Options) {
	r, err := parseRequest(datagram)
	if err != nil {
		s.bad("request: %v", err)
		return
	}
	s.remember(datagram, r)
	if o.Loss != nil && o.Loss(n) {
		return
	}
	if o.Delay > 0 {
		if !s.sleep(o.Delay / 2) {
			return
		}
		received = o.clock()
	}
	answer := s.answer(datagram, r, received, o)
	if answer == nil || o.Delay > 0 && !s.sleep(o.Delay/2) {
		return
	}
	answers := [][]byte{answer}
	if o.Answer != nil {
		answers = o.Answer(datagram, answer)
	}
	for _, b := range answers {
		s.from.WriteToUDPAddrPort(b, from)
	}
}

// remember notes what must be new in each request.
func (s *Server) remember(datagram []byte, r *request) {
	s.count(func(stats *Stats) { stats.Placeholders = r.placeholders })
	if s.sawBefore("uid", r.uid) {
		s.bad("request: a unique identifier for the second time")
	}
	if s.sawBefore("transmit", datagram[40:48]) {
		s.bad("request: a transmit timestamp for the second time")
	}
	if s.sawBefore("cookie", r.cookie) {
		s.count(func(stats *Stats) { stats.Replayed++ })
	}
}

// answer makes the answer to a well-formed request, or nil.
func (s *Server) answer(datagram []byte, r *request, received time.Time, o Options) []byte {
	p := o.packet(datagram, r.uid, received)
	aead, k := s.open(r, &o)
	if aead == nil || o.Kiss == "NTSN" {
		s.count(func(stats *Stats) { stats.NAKs++ })
		p.kiss("NTSN")
		return p.encode()
	}
	if o.Kiss != "" {
		p.kiss(o.Kiss)
	}
	if o.Kiss != "" && o.KissBare {
		return p.encode()
	}
	for range 1 + r.placeholders {
		cookie, err := s.cookie(k, o.CookieLength)
		if err != nil {
			s.bad("making a cookie: %v", err)
			return nil
		}
		p.Encrypted = append(p.Encrypted, Field{fieldCookie, cookie})
	}
	p.Nonce = random(nonceLength(k.aead))
	p.Transmit = stamp(o.clock())
	if o.Seal != nil {
		o.Seal(p)
	}
	s.count(func(stats *Stats) { stats.Answers++ })
	return p.seal(aead)
}

// open authenticates a request, and gives the AEAD that seals its answer. It is
// nil where the client is due a NAK (RFC 8915 §5.7).
func (s *Server) open(r *request, o *Options) (cipher.AEAD, keys) {
	k, err := s.openCookie(r.cookie)
	if err != nil {
		return nil, k // from before Rekey: not the client's fault
	}
	c2s, err := newAEAD(k.aead, k.c2s)
	if err != nil {
		s.bad("request: %v", err)
		return nil, k
	}
	if len(r.nonce) != nonceLength(k.aead) {
		s.bad("request: a nonce of %d octets for AEAD %d", len(r.nonce), k.aead)
		return nil, k
	}
	plain, err := c2s.Open(nil, r.nonce, r.sealed, r.authenticated)
	if err != nil {
		s.bad("request: the authenticator does not open: %v", err)
		return nil, k
	}
	if len(plain) > 0 {
		s.bad("request: %d octets encrypted", len(plain))
		return nil, k
	}
	key := k.s2c
	if o.Key != nil {
		key = o.Key(k.c2s, k.s2c)
	}
	s2c, err := newAEAD(k.aead, key)
	if err != nil {
		s.bad("request: %v", err)
		return nil, k
	}
	return s2c, k
}

// packet is the answer to a request, with no cookies yet.
func (o *Options) packet(datagram, uid []byte, received time.Time) *Packet {
	return &Packet{
		Leap: o.Leap, Version: 4, Mode: 4, Stratum: o.Stratum,
		Poll: int8(datagram[2]), Precision: -25,
		RootDelay: short(o.RootDelay), RootDispersion: short(o.RootDispersion),
		RefID:     [4]byte{'T', 'E', 'S', 'T'},
		Reference: stamp(received.Add(-time.Second)),
		Origin:    binary.BigEndian.Uint64(datagram[40:]),
		Receive:   stamp(received),
		Transmit:  stamp(received),
		Fields:    []Field{{fieldUID, uid}},
	}
}

// kiss makes the packet a kiss-o'-death (RFC 5905 §7.4).
func (p *Packet) kiss(code string) {
	p.Leap, p.Stratum = 3, 0
	copy(p.RefID[:], code)
}
