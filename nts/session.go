package nts

import (
	"bytes"
	"crypto/cipher"
	"net/netip"
	"slices"
)

// Keys are the two keys of a session: client to server and back.
type Keys struct {
	C2S []byte `json:"c2s"`
	S2C []byte `json:"s2c"`
}

// Session is what a key exchange leaves: whom to ask, and with which keys and
// cookies. One goroutine uses it at a time. It can be stored as JSON.
type Session struct {
	AEAD AEAD `json:"aead"`
	Keys Keys `json:"keys"`
	// Other are the keys to change to if the first reply is a NAK: servers
	// differ in how they export those of AEAD 30.
	Other   *Keys            `json:"other,omitempty"`
	Cookies [][]byte         `json:"cookies"` // the oldest first; never sent twice
	Servers []netip.AddrPort `json:"servers"` // NTP; the first is tried next
	KEAddr  netip.Addr       `json:"ke_addr"` // where the key exchange went

	// Host is the NTP server where only the proxy knows its address, on Port;
	// then there are no Servers and, most likely, no KEAddr.
	Host string `json:"host,omitempty"`
	Port uint16 `json:"port,omitempty"`

	Chain Chain `json:"chain"`

	// Placeholders is how many the next request may carry: none after a loss,
	// and one more with each answer. RFC 8915 §5.7 says SHOULD to as many as
	// the jar lacks; but networks filter large NTP packets, and a client that
	// asks for more after each loss grows until nothing passes.
	Placeholders int `json:"placeholders"`
	Largest      int `json:"largest"` // octets of the largest request that was answered

	seal, open cipher.AEAD // of Keys; made when first used
}

// Ready tells whether a request can be sent.
func (s *Session) Ready() bool { return len(s.Cookies) > 0 && (len(s.Servers) > 0 || s.Host != "") }

// server is where the next request goes, which is not valid where only the
// proxy knows it.
func (s *Session) server() netip.AddrPort {
	if len(s.Servers) == 0 {
		return netip.AddrPort{}
	}
	return s.Servers[0]
}

// target is the same for the proxy, and for people.
func (s *Session) target() (host string, port uint16) {
	if at := s.server(); at.IsValid() {
		return at.Addr().String(), at.Port()
	}
	return s.Host, s.Port
}

// take takes a cookie out of the jar, for good.
func (s *Session) take() []byte {
	c := s.Cookies[0]
	s.Cookies = s.Cookies[1:]
	return c
}

// put adds what an answer brought, as far as the jar has room.
func (s *Session) put(cookies [][]byte) {
	for _, c := range cookies {
		if len(s.Cookies) < maxJar && !holds(s.Cookies, c) {
			s.Cookies = append(s.Cookies, c)
		}
	}
}

// holds tells whether a cookie is there already: one that a server gives twice
// would be sent twice.
func holds(jar [][]byte, cookie []byte) bool {
	return slices.ContainsFunc(jar, func(c []byte) bool { return bytes.Equal(c, cookie) })
}

// ciphers makes the two directions' ciphers of the keys in use.
func (s *Session) ciphers() (err error) {
	if s.seal != nil && s.open != nil {
		return nil
	}
	if s.seal, err = s.AEAD.new(s.Keys.C2S); err != nil {
		return err
	}
	s.open, err = s.AEAD.new(s.Keys.S2C)
	return err
}

// swap changes to the other keys.
func (s *Session) swap() {
	s.Keys, *s.Other = *s.Other, s.Keys
	s.seal, s.open = nil, nil
}

// answered notes that a request of size octets came through.
func (s *Session) answered(size int, cookies [][]byte) {
	s.Other = nil
	s.Largest = max(s.Largest, size)
	s.Placeholders = min(s.Placeholders+1, maxJar-1)
	s.put(cookies)
}

// lost notes that no good answer came: the next request is small, and goes to
// the next address.
func (s *Session) lost() {
	s.Placeholders = 0
	if len(s.Servers) == 0 {
		return
	}
	s.Servers = append(s.Servers[1:len(s.Servers):len(s.Servers)], s.Servers[0])
}
