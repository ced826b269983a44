package nts

import (
	"bytes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"time"
)

// The extension fields of RFC 8915 §5.3 to §5.6.
const (
	fieldUniqueID      = 0x0104
	fieldCookie        = 0x0204
	fieldPlaceholder   = 0x0304
	fieldAuthenticator = 0x0404
)

const (
	headerLen  = 48
	minField   = 16 // RFC 7822 §3
	uidLen     = 32
	tagLen     = 16
	maxRequest = 1200 // with placeholders; larger packets are filtered on some ways
)

// request is one packet to a server, and what its answer must match.
type request struct {
	raw      []byte
	uid      [uidLen]byte
	transmit [8]byte
	nonce    [16]byte // as far as the AEAD has it
}

// newRequest is newRequestWithin the usual limit.
func newRequest(aead cipher.AEAD, nonceLen int, cookie []byte, placeholders int) *request {
	return newRequestWithin(maxRequest, aead, nonceLen, cookie, placeholders)
}

// newRequestWithin builds a packet with one cookie and up to placeholders more
// of its length (RFC 8915 §5.7), as far as it has room for them. Nothing in it
// tells of this machine: the transmit timestamp is random, other fields are
// fixed (§9.1).
func newRequestWithin(room int, aead cipher.AEAD, nonceLen int, cookie []byte, placeholders int) *request {
	r := new(request)
	nonce := r.nonce[:nonceLen]
	rand.Read(r.uid[:]) // never fails
	rand.Read(r.transmit[:])
	rand.Read(nonce)

	slot := 4 + max(pad(len(cookie)), minField-4)
	size := headerLen + 4 + uidLen + slot + 8 + pad(nonceLen) + tagLen
	placeholders = max(0, min(placeholders, maxJar-1, (room-size)/slot))
	b := make([]byte, headerLen, size+placeholders*slot)
	b[0] = 4<<3 | 3 // leap 0, version 4, client
	b[3] = 0x20     // precision as data minimization proposes
	copy(b[40:], r.transmit[:])
	b = appendField(b, fieldUniqueID, r.uid[:])
	b = appendField(b, fieldCookie, cookie)
	for range placeholders {
		b = appendHead(b, fieldPlaceholder, slot)
		b = append(b, zeros[:slot-4]...)
	}
	associated := len(b)
	b = appendHead(b, fieldAuthenticator, 8+pad(nonceLen)+tagLen)
	b = binary.BigEndian.AppendUint16(b, uint16(nonceLen))
	b = binary.BigEndian.AppendUint16(b, tagLen)
	b = append(b, nonce...)
	b = append(b, zeros[:pad(nonceLen)-nonceLen]...)
	r.raw = aead.Seal(b, nonce, nil, b[:associated])
	return r
}

var zeros [maxCookie + 4]byte

func pad(n int) int { return (n + 3) &^ 3 }

func appendHead(b []byte, kind uint16, length int) []byte {
	b = binary.BigEndian.AppendUint16(b, kind)
	return binary.BigEndian.AppendUint16(b, uint16(length))
}

func appendField(b []byte, kind uint16, body []byte) []byte {
	length := max(pad(len(body)), minField-4)
	b = appendHead(b, kind, 4+length)
	b = append(b, body...)
	return append(b, zeros[:length-len(body)]...)
}

// answer is what an authenticated packet says. Only openAnswer makes one.
type answer struct {
	leap, stratum             uint8
	precision                 int8
	rootDelay, rootDispersion time.Duration
	kiss                      string // of stratum 0: the kiss code
	receive, transmit         time.Time
	cookies                   [][]byte
	room                      [maxJar][]byte // of cookies
}

// kiss is an unauthenticated packet that says no, in answer to our request:
// a hint and never more.
type kiss string

func (k kiss) Error() string { return "kiss code " + string(k) }

var (
	errForeign = errors.New("no answer to this request")
	errForged  = errors.New("the answer does not authenticate")
)

// The first octet of an answer: version 4, mode 4 (server), any leap.
const (
	versionAndMode = 0x3f
	answerByte     = 4<<3 | 4
)

// answeredBy tells whether raw says that it answers r. Who has not seen r cannot
// say so.
func (r *request) answeredBy(raw []byte) bool {
	return len(raw) >= headerLen && raw[0]&versionAndMode == answerByte && bytes.Equal(raw[24:32], r.transmit[:])
}

// openAnswer authenticates raw as the answer to r (RFC 8915 §5.7). The error
// is errForeign, errForged or a kiss. Raw is overwritten.
func openAnswer(raw []byte, r *request, aead cipher.AEAD) (*answer, error) {
	if !r.answeredBy(raw) {
		return nil, errForeign
	}
	at, uids := headerLen, 0
	for len(raw)-at >= minField {
		kind := binary.BigEndian.Uint16(raw[at:])
		length := int(binary.BigEndian.Uint16(raw[at+2:]))
		if length < minField || length%4 != 0 || length > len(raw)-at {
			return nil, errForeign
		}
		body := raw[at+4 : at+length]
		switch kind {
		case fieldUniqueID:
			if uids++; uids > 1 || !bytes.Equal(body, r.uid[:]) {
				return nil, errForeign
			}
		case fieldAuthenticator:
			if uids == 0 {
				return nil, errForeign
			}
			inner, err := unseal(body, raw[:at], aead)
			if err != nil {
				return nil, err
			}
			return read(raw, inner)
		}
		at += length
	}
	// No authenticator. With our identifier it may be a kiss (§5.7).
	if code := kissCode(raw); uids == 1 && at == len(raw) && code != "" {
		return nil, kiss(code)
	}
	return nil, errForged
}

// unseal opens the authenticator field (§5.6): lengths of nonce and
// ciphertext, then both, each padded to four octets.
func unseal(body, associated []byte, aead cipher.AEAD) ([]byte, error) {
	nonceLen := int(binary.BigEndian.Uint16(body))
	cipherLen := int(binary.BigEndian.Uint16(body[2:]))
	body = body[4:]
	if nonceLen == 0 || cipherLen < tagLen || pad(nonceLen)+pad(cipherLen) > len(body) {
		return nil, errForged
	}
	sealed := body[pad(nonceLen):][:cipherLen]
	inner, err := aead.Open(sealed[:0], body[:nonceLen], sealed, associated)
	if err != nil {
		return nil, errForged
	}
	return inner, nil
}

// read reads the header (RFC 5905 §7.3) and the encrypted fields of a packet
// that has been authenticated. What follows the authenticator does not exist.
// Encrypted fields may be shorter than RFC 7822 allows those that are in the
// clear, but no cookie is.
func read(raw, inner []byte) (*answer, error) {
	a := &answer{
		leap:           raw[0] >> 6,
		stratum:        raw[1],
		precision:      int8(raw[3]),
		rootDelay:      shortDuration(raw[4:]),
		rootDispersion: shortDuration(raw[8:]),
		kiss:           kissCode(raw),
		receive:        timestamp(raw[32:]),
		transmit:       timestamp(raw[40:]),
	}
	a.cookies = a.room[:0]
	inner = bytes.Clone(inner) // once for all cookies: raw is overwritten by the next packet
	for len(inner) > 0 {
		if len(inner) < 4 {
			return nil, errForged
		}
		length := int(binary.BigEndian.Uint16(inner[2:]))
		if length < 4 || length%4 != 0 || length > len(inner) {
			return nil, errForged
		}
		isCookie := binary.BigEndian.Uint16(inner) == fieldCookie && length >= minField && length-4 <= maxCookie
		if isCookie && len(a.cookies) < maxJar {
			a.cookies = append(a.cookies, inner[4:length:length])
		}
		inner = inner[length:]
	}
	return a, nil
}

// kissCode is the four letters of a packet of stratum 0 (RFC 5905 §7.4), or
// nothing: only what can be printed is one. NTPsec says INIT and STEP while it
// does not know the time: that refuses nothing.
func kissCode(raw []byte) string {
	if raw[1] != 0 {
		return ""
	}
	for _, c := range raw[12:16] {
		if c < 'A' || c > 'Z' {
			return ""
		}
	}
	if code := string(raw[12:16]); code != "INIT" && code != "STEP" {
		return code
	}
	return ""
}

// shortDuration reads 16.16 fixed-point seconds.
func shortDuration(b []byte) time.Duration {
	return time.Duration(uint64(binary.BigEndian.Uint32(b)) * uint64(time.Second) >> 16)
}

// Seconds from NTP's epoch (1900) to Unix's, and to the era pivot of 2020.
const (
	ntpToUnix = 2208988800
	pivot     = ntpToUnix + 1577836800
)

// timestamp reads a 32.32 fixed-point time. The seconds are read within the
// 136 years from 2020, never nearest to the local clock, which may be wrong.
// All zero is no time.
func timestamp(b []byte) time.Time {
	seconds := int64(binary.BigEndian.Uint32(b))
	fraction := uint64(binary.BigEndian.Uint32(b[4:]))
	if seconds == 0 && fraction == 0 {
		return time.Time{}
	}
	if seconds < pivot {
		seconds += 1 << 32
	}
	return time.Unix(seconds-ntpToUnix, int64(fraction*uint64(time.Second)>>32))
}
