package ntstest

import (
	"crypto/tls"
	"net"
	"slices"
	"strings"
)

// A Malice is one way in which a server, or who is on the way to it, is broken
// or hostile, and what a right client makes of that.
type Malice struct {
	Section string // of RFC 8915, unless it names another
	Name    string
	Behave  func(*Options)
	Outcome

	Host     string // the client asks for this name or address; default time.test, at 127.0.0.1
	Requests int    // NTP requests that it takes at least; default 1 where there are keys
	Blames   bool   // the server finds fault with a right request
	Cookies  int    // that the client holds afterwards; 0: any number
}

// Outcome is what becomes of a server, in the words of the reports.
type Outcome struct {
	Verdict string // "agreed", "unusable" or "failed"
	Code    string // why not: of the error or, where unusable, of the reason
	Part    string // of the text that says so
	Liar    bool   // it is agreed with only where nobody else is asked
}

// Stage is the link of the chain that broke.
func (o *Outcome) Stage() string {
	switch kind, _, _ := strings.Cut(o.Code, "_"); {
	case o.Verdict != "failed":
		return ""
	case kind == "ke":
		return "key_exchange"
	default:
		return kind
	}
}

// Malices are all kinds that there are.
func Malices() []Malice {
	return slices.Concat(tlsMalices(), chainMalices(), recordMalices(), serverMalices(), packetMalices(), sealMalices(), timeMalices())
}

// Options are those of a server that behaves so, with a certificate of ca.
func (m *Malice) Options(ca *CA) Options {
	o := Options{CA: ca, Names: []string{"time.test", "127.0.0.1"}}
	m.Behave(&o)
	return o
}

var agreed = Outcome{Verdict: "agreed"}

func failed(code, part string) Outcome { return Outcome{Verdict: "failed", Code: code, Part: part} }
func unusable(code string) Outcome     { return Outcome{Verdict: "unusable", Code: code} }

// raw talks below TLS, on a connection that has just come.
func raw(f func(net.Conn)) func(*Options) {
	return func(o *Options) {
		o.RawConn = func(c net.Conn) bool { f(c); return true }
	}
}

// instead of TLS, once the client has said hello.
func afterHello(answer ...byte) func(*Options) {
	return raw(func(c net.Conn) {
		c.Read(make([]byte, 4096))
		c.Write(answer)
		untilClosed(c)
	})
}

// untilClosed says no more.
func untilClosed(c net.Conn) {
	for b := make([]byte, 4096); ; {
		if _, err := c.Read(b); err != nil {
			return
		}
	}
}

// reset ends a connection without a word.
func reset(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		tcp.SetLinger(0)
	}
	c.Close()
}

func config(f func(*tls.Config)) func(*Options) {
	return func(o *Options) { o.TLS = f }
}

// wrapped changes what the server writes below TLS.
func wrapped(w wire) func(*Options) {
	return func(o *Options) {
		o.Wrap = func(c net.Conn) net.Conn { w := w; w.Conn = c; return &w }
	}
}

// talk takes over in place of the answer of the key exchange.
func talk(f func(*tls.Conn)) func(*Options) {
	return func(o *Options) {
		o.KERaw = func(c *tls.Conn, _ []Record) bool { f(c); return true }
	}
}

// endlessly writes until the other side has had enough.
func endlessly(c net.Conn, b []byte) {
	for {
		if _, err := c.Write(b); err != nil {
			return
		}
	}
}

// An Edit changes the records of an answer.
type Edit func([]Record) []Record

// With puts records before End of Message.
func With(records ...Record) Edit {
	return func(all []Record) []Record { return slices.Insert(all, len(all)-1, records...) }
}

// Instead replaces all records of a type.
func Instead(kind uint16, records ...Record) Edit {
	return func(all []Record) []Record {
		at := slices.IndexFunc(all, func(r Record) bool { return r.Type == kind })
		all = slices.DeleteFunc(all, func(r Record) bool { return r.Type == kind })
		return slices.Insert(all, at, records...)
	}
}

// edited is an answer with its records changed.
func edited(edits ...Edit) func(*Options) {
	return func(o *Options) {
		o.KE = func(all []Record) []Record {
			for _, edit := range edits {
				all = edit(all)
			}
			return all
		}
	}
}

func critical(kind uint16, body ...byte) Record { return Record{kind, true, body} }
func ordinary(kind uint16, body ...byte) Record { return Record{kind, false, body} }

// sealed changes a packet before it is sealed: what it says is authenticated.
func sealed(f func(*Packet)) func(*Options) {
	return func(o *Options) { o.Seal = f }
}

// packets sends, in place of each answer, what f makes of it.
func packets(f func(request, answer []byte) [][]byte) func(*Options) {
	return func(o *Options) { o.Answer = f }
}

// changed sends each answer after something was done to it.
func changed(f func(b []byte) []byte) func(*Options) {
	return packets(func(_, answer []byte) [][]byte { return [][]byte{f(answer)} })
}

// octets overwrites an answer from an offset on.
func octets(at int, with ...byte) func(*Options) {
	return changed(func(b []byte) []byte { copy(b[at:], with); return b })
}

func flip(b []byte, at int) []byte {
	b = slices.Clone(b)
	b[at] ^= 0x40
	return b
}

// Where things are in an answer.
const (
	uidAt   = headerLength
	authAt  = uidAt + 4 + 32
	nonceAt = authAt + 8
)

// bare is a packet without authenticator that answers the request.
func bare(request, answer []byte, stratum byte, code string) []byte {
	b := slices.Clone(answer[:headerLength])
	b[1] = stratum
	copy(b[12:16], code)
	return append(b, request[uidAt:authAt]...)
}

// says sends packets that say no, and then perhaps the answer.
func says(code string, thenAnswer bool) func(*Options) {
	return packets(func(request, answer []byte) [][]byte {
		no := bare(request, answer, 0, code)
		if thenAnswer {
			return [][]byte{no, answer}
		}
		return [][]byte{no}
	})
}
