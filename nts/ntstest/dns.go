package ntstest

import (
	"context"
	"net"
	"net/netip"
	"slices"
)

// zone is all that the resolver knows. The name "silent.test." gets no answer,
// "broken.test." a failure, others do not exist.
var zone = map[string][]string{
	"one.test.":  {"127.0.0.1"},
	"two.test.":  {"127.0.0.1", "127.0.0.2"},
	"both.test.": {"127.0.0.1", "::1", "127.0.0.2"},
	"none.test.": {"0.0.0.0", "224.0.0.1"},
}

// ServeNames answers questions for the names of tests, until the process ends.
// It returns the address to ask.
func ServeNames() (string, error) {
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	go func() {
		buf := make([]byte, 512)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			if answer := resolve(slices.Clone(buf[:n])); answer != nil {
				conn.WriteTo(answer, from)
			}
		}
	}()
	return conn.LocalAddr().String(), nil
}

// AskNames makes this process resolve names there and nowhere else, so that no
// test depends on the network.
func AskNames(addr string) {
	net.DefaultResolver = &net.Resolver{
		PreferGo: true,
		Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "udp", addr)
		},
	}
}

// resolve answers a question of RFC 1035 §4.1.
func resolve(query []byte) []byte {
	name, at := "", 12
	for query[at] != 0 {
		end := at + 1 + int(query[at])
		name, at = name+string(query[at+1:end])+".", end
	}
	addrs, known := zone[name]
	rcode := byte(0)
	switch {
	case name == "silent.test.":
		return nil
	case name == "broken.test.":
		rcode = 2
	case !known:
		rcode = 3
	}
	b := append([]byte{query[0], query[1], 0x81, 0x80 | rcode, 0, 1, 0, 0, 0, 0, 0, 0}, query[12:at+5]...)
	kind := query[at+2]
	for _, addr := range addrs {
		raw := netip.MustParseAddr(addr).AsSlice()
		if (len(raw) == 4) == (kind == 1) {
			b = append(b, 0xc0, 12, 0, kind, 0, 1, 0, 0, 0, 60, 0, byte(len(raw)))
			b = append(b, raw...)
			b[7]++
		}
	}
	return b
}
