package nts

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"ntsclient/nts/ntstest"
)

// attempt is what becomes of a connection, and how long that takes. Without
// end it takes until it is given up.
type attempt struct {
	takes time.Duration
	err   error
}

const never = time.Duration(-1)

// fakeDialer dials 192.0.2.1 and on, in the fake time of a bubble.
type fakeDialer struct {
	attempts []attempt
	began    time.Time
	starts   []time.Duration // since began
	conns    []*closeCounter // of each address
}

type closeCounter struct {
	net.Conn
	closed int
}

func (c *closeCounter) Close() error {
	c.closed++
	return nil
}

func (d *fakeDialer) dial(ctx context.Context, addr netip.Addr) (net.Conn, error) {
	i := int(addr.As4()[3]) - 1
	d.starts[i] = time.Since(d.began)
	timer := make(<-chan time.Time)
	if d.attempts[i].takes != never {
		timer = time.After(d.attempts[i].takes)
	}
	select {
	case <-ctx.Done():
		// One that has just come about is not lost.
		if d.attempts[i].err == nil && d.attempts[i].takes != never {
			break
		}
		return nil, &net.OpError{Op: "dial", Err: ctx.Err()}
	case <-timer:
		if d.attempts[i].err != nil {
			return nil, &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", d.attempts[i].err)}
		}
	}
	d.conns[i] = new(closeCounter)
	return d.conns[i], nil
}

// RFC 8305 §5: attempts start 250 ms apart, or at once after a failure; the
// first that comes about is taken, and all others are closed.
func TestHappyEyeballs(t *testing.T) {
	const ms = time.Millisecond
	refused, unreachable := error(syscall.ECONNREFUSED), error(syscall.ENETUNREACH)
	for _, test := range []struct {
		name     string
		attempts []attempt
		starts   []time.Duration // -1: not at all
		takes    time.Duration
		winner   int // from 1; 0: none
		code     Code
	}{
		{"the first is quick", []attempt{{20 * ms, nil}, {0, nil}}, []time.Duration{0, -1}, 20 * ms, 1, ""},
		{"the first is slow", []attempt{{300 * ms, nil}, {100 * ms, nil}}, []time.Duration{0, 250 * ms}, 300 * ms, 1, ""},
		{"the first is slower", []attempt{{400 * ms, nil}, {100 * ms, nil}}, []time.Duration{0, 250 * ms}, 350 * ms, 2, ""},
		{"the first is silent", []attempt{{never, nil}, {10 * ms, nil}}, []time.Duration{0, 250 * ms}, 260 * ms, 2, ""},
		{"the first is refused", []attempt{{5 * ms, refused}, {10 * ms, nil}}, []time.Duration{0, 5 * ms}, 15 * ms, 2, ""},
		{"refused, silent, good", []attempt{{5 * ms, refused}, {never, nil}, {10 * ms, nil}}, []time.Duration{0, 5 * ms, 255 * ms}, 265 * ms, 3, ""},
		{"silent, refused, good", []attempt{{never, nil}, {5 * ms, refused}, {10 * ms, nil}}, []time.Duration{0, 250 * ms, 255 * ms}, 265 * ms, 3, ""},
		{"silent, silent, good", []attempt{{never, nil}, {never, nil}, {10 * ms, nil}}, []time.Duration{0, 250 * ms, 500 * ms}, 510 * ms, 3, ""},
		{"the last is refused and the first comes", []attempt{{700 * ms, nil}, {5 * ms, refused}}, []time.Duration{0, 250 * ms}, 700 * ms, 1, ""},
		{"all refused", []attempt{{5 * ms, refused}, {5 * ms, refused}}, []time.Duration{0, 5 * ms}, 10 * ms, 0, ConnectRefused},
		{"unreachable and refused", []attempt{{0, unreachable}, {5 * ms, refused}}, []time.Duration{0, 0}, 5 * ms, 0, ConnectRefused},
		{"all unreachable", []attempt{{0, unreachable}, {0, unreachable}}, []time.Duration{0, 0}, 0, 0, ConnectUnreachable},
		{"silent and unreachable", []attempt{{never, nil}, {0, unreachable}}, []time.Duration{0, 250 * ms}, time.Minute, 0, ConnectTimeout},
		{"silent and refused", []attempt{{never, nil}, {0, refused}}, []time.Duration{0, 250 * ms}, time.Minute, 0, ConnectRefused},
		{"silent", []attempt{{never, nil}}, []time.Duration{0}, time.Minute, 0, ConnectTimeout},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := len(test.attempts)
				d := &fakeDialer{test.attempts, time.Now(), slices.Repeat([]time.Duration{-1}, n), make([]*closeCounter, n)}
				var addrs []netip.Addr
				for i := range n {
					addrs = append(addrs, netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)}))
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				conn, err := race(ctx, addrs, d.dial)
				if took := time.Since(d.began); took != test.takes {
					t.Errorf("it took %v, want %v", took, test.takes)
				}
				wantError(t, err, StageConnect, test.code, "")
				synctest.Wait()
				if !slices.Equal(d.starts, test.starts) {
					t.Errorf("attempts started at %v, want %v", d.starts, test.starts)
				}
				for i, c := range d.conns {
					switch {
					case c == nil:
						if i+1 == test.winner {
							t.Errorf("there is no connection %d", i+1)
						}
					case i+1 == test.winner && (conn != c || c.closed != 0):
						t.Errorf("connection %d is not what came back, or is closed", i+1)
					case i+1 != test.winner && c.closed != 1:
						t.Errorf("connection %d was closed %d times", i+1, c.closed)
					}
				}
			})
		})
	}
}

// The real dialer, to real addresses: one refuses, one takes.
func TestDialAddresses(t *testing.T) {
	s := start(t, ntstest.Options{Names: []string{"ntp.example"}})
	o := clientOf(s)
	o.Host = "ntp.example"
	for _, ip := range []string{"127.0.0.2", "127.0.0.3", "127.0.0.1"} {
		o.IPs = append(o.IPs, netip.MustParseAddr(ip))
	}
	session, err := KeyExchange(enough(t), o)
	if err != nil || session.KEAddr.String() != "127.0.0.1" {
		t.Fatalf("%+v, %v", session, err)
	}
	o.IPs = o.IPs[:2]
	_, err = KeyExchange(enough(t), o)
	wantError(t, err, StageConnect, ConnectRefused, "refused")
	o.IPs = []netip.Addr{netip.MustParseAddr("fe80::1%nowhere")}
	_, err = KeyExchange(enough(t), o)
	wantError(t, err, StageConnect, ConnectUnreachable, "")
}

func TestLookup(t *testing.T) {
	s := start(t, ntstest.Options{Names: []string{"one.test", "two.test", "missing.test", "broken.test"}})
	loopback := []netip.Addr{netip.MustParseAddr("127.0.0.1")}
	for _, test := range []struct {
		name   string
		client func(*Options)
		code   Code
		part   string
	}{
		{"a name", func(o *Options) { o.Host = "one.test" }, "", ""},
		{"two addresses", func(o *Options) { o.Host = "two.test" }, "", ""},
		{"no such name", func(o *Options) { o.Host = "missing.test" }, DNSNotFound, "the name missing.test does not exist"},
		{"no such name, but addresses known before", func(o *Options) { o.Host, o.Fallback = "missing.test", loopback }, "", ""},
		{"no such name, but addresses given", func(o *Options) { o.Host, o.IPs = "missing.test", loopback }, "", ""},
		{"the resolver fails", func(o *Options) { o.Host = "broken.test" }, DNSFailed, "looking up broken.test: the resolver"},
		{"the resolver fails, but addresses known before", func(o *Options) { o.Host, o.Fallback = "broken.test", loopback }, "", ""},
		{"no address of the family", func(o *Options) { o.Host, o.Network = "one.test", "ip6" }, DNSNotFound, ""},
		{"an address of the other family", func(o *Options) { o.Network = "ip6" }, DNSNotFound, "of the family asked for"},
		{"addresses of the other family", func(o *Options) { o.IPs, o.Network = loopback, "ip6" }, DNSNotFound, "of the family asked for"},
		{"addresses that are none of a host", func(o *Options) { o.Host = "none.test" }, DNSNotFound, "none.test"},
		{"the unspecified address", func(o *Options) { o.Host = "0.0.0.0" }, DNSNotFound, "0.0.0.0"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			o := clientOf(s)
			test.client(o)
			_, err := KeyExchange(enough(t), o)
			wantError(t, err, StageDNS, test.code, test.part)
		})
	}
	t.Run("no answer", func(t *testing.T) {
		t.Parallel()
		_, err := KeyExchange(brief(t), &Options{Host: "silent.test", Port: 4460})
		wantError(t, err, StageDNS, DNSFailed, "silent.test: no resolver answers in time")
	})
	t.Run("the name of the NTP server", func(t *testing.T) {
		t.Parallel()
		s := start(t, ntstest.Options{KE: with(record(6, true, []byte("missing.test")...))})
		_, err := KeyExchange(enough(t), clientOf(s))
		wantError(t, err, StageDNS, DNSNotFound, "the NTP server that the key exchange names: the name missing.test. does not exist")
	})
}

// Families alternate, IPv6 first, and sixteen addresses are enough.
func TestOrder(t *testing.T) {
	var found []netip.Addr
	for _, a := range []string{"192.0.2.1", "::ffff:192.0.2.2", "0.0.0.0", "192.0.2.3", "ff02::1", "2001:db8::1", "2001:db8::2", "::"} {
		found = append(found, netip.MustParseAddr(a))
	}
	for network, want := range map[string]string{
		"":    "[2001:db8::1 192.0.2.1 2001:db8::2 192.0.2.2 192.0.2.3]",
		"ip4": "[192.0.2.1 192.0.2.2 192.0.2.3]",
		"ip6": "[2001:db8::1 2001:db8::2]",
	} {
		got, err := (&Options{Network: network}).order("a", found)
		if err != nil || fmt.Sprint(got) != want {
			t.Errorf("%q: %v, %v; want %s", network, got, err, want)
		}
	}
	if got, _ := new(Options).order("a", slices.Repeat(found, 9)); len(got) != maxAddrs {
		t.Errorf("%d addresses", len(got))
	}
}

func TestCodeOf(t *testing.T) {
	e := fail(StageTLS, TLSFailed, "x: %w", io.EOF).hint("try %s", "y")
	wrapped := fmt.Errorf("server: %w", e)
	if CodeOf(wrapped) != TLSFailed || !errors.Is(wrapped, io.EOF) || e.Error() != "x: EOF" || e.Hint != "try y" {
		t.Errorf("%v, %v", CodeOf(wrapped), wrapped)
	}
	if CodeOf(io.EOF) != Internal || CodeOf(nil) != Internal {
		t.Error("what is no Error has another code than internal")
	}
}

func TestNoSocket(t *testing.T) {
	for errno, code := range map[syscall.Errno]Code{
		syscall.EMFILE: Internal, syscall.ENFILE: Internal, syscall.ENETUNREACH: ConnectUnreachable,
		syscall.ECONNREFUSED: ConnectRefused, syscall.ECONNRESET: ConnectRefused,
	} {
		if e := connectError([]error{&net.OpError{Op: "dial", Err: errno}}); e.Code != code || e.Hint == "" {
			t.Errorf("%v: %s, %s", errno, e.Code, e.Hint)
		}
	}
}
