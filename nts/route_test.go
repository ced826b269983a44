package nts

import (
	"go/ast"
	"go/parser"
	"go/token"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"ntsclient/nts/ntstest"
)

// That nothing goes around a proxy is a matter of one file: it alone opens
// sockets and asks the resolver, and but one function of another makes a route
// without the proxy.
func TestOnlyRouteOpensSockets(t *testing.T) {
	files, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	opens := []string{
		"Dial", "DialTimeout", "DialTCP", "DialUDP", "DialIP", "DialUnix", "Dialer", "Listen", "ListenPacket", "ListenTCP", "ListenUDP",
		"ListenConfig", "DefaultResolver", "Resolver", "ResolveTCPAddr", "ResolveUDPAddr", "ResolveIPAddr", "FileConn", "FilePacketConn",
		"Socket", "Connect", "Sendto", "Sendmsg", "SendmsgN",
	}
	var found []string
	for _, entry := range files {
		name := entry.Name()
		if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		note := func(what string) { found = append(found, name+": "+what) }
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.SelectorExpr:
				from, ok := n.X.(*ast.Ident)
				if ok && slices.Contains([]string{"net", "tls", "unix", "syscall"}, from.Name) &&
					(slices.Contains(opens, n.Sel.Name) || strings.HasPrefix(n.Sel.Name, "Lookup")) {
					note(from.Name + "." + n.Sel.Name)
				}
			case *ast.CompositeLit:
				if of, ok := n.Type.(*ast.Ident); ok && of.Name == "Route" {
					note("Route{}")
				}
			}
			return true
		})
	}
	want := []string{"route.go: net.Dialer", "route.go: net.DefaultResolver", "socks.go: Route{}"}
	if !slices.Equal(found, want) {
		t.Errorf("sockets are opened and names are looked up in %q, want %q", found, want)
	}
}

// Both legs are bound to the source address, whatever it is.
func TestBindAddress(t *testing.T) {
	s := start(t, ntstest.Options{Names: []string{"both.test", "127.0.0.1"}})
	loopback4, loopback6 := netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback()
	for _, test := range []struct {
		name string
		host string
		ips  []netip.Addr
		from string
		code Code
		part string
	}{
		{"an address of this machine", "127.0.0.1", nil, "127.0.0.3", "", ""},
		{"addresses of both families", "both.test", nil, "127.0.0.3", "", ""},
		{"given addresses of both families", "both.test", []netip.Addr{loopback6, loopback4}, "127.0.0.3", "", ""},
		{"an address of another machine", "127.0.0.1", nil, "192.0.2.7", ConnectUnreachable, "`bind`: 192.0.2.7 is no address of this machine"},
		{"another family", "127.0.0.1", nil, "::1", ConnectUnreachable, "`bind`: 127.0.0.1 has no address of the family of ::1"},
		{"a name of another family", "one.test", nil, "::1", ConnectUnreachable, "`bind`: one.test has no address of the family of ::1"},
	} {
		t.Run(test.name, func(t *testing.T) {
			o := clientOf(s)
			o.Host, o.IPs, o.Bind.Addr = test.host, test.ips, netip.MustParseAddr(test.from)
			session, err := KeyExchange(enough(t), o)
			wantError(t, err, StageConnect, test.code, test.part)
			if test.code != "" {
				session = establish(t, s)
				cookies := len(session.Cookies)
				_, err = session.Exchange(enough(t), o.Route)
				if err == nil || CodeOf(err) != ConnectUnreachable || len(session.Cookies) != cookies {
					t.Errorf("%v; %d of %d cookies are left", err, len(session.Cookies), cookies)
				}
				return
			}
			via := newRelay(t, s.NTP())
			session.Servers[0] = via.addr
			if _, err := session.Exchange(enough(t), o.Route); err != nil {
				t.Fatal(err)
			}
			for _, client := range via.clients() {
				if client.Addr().String() != test.from {
					t.Errorf("the request came from %v", client)
				}
			}
		})
	}
}

// The NTP server that a key exchange names must fit the source address, too.
func TestBindOtherServer(t *testing.T) {
	s := start(t, ntstest.Options{KE: with(record(6, true, []byte("::1")...))})
	o := clientOf(s)
	o.Bind.Addr = netip.MustParseAddr("127.0.0.1")
	_, err := KeyExchange(enough(t), o)
	wantError(t, err, StageConnect, ConnectUnreachable, "the NTP server that the key exchange names: `bind`: ::1 has no address of the family of 127.0.0.1")
}
