package nts

import (
	"errors"
	"net"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"ntsclient/nts/ntstest"
)

// Both legs are bound to the interface, for which no right is needed.
func TestBindInterface(t *testing.T) {
	s := start(t, ntstest.Options{})
	o := clientOf(s)
	o.Bind.Interface = "lo"
	session, err := KeyExchange(enough(t), o)
	if CodeOf(err) == ConnectUnreachable && errors.Is(err, syscall.EPERM) {
		skip(t, "this kernel lets only root bind to an interface")
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := session.Exchange(enough(t), o.Route); err != nil {
		t.Fatal(err)
	}
	conn, err := o.dialUDP(s.NTP())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if name := boundTo(t, conn); name != "lo" {
		t.Errorf("bound to %q", name)
	}
	o.Bind.Interface = "missing0"
	_, err = KeyExchange(enough(t), o)
	wantError(t, err, StageConnect, ConnectUnreachable, "`bind`: this machine has no network interface missing0")
	_, err = session.Exchange(enough(t), o.Route)
	wantError(t, err, StageConnect, ConnectUnreachable, "`bind`: this machine has no network interface missing0")
	clean(t, s)
}

// Sockets have as large a buffer towards a proxy as towards a server.
func TestReadBuffer(t *testing.T) {
	s := start(t, ntstest.Options{})
	session := establish(t, s)
	_, route := startProxy(t, ntstest.ProxyOptions{})
	usual, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(s.NTP()))
	if err != nil {
		t.Fatal(err)
	}
	defer usual.Close()
	for _, route := range []*Route{{}, &route} {
		x, err := session.socket(enough(t), route)
		if err != nil {
			t.Fatal(err)
		}
		defer x.close()
		if got, least := readBufferOf(t, x.conn), readBufferOf(t, usual); got <= least {
			t.Errorf("by way of a proxy: %v; %d octets, usually %d", route.Proxy != nil, got, least)
		}
	}
}

func readBufferOf(t *testing.T, conn *net.UDPConn) (octets int) {
	t.Helper()
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) {
		octets, err = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF)
	})
	if err != nil {
		t.Fatal(err)
	}
	return octets
}

func boundTo(t *testing.T, conn *net.UDPConn) (name string) {
	t.Helper()
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) {
		name, err = unix.GetsockoptString(int(fd), unix.SOL_SOCKET, unix.SO_BINDTODEVICE)
	})
	if err != nil {
		t.Fatal(err)
	}
	return name
}

// Systems without that, and kernels that forbid it.
func TestExplainBind(t *testing.T) {
	b := &Bind{Interface: "eth0"}
	wantError(t, b.explain(errors.ErrUnsupported), StageConnect, ConnectUnreachable, "on this system only an address can be bound to")
	wantError(t, b.explain(syscall.EPERM), StageConnect, ConnectUnreachable, "lets only root use the network interface eth0")
	for _, b := range []*Bind{b, {}} {
		if err := b.explain(syscall.EADDRNOTAVAIL); err != error(syscall.EADDRNOTAVAIL) {
			t.Errorf("%+v: %v", b, err)
		}
	}
}
