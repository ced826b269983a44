package ntstest

import (
	"bytes"
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// Extension fields of NTS (RFC 8915 §5).
const (
	fieldUID           = 0x0104
	fieldCookie        = 0x0204
	fieldPlaceholder   = 0x0304
	fieldAuthenticator = 0x0404
)

const headerLength = 48

// A Field is an NTP extension field (RFC 7822). Where it is sent, its body is
// padded with zeros to a multiple of 4 octets, and to 12 at least.
type Field struct {
	Type uint16
	Body []byte
}

func (f Field) append(b []byte) []byte {
	body := append([]byte{}, f.Body...)
	for len(body)%4 != 0 || len(body) < 12 {
		body = append(body, 0)
	}
	b = binary.BigEndian.AppendUint16(b, f.Type)
	b = binary.BigEndian.AppendUint16(b, uint16(4+len(body)))
	return append(b, body...)
}

func appendFields(b []byte, fields []Field) []byte {
	for _, f := range fields {
		b = f.append(b)
	}
	return b
}

// readField takes the first field off b.
func readField(b []byte) (f Field, rest []byte, err error) {
	if len(b) < 16 {
		return f, nil, fmt.Errorf("an extension field of %d octets", len(b))
	}
	n := int(binary.BigEndian.Uint16(b[2:]))
	if n < 16 || n%4 != 0 || n > len(b) {
		return f, nil, fmt.Errorf("an extension field of length %d where %d octets are left", n, len(b))
	}
	return Field{binary.BigEndian.Uint16(b), b[4:n]}, b[n:], nil
}

// A Packet is an answer before it is sealed.
type Packet struct {
	Leap, Version, Mode, Stratum         uint8
	Poll, Precision                      int8
	RootDelay, RootDispersion            uint32 // NTP short format: units of 2^-16 s
	RefID                                [4]byte
	Reference, Origin, Receive, Transmit uint64 // NTP timestamps: units of 2^-32 s since 1900, modulo 2^64

	Fields    []Field // in clear, before the authenticator
	Encrypted []Field // inside it
	Inner     []byte  // inside it in place of these, unless nil
	After     []Field // behind it: nobody vouches for these
	Nonce     []byte
}

// encode writes header and fields as they are, without an authenticator.
func (p *Packet) encode() []byte {
	b := []byte{p.Leap<<6 | p.Version<<3 | p.Mode, p.Stratum, byte(p.Poll), byte(p.Precision)}
	b = binary.BigEndian.AppendUint32(b, p.RootDelay)
	b = binary.BigEndian.AppendUint32(b, p.RootDispersion)
	b = append(b, p.RefID[:]...)
	for _, stamp := range []uint64{p.Reference, p.Origin, p.Receive, p.Transmit} {
		b = binary.BigEndian.AppendUint64(b, stamp)
	}
	return appendFields(b, p.Fields)
}

// seal writes the packet with its authenticator (RFC 8915 §5.6).
func (p *Packet) seal(aead cipher.AEAD) []byte {
	b := p.encode()
	inner := p.Inner
	if inner == nil {
		inner = appendFields(nil, p.Encrypted)
	}
	sealed := aead.Seal(nil, p.Nonce, inner, b)
	body := binary.BigEndian.AppendUint16(nil, uint16(len(p.Nonce)))
	body = binary.BigEndian.AppendUint16(body, uint16(len(sealed)))
	body = append(body, p.Nonce...)
	body = append(body, make([]byte, padding(len(p.Nonce)))...)
	body = append(body, sealed...)
	b = Field{fieldAuthenticator, body}.append(b)
	return appendFields(b, p.After)
}

// padding fills n octets up to a multiple of 4.
func padding(n int) int { return -n & 3 }

// A request, taken apart. All point into the datagram.
type request struct {
	uid, cookie   []byte
	placeholders  int
	authenticated []byte // the associated data
	nonce, sealed []byte
}

// parseRequest takes a client's datagram apart, and refuses whatever no right
// client sends.
func parseRequest(b []byte) (*request, error) {
	if err := checkHeader(b); err != nil {
		return nil, err
	}
	r := &request{}
	var empty [][]byte // placeholders
	for rest := b[headerLength:]; len(rest) > 0; {
		if r.authenticated != nil {
			return nil, errors.New("octets after the authenticator")
		}
		f, next, err := readField(rest)
		switch {
		case err != nil:
			return nil, err
		case f.Type == fieldUID && r.uid == nil:
			r.uid = f.Body
		case f.Type == fieldCookie && r.cookie == nil:
			r.cookie = f.Body
		case f.Type == fieldPlaceholder:
			empty = append(empty, f.Body)
		case f.Type == fieldAuthenticator:
			r.authenticated = b[:len(b)-len(rest)]
			if err := r.parseAuthenticator(f.Body); err != nil {
				return nil, err
			}
		default:
			return nil, fmt.Errorf("an unexpected or second extension field %#04x", f.Type)
		}
		rest = next
	}
	r.placeholders = len(empty)
	return r, r.check(empty)
}

// checkHeader: version 4, mode client, and nothing of the client's own but a
// random transmit timestamp (RFC 8915 §9.1).
func checkHeader(b []byte) error {
	if len(b) < headerLength {
		return fmt.Errorf("%d octets are no NTP packet", len(b))
	}
	if b[0] != 4<<3|3 {
		return fmt.Errorf("leap, version and mode are %#02x", b[0])
	}
	if b[1] != 0 || !bytes.Equal(b[4:40], make([]byte, 36)) {
		return fmt.Errorf("the header says something of the client: %x", b[:40])
	}
	if binary.BigEndian.Uint64(b[40:]) == 0 {
		return errors.New("no transmit timestamp")
	}
	return nil
}

// parseAuthenticator: RFC 8915 §5.6.
func (r *request) parseAuthenticator(body []byte) error {
	nonce := int(binary.BigEndian.Uint16(body))
	sealed := int(binary.BigEndian.Uint16(body[2:]))
	start := 4 + nonce + padding(nonce)
	if start+sealed+padding(sealed) != len(body) {
		return fmt.Errorf("an authenticator of %d octets with a nonce of %d and a ciphertext of %d", len(body), nonce, sealed)
	}
	r.nonce, r.sealed = body[4:4+nonce], body[start:start+sealed]
	return nil
}

func (r *request) check(placeholders [][]byte) error {
	switch {
	case r.authenticated == nil:
		return errors.New("no authenticator")
	case len(r.uid) < 32:
		return fmt.Errorf("a unique identifier of %d octets", len(r.uid))
	case r.cookie == nil:
		return errors.New("no cookie")
	case len(placeholders) > 7:
		return fmt.Errorf("%d placeholders", len(placeholders))
	}
	for _, p := range placeholders {
		if !bytes.Equal(p, make([]byte, len(r.cookie))) {
			return fmt.Errorf("a placeholder of %d octets for a cookie of %d, or not zeros", len(p), len(r.cookie))
		}
	}
	return nil
}

// stamp is the NTP timestamp of t (RFC 5905 §6), in whatever era.
func stamp(t time.Time) uint64 {
	const from1900to1970 = 2208988800
	return uint64(t.Unix()+from1900to1970)<<32 | uint64(t.Nanosecond())<<32/1e9
}

// short is d in NTP short format.
func short(d time.Duration) uint32 {
	return uint32(d * (1 << 16) / time.Second)
}
