package nts

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strconv"
	"syscall"
	"time"
)

// Sample is one authenticated exchange: the four stamps of RFC 5905 §8 and
// what the server says of itself. T1 and T4 are of the local clock. Only
// Session.Exchange makes one.
type Sample struct {
	T1, T2, T3, T4 time.Time
	// At is when the answer was read: the local clock, with its monotonic
	// reading, so that the sample can be held against a clock that is set.
	At time.Time

	Leap, Stratum             uint8
	Precision                 time.Duration
	RootDelay, RootDispersion time.Duration
	Kernel                    bool           // both T1 and T4 are the kernel's
	Server                    netip.AddrPort // not valid where only the proxy knows it
}

// Offset is what must be added to the local clock.
func (s *Sample) Offset() time.Duration {
	return s.T2.Sub(s.T1)/2 + s.T3.Sub(s.T4)/2
}

// RoundTrip is T4 − T1: the server's own time is not deducted, since nothing
// proves it.
func (s *Sample) RoundTrip() time.Duration { return s.T4.Sub(s.T1) }

// Delay is the round trip less the server's own time.
func (s *Sample) Delay() time.Duration { return s.RoundTrip() - s.T3.Sub(s.T2) }

// errClockSet: what was measured means nothing.
var errClockSet = errors.New("the local clock was set during the exchange")

// Exchange sends one request by route, which is that of the key exchange, with
// a cookie that is then gone, and waits for its answer until ctx ends. Its
// errors are *Error.
func (s *Session) Exchange(ctx context.Context, route Route) (*Sample, error) {
	sample, err := s.exchange(ctx, &route)
	if CodeOf(err) == ExchangeNAK && s.Other != nil && s.Ready() {
		s.swap()
		sample, err = s.exchange(ctx, &route)
	}
	return sample, err
}

func (s *Session) exchange(ctx context.Context, route *Route) (*Sample, error) {
	if !s.Ready() {
		return nil, fail(StageInternal, Internal, "no cookie left")
	}
	if err := s.ciphers(); err != nil {
		return nil, fail(StageInternal, Internal, "keys of the session: %w", err)
	}
	// The socket is there before a cookie is spent: without a way none is.
	x, err := s.socket(ctx, route)
	if err != nil {
		s.lost()
		return nil, err
	}
	defer x.close()
	stop := context.AfterFunc(ctx, func() { x.conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()

	cookie := s.take()
	room := maxRequest - x.via.overhead()
	req := newRequestWithin(room, s.seal, s.AEAD.nonceLen(), cookie, min(s.Placeholders, maxJar-1-len(s.Cookies)))
	if route.Proxy == nil { // else its head comes first, and may be of any length
		heed(x.conn, req.transmit)
	}
	before := Now()
	if err := x.write(req.raw); err != nil {
		s.lost()
		return nil, err
	}
	a, err := x.await(s, req)
	if err != nil {
		if CodeOf(err) != ExchangeNAK { // which came the whole way back
			s.lost()
		}
		return nil, err
	}
	s.answered(x.via.overhead()+len(req.raw), a.cookies)
	if a.kiss != "" {
		err := kissError(a.kiss)
		err.Sure = true
		return nil, err
	}
	return x.sample(before, a, s.server())
}

// await reads packets until one is the authenticated answer or ctx ends.
// Nothing else ends it: a refusal or error that is not authenticated could
// come from anyone, and is told only if nothing better came.
func (x *exchange) await(s *Session, req *request) (*answer, error) {
	var forged int
	var said kiss
	for {
		raw, err := x.read()
		if icmp(err) {
			continue // anyone can send these
		}
		if err != nil {
			over := x.via.over()
			switch {
			case over != nil:
				return nil, over
			case said == "NTSN":
				return nil, nak()
			case said != "":
				return nil, kissError(string(said))
			case forged > 0:
				return nil, fail(StageExchange, ExchangeUnauthenticated, "answers came, and none authenticates (%d)", forged).
					hint("someone or something is in between")
			}
			return nil, x.timeout(s, req)
		}
		raw, ok := x.via.unwrap(raw)
		if !ok {
			continue
		}
		a, err := openAnswer(raw, req, s.open)
		var k kiss
		switch {
		case err == nil:
			return a, nil
		case errors.As(err, &k):
			said = k
			if k == "NTSN" && s.Other != nil {
				return nil, nak() // there are other keys to try at once
			}
		case req.answeredBy(raw):
			forged++
		}
	}
}

// icmp tells whether err is what the network said of a packet. Each costs its
// sender a packet, so that waiting on is no tight loop.
func icmp(err error) bool {
	var errno syscall.Errno
	return errors.As(err, &errno) && errno != syscall.EBADF && errno != syscall.EINVAL
}

func (x *exchange) timeout(s *Session, req *request) *Error {
	hint := "is UDP to port %d filtered on the way? (the request had %d octets)"
	if x.via != nil {
		hint = "does the proxy send UDP to port %d? (the request had %d octets)"
	}
	host, port := s.target()
	octets := x.via.overhead() + len(req.raw)
	e := fail(StageExchange, ExchangeTimeout, "no answer from %s", net.JoinHostPort(host, strconv.Itoa(int(port)))).
		hint(hint, port, octets)
	e.Octets = octets
	return e
}

func nak() *Error {
	return fail(StageExchange, ExchangeNAK, "the server does not know its cookies (NAK)").
		hint("its NTP service and its key exchange have different keys, or another machine answers in its place")
}

func kissError(code string) *Error {
	words, mend := "refuses", "ask its operator why, or leave it out"
	switch code {
	case "RATE":
		words, mend = "asks for fewer requests", "everybody behind this machine's public address counts: ask again later, and less often"
	case "DENY":
		words = "denies service"
	case "RSTR":
		words = "denies service by its policy"
	}
	e := fail(StageExchange, ExchangeKiss, "the server %s (kiss code %s)", words, code).hint("%s", mend)
	e.Kiss = code
	return e
}

// sample puts the stamps together.
func (x *exchange) sample(before time.Time, a *answer, server netip.AddrPort) (*Sample, error) {
	after := Now()
	// Both readings of both moments: if the clocks disagree on what lies
	// between, the wall clock was set.
	elapsed := after.Sub(before)
	if d := after.Round(0).Sub(before.Round(0)) - elapsed; d.Abs() > time.Millisecond+elapsed/1000 {
		return nil, fail(StageInternal, Internal, "%w", errClockSet)
	}
	s := &Sample{
		T1: before.Round(0), T2: a.receive, T3: a.transmit, T4: after.Round(0), At: after,
		Leap: a.leap, Stratum: a.stratum, Precision: precision(a.precision),
		RootDelay: a.rootDelay, RootDispersion: a.rootDispersion, Server: server,
	}
	// The kernel's stamps lie between ours, else they are not of these packets.
	// Some drivers give one of the two.
	between := func(t time.Time) bool { return !t.Before(s.T1) && !t.After(s.T4) }
	sent, received := x.sent(), x.received
	if s.Kernel = between(sent); s.Kernel {
		s.T1 = sent
	}
	if s.Kernel = s.Kernel && between(received); between(received) {
		s.T4 = received
	}
	return s, nil
}

// Now is time.Now with the wall clock and the monotonic one read at
// the same moment. The library reads one after the other, and on a busy
// machine milliseconds can come between: then it is done again.
func Now() time.Time {
	now := time.Now()
	for range 10 {
		last := now
		if now = time.Now(); now.Sub(last) < 100*time.Microsecond {
			break
		}
	}
	return now
}

// precision is 2^p seconds, at most one.
func precision(p int8) time.Duration {
	return time.Second >> min(uint8(-min(p, 0)), 30)
}
