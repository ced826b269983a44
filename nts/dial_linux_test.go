package nts

import (
	"context"
	"net/netip"
	"syscall"
	"testing"
)

// A listener whose queue is full drops what comes: the connection is waited
// for until the context ends.
func TestDialTimeout(t *testing.T) {
	t.Parallel()
	addr := deafListener(t)
	o := &Options{Host: addr.Addr().String(), Port: addr.Port()}
	_, err := KeyExchange(brief(t), o)
	wantError(t, err, StageConnect, ConnectTimeout, "no connection in time")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err = KeyExchange(ctx, o); err == nil {
		t.Error("a session after the end")
	}
}

// deafListener is where a listener's queue is full: what comes then is
// dropped, as by a filter on the way.
func deafListener(t *testing.T) netip.AddrPort {
	t.Helper()
	socket := func(flags int) int {
		fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC|flags, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { syscall.Close(fd) })
		return fd
	}
	fd := socket(0)
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	addr := name.(*syscall.SockaddrInet4)
	for range 4 {
		if err := syscall.Connect(socket(syscall.SOCK_NONBLOCK), addr); err != nil && err != syscall.EINPROGRESS {
			t.Fatal(err)
		}
	}
	return netip.AddrPortFrom(netip.AddrFrom4(addr.Addr), uint16(addr.Port))
}
