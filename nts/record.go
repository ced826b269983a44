package nts

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"
)

// The records of NTS-KE (RFC 8915 §4.1.1 to §4.1.8) and the one by which
// client and server agree that the keys of AEAD 30 are exported as the RFC
// says (chrony 4.6.1 and later).
const (
	recEnd          = 0
	recNextProtocol = 1
	recError        = 2
	recWarning      = 3
	recAEAD         = 4
	recCookie       = 5
	recServer       = 6
	recPort         = 7
	recCompliantGCM = 1024

	critical = 0x8000
)

const (
	protocolNTPv4 = 0

	maxJar     = 8      // cookies that a client keeps (§4.1.6)
	maxCookie  = 1324   // with the rest of a request it fits 1,500 octets with IPv6
	maxMessage = 131072 // §4 asks for at least 65,536
)

// keRequest is the one message that a client sends.
var keRequest = []byte{
	critical >> 8, recNextProtocol, 0, 2, 0, protocolNTPv4,
	critical >> 8, recAEAD, 0, 4, 0, byte(GCMSIV), 0, byte(SIVCMAC),
	recCompliantGCM >> 8, 0, 0, 0,
	critical >> 8, recEnd, 0, 0,
}

// keAnswer is what a good answer says.
type keAnswer struct {
	aead      AEAD
	compliant bool // record 1024 came back
	cookies   [][]byte
	server    string // name or address; empty: where the key exchange went
	port      uint16
}

// scan walks over the records of raw from the offset at, which a call before
// came to. It returns how far it came, and whether there End of Message ends.
func scan(raw []byte, at int) (next int, ended bool) {
	for len(raw)-at >= 4 {
		kind := binary.BigEndian.Uint16(raw[at:]) &^ critical
		end := at + 4 + int(binary.BigEndian.Uint16(raw[at+2:]))
		if end > len(raw) {
			break
		}
		if at = end; kind == recEnd {
			return at, true
		}
	}
	return at, false
}

func malformed(format string, args ...any) *Error {
	return fail(StageKeyExchange, KEMalformed, "malformed answer: "+format, args...)
}

// parseKE reads the whole answer of a server (§4). Its errors are *Error.
func parseKE(raw []byte) (*keAnswer, error) {
	end, ended := scan(raw, 0)
	if !ended {
		return nil, malformed("it ends after %d octets, without End of Message", len(raw))
	}
	if end != len(raw) {
		return nil, malformed("%d octets follow End of Message", len(raw)-end)
	}
	a := &keAnswer{port: 123}
	seen := make(map[uint16]bool)
	for len(raw) > 0 {
		head := binary.BigEndian.Uint16(raw)
		length := int(binary.BigEndian.Uint16(raw[2:]))
		body := raw[4 : 4+length]
		raw = raw[4+length:]
		kind := head &^ critical
		if seen[kind] && kind >= recNextProtocol && kind <= recPort && kind != recCookie {
			return nil, malformed("two records of type %d", kind)
		}
		seen[kind] = true
		if err := a.record(kind, head&critical != 0, body); err != nil {
			return nil, err
		}
	}
	if err := a.complete(seen); err != nil {
		return nil, err
	}
	return a, nil
}

// complete says what a message that is well-formed lacks.
func (a *keAnswer) complete(seen map[uint16]bool) error {
	switch {
	case !seen[recNextProtocol]:
		return fail(StageKeyExchange, KENoProtocol, "the server names no protocol")
	case !seen[recAEAD]:
		return fail(StageKeyExchange, KENoAEAD, "the server names no AEAD algorithm")
	case len(a.cookies) == 0:
		return fail(StageKeyExchange, KENoCookies, "the server gives no cookies")
	}
	return nil
}

// record takes in one record. The critical bit is checked where the RFC says
// MUST.
func (a *keAnswer) record(kind uint16, crit bool, body []byte) error {
	if !crit && kind <= recWarning {
		return malformed("record of type %d without its critical bit", kind)
	}
	switch kind {
	case recEnd:
		if len(body) != 0 {
			return malformed("End of Message of %d octets", len(body))
		}
	case recNextProtocol:
		return a.nextProtocol(body)
	case recError, recWarning:
		return refusal(kind, body)
	case recAEAD:
		return a.algorithm(body)
	case recCookie:
		return a.cookie(body)
	case recServer:
		return a.name(body)
	case recPort:
		if len(body) != 2 || body[0]|body[1] == 0 {
			return malformed("port record %x", short(body))
		}
		a.port = binary.BigEndian.Uint16(body)
	case recCompliantGCM:
		if len(body) != 0 {
			return malformed("record 1024 of %d octets", len(body))
		}
		a.compliant = true
	default: // §4: unknown ones are ignored, unless they insist
		if crit {
			return malformed("unknown critical record of type %d", kind)
		}
	}
	return nil
}

func (a *keAnswer) nextProtocol(body []byte) error {
	if len(body)%2 != 0 || len(body) > 2 {
		return malformed("next protocol record of %d octets", len(body))
	}
	if len(body) == 0 || binary.BigEndian.Uint16(body) != protocolNTPv4 {
		return fail(StageKeyExchange, KENoProtocol, "the server does not offer NTPv4 (next protocol %x)", body)
	}
	return nil
}

// refusal is the Error or Warning record (§4.1.3, §4.1.4) in words.
func refusal(kind uint16, body []byte) error {
	if len(body) != 2 {
		return malformed("%s record of %d octets", map[uint16]string{recError: "error", recWarning: "warning"}[kind], len(body))
	}
	code := binary.BigEndian.Uint16(body)
	if kind == recWarning {
		return fail(StageKeyExchange, KEWarning, "the server warns with code %d, which is not known", code)
	}
	words := "which is not known"
	switch code {
	case 0:
		words = "unrecognized critical record"
	case 1:
		words = "bad request"
	case 2:
		words = "internal server error"
	}
	return fail(StageKeyExchange, KEError, "the server answers with error %d: %s", code, words)
}

func (a *keAnswer) algorithm(body []byte) error {
	switch {
	case len(body) == 0: // what chronyd says when it has none of those offered
		return fail(StageKeyExchange, KENoAEAD, "the server has none of the AEAD algorithms offered (30, 15)")
	case len(body) != 2:
		return malformed("AEAD record of %d octets", len(body))
	}
	a.aead = AEAD(binary.BigEndian.Uint16(body))
	if a.aead.keyLen() == 0 { // NTPsec answers 15 to anything
		return fail(StageKeyExchange, KENoAEAD, "the server chose AEAD algorithm %d, which was not offered", a.aead)
	}
	return nil
}

func (a *keAnswer) cookie(body []byte) error {
	if len(body) == 0 || len(body) > maxCookie {
		return malformed("cookie of %d octets", len(body))
	}
	if len(a.cookies) < maxJar && !holds(a.cookies, body) {
		a.cookies = append(a.cookies, bytes.Clone(body))
	}
	return nil
}

func (a *keAnswer) name(body []byte) error {
	name := strings.TrimSuffix(string(body), ".")
	if addr, err := netip.ParseAddr(name); err == nil {
		if addr.Zone() != "" || !usableAddr(addr) {
			return malformed("NTP server %q is no address to send to", short(body))
		}
	} else if !isHostName(name) {
		return malformed("NTP server %q is neither a name nor an address", short(body))
	}
	a.server = name
	return nil
}

// usableAddr tells whether a packet to addr goes to one host.
func usableAddr(addr netip.Addr) bool {
	addr = addr.Unmap()
	return addr.IsValid() && !addr.IsUnspecified() && !addr.IsMulticast() &&
		addr != netip.AddrFrom4([4]byte{255, 255, 255, 255})
}

// isHostName is strict: what passes can be printed and looked up.
func isHostName(name string) bool {
	if len(name) == 0 || len(name) > 253 {
		return false
	}
	digits := true
	for label := range strings.SplitSeq(name, ".") {
		if len(label) == 0 || len(label) > 63 {
			return false
		}
		for _, c := range []byte(label) {
			letter := c|0x20 >= 'a' && c|0x20 <= 'z' || c == '-' || c == '_'
			if !letter && (c < '0' || c > '9') {
				return false
			}
			digits = digits && !letter
		}
	}
	return !digits // 1.2.3 is a damaged address, never a name
}

func short(b []byte) string {
	if len(b) > 64 {
		return fmt.Sprintf("%s…", b[:64])
	}
	return string(b)
}
