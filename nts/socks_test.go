package nts

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"ntsclient/nts/ntstest"
)

// startProxy starts a proxy that ends with the test, and says how it is reached.
func startProxy(t *testing.T, o ntstest.ProxyOptions) (*ntstest.Proxy, Route) {
	t.Helper()
	p, err := ntstest.StartProxy(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.Close()
		if bad := p.Stats().Bad; len(bad) > 0 {
			t.Errorf("the proxy was asked what no right client asks: %q", bad)
		}
	})
	return p, Route{Proxy: &Proxy{Host: p.Addr().Addr().String(), Port: p.Addr().Port(), User: o.User, Password: o.Password}}
}

// onlyVia fails the test unless all that a server got came through the proxy.
func onlyVia(t *testing.T, p *ntstest.Proxy, s *ntstest.Server) {
	t.Helper()
	stats, via, connects := s.Stats(), p.Stats(), 0
	for _, r := range via.Requests {
		if r.Command == ntstest.SocksConnect {
			connects++
		}
	}
	if stats.Connections > connects || stats.Requests > len(via.Datagrams) {
		t.Errorf("the server got %d connections and %d requests, and the proxy sent %d and %d",
			stats.Connections, stats.Requests, connects, len(via.Datagrams))
	}
}

// overhear has the questions to the resolver of this process heard until the
// test ends, all in one.
func overhear(t *testing.T) (questions func() []byte) {
	before, heard := net.DefaultResolver, new(questioned)
	t.Cleanup(func() { net.DefaultResolver = before })
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := before.Dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return overheard{conn.(*net.UDPConn), heard}, nil
	}}
	return func() []byte {
		heard.Lock()
		defer heard.Unlock()
		return bytes.Clone(heard.all)
	}
}

type questioned struct {
	sync.Mutex
	all []byte
}

type overheard struct {
	*net.UDPConn
	by *questioned
}

func (o overheard) Write(b []byte) (int, error) {
	o.by.Lock()
	o.by.all = append(o.by.all, b...)
	o.by.Unlock()
	return o.UDPConn.Write(b)
}

// Both legs go through a proxy, by names that only it can resolve.
func TestProxy(t *testing.T) {
	questions := overhear(t)
	names := map[string]string{"hidden.test": "127.0.0.1", "hidden.time.test": "127.0.0.1"}
	for _, test := range []struct {
		name    string
		server  ntstest.Options
		proxy   ntstest.ProxyOptions
		host    string
		options func(*Options)
		hosts   []string // that the proxy is to connect to
		target  string   // that it is to send packets to
		address bool     // which the client knows
	}{
		{name: "a name", host: "hidden.test", hosts: []string{"hidden.test"}, target: "hidden.test"},
		{name: "a name with a dot", host: "hidden.test.", hosts: []string{"hidden.test"}, target: "hidden.test"},
		{name: "an address", host: "127.0.0.1", hosts: []string{"127.0.0.1"}, target: "127.0.0.1", address: true},
		{
			name: "another server, by name", server: ntstest.Options{KE: with(record(6, true, []byte("hidden.time.test.")...))},
			host: "hidden.test", hosts: []string{"hidden.test"}, target: "hidden.time.test",
		},
		{
			name: "another server than the address, by name", server: ntstest.Options{KE: with(record(6, true, []byte("hidden.time.test")...))},
			host: "127.0.0.1", hosts: []string{"127.0.0.1"}, target: "hidden.time.test",
		},
		{
			name: "another server, by address", server: ntstest.Options{ListenNTP: "127.0.0.2:0"},
			host: "hidden.test", hosts: []string{"hidden.test"}, target: "127.0.0.2", address: true,
		},
		{
			name: "user and password", proxy: ntstest.ProxyOptions{User: "u", Password: strings.Repeat("p", 255)},
			host: "hidden.test", hosts: []string{"hidden.test"}, target: "hidden.test",
		},
		{
			name: "addresses that are not needed", host: "hidden.test", hosts: []string{"hidden.test"}, target: "hidden.test",
			options: func(o *Options) { o.IPs = []netip.Addr{netip.MustParseAddr("127.0.0.7")}; o.Fallback = o.IPs },
		},
		{
			name: "a name that fails there, and addresses", host: "hidden.unknown.test", target: "127.0.0.1", address: true,
			hosts:   []string{"hidden.unknown.test", "127.0.0.1"},
			options: func(o *Options) { o.IPs = []netip.Addr{netip.MustParseAddr("127.0.0.1")} },
		},
		{
			name: "a name that fails there, and addresses from before", host: "hidden.unknown.test", target: "127.0.0.1", address: true,
			hosts:   []string{"hidden.unknown.test", "127.0.0.1"},
			options: func(o *Options) { o.Fallback = []netip.Addr{netip.MustParseAddr("127.0.0.1")} },
		},
		{
			name: "the proxy's name is looked up", host: "hidden.test", hosts: []string{"hidden.test"}, target: "hidden.test",
			options: func(o *Options) { o.Proxy.Host = "one.test" },
		},
		{
			name: "a relay at the unspecified address", host: "hidden.test", hosts: []string{"hidden.test"}, target: "hidden.test",
			proxy: ntstest.ProxyOptions{Bound: func(relay netip.AddrPort) []byte {
				return []byte{1, 0, 0, 0, 0, byte(relay.Port() >> 8), byte(relay.Port())}
			}},
		},
		{
			name: "a proxy on IPv6", host: "hidden.test", hosts: []string{"hidden.test"}, target: "hidden.test",
			proxy: ntstest.ProxyOptions{Listen: "[::1]:0"},
		},
		{
			name: "from an address", host: "hidden.test", hosts: []string{"hidden.test"}, target: "hidden.test",
			options: func(o *Options) { o.Bind.Addr = netip.MustParseAddr("127.0.0.3") },
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			test.server.Names = []string{"hidden.test", "hidden.unknown.test", "127.0.0.1"}
			s := start(t, test.server)
			test.proxy.Names = names
			p, route := startProxy(t, test.proxy)
			o := clientOf(s)
			o.Host, o.Route = test.host, route
			if test.options != nil {
				test.options(o)
			}
			session, err := KeyExchange(enough(t), o)
			if err != nil {
				t.Fatal(err)
			}
			stored, err := json.Marshal(session) // as between two runs
			if err != nil {
				t.Fatal(err)
			}
			session = new(Session)
			if err := json.Unmarshal(stored, session); err != nil {
				t.Fatal(err)
			}
			if host, port := session.target(); host != test.target || port != s.NTP().Port() {
				t.Errorf("requests go to %s port %d, want %s", host, port, test.target)
			}
			for range 3 {
				sample, err := session.Exchange(enough(t), o.Route)
				if err != nil {
					t.Fatal(err)
				}
				if sample.Server.IsValid() != test.address {
					t.Errorf("the sample is from %v", sample.Server)
				}
				if off := sample.Offset().Abs(); off > sample.RoundTrip()/2 {
					t.Errorf("off by %v, with a round trip of %v", off, sample.RoundTrip())
				}
			}
			via := p.Stats()
			var hosts []string
			for _, r := range via.Requests {
				if r.Command == ntstest.SocksConnect {
					hosts = append(hosts, r.Host)
				}
				if r.User != test.proxy.User {
					t.Errorf("the proxy was asked by %q", r.User)
				}
			}
			if !slices.Equal(hosts, test.hosts) {
				t.Errorf("the proxy connected to %q, want %q", hosts, test.hosts)
			}
			for _, d := range via.Datagrams {
				if d.Host != test.target || d.Port != s.NTP().Port() {
					t.Errorf("a packet to %s port %d", d.Host, d.Port)
				}
			}
			if stats := s.Stats(); stats.Connections != 1 || stats.Requests != 3 || len(via.Datagrams) != 3 {
				t.Errorf("%+v; %d datagrams", stats, len(via.Datagrams))
			}
			onlyVia(t, p, s)
			clean(t, s)
			if asked := questions(); bytes.Contains(asked, []byte("hidden")) {
				t.Errorf("a server's name was looked up here: %q", asked)
			}
		})
	}
}

// raw is a proxy that sends these octets, however it is asked, and then closes
// or, in the end, stays.
func raw(stay bool, answers ...string) ntstest.ProxyOptions {
	return ntstest.ProxyOptions{Raw: func(conn net.Conn) bool {
		for _, a := range answers {
			if n, _ := conn.Read(make([]byte, 600)); n == 0 {
				return true
			}
			io.WriteString(conn, a)
		}
		if stay {
			io.Copy(io.Discard, conn)
		} else {
			conn.Read(make([]byte, 600))
		}
		return true
	}}
}

// resets is a proxy that sends this to whoever greets, and then ends the
// connection as one that crashes does.
func resets(answer string) ntstest.ProxyOptions {
	return ntstest.ProxyOptions{Raw: func(conn net.Conn) bool {
		b := make([]byte, 600)
		conn.Read(b)
		io.WriteString(conn, answer)
		conn.Read(b[:1])
		conn.(*net.TCPConn).SetLinger(0)
		return true
	}}
}

// refuse refuses a command.
func refuse(command, reply byte) ntstest.ProxyOptions {
	return ntstest.ProxyOptions{Refuse: func(c byte, _ string, _ uint16) byte {
		if c == command {
			return reply
		}
		return 0
	}}
}

const associated = "\x05\x00\x00\x01\x7f\x00\x00\x01\x00\x09"

// What a proxy can refuse or do wrong, with new keys to get and with those of
// before. Nothing ever goes around it.
func TestProxyRefuses(t *testing.T) {
	const connect, associate = ntstest.SocksConnect, ntstest.SocksAssociate
	type failure struct {
		stage Stage
		code  Code
		part  string
	}
	noUDP := func(part string) *failure {
		return &failure{StageProxy, ProxyNoUDP, "the proxy carries no UDP, which time needs: " + part}
	}
	failed := func(part string) *failure { return &failure{StageProxy, ProxyFailed, part} }
	for _, test := range []struct {
		name  string
		proxy ntstest.ProxyOptions
		user  string
		cold  *failure
		warm  *failure // nil: as cold
	}{
		{"no UDP", refuse(associate, 7), "", noUDP("command not supported"), nil},
		{"UDP forbidden", refuse(associate, 2), "", noUDP("its rules forbid it"), nil},
		{"no UDP, perhaps", refuse(associate, 1), "", failed("the proxy makes no way for UDP: general failure"), nil},
		{"as ssh -D: closes", raw(false, "\x05\x00"), "", noUDP("it closes the connection when asked for it"), nil},
		{"a word of its own", refuse(associate, 77), "", failed("the proxy makes no way for UDP: unknown reply 77"), nil},
		{"resets", resets("\x05\x00"), "", failed("the proxy makes no way for UDP: "), nil},
		{"connections fail", refuse(connect, 1), "", &failure{StageConnect, ConnectUnreachable, "the proxy cannot resolve or reach it: general failure"}, &failure{}},
		{"connections forbidden", refuse(connect, 2), "", failed("the proxy does not connect: its rules forbid it"), &failure{}},
		{"no network", refuse(connect, 3), "", &failure{StageConnect, ConnectUnreachable, "network unreachable"}, &failure{}},
		{"no such name", refuse(connect, 4), "", &failure{StageConnect, ConnectUnreachable, "the proxy cannot resolve or reach it: host unreachable"}, &failure{}},
		{"refused", refuse(connect, 5), "", &failure{StageConnect, ConnectRefused, "by way of the proxy: connection refused"}, &failure{}},
		{"filtered", refuse(connect, 6), "", &failure{StageConnect, ConnectTimeout, "by way of the proxy: timeout"}, &failure{}},
		{"no connections", refuse(connect, 7), "", failed("command not supported"), &failure{}},
		{"nothing at all", ntstest.ProxyOptions{Refuse: func(byte, string, uint16) byte { return 7 }}, "", noUDP("command not supported"), nil},
		{"wants a password", ntstest.ProxyOptions{User: "u", Password: "p"}, "", failed("lets nobody in without user and password"), nil},
		{"wrong password", ntstest.ProxyOptions{User: "u", Password: "p"}, "u:secret", failed("the proxy refuses user and password"), nil},
		{"wants a method that was not offered", raw(false, "\x05\x01"), "", failed("no method of authentication that there is here (it says 1)"), nil},
		{"wants what was not offered", raw(false, "\x05\x02"), "", failed("without user and password"), nil},
		{"closes at once", ntstest.ProxyOptions{Raw: func(net.Conn) bool { return true }}, "", failed("talking to the proxy: "), nil},
		{"closes after the greeting", raw(false, ""), "", failed("did not answer in time"), nil},
		{"resets at once", ntstest.ProxyOptions{Raw: func(conn net.Conn) bool {
			conn.Read(make([]byte, 1))
			conn.(*net.TCPConn).SetLinger(0)
			return true
		}}, "", failed("talking to the proxy: read: connection reset by peer"), nil},
		{"another protocol", raw(false, "HTTP/1.1 400 Bad Request\r\n\r\n"), "", failed("is no SOCKS5 proxy"), nil},
		{"SOCKS4", raw(false, "\x00\x5b"), "", failed("is no SOCKS5 proxy"), nil},
		{"another version of the reply", raw(false, "\x05\x00", "\x04\x00\x00\x01\x7f\x00\x00\x01\x00\x09"), "", failed("is no SOCKS5 proxy"), nil},
		{"an unknown type of address", raw(false, "\x05\x00", "\x05\x00\x00\x02\x7f\x00\x00\x01\x00\x09"), "", failed("an address of the unknown type 2"), nil},
		{"a relay without port", raw(false, "\x05\x00", "\x05\x00\x00\x01\x7f\x00\x00\x01\x00\x00"), "", failed("names no address to send UDP to"), nil},
		{"a relay with a name", raw(false, "\x05\x00", "\x05\x00\x00\x03\x03abc\x00\x09"), "", failed("names no address to send UDP to"), nil},
		{"a relay of many", raw(false, "\x05\x00", "\x05\x00\x00\x01\xe0\x00\x00\x01\x00\x09"), "", failed("another address than its own"), nil},
		{"a relay elsewhere", raw(false, "\x05\x00", "\x05\x00\x00\x01\x7f\x00\x00\x02\x00\x09"), "", failed("another address than its own as its relay: nothing is sent there"), nil},
		{"a relay of the other family", raw(false, "\x05\x00", "\x05\x00\x00\x04"+strings.Repeat("\x00", 15)+"\x01\x00\x09"), "", failed("another address than its own"), nil},
		{"silent", raw(true), "", failed("the proxy did not answer in time"), nil},
		{"silent after the greeting", raw(true, "\x05\x00"), "", failed("the proxy did not answer in time"), nil},
		{"silent in the reply", raw(true, "\x05\x00", "\x05\x00\x00\x01\x7f"), "", failed("the proxy did not answer in time"), nil},
		{"silent in the greeting", raw(true, "\x05"), "", failed("the proxy did not answer in time"), nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := start(t, ntstest.Options{})
			session := establish(t, s)
			p, route := startProxy(t, test.proxy)
			route.Proxy.User, route.Proxy.Password, _ = strings.Cut(test.user, ":")
			o := clientOf(s)
			o.Route = route
			before := s.Stats()
			began := time.Now()
			_, cold := KeyExchange(brief(t), o)
			wantError(t, cold, test.cold.stage, test.cold.code, test.cold.part)
			want := test.cold
			if test.warm != nil {
				want = test.warm
			}
			_, warm := session.Exchange(brief(t), route)
			wantError(t, warm, want.stage, want.code, want.part)
			if took := time.Since(began); took > 20*time.Second {
				t.Errorf("it took %v", took)
			}
			if after := s.Stats(); want.code != "" && (after.Requests != before.Requests || after.KeyExchanges > before.KeyExchanges+1) {
				t.Errorf("the server was sent something: %+v", after)
			}
			for _, err := range []error{cold, warm} {
				if err != nil && (strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), route.Proxy.Host)) {
					t.Errorf("it says the password, or where the proxy is: %v", err)
				}
			}
			if s.Stats().Connections > before.Connections+len(p.Stats().Requests) {
				t.Error("a connection around the proxy")
			}
		})
	}
}

// A proxy, or who plays it, names the server itself as its relay: that would be
// asked directly.
func TestProxyElsewhere(t *testing.T) {
	t.Parallel()
	s := start(t, ntstest.Options{ListenNTP: "127.0.0.2:0"})
	_, route := startProxy(t, ntstest.ProxyOptions{Bound: func(netip.AddrPort) []byte {
		return appendTarget(nil, s.NTP().Addr().String(), s.NTP().Port())
	}})
	o := clientOf(s)
	session := establish(t, s)
	cookies := len(session.Cookies)
	o.Route = route
	_, err := KeyExchange(enough(t), o)
	wantError(t, err, StageProxy, ProxyFailed, "another address than its own as its relay: nothing is sent there")
	_, err = session.Exchange(enough(t), route)
	wantError(t, err, StageProxy, ProxyFailed, "another address than its own as its relay: nothing is sent there")
	if stats := s.Stats(); stats.Requests != 0 || len(stats.Bad) > 0 || len(session.Cookies) != cookies {
		t.Errorf("%+v, %d cookies", stats, len(session.Cookies))
	}
}

// A server hears nothing of TLS before the proxy has granted UDP, and it is told
// which of the two is wrong.
func TestProxyBothOrNothing(t *testing.T) {
	t.Parallel()
	const yes, never = 0, 255
	for _, test := range []struct {
		name               string
		connect, associate byte // what the proxy replies
		late               bool // the association, after the connection
		stage              Stage
		code               Code
		part               string
		waits              bool // until the time is over
	}{
		{"refused late", yes, 7, true, StageProxy, ProxyNoUDP, "command not supported", false},
		{"fails late", yes, 1, true, StageProxy, ProxyFailed, "makes no way for UDP", false},
		{"refused first", never, 7, false, StageProxy, ProxyNoUDP, "command not supported", false},
		{"never", yes, never, false, StageProxy, ProxyFailed, "the proxy did not answer in time", true},
		{"neither", never, never, false, StageProxy, ProxyFailed, "the proxy did not answer in time", true},
		{"never, and no server", 5, never, false, StageConnect, ConnectRefused, "by way of the proxy: connection refused", true},
		{"no connection", never, yes, false, StageConnect, ConnectTimeout, "by way of the proxy: no connection in time", true},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			connected, over := make(chan struct{}), make(chan struct{})
			s := start(t, ntstest.Options{RawConn: func(conn net.Conn) bool {
				close(connected)
				if n, _ := conn.Read(make([]byte, 1)); n > 0 {
					t.Error("the server hears something")
				}
				return true
			}})
			_, route := startProxy(t, ntstest.ProxyOptions{Refuse: func(command byte, _ string, _ uint16) byte {
				reply := test.connect
				if command == ntstest.SocksAssociate {
					reply = test.associate
					if test.late {
						<-connected
					}
				}
				if reply == never {
					<-over
				}
				return reply
			}})
			t.Cleanup(func() { close(over) })
			o, ctx := clientOf(s), enough(t)
			if o.Route = route; test.waits {
				ctx = brief(t)
			}
			_, err := KeyExchange(ctx, o)
			wantError(t, err, test.stage, test.code, test.part)
			var e *Error
			if errors.As(err, &e) && e.Hint == "" {
				t.Errorf("%v: without a mend", e)
			}
			if (ctx.Err() != nil) != test.waits {
				t.Errorf("it waited: %v", !test.waits)
			}
		})
	}
}

// A proxy that ends a connection in the middle of TLS: no error names it.
func TestProxyEndsConnection(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*net.TCPConn){
		"EOF":                       func(conn *net.TCPConn) { io.CopyN(io.Discard, conn, 100); conn.CloseWrite(); io.Copy(io.Discard, conn) },
		"unexpected EOF":            func(conn *net.TCPConn) { conn.Write([]byte{22, 3, 3}); conn.CloseWrite(); io.Copy(io.Discard, conn) },
		"read: connection reset by": func(conn *net.TCPConn) { conn.Read(make([]byte, 1)); conn.SetLinger(0) },
	} {
		_, route := startProxy(t, ntstest.ProxyOptions{Raw: func(conn net.Conn) bool {
			b := make([]byte, 600)
			conn.Read(b)
			io.WriteString(conn, "\x05\x00")
			conn.Read(b)
			io.WriteString(conn, associated)
			if b[1] == ntstest.SocksAssociate {
				io.Copy(io.Discard, conn)
			} else {
				end(conn.(*net.TCPConn))
			}
			return true
		}})
		_, err := KeyExchange(enough(t), &Options{Host: "hidden.test", Port: 4460, Route: route})
		wantError(t, err, StageTLS, TLSFailed, "the connection by way of the proxy ended in the TLS handshake: "+name)
		var e *Error
		if errors.As(err, &e) && (strings.Contains(e.Error(), route.Proxy.Host) || e.Hint == "") {
			t.Errorf("%v (%s)", e, e.Hint)
		}
	}
}

// Else that nothing is heard says nothing.
func TestOverhear(t *testing.T) {
	questions := overhear(t)
	new(Options).lookup(enough(t), "overheard.test")
	if asked := questions(); !bytes.Contains(asked, []byte("overheard")) {
		t.Errorf("%q", asked)
	}
}

// A proxy that is not there.
func TestNoProxy(t *testing.T) {
	s := start(t, ntstest.Options{})
	session := establish(t, s)
	before := s.Stats()
	for _, test := range []struct {
		name  string
		proxy Proxy
		bind  Bind
		part  string
	}{
		{"refused", Proxy{Host: "127.0.0.1", Port: s.NTP().Port()}, Bind{}, "the proxy cannot be reached: connection refused"},
		{"no such name", Proxy{Host: "missing.test", Port: 1080}, Bind{}, "the proxy cannot be reached: its name has no address"},
		{"no resolver", Proxy{Host: "broken.test", Port: 1080}, Bind{}, "the proxy cannot be reached: its name cannot be looked up"},
		{"another family", Proxy{Host: "127.0.0.1", Port: 1080}, Bind{Addr: netip.IPv6Loopback()}, "`bind`: 127.0.0.1 has no address of the family of ::1"},
		{"from nowhere", Proxy{Host: "127.0.0.1", Port: 1080}, Bind{Addr: netip.MustParseAddr("192.0.2.1")}, "`bind`: 192.0.2.1 is no address of this machine"},
	} {
		t.Run(test.name, func(t *testing.T) {
			o := clientOf(s)
			o.Route = Route{&test.proxy, test.bind}
			_, err := KeyExchange(enough(t), o)
			wantError(t, err, StageProxy, ProxyFailed, test.part)
			cookies := len(session.Cookies)
			_, err = session.Exchange(enough(t), o.Route)
			wantError(t, err, StageProxy, ProxyFailed, test.part)
			if len(session.Cookies) != cookies {
				t.Error("a cookie was spent on it")
			}
		})
	}
	if after := s.Stats(); after.Connections != before.Connections || after.Requests != before.Requests {
		t.Errorf("something went around the proxy: %+v", after)
	}
}

// The association ends with its connection: then the wait is over, and the next
// request does not go another way.
func TestProxyDies(t *testing.T) {
	t.Parallel()
	s := start(t, ntstest.Options{})
	p, route := startProxy(t, ntstest.ProxyOptions{Ends: func(n int) bool { return n == 1 }})
	o := clientOf(s)
	o.Route = route
	session, err := KeyExchange(enough(t), o)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := session.Exchange(enough(t), route); err != nil {
		t.Fatal(err)
	}
	_, err = session.Exchange(context.WithoutCancel(t.Context()), route) // only that can end it
	wantError(t, err, StageProxy, ProxyFailed, "the proxy ended the association")
	if _, err := session.Exchange(enough(t), route); err != nil {
		t.Errorf("with a new association: %v", err)
	}
	p.Close()
	_, err = session.Exchange(enough(t), route)
	wantError(t, err, StageProxy, ProxyFailed, "the proxy cannot be reached")
	_, err = KeyExchange(enough(t), o)
	wantError(t, err, StageProxy, ProxyFailed, "the proxy cannot be reached")
	if stats := s.Stats(); stats.Connections != 1 || stats.Requests != 2 {
		t.Errorf("%+v", stats)
	}
}

// What comes back from the relay, besides the answer or in its place.
func TestProxyAnswers(t *testing.T) {
	join := func(head, answer []byte) []byte { return append(slices.Clone(head), answer...) }
	elsewhere := []byte{0, 0, 0, 1, 127, 0, 0, 44, 0, 123}
	for _, test := range []struct {
		name string
		back func(head, answer []byte) [][]byte
		want Code // what comes of it
	}{
		{"the answer", func(h, a []byte) [][]byte { return [][]byte{join(h, a)} }, ""},
		{"after rubbish", func(h, a []byte) [][]byte {
			return [][]byte{nil, {0}, {0, 0, 0}, {0, 0, 0, 1}, {0, 0, 0, 3, 255, 1}, {0, 0, 0, 9, 9, 9}, h, h[:len(h)-1], make([]byte, 65000), join(h, a)}
		}, ""},
		{"after a flood", func(h, a []byte) [][]byte {
			forged := slices.Clone(a)
			forged[40] ^= 1
			return append(slices.Repeat([][]byte{join(elsewhere, forged)}, 50), join(h, a))
		}, ""},
		{"a fragment", func(h, a []byte) [][]byte {
			h[2] = 1
			return [][]byte{join(h, a)}
		}, ExchangeTimeout},
		{"the last fragment", func(h, a []byte) [][]byte {
			h[2] = 0x81
			return [][]byte{join(h, a)}
		}, ExchangeTimeout},
		{"no head", func(h, a []byte) [][]byte { return [][]byte{a} }, ExchangeTimeout},
		{"from elsewhere", func(h, a []byte) [][]byte { return [][]byte{join(elsewhere, a)} }, ""},
		{"from nowhere", func(h, a []byte) [][]byte { return [][]byte{join([]byte{0, 0, 0, 1, 0, 0, 0, 0, 0, 0}, a)} }, ""},
		{"from a name", func(h, a []byte) [][]byte { return [][]byte{join([]byte{0, 0, 0, 3, 1, 'x', 0, 123}, a)} }, ""},
		{"changed", func(h, a []byte) [][]byte {
			a[40] ^= 1
			return [][]byte{join(h, a)}
		}, ExchangeUnauthenticated},
		{"nothing", func(h, a []byte) [][]byte { return nil }, ExchangeTimeout},
	} {
		for _, host := range []string{"127.0.0.1", "hidden.test"} {
			t.Run(test.name+" of "+host, func(t *testing.T) {
				t.Parallel()
				s := start(t, ntstest.Options{Names: []string{"hidden.test", "127.0.0.1"}})
				_, route := startProxy(t, ntstest.ProxyOptions{Back: test.back, Names: map[string]string{"hidden.test": "127.0.0.1"}})
				o := clientOf(s)
				o.Host, o.Route = host, route
				session, err := KeyExchange(enough(t), o)
				if err != nil {
					t.Fatal(err)
				}
				ctx := enough(t)
				if test.want != "" {
					ctx = brief(t)
				}
				_, err = session.Exchange(ctx, route)
				wantError(t, err, StageExchange, test.want, "")
			})
		}
	}
}

// The head counts where packets must not grow too long.
func TestProxySize(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("a", 63) + "." + strings.Repeat("b", 63) + "." + strings.Repeat("c", 63) + ".test"
	s := start(t, ntstest.Options{Names: []string{long}, CookieLength: 140})
	_, route := startProxy(t, ntstest.ProxyOptions{Names: map[string]string{long: "127.0.0.1"}})
	o := clientOf(s)
	o.Host, o.Route = long, route
	session, err := KeyExchange(enough(t), o)
	if err != nil {
		t.Fatal(err)
	}
	session.Cookies = session.Cookies[:1]
	head := 3 + 1 + 1 + len(long) + 2
	if _, err := session.Exchange(enough(t), route); err != nil {
		t.Fatal(err)
	}
	octets, placeholders := s.Stats().Octets, s.Stats().Placeholders
	if head+octets > maxRequest || head+octets+144 <= maxRequest || placeholders != 5 || session.Largest != head+octets {
		t.Errorf("a head of %d and a request of %d octets with %d placeholders; the largest: %d", head, octets, placeholders, session.Largest)
	}
}

// A session of a proxy has nowhere to go without it.
func TestSessionOfProxy(t *testing.T) {
	t.Parallel()
	s := start(t, ntstest.Options{})
	session := establish(t, s)
	session.Servers, session.Host, session.Port = nil, "hidden.test", 123
	_, err := session.Exchange(enough(t), Route{})
	wantError(t, err, StageInternal, Internal, "of a proxy")
	route := Route{Proxy: &Proxy{Host: "127.0.0.1", Port: 1}}
	if _, err := route.dial(enough(t), "udp", s.NTP()); CodeOf(err) != Internal {
		t.Errorf("a socket around the proxy: %v", err)
	}
	if _, err := route.resolve(enough(t), "ip", "one.test"); err == nil {
		t.Error("a name looked up around the proxy")
	}
}

// Whatever octets a proxy sends: an error or an address, and nothing read that
// is not there.
func FuzzSocks(f *testing.F) {
	f.Add([]byte(associated))
	f.Add([]byte("\x05\x02\x01\x00" + associated))
	f.Add([]byte("\x05\x00\x05\x00\x00\x03\x03abc\x00\x09"))
	f.Add([]byte("\x00\x00\x00\x01\x7f\x00\x00\x01\x00\x7babc"))
	f.Add([]byte("\x00\x00\x00\x04aaaaaaaaaaaaaaaa\x00\x7babc"))
	f.Fuzz(func(t *testing.T, data []byte) {
		conn := struct {
			io.Reader
			io.Writer
		}{bytes.NewReader(data), io.Discard}
		p := &Proxy{User: "u", Password: "p"}
		if err := p.greet(conn); err == nil {
			for _, command := range []byte{commandConnect, commandAssociate} {
				request5(conn, command, "a.test", 123)
			}
		}
		if payload, ok := new(association).unwrap(data); ok && (!bytes.HasSuffix(data, payload) || data[2] != 0) {
			t.Errorf("%x is what is in %x", payload, data)
		}
		if at, err := readAddr(bytes.NewReader(data)); err == nil && at.Addr().IsValid() {
			again := appendTarget(nil, at.Addr().String(), at.Port())
			if !bytes.HasPrefix(data, again) && data[0] != addrIPv6 { // which may be an IPv4 address in another form
				t.Errorf("%v is in %x", at, data)
			}
		}
	})
}
