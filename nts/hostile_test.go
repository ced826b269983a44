package nts

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"reflect"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"ntsclient/nts/ntstest"
)

// Whatever is done to an answer, it is refused or says the same. What says the
// same are changes where nothing is authenticated, as nothing is read there:
// in padding, and behind the authenticator.
func TestChangedAnswers(t *testing.T) {
	for _, id := range bothAEADs {
		aead := testCipher(t, id)
		r := newRequest(aead, id.nonceLen(), make([]byte, 100), 0)
		p := goodReply(r, id, 3)
		p.clear = append(appendField(nil, 0x4711, []byte("in the clear")), p.clear...)
		if id == SIVCMAC {
			p.nonce = bytes.Repeat([]byte{3}, 13) // which is padded
		}
		p.pad, p.after = 8, appendField(nil, fieldCookie, make([]byte, 100))
		good := p.seal(aead)
		want, err := openAnswer(bytes.Clone(good), r, aead)
		if err != nil {
			t.Fatal(err)
		}
		accepted, refused := 0, 0
		try := func(raw []byte, what string) {
			switch got, err := openAnswer(bytes.Clone(raw), r, aead); {
			case err != nil:
				refused++
			case !reflect.DeepEqual(got.cookies, want.cookies) || !got.receive.Equal(want.receive) || !got.transmit.Equal(want.transmit) ||
				got.leap != want.leap || got.stratum != want.stratum || got.rootDelay != want.rootDelay || got.rootDispersion != want.rootDispersion:
				t.Fatalf("%v: %s is believed: %+v", id, what, got)
			default:
				accepted++
			}
		}
		for i := range good {
			for _, change := range []byte{1, 0x80, 0xff} {
				raw := bytes.Clone(good)
				raw[i] ^= change
				try(raw, fmt.Sprintf("octet %d changed by %#x", i, change))
			}
			try(good[:i], fmt.Sprintf("the first %d octets", i))
		}
		random := rand.New(rand.NewPCG(8, 15))
		for n := range 20000 {
			try(mangle(random, good), fmt.Sprintf("change %d", n))
		}
		if accepted == 0 || refused < 10*accepted/2 {
			t.Errorf("%v: %d accepted, %d refused", id, accepted, refused)
		}
	}
}

// mangle cuts out, doubles, swaps or overwrites pieces.
func mangle(random *rand.Rand, good []byte) []byte {
	raw := bytes.Clone(good)
	for range 1 + random.IntN(3) {
		i, j := random.IntN(len(raw)), random.IntN(len(raw))
		i, j = min(i, j), max(i, j)
		switch random.IntN(4) {
		case 0:
			raw = slices.Delete(raw, i, min(j, len(raw)-1))
		case 1:
			raw = slices.Insert(raw, i, bytes.Clone(raw[i:j])...)
		case 2:
			raw = slices.Concat(raw[:i], raw[j:], raw[i:j])
		case 3:
			raw[i] = byte(random.Uint32())
		}
	}
	return raw
}

// Answers to many requests of many sessions, all sent to all, each twice and in
// any order: each request takes its own.
func TestSwappedAnswers(t *testing.T) {
	const n = 8
	var mu sync.Mutex
	var answers [][]byte
	all := make(chan struct{})
	s := start(t, ntstest.Options{
		// The root dispersion tells to whose request an answer belongs.
		Seal: func(p *ntstest.Packet) { p.RootDispersion = uint32(p.Origin & 0xffff) },
		Answer: func(_, answer []byte) [][]byte {
			mu.Lock()
			answers = append(answers, answer)
			if len(answers) == n {
				close(all)
			}
			mu.Unlock()
			<-all
			mixed := slices.Concat(answers, answers)
			rand.Shuffle(len(mixed), func(i, j int) { mixed[i], mixed[j] = mixed[j], mixed[i] })
			return mixed
		},
	})
	var wg sync.WaitGroup
	samples := map[string]*Sample{} // by the cookie of the request
	for range n {
		session := establish(t, s)
		cookie := string(session.Cookies[0])
		wg.Go(func() {
			sample, err := session.Exchange(enough(t), Route{})
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			samples[cookie] = sample
		})
	}
	wg.Wait()
	for _, request := range s.Requests() {
		cookie := request[headerLen+4+uidLen+4:][:68]
		own := shortDuration([]byte{0, 0, request[46], request[47]})
		if sample := samples[string(cookie)]; sample == nil || sample.RootDispersion != own {
			t.Errorf("%+v is no answer to a request with %x", sample, request[40:48])
		}
	}
	clean(t, s)
}

// With any octet of its answer changed, a key exchange fails, or its session is
// what the octets say: an AEAD that was offered, the first eight cookies that are
// there, the server and port that are named. Only the server itself can change
// them: all is under TLS.
func TestEveryOctetOfKeyExchange(t *testing.T) {
	good := message(append(answerRecords()[:3:3], answerRecords()[2:]...)) // with a cookie twice
	random := rand.New(rand.NewPCG(7, 22))
	try := func(raw []byte) {
		got, err := parseKE(raw)
		if err != nil {
			var e *Error
			if !errors.As(err, &e) || got != nil {
				t.Fatalf("%x: %v, %v", raw, got, err)
			}
			return
		}
		want := keAnswer{port: 123}
		for rest := raw; len(rest) > 0; {
			kind, body := binary.BigEndian.Uint16(rest)&0x7fff, rest[4:4+int(binary.BigEndian.Uint16(rest[2:]))]
			rest = rest[4+len(body):]
			switch kind {
			case recAEAD:
				want.aead = AEAD(binary.BigEndian.Uint16(body))
			case recCookie:
				if len(want.cookies) < maxJar && !slices.ContainsFunc(want.cookies, func(c []byte) bool { return bytes.Equal(c, body) }) {
					want.cookies = append(want.cookies, body)
				}
			case recServer:
				want.server = string(bytes.TrimSuffix(body, []byte(".")))
			case recPort:
				want.port = binary.BigEndian.Uint16(body)
			case recCompliantGCM:
				want.compliant = true
			}
		}
		if !reflect.DeepEqual(*got, want) || got.aead != SIVCMAC && got.aead != GCMSIV {
			t.Fatalf("%x\nis taken for %+v\n         not %+v", raw, *got, want)
		}
	}
	for i := range good {
		for change := 1; change < 256; change++ {
			raw := bytes.Clone(good)
			raw[i] ^= byte(change)
			try(raw)
		}
	}
	for range 20000 {
		try(mangle(random, good))
	}
}

// tap changes one octet of what a server sends, and counts them.
type tap struct {
	net.Conn
	at   int // -1: none
	sent *atomic.Int64
}

func (c *tap) Write(b []byte) (int, error) {
	before := int(c.sent.Add(int64(len(b)))) - len(b)
	if i := c.at - before; i >= 0 && i < len(b) {
		b = bytes.Clone(b)
		b[i] ^= 0x21
	}
	return c.Conn.Write(b)
}

// The same below TLS, where anyone on the way can do it: no session comes of it,
// or one that is good. (TLS leaves the version in the heads of its records open.)
func TestEveryOctetOfTLS(t *testing.T) {
	ca, err := ntstest.NewCA("good")
	if err != nil {
		t.Fatal(err)
	}
	changed := func(t *testing.T, at int) (octets int, session *Session, s *ntstest.Server, err error) {
		var sent atomic.Int64
		s = start(t, ntstest.Options{CA: ca, Wrap: func(c net.Conn) net.Conn { return &tap{c, at, &sent} }})
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		session, err = KeyExchange(ctx, clientOf(s))
		return int(sent.Load()), session, s, err
	}
	octets, _, _, err := changed(t, -1)
	if err != nil {
		t.Fatal(err)
	}
	const step = 5
	for at := octets % step; at < octets; at += step {
		t.Run(fmt.Sprint(at), func(t *testing.T) {
			t.Parallel()
			_, session, s, err := changed(t, at)
			if err != nil {
				if session != nil {
					t.Error("a session and an error")
				}
				return
			}
			if _, err := session.Exchange(enough(t), Route{}); err != nil {
				t.Errorf("with this octet changed there is a session, and %v", err)
			}
			clean(t, s)
		})
	}
}

// newFlooder stands before a server and sends junk to whoever asks, from the very
// address and port that were asked, as fast as it can. The answer comes after
// half of it.
func newFlooder(t *testing.T, server netip.AddrPort, packets int, junk func(i int, request []byte) []byte) (at netip.AddrPort, rate func() float64) {
	front := listenUDP(t, "127.0.0.1:0")
	back, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(server))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { back.Close() })
	took := make(chan time.Duration, 1)
	go func() {
		b := make([]byte, 2048)
		n, from, err := front.ReadFromUDPAddrPort(b)
		if err != nil {
			return
		}
		request := bytes.Clone(b[:n])
		began := time.Now()
		for i := range packets {
			if i == packets/2 {
				back.Write(request)
				if n, err = back.Read(b); err != nil {
					return
				}
				front.WriteToUDPAddrPort(b[:n], from)
			}
			front.WriteToUDPAddrPort(junk(i, request), from)
		}
		took <- time.Since(began)
	}()
	return front.LocalAddr().(*net.UDPAddr).AddrPort(), func() float64 { return float64(packets) / (<-took).Seconds() }
}

// A flood at the client's very socket by one who has not seen the request does
// not hide the answer: the first request is enough. The kernel drops it, so that
// it costs this process nothing.
func TestFlood(t *testing.T) {
	if runtime.GOOS != "linux" {
		skip(t, "only Linux drops it in the kernel")
	}
	s := start(t, ntstest.Options{})
	for name, junk := range map[string]func(i int, request []byte) []byte{
		"zeros":   func(int, []byte) []byte { return make([]byte, 300) },
		"nothing": func(int, []byte) []byte { return nil },
		"headers with another origin": func(i int, _ []byte) []byte {
			b := make([]byte, headerLen)
			b[0] = answerByte
			binary.BigEndian.PutUint64(b[24:], uint64(i))
			return b
		},
		"our own request": func(_ int, request []byte) []byte { return request },
	} {
		t.Run(name, func(t *testing.T) {
			session := establish(t, s)
			var rate func() float64
			session.Servers[0], rate = newFlooder(t, s.NTP(), 40000, junk)
			if _, err := session.Exchange(enough(t), Route{}); err != nil {
				t.Error(err)
			}
			t.Logf("%.0f packets a second", rate())
		})
	}
	clean(t, s)
}

// Who has seen the request can send what looks like its answer. That costs the
// opening of a packet, and with it at most a key schedule of AES-GCM-SIV in
// memory (with the race detector a little more).
func TestForgedAnswersCostLittle(t *testing.T) {
	for _, id := range bothAEADs {
		aead := testCipher(t, id)
		r := newRequest(aead, id.nonceLen(), make([]byte, 100), 0)
		forged := goodReply(r, id, 8).seal(aead)
		forged[40] ^= 1
		raw := make([]byte, len(forged))
		allocs := testing.AllocsPerRun(1000, func() {
			copy(raw, forged)
			if a, _ := openAnswer(raw, r, aead); a != nil {
				t.Fatal("a forged answer")
			}
		})
		if allocs > 4 {
			t.Errorf("%v: %v allocations for each forged packet", id, allocs)
		}
	}
}

// The kernel lets through what answers the request, and nothing else.
func TestHeed(t *testing.T) {
	if runtime.GOOS != "linux" {
		skip(t, "only Linux does that")
	}
	r := newRequest(testCipher(t, SIVCMAC), 16, make([]byte, 100), 0)
	good := make([]byte, headerLen)
	good[0] = answerByte
	copy(good[24:], r.transmit[:])
	server := listenUDP(t, "127.0.0.1:0")
	conn, err := net.DialUDP("udp", nil, server.LocalAddr().(*net.UDPAddr))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	heed(conn, r.transmit)
	client := conn.LocalAddr().(*net.UDPAddr).AddrPort()
	marked := func(n byte) []byte { b := bytes.Clone(good); b[47] = n; return b }
	long := append(marked(2), make([]byte, 1900)...)
	others := [][]byte{nil, {answerByte}, good[:31], r.raw, make([]byte, 48), make([]byte, 60000)}
	for i := range 8 {
		b := bytes.Clone(good)
		b[24+i] ^= 1
		others = append(others, b)
	}
	for _, first := range []byte{0, 4<<3 | 3, 4<<3 | 5, 3<<3 | 4, 5<<3 | 4} {
		b := bytes.Clone(good)
		b[0] = first
		others = append(others, b)
	}
	leap := marked(3)
	leap[0] |= 0xc0
	for _, b := range slices.Concat([][]byte{marked(1)}, others, [][]byte{long}, others, [][]byte{leap}) {
		if _, err := server.WriteToUDPAddrPort(b, client); err != nil {
			t.Fatal(err)
		}
	}
	conn.SetReadDeadline(time.Now().Add(30 * time.Second))
	buf := make([]byte, 2048)
	for _, want := range [][]byte{marked(1), long, leap} {
		if n, err := conn.Read(buf); err != nil || !bytes.Equal(buf[:n], want) || !r.answeredBy(buf[:n]) {
			t.Fatalf("%d octets, %v; want %d", n, err, len(want))
		}
	}
}
