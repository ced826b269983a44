package nts

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"time"
)

// Reply is what came back to a packet that was sent only to explain why there
// is no time. Nothing of it is authenticated, and no time is in it: people read
// it, and it steers nothing.
type Reply string

// The replies. The zero Reply is that nothing was sent.
const (
	Silence Reply = "silence"
	Closed  Reply = "closed"  // ICMP says that nobody is there, or that a firewall rejects
	Strange Reply = "strange" // packets that are no answer to what was sent
	Bare    Reply = "bare"    // an NTP answer without NTS
	Refusal Reply = "refusal" // a NAK with our identifier: an NTS server's, of a cookie that it does not know
	Kissed  Reply = "kissed"  // another kiss: the server has no time, or none for us
)

// ProbePlain sends one NTP packet of 48 octets, without NTS, to where the next
// request would go, and waits for a reply until ctx ends.
func (s *Session) ProbePlain(ctx context.Context, o *Options) Reply {
	r := &request{raw: make([]byte, headerLen)}
	rand.Read(r.transmit[:])
	r.raw[0], r.raw[3] = 4<<3|3, 0x20
	copy(r.raw[40:], r.transmit[:])
	return s.probe(ctx, o, r)
}

// ProbeRefusal sends one request as long as one with a cookie of this session
// and without placeholders, but with a cookie that no server gave. An NTS
// server refuses that in a short packet (RFC 8915 §5.7), which comes back where
// its long answers do not. Octets is the length of the request.
func (s *Session) ProbeRefusal(ctx context.Context, o *Options) (reply Reply, octets int) {
	if s.ciphers() != nil {
		return "", 0
	}
	cookie := make([]byte, 100) // as most servers' are
	if len(s.Cookies) > 0 {
		cookie = make([]byte, len(s.Cookies[0]))
	}
	rand.Read(cookie)
	r := newRequest(s.seal, s.AEAD.nonceLen(), cookie, 0)
	return s.probe(ctx, o, r), len(r.raw)
}

// probe sends nothing where a proxy is set: its route holds that.
func (s *Session) probe(ctx context.Context, o *Options, r *request) Reply {
	if len(s.Servers) == 0 {
		return ""
	}
	conn, err := o.dialUDP(s.Servers[0])
	if err != nil {
		return ""
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	if _, err := conn.Write(r.raw); err != nil {
		return ""
	}
	said := Silence
	var buf [2048]byte
	for {
		n, err := conn.Read(buf[:])
		switch {
		case icmp(err):
			if said == Silence {
				said = Closed
			}
		case err != nil:
			return said
		default:
			if said = s.replyTo(buf[:n], r); said != Strange {
				return said
			}
		}
	}
}

// replyTo tells what a packet is to a probe.
func (s *Session) replyTo(raw []byte, r *request) Reply {
	if len(raw) < headerLen || raw[0]>>3&7 > 4 || raw[0]&7 != 4 || !bytes.Equal(raw[24:32], r.transmit[:]) {
		return Strange
	}
	var k kiss
	if len(r.raw) == headerLen {
		k = kiss(kissCode(raw))
	} else if _, err := openAnswer(raw, r, s.open); err != nil {
		errors.As(err, &k)
	}
	switch {
	case k == "":
		return Bare
	case k == "NTSN" && len(r.raw) > headerLen:
		return Refusal
	}
	return Kissed
}
