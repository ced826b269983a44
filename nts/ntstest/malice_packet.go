package ntstest

import (
	"slices"
	"sync"
	"time"
)

var (
	silence         = failed("exchange_timeout", "no answer from")
	unauthenticated = failed("exchange_unauthenticated", "and none authenticates")
)

func kissed(part string) Outcome { return failed("exchange_kiss", part) }

// packetMalices are of packets that anyone on the way could send, drop or delay.
func packetMalices() []Malice {
	none := func([]byte) []byte { return nil }
	all := func(f ...func(request, answer []byte) []byte) func(*Options) {
		return packets(func(request, answer []byte) (sent [][]byte) {
			for _, make := range f {
				sent = append(sent, make(request, answer))
			}
			return sent
		})
	}
	good := func(_, answer []byte) []byte { return answer }
	junk := func(n int) func(_, _ []byte) []byte { return func(_, _ []byte) []byte { return make([]byte, n) } }
	lost := func(first int) func(*Options) {
		return func(o *Options) { o.Loss = func(n int) bool { return n < first } }
	}
	return []Malice{
		{Section: "5.7", Name: "silence", Behave: lost(1 << 30), Outcome: silence, Requests: 3},
		{Section: "5.7", Name: "the first request is lost", Behave: lost(1), Outcome: agreed, Requests: 2},
		{Section: "5.7", Name: "two requests are lost", Behave: lost(2), Outcome: agreed, Requests: 3},
		{Section: "5.7", Name: "from another port", Behave: func(o *Options) { o.From = "127.0.0.1:0" }, Outcome: silence},
		{Section: "5.7", Name: "from another address", Behave: func(o *Options) { o.From = "127.0.0.2:0" }, Outcome: silence},
		{Section: "5.7", Name: "an empty datagram", Behave: changed(none), Outcome: silence},
		{Section: "5.7", Name: "one octet", Behave: changed(func(b []byte) []byte { return b[:1] }), Outcome: silence},
		{Section: "5.7", Name: "47 octets", Behave: changed(func(b []byte) []byte { return b[:headerLength-1] }), Outcome: silence},
		{Section: "8.7", Name: "plain NTP", Behave: changed(func(b []byte) []byte { return b[:headerLength] }), Outcome: unauthenticated},
		{Section: "5.7", Name: "no authenticator", Behave: changed(func(b []byte) []byte { return b[:authAt] }), Outcome: unauthenticated},
		{Section: "5.7", Name: "half an answer", Behave: changed(func(b []byte) []byte { return b[:len(b)/2] }), Outcome: unauthenticated},
		{Section: "5.7", Name: "an answer less one octet", Behave: changed(func(b []byte) []byte { return b[:len(b)-1] }), Outcome: unauthenticated},
		{Section: "5.7", Name: "a datagram of 65507 octets", Behave: all(junk(65507)), Outcome: silence},
		{Section: "5.7", Name: "a datagram of 65507 octets, and then the answer", Behave: all(junk(65507), good), Outcome: agreed},
		{Section: "5.7", Name: "an answer with 8000 octets behind it", Behave: changed(func(b []byte) []byte { return append(slices.Clone(b), make([]byte, 8000)...) }), Outcome: agreed},
		{Section: "5.7", Name: "the request itself", Behave: all(func(request, _ []byte) []byte { return request }), Outcome: silence},
		{Section: "5.7", Name: "the request as an answer", Behave: all(func(request, _ []byte) []byte {
			b := slices.Clone(request)
			b[0] = 4<<3 | 4
			copy(b[24:32], request[40:48])
			return b
		}), Outcome: unauthenticated},
		{Section: "5.7", Name: "the answer twice", Behave: all(good, good), Outcome: agreed},
		{Section: "5.7", Name: "an answer to each request before", Behave: delayedByOne(), Outcome: silence},
		{Section: "5.7", Name: "the first answer, again and again", Behave: replayed(), Outcome: silence},
		{Section: "5.7", Name: "an answer too late", Behave: func(o *Options) { o.Delay = 20 * time.Second }, Outcome: silence},
		{Section: "8.6", Name: "an answer with a delay", Behave: func(o *Options) { o.Delay = 100 * time.Millisecond }, Outcome: agreed},
		{Section: "8.6", Name: "an answer with a delay on its way back only", Behave: packets(func(_, answer []byte) [][]byte {
			time.Sleep(100 * time.Millisecond)
			return [][]byte{answer}
		}), Outcome: agreed},
		{Section: "5.7", Name: "a thousand packets that are no answer, and then the answer", Behave: packets(func(_, answer []byte) [][]byte {
			return append(slices.Repeat([][]byte{flip(answer, 31), answer[:20]}, 500), answer)
		}), Outcome: agreed},
		{Section: "5.7", Name: "a hundred forged answers, and then the answer", Behave: packets(func(_, answer []byte) [][]byte {
			return append(slices.Repeat([][]byte{flip(answer, 60), flip(answer, 35)}, 50), answer)
		}), Outcome: agreed},

		{Section: "5.7", Name: "origin: changed", Behave: changed(func(b []byte) []byte { return flip(b, 25) }), Outcome: silence},
		{Section: "5.7", Name: "identifier: changed", Behave: changed(func(b []byte) []byte { return flip(b, uidAt+9) }), Outcome: unauthenticated},
		{Section: "5.7", Name: "time: changed", Behave: changed(func(b []byte) []byte { return flip(b, 35) }), Outcome: unauthenticated},
		{Section: "5.7", Name: "time: changed, and then the answer", Behave: packets(func(_, answer []byte) [][]byte { return [][]byte{flip(answer, 35), answer} }), Outcome: agreed},
		{Section: "5.6", Name: "last octet: changed", Behave: changed(func(b []byte) []byte { return flip(b, len(b)-1) }), Outcome: unauthenticated},
		{Section: "RFC 7822 3", Name: "field: length 0", Behave: octets(uidAt+2, 0, 0), Outcome: unauthenticated},
		{Section: "RFC 7822 3", Name: "field: length 1", Behave: octets(uidAt+2, 0, 1), Outcome: unauthenticated},
		{Section: "RFC 7822 3", Name: "field: length 3", Behave: octets(uidAt+2, 0, 3), Outcome: unauthenticated},
		{Section: "RFC 7822 3", Name: "field: length 12", Behave: octets(uidAt+2, 0, 12), Outcome: unauthenticated},
		{Section: "RFC 7822 3", Name: "field: length 38, no multiple of four", Behave: octets(uidAt+2, 0, 38), Outcome: unauthenticated},
		{Section: "RFC 7822 3", Name: "field: past the end", Behave: octets(uidAt+2, 0xff, 0xfc), Outcome: unauthenticated},
		{Section: "5.6", Name: "authenticator: past the end", Behave: octets(authAt+2, 0xff, 0xfc), Outcome: unauthenticated},
		{Section: "5.6", Name: "authenticator: length 16", Behave: octets(authAt+2, 0, 16), Outcome: unauthenticated},
		{Section: "5.6", Name: "nonce: of no octets", Behave: octets(authAt+4, 0, 0), Outcome: unauthenticated},
		{Section: "5.6", Name: "nonce: of 13 octets for AEAD 30", Behave: octets(authAt+4, 0, 13), Outcome: unauthenticated},
		{Section: "5.6", Name: "nonce: past the end", Behave: octets(authAt+4, 0xff, 0xff), Outcome: unauthenticated},
		{Section: "5.6", Name: "ciphertext: of no octets", Behave: octets(authAt+6, 0, 0), Outcome: unauthenticated},
		{Section: "5.6", Name: "ciphertext: of 15 octets", Behave: octets(authAt+6, 0, 15), Outcome: unauthenticated},
		{Section: "5.6", Name: "ciphertext: shorter than it is", Behave: octets(authAt+6, 0, 32), Outcome: unauthenticated},
		{Section: "5.6", Name: "ciphertext: past the end", Behave: octets(authAt+6, 0xff, 0xff), Outcome: unauthenticated},
		{Section: "5.6", Name: "authenticator: one that does not open before the one that does", Behave: changed(func(b []byte) []byte {
			return slices.Concat(b[:authAt], Field{fieldAuthenticator, make([]byte, 44)}.append(nil), b[authAt:])
		}), Outcome: unauthenticated},

		{Section: "5.7", Name: "NAK", Behave: func(o *Options) { o.Kiss = "NTSN" }, Outcome: failed("exchange_nak", "NAK")},
		{Section: "5.7", Name: "NAK, and then the answer", Behave: says("NTSN", true), Outcome: agreed},
		{Section: "5.7", Name: "NAK without the identifier", Behave: all(func(request, answer []byte) []byte { return bare(request, answer, 0, "NTSN")[:headerLength] }), Outcome: unauthenticated},
		{Section: "5.7", Name: "NAK with another identifier", Behave: all(func(request, answer []byte) []byte { return flip(bare(request, answer, 0, "NTSN"), uidAt+9) }), Outcome: unauthenticated},
		{Section: "5.7", Name: "NAK of another stratum", Behave: all(func(request, answer []byte) []byte { return bare(request, answer, 1, "NTSN") }), Outcome: unauthenticated},
		{Section: "5.7", Name: "NAK with an authenticator that does not open", Behave: all(func(_, answer []byte) []byte {
			b := slices.Clone(answer)
			b[1] = 0
			copy(b[12:16], "NTSN")
			return b
		}), Outcome: unauthenticated},
		{Section: "RFC 5905 7.4", Name: "RATE, unauthenticated", Behave: says("RATE", false), Outcome: kissed("asks for fewer requests (kiss code RATE)")},
		{Section: "RFC 5905 7.4", Name: "DENY, unauthenticated", Behave: says("DENY", false), Outcome: kissed("denies service")},
		{Section: "RFC 5905 7.4", Name: "RSTR, unauthenticated", Behave: says("RSTR", false), Outcome: kissed("by its policy")},
		{Section: "RFC 5905 7.4", Name: "an unknown kiss, unauthenticated", Behave: says("ABCD", false), Outcome: kissed("refuses (kiss code ABCD)")},
		{Section: "RFC 5905 7.4", Name: "a kiss that cannot be printed, unauthenticated", Behave: says("\x1b[1m", false), Outcome: unauthenticated},
		{Section: "RFC 5905 7.4", Name: "INIT, which refuses nothing", Behave: says("INIT", false), Outcome: unauthenticated},
		{Section: "RFC 5905 7.4", Name: "RATE, and then the answer", Behave: says("RATE", true), Outcome: agreed},
		{Section: "RFC 5905 7.4", Name: "DENY, and then the answer", Behave: says("DENY", true), Outcome: agreed},
		{Section: "RFC 5905 7.4", Name: "RATE without the identifier", Behave: all(func(request, answer []byte) []byte { return bare(request, answer, 0, "RATE")[:headerLength] }), Outcome: unauthenticated},
	}
}

// replayed sends the first answer in place of each: not even the first counts,
// as it is lost.
func replayed() func(*Options) {
	var mu sync.Mutex
	var first []byte
	return packets(func(_, answer []byte) [][]byte {
		mu.Lock()
		defer mu.Unlock()
		if first == nil {
			first = answer
			return nil
		}
		return [][]byte{first}
	})
}

// delayedByOne answers each request with the answer to the one before.
func delayedByOne() func(*Options) {
	var mu sync.Mutex
	var last []byte
	return packets(func(_, answer []byte) [][]byte {
		mu.Lock()
		defer mu.Unlock()
		before := last
		last = answer
		if before == nil {
			return nil
		}
		return [][]byte{before}
	})
}
