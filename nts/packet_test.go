package nts

import (
	"bytes"
	"crypto/cipher"
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
)

var bothAEADs = []AEAD{SIVCMAC, GCMSIV}

// testCipher is a cipher under a fixed key.
func testCipher(tb testing.TB, id AEAD) cipher.AEAD {
	tb.Helper()
	aead, err := id.new(bytes.Repeat([]byte{7}, id.keyLen()))
	if err != nil {
		tb.Fatal(err)
	}
	return aead
}

// reply is an answer under construction: a good one, until something is
// changed.
type reply struct {
	header []byte
	clear  []byte // fields before the authenticator
	inner  []byte // fields in it
	nonce  []byte
	pad    int // octets at the end of the authenticator's body
	after  []byte
}

// goodReply answers a request with n cookies of 100 octets.
func goodReply(r *request, id AEAD, n int) *reply {
	p := &reply{header: make([]byte, headerLen), nonce: bytes.Repeat([]byte{3}, id.nonceLen())}
	p.header[0], p.header[1], p.header[3] = 4<<3|4, 1, 0xe7
	binary.BigEndian.PutUint32(p.header[4:], 1<<15)
	binary.BigEndian.PutUint32(p.header[8:], 1<<14)
	copy(p.header[24:], r.transmit[:])
	binary.BigEndian.PutUint64(p.header[32:], 0xee000000_40000000)
	binary.BigEndian.PutUint64(p.header[40:], 0xee000000_80000000)
	p.clear = appendField(nil, fieldUniqueID, r.uid[:])
	for i := range n {
		p.inner = appendField(p.inner, fieldCookie, bytes.Repeat([]byte{byte(i + 1)}, 100))
	}
	return p
}

// seal makes the packet.
func (p *reply) seal(aead cipher.AEAD) []byte {
	b := slices.Concat(p.header, p.clear)
	sealed := aead.Seal(nil, p.nonce, p.inner, b)
	body := binary.BigEndian.AppendUint16(nil, uint16(len(p.nonce)))
	body = binary.BigEndian.AppendUint16(body, uint16(len(sealed)))
	body = slices.Concat(body, p.nonce, zeros[:pad(len(p.nonce))-len(p.nonce)], sealed, zeros[:pad(len(sealed))-len(sealed)+p.pad])
	return slices.Concat(appendField(b, fieldAuthenticator, body), p.after)
}

// A request is what RFC 8915 §5.7 and §9.1 say, octet by octet.
func TestRequestLayout(t *testing.T) {
	cookie := bytes.Repeat([]byte{9}, 100)
	for _, id := range bothAEADs {
		aead := testCipher(t, id)
		r := newRequest(aead, id.nonceLen(), cookie, 2)
		header := make([]byte, 40)
		header[0], header[3] = 4<<3|3, 32
		want := slices.Concat(header, r.transmit[:], []byte{1, 4, 0, 36}, r.uid[:], []byte{2, 4, 0, 104}, cookie)
		for range 2 {
			want = slices.Concat(want, []byte{3, 4, 0, 104}, make([]byte, 100))
		}
		associated := len(want)
		if !bytes.Equal(r.raw[:associated], want) {
			t.Fatalf("%v: %x\nwant %x", id, r.raw[:associated], want)
		}
		n := id.nonceLen()
		rest := r.raw[associated:]
		if head := []byte{4, 4, 0, byte(8 + n + 16), 0, byte(n), 0, 16}; !bytes.Equal(rest[:8], head) || len(rest) != 8+n+16 {
			t.Fatalf("%v: authenticator %x", id, rest)
		}
		if plain, err := aead.Open(nil, rest[8:8+n], rest[8+n:], want); err != nil || len(plain) != 0 {
			t.Errorf("%v: %v, %d octets", id, err, len(plain))
		}
	}
}

// Nothing that must be new is ever used again.
func TestRequestsDiffer(t *testing.T) {
	aead := testCipher(t, SIVCMAC)
	seen := map[string]bool{}
	for range 100 {
		r := newRequest(aead, 16, make([]byte, 100), 0)
		for _, part := range [][]byte{r.uid[:], r.transmit[:], r.raw[len(r.raw)-32 : len(r.raw)-16]} {
			if seen[string(part)] {
				t.Fatalf("%x for the second time", part)
			}
			seen[string(part)] = true
		}
	}
}

// Sizes are those of protocol practice: 228 octets for the usual request, and
// never more than 1200 because of placeholders.
func TestRequestSize(t *testing.T) {
	for _, test := range []struct {
		aead                       AEAD
		cookie, placeholders, size int
	}{
		{SIVCMAC, 100, 0, 228},
		{SIVCMAC, 100, 7, 956},
		{SIVCMAC, 100, 8, 956}, // cookie and placeholders are at most eight
		{SIVCMAC, 100, -3, 228},
		{GCMSIV, 64, 0, 188},
		{GCMSIV, 64, 7, 664},
		{SIVCMAC, 136, 7, 264 + 6*140}, // 1244 with seven
		{SIVCMAC, 1, 1, 156},           // a field has 16 octets at least
		{SIVCMAC, 101, 1, 232 + 108},
		{SIVCMAC, 600, 7, 728},
		{SIVCMAC, maxCookie, 7, 1452}, // fits 1500 with the headers of IPv6 and UDP
	} {
		r := newRequest(testCipher(t, test.aead), test.aead.nonceLen(), make([]byte, test.cookie), test.placeholders)
		if len(r.raw) != test.size {
			t.Errorf("%v, cookie of %d, %d placeholders: %d octets, want %d", test.aead, test.cookie, test.placeholders, len(r.raw), test.size)
		}
	}
}

func TestOpenAnswer(t *testing.T) {
	other := bytes.Repeat([]byte{5}, uidLen)
	for _, test := range []struct {
		name    string
		change  func(*reply)
		raw     func([]byte) []byte
		err     error
		cookies int // in an answer with three
	}{
		{name: "good", cookies: 3},
		{name: "no cookies", change: func(p *reply) { p.inner = nil }},
		{name: "ten cookies", change: func(p *reply) {
			for range 7 {
				p.inner = appendField(p.inner, fieldCookie, other)
			}
		}, cookies: maxJar},
		{name: "mode 3", change: func(p *reply) { p.header[0] = 4<<3 | 3 }, err: errForeign},
		{name: "mode 5", change: func(p *reply) { p.header[0] = 4<<3 | 5 }, err: errForeign},
		{name: "version 3", change: func(p *reply) { p.header[0] = 3<<3 | 4 }, err: errForeign},
		{name: "version 5", change: func(p *reply) { p.header[0] = 5<<3 | 4 }, err: errForeign},
		{name: "another origin", change: func(p *reply) { p.header[31] ^= 1 }, err: errForeign},
		{name: "no origin", change: func(p *reply) { clear(p.header[24:32]) }, err: errForeign},
		{name: "no identifier", change: func(p *reply) { p.clear = nil }, err: errForeign},
		{name: "another identifier", change: func(p *reply) { p.clear = appendField(nil, fieldUniqueID, other) }, err: errForeign},
		{name: "identifier twice", change: func(p *reply) { p.clear = append(p.clear, p.clear...) }, err: errForeign},
		{name: "ours and another", change: func(p *reply) { p.clear = appendField(p.clear, fieldUniqueID, other) }, err: errForeign},
		{name: "longer identifier", change: func(p *reply) {
			p.clear = appendField(nil, fieldUniqueID, append(bytes.Clone(p.clear[4:]), 0, 0, 0, 0))
		}, err: errForeign},
		{name: "identifier after the authenticator", change: func(p *reply) { p.after, p.clear = p.clear, nil }, err: errForeign},
		{name: "identifier inside the authenticator", change: func(p *reply) { p.inner, p.clear = append(p.inner, p.clear...), nil }, err: errForeign},
		{name: "unknown field in the clear", change: func(p *reply) { p.clear = appendField(p.clear, 0x4711, other) }, cookies: 3},
		{name: "unknown field first", change: func(p *reply) { p.clear = append(appendField(nil, 0x4711, other), p.clear...) }, cookies: 3},
		{name: "unknown field inside", change: func(p *reply) { p.inner = appendField(p.inner, 0x4711, other) }, cookies: 3},
		{name: "unknown field inside of 4 octets", change: func(p *reply) { p.inner = append(p.inner, 0x47, 0x11, 0, 4) }, cookies: 3},
		{name: "cookie in the clear", change: func(p *reply) { p.clear = appendField(p.clear, fieldCookie, other) }, cookies: 3},
		{name: "cookie after the authenticator", change: func(p *reply) { p.after = appendField(nil, fieldCookie, other) }, cookies: 3},
		{name: "two identifiers, one after the authenticator", change: func(p *reply) { p.after = appendField(nil, fieldUniqueID, other) }, cookies: 3},
		{name: "nonsense after the authenticator", change: func(p *reply) { p.after = []byte{0, 0, 0, 1, 255} }, cookies: 3},
		{name: "a second authenticator", change: func(p *reply) { p.after = appendField(nil, fieldAuthenticator, other) }, cookies: 3},
		{name: "padding inside of the authenticator", change: func(p *reply) { p.pad = 32 }, cookies: 3},
		{name: "cookie of 8 octets", change: func(p *reply) { p.inner = append(p.inner, 2, 4, 0, 12, 1, 2, 3, 4, 5, 6, 7, 8) }, cookies: 3},
		{name: "cookie that is too long", change: func(p *reply) { p.inner = appendField(p.inner, fieldCookie, make([]byte, maxCookie+4)) }, cookies: 3},
		{name: "inner field of length 0", change: func(p *reply) { p.inner = append(p.inner, 2, 4, 0, 0) }, err: errForged},
		{name: "inner field of odd length", change: func(p *reply) { p.inner = append(p.inner, 2, 4, 0, 17, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0) }, err: errForged},
		{name: "inner field past the end", change: func(p *reply) { p.inner = append(p.inner, 2, 4, 0, 104) }, err: errForged},
		{name: "three inner octets", change: func(p *reply) { p.inner = append(p.inner, 2, 4, 0) }, err: errForged},
		{name: "an authenticator that does not open hides one that does", raw: func(b []byte) []byte {
			at := headerLen + 4 + uidLen
			return slices.Concat(b[:at], appendField(nil, fieldAuthenticator, make([]byte, 40)), b[at:])
		}, err: errForged},
		{name: "no authenticator", raw: func(b []byte) []byte { return b[:headerLen+4+uidLen] }, err: errForged},
		{name: "only a header", raw: func(b []byte) []byte { return b[:headerLen] }, err: errForged},
		{name: "47 octets", raw: func(b []byte) []byte { return b[:headerLen-1] }, err: errForeign},
		{name: "nothing", raw: func(b []byte) []byte { return nil }, err: errForeign},
		{name: "field of length 0", raw: func(b []byte) []byte { b[headerLen+3] = 0; return b }, err: errForeign},
		{name: "field of length 12", raw: func(b []byte) []byte { b[headerLen+3] = 12; return b }, err: errForeign},
		{name: "field of length 37", raw: func(b []byte) []byte { b[headerLen+3] = 37; return b }, err: errForeign},
		{name: "field past the end", raw: func(b []byte) []byte { b[headerLen+2] = 255; return b }, err: errForeign},
		{name: "no nonce", raw: func(b []byte) []byte { b[headerLen+4+uidLen+5] = 0; return b }, err: errForged},
		{name: "nonce past the end", raw: func(b []byte) []byte { b[headerLen+4+uidLen+4] = 255; return b }, err: errForged},
		{name: "no ciphertext", raw: func(b []byte) []byte { b[headerLen+4+uidLen+6], b[headerLen+4+uidLen+7] = 0, 0; return b }, err: errForged},
		{name: "ciphertext past the end", raw: func(b []byte) []byte { b[headerLen+4+uidLen+6] = 255; return b }, err: errForged},
		{name: "a request, sent back", raw: func([]byte) []byte { return nil }, err: errForeign},
	} {
		for _, id := range bothAEADs {
			t.Run(test.name+"/"+id.String(), func(t *testing.T) {
				aead := testCipher(t, id)
				r := newRequest(aead, id.nonceLen(), make([]byte, 100), 0)
				p := goodReply(r, id, 3)
				if test.change != nil {
					test.change(p)
				}
				raw := p.seal(aead)
				if test.raw != nil {
					raw = test.raw(raw)
				}
				if test.name == "a request, sent back" {
					raw = bytes.Clone(r.raw)
				}
				a, err := openAnswer(raw, r, aead)
				if err != test.err || (a == nil) != (err != nil) {
					t.Fatalf("%v, %v; want error %v", a, err, test.err)
				}
				if err != nil {
					return
				}
				clear(raw) // the next packet goes there
				if len(p.inner) > 0 && (len(a.cookies) != test.cookies || !bytes.Equal(a.cookies[2], bytes.Repeat([]byte{3}, 100))) {
					t.Errorf("cookies %x", a.cookies)
				}
				if a.stratum != 1 || a.precision != -25 || a.rootDelay != time.Second/2 || a.rootDispersion != time.Second/4 ||
					a.transmit.Sub(a.receive) != time.Second/4 {
					t.Errorf("%+v", a)
				}
			})
		}
	}
}

// A good answer with any one octet changed in any way is refused, and so is
// each of its beginnings, and one that another key sealed.
func TestEveryOctet(t *testing.T) {
	for _, id := range bothAEADs {
		aead := testCipher(t, id)
		r := newRequest(aead, id.nonceLen(), make([]byte, 100), 0)
		good := goodReply(r, id, 2).seal(aead)
		if _, err := openAnswer(bytes.Clone(good), r, aead); err != nil {
			t.Fatal(err)
		}
		raw := make([]byte, len(good))
		for i := range good {
			for change := 1; change < 256; change++ {
				copy(raw, good)
				raw[i] ^= byte(change)
				if a, err := openAnswer(raw, r, aead); a != nil || err == nil {
					t.Fatalf("%v: accepted with octet %d changed by %#x", id, i, change)
				}
			}
			if a, err := openAnswer(bytes.Clone(good[:i]), r, aead); a != nil || err == nil {
				t.Fatalf("%v: accepted as cut to %d octets", id, i)
			}
		}
		other, err := id.new(make([]byte, id.keyLen()))
		if err != nil {
			t.Fatal(err)
		}
		if a, err := openAnswer(bytes.Clone(good), r, other); a != nil || err != errForged {
			t.Errorf("%v: under another key: %v, %v", id, a, err)
		}
		next := newRequest(aead, id.nonceLen(), make([]byte, 100), 0)
		if a, err := openAnswer(bytes.Clone(good), next, aead); a != nil || err != errForeign {
			t.Errorf("%v: for another request: %v, %v", id, a, err)
		}
	}
}

// Any nonce that a server may choose opens, and none makes us panic.
func TestNonceLengths(t *testing.T) {
	for _, id := range bothAEADs {
		aead := testCipher(t, id)
		r := newRequest(aead, id.nonceLen(), make([]byte, 100), 0)
		for n := range 65 {
			p := goodReply(r, id, 1)
			var want error
			if n == 0 || id == GCMSIV && n != 12 {
				want = errForged
			} else {
				p.nonce = bytes.Repeat([]byte{1}, n)
			}
			raw := p.seal(aead)
			if want != nil { // it cannot be sealed so, only said to be
				binary.BigEndian.PutUint16(raw[headerLen+4+uidLen+4:], uint16(n))
			}
			if a, err := openAnswer(raw, r, aead); err != want || (a == nil) != (want != nil) {
				t.Errorf("%v, nonce of %d octets: %v, %v", id, n, a, err)
			}
		}
	}
}

func TestKissCodes(t *testing.T) {
	for _, test := range []struct {
		name    string
		stratum byte
		code    string
		change  func(*reply)
		want    error
	}{
		{"NAK", 0, "NTSN", nil, kiss("NTSN")},
		{"RATE", 0, "RATE", nil, kiss("RATE")},
		{"unknown", 0, "XYZA", nil, kiss("XYZA")},
		{"server not synchronized yet", 0, "INIT", nil, errForged},
		{"server not synchronized again", 0, "STEP", nil, errForged},
		{"stratum 1", 1, "NTSN", nil, errForged},
		{"not to be printed", 0, "\x1b[1m", nil, errForged},
		{"small letters", 0, "rate", nil, errForged},
		{"no code", 0, "\x00\x00\x00\x00", nil, errForged},
		{"no identifier", 0, "NTSN", func(p *reply) { p.clear = nil }, errForged},
		{"another identifier", 0, "NTSN", func(p *reply) { p.clear[9] ^= 1 }, errForeign},
		{"identifier twice", 0, "NTSN", func(p *reply) { p.clear = append(p.clear, p.clear...) }, errForeign},
		{"another origin", 0, "NTSN", func(p *reply) { p.header[25] ^= 1 }, errForeign},
		{"octets follow", 0, "NTSN", func(p *reply) { p.clear = append(p.clear, 0, 0, 0, 0) }, errForged},
	} {
		t.Run(test.name, func(t *testing.T) {
			aead := testCipher(t, SIVCMAC)
			r := newRequest(aead, 16, make([]byte, 100), 0)
			p := goodReply(r, SIVCMAC, 0)
			p.header[1] = test.stratum
			copy(p.header[12:], test.code)
			if test.change != nil {
				test.change(p)
			}
			a, err := openAnswer(slices.Concat(p.header, p.clear), r, aead)
			if a != nil || err != test.want {
				t.Errorf("%v, %v; want %v", a, err, test.want)
			}
		})
	}
}

func TestTimestamp(t *testing.T) {
	for _, test := range []struct {
		seconds, fraction uint32
		want              string
	}{
		{0, 0, "0001-01-01T00:00:00Z"}, // no time
		{pivot, 0, "2020-01-01T00:00:00Z"},
		{0xffffffff, 0x80000000, "2036-02-07T06:28:15.5Z"},
		{0, 1, "2036-02-07T06:28:16Z"},
		{0, 0x80000000, "2036-02-07T06:28:16.5Z"},
		{pivot - 1, 0xffffffff, "2156-02-07T06:28:15.999999999Z"},
	} {
		var b [8]byte
		binary.BigEndian.PutUint32(b[:], test.seconds)
		binary.BigEndian.PutUint32(b[4:], test.fraction)
		if got := timestamp(b[:]).UTC().Format(time.RFC3339Nano); got != test.want {
			t.Errorf("%x: %s, want %s", b, got, test.want)
		}
	}
}

func TestSmallNumbers(t *testing.T) {
	for p, want := range map[int8]time.Duration{
		-128: 0, -30: 0, -29: 1, -25: 29, -20: 953, -1: time.Second / 2, 0: time.Second, 1: time.Second, 127: time.Second,
	} {
		if got := precision(p); got != want {
			t.Errorf("precision 2^%d: %v, want %v", p, got, want)
		}
	}
	for raw, want := range map[uint32]time.Duration{
		0: 0, 1: 15258, 1 << 16: time.Second, 0xffffffff: 65536*time.Second - 15259,
	} {
		if got := shortDuration(binary.BigEndian.AppendUint32(nil, raw)); got != want {
			t.Errorf("%#x: %v, want %v", raw, got, want)
		}
	}
}

func TestAEADs(t *testing.T) {
	for id, want := range map[AEAD]string{15: "AES-SIV-CMAC-256", 30: "AES-128-GCM-SIV", 17: "AEAD 17"} {
		if id.String() != want {
			t.Errorf("%d is %s", uint16(id), id)
		}
		for _, n := range []int{0, 16, 31, 32, 64} {
			_, err := id.new(make([]byte, n))
			if good := n != 0 && n == id.keyLen(); (err == nil) != good {
				t.Errorf("%v with %d octets: %v", id, n, err)
			}
			if err != nil && !strings.Contains(err.Error(), "octets") {
				t.Error(err)
			}
		}
	}
}

// maxAllocs is what one exchange may allocate in its codec.
const maxAllocs = 6

// codec is one exchange without the network. What the server would allocate
// was allocated before.
func codec(tb testing.TB, id AEAD) func() {
	aead := testCipher(tb, id)
	cookie := make([]byte, 100)
	ask := func() *request { return newRequest(aead, id.nonceLen(), cookie, 0) }
	r := ask()
	good := goodReply(r, id, 1).seal(aead)
	raw := make([]byte, len(good))
	return func() {
		ask()
		copy(raw, good)
		if _, err := openAnswer(raw, r, aead); err != nil {
			tb.Fatal(err)
		}
	}
}

func TestExchangeAllocs(t *testing.T) {
	for _, id := range bothAEADs {
		if got := testing.AllocsPerRun(100, codec(t, id)); got > maxAllocs {
			t.Errorf("%v: %v allocations, want at most %d", id, got, maxAllocs)
		}
	}
}

func BenchmarkExchangeCodec(b *testing.B) {
	for _, id := range bothAEADs {
		b.Run(id.String(), func(b *testing.B) {
			run := codec(b, id)
			b.ReportAllocs()
			for b.Loop() {
				run()
			}
		})
	}
}

// FuzzOpenAnswer: whatever comes, only what opens under the key, over all
// before it and with our identifier and origin in it, is an answer.
func FuzzOpenAnswer(f *testing.F) {
	for _, id := range bothAEADs {
		aead := testCipher(f, id)
		r := fixedRequest()
		good := goodReply(r, id, 2)
		f.Add(uint8(id), good.seal(aead))
		good.header[1] = 0
		copy(good.header[12:], "NTSN")
		f.Add(uint8(id), slices.Concat(good.header, good.clear))
		f.Add(uint8(id), good.header)
		good.after = good.clear
		f.Add(uint8(id), good.seal(aead))
	}
	f.Fuzz(func(t *testing.T, id uint8, raw []byte) {
		if AEAD(id).keyLen() == 0 {
			return
		}
		aead := testCipher(t, AEAD(id))
		r := fixedRequest()
		before := bytes.Clone(raw)
		a, err := openAnswer(raw, r, aead)
		var k kiss
		switch {
		case (a == nil) == (err == nil):
			t.Fatalf("%v and %v", a, err)
		case errors.As(err, &k):
			if len(k) != 4 || !bytes.Contains(before, r.uid[:]) || !bytes.Equal(before[24:32], r.transmit[:]) || before[1] != 0 {
				t.Errorf("%x is taken for a kiss", before)
			}
		case err == nil && !authentic(before, r, aead):
			t.Errorf("%x is taken for an answer", before)
		}
	})
}

// fixedRequest is a request whose random parts are known.
func fixedRequest() *request {
	r := new(request)
	for i := range r.uid {
		r.uid[i] = byte(i)
	}
	copy(r.transmit[:], "transmit")
	return r
}

// authentic looks for an authenticator in another way than openAnswer: it
// tries each place where one could be.
func authentic(raw []byte, r *request, aead cipher.AEAD) bool {
	if len(raw) < headerLen || !bytes.Equal(raw[24:32], r.transmit[:]) {
		return false
	}
	for at := headerLen; at+12 <= len(raw); at += 4 {
		if raw[at] != 4 || raw[at+1] != 4 || bytes.Count(raw[headerLen:at], r.uid[:]) != 1 {
			continue
		}
		n, m := int(binary.BigEndian.Uint16(raw[at+4:])), int(binary.BigEndian.Uint16(raw[at+6:]))
		start := at + 8 + pad(n)
		if n == 0 || start+m > len(raw) {
			continue
		}
		if _, err := aead.Open(nil, raw[at+8:][:n], raw[start:start+m], raw[:at]); err == nil {
			return true
		}
	}
	return false
}

// FuzzFields: what an authenticated packet holds is read without harm, and
// its cookies, written as fields, are read as the same again.
func FuzzFields(f *testing.F) {
	header := goodReply(fixedRequest(), SIVCMAC, 0).header
	f.Add(appendField(nil, fieldCookie, make([]byte, 100)))
	f.Add(appendField(appendField(nil, 0x4711, make([]byte, 12)), fieldCookie, make([]byte, 64)))
	f.Add([]byte{2, 4, 0, 4})
	f.Add([]byte{2, 4, 0, 0, 0})
	f.Fuzz(func(t *testing.T, inner []byte) {
		a, err := read(header, bytes.Clone(inner))
		if err != nil {
			return
		}
		var again []byte
		for _, cookie := range a.cookies {
			if len(cookie) < minField-4 || len(cookie) > maxCookie || !bytes.Contains(inner, cookie) {
				t.Fatalf("cookie %x from %x", cookie, inner)
			}
			again = appendField(again, fieldCookie, cookie)
		}
		b, err := read(header, bytes.Clone(again))
		if err != nil || !slices.EqualFunc(a.cookies, b.cookies, bytes.Equal) {
			t.Errorf("%x is read again as %+v, %v", a.cookies, b, err)
		}
	})
}

// FuzzTimestamp: written again, a time is the same 64 bits, as far as
// nanoseconds hold them, and never outside its 136 years.
func FuzzTimestamp(f *testing.F) {
	f.Add(uint64(0))
	f.Add(uint64(1))
	f.Add(uint64(pivot) << 32)
	f.Add(uint64(pivot)<<32 - 1)
	f.Fuzz(func(t *testing.T, raw uint64) {
		at := timestamp(binary.BigEndian.AppendUint64(nil, raw))
		if raw == 0 {
			if !at.IsZero() {
				t.Errorf("zero is %v", at)
			}
			return
		}
		if y := at.UTC().Year(); y < 2020 || y > 2156 {
			t.Errorf("%x is %v", raw, at)
		}
		again := uint64(at.Unix()+ntpToUnix)<<32 | uint64(at.Nanosecond())<<32/1e9
		if d := raw - again; d > 5 { // a nanosecond is 4.3 units
			t.Errorf("%x becomes %x", raw, again)
		}
	})
}
