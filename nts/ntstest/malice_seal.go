package ntstest

import (
	"bytes"
	"math"
	"slices"
	"time"
)

// sealMalices are of what only a server can say: it is authenticated.
func sealMalices() []Malice {
	cookie := Field{fieldCookie, make([]byte, 100)}
	uid := func(body ...byte) func(*Options) {
		return sealed(func(p *Packet) { p.Fields[0].Body = body })
	}
	nonce := func(n int) func(*Options) {
		return func(o *Options) {
			o.AEADs = []uint16{aeadCMACSIV}
			o.Seal = func(p *Packet) { p.Nonce = random(n) }
		}
	}
	inner := func(octets ...byte) func(*Options) {
		return sealed(func(p *Packet) { p.Inner = octets })
	}
	kiss := func(code string) func(*Options) { return func(o *Options) { o.Kiss = code } }
	return []Malice{
		{Section: "5.7", Name: "mode: a client's", Behave: sealed(func(p *Packet) { p.Mode = 3 }), Outcome: silence},
		{Section: "5.7", Name: "mode: broadcast", Behave: sealed(func(p *Packet) { p.Mode = 5 }), Outcome: silence},
		{Section: "5.7", Name: "mode: symmetric", Behave: sealed(func(p *Packet) { p.Mode = 2 }), Outcome: silence},
		{Section: "RFC 5905 7.3", Name: "version: 3", Behave: sealed(func(p *Packet) { p.Version = 3 }), Outcome: silence},
		{Section: "RFC 5905 7.3", Name: "version: 5", Behave: sealed(func(p *Packet) { p.Version = 5 }), Outcome: silence},
		{Section: "5.7", Name: "origin: another", Behave: sealed(func(p *Packet) { p.Origin++ }), Outcome: silence},
		{Section: "5.7", Name: "origin: none", Behave: sealed(func(p *Packet) { p.Origin = 0 }), Outcome: silence},
		{Section: "5.3", Name: "identifier: none", Behave: sealed(func(p *Packet) { p.Fields = nil }), Outcome: unauthenticated},
		{Section: "5.3", Name: "identifier: twice", Behave: sealed(func(p *Packet) { p.Fields = append(p.Fields, p.Fields[0]) }), Outcome: unauthenticated},
		{Section: "5.3", Name: "identifier: and another", Behave: sealed(func(p *Packet) { p.Fields = append(p.Fields, Field{fieldUID, random(32)}) }), Outcome: unauthenticated},
		{Section: "5.3", Name: "identifier: another", Behave: uid(random(32)...), Outcome: unauthenticated},
		{Section: "5.3", Name: "identifier: of no octets", Behave: uid(), Outcome: unauthenticated},
		{Section: "5.3", Name: "identifier: longer", Behave: sealed(func(p *Packet) { p.Fields[0].Body = append(slices.Clone(p.Fields[0].Body), 0, 0, 0, 0) }), Outcome: unauthenticated},
		{Section: "5.3", Name: "identifier: only behind the authenticator", Behave: sealed(func(p *Packet) { p.After, p.Fields = p.Fields, nil }), Outcome: unauthenticated},
		{Section: "5.3", Name: "identifier: only inside", Behave: sealed(func(p *Packet) { p.Encrypted, p.Fields = append(p.Encrypted, p.Fields...), nil }), Outcome: unauthenticated},

		{Section: "5.6", Name: "sealed with the client's key", Behave: func(o *Options) { o.Key = func(c2s, _ []byte) []byte { return c2s } }, Outcome: unauthenticated},
		{Section: "5.6", Name: "sealed with a key of somebody", Behave: func(o *Options) {
			o.Key = func(_, s2c []byte) []byte { return bytes.Repeat([]byte{1}, len(s2c)) }
		}, Outcome: unauthenticated},
		{Section: "5.6", Name: "nonce: of 1 octet", Behave: nonce(1), Outcome: agreed},
		{Section: "5.6", Name: "nonce: of 8 octets", Behave: nonce(8), Outcome: agreed},
		{Section: "5.6", Name: "nonce: of 17 octets", Behave: nonce(17), Outcome: agreed},
		{Section: "5.6", Name: "nonce: of 200 octets", Behave: nonce(200), Outcome: agreed},
		{Section: "5.6", Name: "nonce: the same each time", Behave: sealed(func(p *Packet) { clear(p.Nonce) }), Outcome: agreed},
		{Section: "5.6", Name: "inside: a field of length 0", Behave: inner(2, 4, 0, 0), Outcome: unauthenticated},
		{Section: "5.6", Name: "inside: a field of length 2", Behave: inner(2, 4, 0, 2), Outcome: unauthenticated},
		{Section: "5.6", Name: "inside: a field past the end", Behave: inner(2, 4, 0, 104), Outcome: unauthenticated},
		{Section: "5.6", Name: "inside: three octets", Behave: inner(2, 4, 0), Outcome: unauthenticated},

		{Section: "5.7", Name: "fields behind the authenticator", Behave: sealed(func(p *Packet) { p.After = []Field{{fieldUID, make([]byte, 32)}, {0x4711, make([]byte, 600)}} }), Outcome: agreed},
		{Section: "5.7", Name: "a second authenticator", Behave: sealed(func(p *Packet) { p.After = []Field{{fieldAuthenticator, make([]byte, 44)}} }), Outcome: agreed},
		{Section: "5.7", Name: "cookies behind the authenticator only", Behave: sealed(func(p *Packet) { p.After, p.Encrypted = []Field{cookie}, nil }), Outcome: agreed, Cookies: 7},
		{Section: "5.7", Name: "cookies in the clear only", Behave: sealed(func(p *Packet) { p.Fields, p.Encrypted = append(p.Fields, cookie), nil }), Outcome: agreed, Cookies: 7},
		{Section: "RFC 7822 3", Name: "unknown fields in the clear and inside", Behave: sealed(func(p *Packet) {
			p.Fields = append(p.Fields, slices.Repeat([]Field{{0x4711, nil}}, 20)...)
			p.Encrypted = append(p.Encrypted, Field{0x4711, nil})
		}), Outcome: agreed, Cookies: 8},
		{Section: "5.7", Name: "no cookies", Behave: sealed(func(p *Packet) { p.Encrypted = nil }), Outcome: agreed, Cookies: 7},
		{Section: "5.7", Name: "more cookies than were asked for", Behave: sealed(func(p *Packet) {
			for i := range 12 {
				p.Encrypted = append(p.Encrypted, Field{fieldCookie, bytes.Repeat([]byte{byte(i)}, 100)})
			}
		}), Outcome: agreed, Cookies: 8},
		{Section: "5.7", Name: "the same cookie twice", Behave: func(o *Options) {
			o.Cookies = 3
			o.Seal = func(p *Packet) { p.Encrypted = []Field{p.Encrypted[0], p.Encrypted[0], p.Encrypted[0]} }
		}, Outcome: agreed, Cookies: 3},
		{Section: "5.7", Name: "a cookie of no octets", Behave: inner(2, 4, 0, 4), Outcome: agreed, Cookies: 7},
		{Section: "5.7", Name: "a cookie of 1400 octets, more than fits", Behave: sealed(func(p *Packet) { p.Encrypted = []Field{{fieldCookie, make([]byte, 1400)}} }), Outcome: agreed, Cookies: 7},
		{Section: "5.7", Name: "a cookie of 65000 octets", Behave: sealed(func(p *Packet) { p.Encrypted = []Field{{fieldCookie, make([]byte, 65000)}} }), Outcome: unauthenticated},

		{Section: "RFC 5905 7.4", Name: "RATE", Behave: kiss("RATE"), Outcome: kissed("RATE")},
		{Section: "RFC 5905 7.4", Name: "DENY", Behave: kiss("DENY"), Outcome: kissed("DENY")},
		{Section: "RFC 5905 7.4", Name: "RSTR", Behave: kiss("RSTR"), Outcome: kissed("RSTR")},
		{Section: "RFC 5905 7.4", Name: "an unknown kiss", Behave: kiss("XYZZ"), Outcome: kissed("XYZZ")},
		{Section: "RFC 5905 7.4", Name: "a kiss that cannot be printed", Behave: kiss("\x1b[1m"), Outcome: unusable("unsynchronized")},
		{Section: "5.7", Name: "NAK, authenticated", Behave: sealed(func(p *Packet) { p.kiss("NTSN") }), Outcome: kissed("NTSN")},
	}
}

// timeMalices are of what a server says of its time.
func timeMalices() []Malice {
	const second = 1 << 32
	day := 24 * time.Hour
	lies := func(d time.Duration) func(*Options) { return func(o *Options) { o.Offset = d } }
	liar := agreed
	liar.Liar = true
	// at is a server whose clock goes on from t, with a certificate for then.
	at := func(t time.Time) func(*Options) {
		return func(o *Options) {
			o.Offset = time.Until(t)
			o.NotBefore, o.NotAfter = time.Date(1961, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(2199, 1, 1, 0, 0, 0, 0, time.UTC)
		}
	}
	era1 := time.Date(2036, 2, 7, 6, 28, 16, 0, time.UTC)
	return []Malice{
		{Section: "RFC 5905 7.3", Name: "stratum: 0", Behave: sealed(func(p *Packet) { p.Stratum = 0; p.RefID = [4]byte{} }), Outcome: unusable("unsynchronized")},
		{Section: "RFC 5905 7.3", Name: "stratum: 15", Behave: sealed(func(p *Packet) { p.Stratum = 15 }), Outcome: agreed},
		{Section: "RFC 5905 7.3", Name: "stratum: 16", Behave: sealed(func(p *Packet) { p.Stratum = 16 }), Outcome: unusable("unsynchronized")},
		{Section: "RFC 5905 7.3", Name: "stratum: 255", Behave: sealed(func(p *Packet) { p.Stratum = 255 }), Outcome: unusable("unsynchronized")},
		{Section: "RFC 5905 7.3", Name: "leap: unsynchronized", Behave: func(o *Options) { o.Leap = 3 }, Outcome: unusable("unsynchronized")},
		{Section: "RFC 5905 7.3", Name: "leap: a second is announced", Behave: func(o *Options) { o.Leap = 1 }, Outcome: agreed},
		{Section: "RFC 5905 7.3", Name: "root delay: huge", Behave: sealed(func(p *Packet) { p.RootDelay = math.MaxUint32 }), Outcome: unusable("too_distant")},
		{Section: "RFC 5905 7.3", Name: "root dispersion: huge", Behave: sealed(func(p *Packet) { p.RootDispersion = math.MaxUint32 }), Outcome: unusable("too_distant")},
		{Section: "RFC 5905 7.3", Name: "root distance: just too much", Behave: sealed(func(p *Packet) { p.RootDelay, p.RootDispersion = 1<<16, 1<<15 }), Outcome: unusable("too_distant")},
		{Section: "RFC 5905 7.3", Name: "root distance: just enough", Behave: sealed(func(p *Packet) { p.RootDelay, p.RootDispersion = 1<<15, 1<<14 }), Outcome: agreed},
		{Section: "RFC 5905 7.3", Name: "precision: 2^127 seconds", Behave: sealed(func(p *Packet) { p.Precision = 127 }), Outcome: unusable("too_distant")},
		{Section: "RFC 5905 7.3", Name: "precision: 2^-128 seconds", Behave: sealed(func(p *Packet) { p.Precision = -128 }), Outcome: agreed},
		{Section: "RFC 5905 8", Name: "sent before received", Behave: sealed(func(p *Packet) { p.Transmit = p.Receive - second }), Outcome: unusable("impossible_times")},
		{Section: "RFC 5905 8", Name: "received: no time", Behave: sealed(func(p *Packet) { p.Receive = 0 }), Outcome: unusable("impossible_times")},
		{Section: "RFC 5905 8", Name: "sent: no time", Behave: sealed(func(p *Packet) { p.Transmit = 0 }), Outcome: unusable("impossible_times")},
		{Section: "RFC 5905 8", Name: "neither received nor sent", Behave: sealed(func(p *Packet) { p.Receive, p.Transmit = 0, 0 }), Outcome: unusable("impossible_times")},
		{Section: "RFC 5905 8", Name: "longer at the server than under way", Behave: sealed(func(p *Packet) { p.Receive, p.Transmit = p.Receive-10*second, p.Receive+10*second }), Outcome: unusable("impossible_times")},
		{Section: "RFC 5905 8", Name: "68 years at the server", Behave: sealed(func(p *Packet) { p.Transmit = p.Receive + 1<<63 }), Outcome: unusable("impossible_times")},
		{Section: "RFC 5905 6", Name: "received in one era, sent in the next", Behave: sealed(func(p *Packet) { p.Receive, p.Transmit = math.MaxUint64, 1 }), Outcome: unusable("outside_window")},
		{Section: "RFC 5905 6", Name: "the last seconds of era 0", Behave: at(era1.Add(-time.Hour)), Outcome: liar},
		{Section: "RFC 5905 6", Name: "the first seconds of era 1", Behave: at(era1.Add(time.Hour)), Outcome: liar},
		{Section: "RFC 5905 6", Name: "2135, which has the stamps of 1998", Behave: at(time.Date(2135, 1, 1, 0, 0, 0, 0, time.UTC)), Outcome: liar},
		{Section: "RFC 5905 11.2.1", Name: "an hour ahead", Behave: lies(time.Hour), Outcome: liar},
		{Section: "RFC 5905 11.2.1", Name: "an hour behind", Behave: lies(-time.Hour), Outcome: liar},
		{Section: "8.5", Name: "after the end of its certificate", Behave: lies(60 * day), Outcome: unusable("outside_window")},
		{Section: "8.5", Name: "before the beginning of its certificate", Behave: lies(-60 * day), Outcome: unusable("outside_window")},
	}
}
