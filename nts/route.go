package nts

import "net/netip"

// Route is the way that packets take: through which proxy, and from where. The
// zero Route is direct, as the system routes. A session's cookies are never to
// be sent by another proxy than that of its key exchange, or without it: that
// would link the two.
type Route struct {
	Proxy *Proxy // for both legs; nil: none
	Bind  Bind
}

// Proxy is a SOCKS5 proxy that carries TCP and UDP (RFC 1928).
type Proxy struct {
	Host           string // name or address; the only name that is looked up here
	Port           uint16
	User, Password string // RFC 1929: 1 to 255 octets each; both empty: none
}

// Bind is what sockets are bound to; of the zero Bind, to nothing.
type Bind struct {
	Interface string     // its name; empty: any
	Addr      netip.Addr // source address; the zero one: any
}
