// Package nts gets authenticated time from one server: key exchange over TLS
// (RFC 8915 §4), session with cookies, exchange of NTP packets (§5). It has no
// policy, does not sleep and does not log.
package nts

import (
	"crypto/x509"
	"encoding/pem"
	"net/netip"
	"time"
)

// Options say how to reach one server and whom to believe that it is it.
type Options struct {
	Host string // of the key exchange: name or address; verified in its certificate
	Port uint16 // of the key exchange

	IPs      []netip.Addr // connect here, without DNS
	Fallback []netip.Addr // connect here if the name does not resolve
	Network  string       // "ip", "ip4" or "ip6"; empty is "ip"
	Route                 // by which all is sent

	Roots  *x509.CertPool // the only authorities to trust; nil: the system's
	Begins []time.Time    // when these authorities begin: moments to verify a chain at, where its dates are put off
	Pins   [][32]byte     // SHA-256 of public keys, one of which the chain must hold

	// DeferDates lets a chain pass that is right in everything but its dates
	// at the local clock. The caller then dates it (see Chain.Holds and
	// VerifyChain).
	DeferDates bool
}

func (o *Options) network() string {
	if o.Network == "" {
		return "ip"
	}
	return o.Network
}

// wanted tells whether addr is of the family asked for.
func (o *Options) wanted(addr netip.Addr) bool {
	switch o.network() {
	case "ip4":
		return addr.Unmap().Is4()
	case "ip6":
		return addr.Is6() && !addr.Is4In6()
	}
	return true
}

// Trust makes the authorities in a PEM file the only ones for this server.
func (o *Options) Trust(text []byte) {
	o.Roots = x509.NewCertPool()
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if c, err := x509.ParseCertificate(block.Bytes); err == nil && block.Type == "CERTIFICATE" {
			o.Roots.AddCert(c)
			o.Begins = append(o.Begins, c.NotBefore)
		}
	}
}
