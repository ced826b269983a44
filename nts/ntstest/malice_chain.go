package ntstest

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"io"
	"math/big"
	"slices"
	"time"
)

// chainMalices are of the certificates.
func chainMalices() []Malice {
	now, day := time.Now(), 24*time.Hour
	const host = "time.test"
	leaf := func(edit func(*x509.Certificate)) func(*Options) {
		return issued(func(ca *CA) (*tls.Certificate, error) {
			return ca.Certificate([]string{host}, now.Add(-day), now.Add(day), edit)
		})
	}
	// below issues from an authority between the root and the leaf.
	below := func(notBefore, notAfter time.Time, edit func(*x509.Certificate)) func(*Options) {
		return issued(func(ca *CA) (*tls.Certificate, error) {
			between, err := ca.authority("between", notBefore, notAfter, edit)
			if err != nil {
				return nil, err
			}
			return between.Certificate([]string{host}, now.Add(-day), now.Add(day), nil)
		})
	}
	names := func(names ...string) func(*Options) { return func(o *Options) { o.Names = names } }
	shown := func(edit func(*tls.Certificate)) func(*Options) {
		return issued(func(ca *CA) (*tls.Certificate, error) {
			c, err := ca.Certificate([]string{host}, now.Add(-day), now.Add(day), nil)
			if err == nil {
				edit(c)
			}
			return c, err
		})
	}
	many := make([]string, 1000)
	for i := range many {
		many[i] = fmt.Sprintf("%d.test", i)
	}
	return []Malice{
		{Section: "3", Name: "certificate: expired", Behave: func(o *Options) { o.NotBefore, o.NotAfter = now.Add(-9*day), now.Add(-day) }, Outcome: failed("certificate_expired", "expired on")},
		{Section: "3", Name: "certificate: not yet valid", Behave: func(o *Options) { o.NotBefore, o.NotAfter = now.Add(day), now.Add(9*day) }, Outcome: failed("certificate_not_yet_valid", "not valid before")},
		{Section: "3", Name: "certificate: ends before it begins", Behave: func(o *Options) { o.NotBefore, o.NotAfter = now.Add(day), now.Add(-day) }, Outcome: failed("certificate_not_yet_valid", "")},
		{Section: "3", Name: "certificate: of another authority", Behave: issued(func(*CA) (*tls.Certificate, error) { return stranger("someone \x1b[31m else") }), Outcome: failed("certificate_unknown_authority", `someone \x1b[31m else`)},
		{Section: "3", Name: "certificate: of an authority of the same name", Behave: issued(func(ca *CA) (*tls.Certificate, error) { return stranger(ca.cert.Subject.CommonName) }), Outcome: failed("certificate_unknown_authority", "not trusted here")},
		{Section: "3", Name: "certificate: signed by itself", Behave: issued(func(*CA) (*tls.Certificate, error) {
			alone, err := (*CA)(nil).authority("alone", time.Time{}, time.Time{}, func(c *x509.Certificate) { c.DNSNames = []string{host} })
			if err != nil {
				return nil, err
			}
			return &tls.Certificate{Certificate: [][]byte{alone.cert.Raw}, PrivateKey: alone.key}, nil
		}), Outcome: failed("certificate_unknown_authority", "")},
		{Section: "3", Name: "certificate: for another name", Behave: names("b.test", "192.0.2.1"), Outcome: failed("certificate_wrong_name", `not for time.test but for "b.test", 192.0.2.1`)},
		{Section: "3", Name: "certificate: for the name in the common name only", Behave: leaf(func(c *x509.Certificate) { c.Subject.CommonName, c.DNSNames = host, nil }), Outcome: failed("certificate_wrong_name", "no name at all")},
		{Section: "3", Name: "certificate: for no address", Behave: names(host), Host: "127.0.0.1", Outcome: failed("certificate_wrong_name", `not for 127.0.0.1 but for "time.test"`)},
		{Section: "3", Name: "certificate: for the address as a name", Behave: leaf(func(c *x509.Certificate) { c.DNSNames = []string{"127.0.0.1"} }), Host: "127.0.0.1", Outcome: failed("certificate_wrong_name", "")},
		{Section: "3", Name: "certificate: for all names below", Behave: names("*.test"), Outcome: agreed},
		{Section: "3", Name: "certificate: for all names", Behave: names("*"), Outcome: failed("certificate_wrong_name", `"*"`)},
		{Section: "3", Name: "certificate: for a name with NUL", Behave: names("time.test\x00.evil.test"), Outcome: failed("certificate_wrong_name", `"time.test\x00.evil.test"`)},
		{Section: "3", Name: "certificate: for a name with escape sequences", Behave: names("\x1b]0;title\a"), Outcome: failed("certificate_wrong_name", `"\x1b]0;title\a"`)},
		{Section: "3", Name: "certificate: for a thousand names", Behave: names(many...), Outcome: failed("certificate_wrong_name", "and 995 more")},
		{Section: "3", Name: "certificate: not for servers", Behave: leaf(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }), Outcome: failed("certificate_invalid", "incompatible key usage")},
		{Section: "3", Name: "certificate: with an unknown critical extension", Behave: leaf(func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 4711}, Critical: true, Value: []byte{5, 0}}}
		}), Outcome: failed("certificate_invalid", "critical extension")},
		{Section: "3", Name: "certificate: the key is another's", Behave: shown(func(c *tls.Certificate) {
			if other, err := stranger("x"); err == nil {
				c.PrivateKey = other.PrivateKey
			}
		}), Outcome: failed("tls_failed", "invalid signature")},
		{Section: "3", Name: "certificate: no DER", Behave: shown(func(c *tls.Certificate) { c.Certificate = [][]byte{bytes.Repeat([]byte{0x30, 0x1b}, 100)} }), Outcome: failed("tls_failed", "TLS handshake")},
		{Section: "3", Name: "certificate: a key too long to check", Behave: issued(longKey), Outcome: failed("tls_failed", "RSA key")},

		{Section: "3", Name: "chain: good, with an authority between", Behave: below(time.Time{}, time.Time{}, nil), Outcome: agreed},
		{Section: "3", Name: "chain: the authority between is not shown", Behave: func(o *Options) {
			below(time.Time{}, time.Time{}, nil)(o)
			was := o.TLS
			o.TLS = func(c *tls.Config) {
				was(c)
				get := c.GetCertificate
				c.GetCertificate = func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
					cert, err := get(h)
					if err == nil {
						cert.Certificate = cert.Certificate[:1]
					}
					return cert, err
				}
			}
		}, Outcome: failed("certificate_unknown_authority", "not trusted here")},
		{Section: "3", Name: "chain: the authority between has expired", Behave: below(now.Add(-9*day), now.Add(-day/2), nil), Outcome: failed("certificate_expired", "expired on")},
		{Section: "3", Name: "chain: the authority between is no authority", Behave: below(time.Time{}, time.Time{}, func(c *x509.Certificate) { c.IsCA = false }), Outcome: failed("certificate_unknown_authority", "not trusted here")},
		{Section: "3", Name: "chain: the authority between is for other names", Behave: below(time.Time{}, time.Time{}, func(c *x509.Certificate) {
			c.PermittedDNSDomainsCritical, c.PermittedDNSDomains = true, []string{"example"}
		}), Outcome: failed("certificate_invalid", "not permitted by any constraint")},
		{Section: "3", Name: "chain: one authority too many", Behave: issued(func(ca *CA) (*tls.Certificate, error) {
			last, err := ca.authority("last", time.Time{}, time.Time{}, func(c *x509.Certificate) { c.MaxPathLenZero = true })
			if err != nil {
				return nil, err
			}
			more, err := last.Intermediate("one more", time.Time{}, time.Time{})
			if err != nil {
				return nil, err
			}
			return more.Certificate([]string{host}, now.Add(-day), now.Add(day), nil)
		}), Outcome: failed("certificate_invalid", "too many intermediates")},
		{Section: "3", Name: "chain: of eleven", Behave: shown(repeated(10)), Outcome: failed("certificate_invalid", "shows 11 certificates")},
		{Section: "3", Name: "chain: of a thousand", Behave: shown(repeated(999)), Outcome: failed("tls_failed", "TLS handshake")},
	}
}

// issued shows what issue makes, on each connection.
func issued(issue func(*CA) (*tls.Certificate, error)) func(*Options) {
	return func(o *Options) {
		ca := o.CA
		o.TLS = func(c *tls.Config) {
			c.Certificates = nil
			c.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return issue(ca) }
		}
	}
}

// stranger is a certificate for the right name by an authority that nobody
// knows.
func stranger(name string) (*tls.Certificate, error) {
	ca, err := NewCA(name)
	if err != nil {
		return nil, err
	}
	return ca.Certificate([]string{"time.test"}, time.Now().AddDate(0, 0, -1), time.Now().AddDate(0, 0, 1), nil)
}

// repeated shows the leaf n times more.
func repeated(n int) func(*tls.Certificate) {
	return func(c *tls.Certificate) {
		c.Certificate = append(c.Certificate, slices.Repeat(c.Certificate[:1], n)...)
	}
}

// longKey is a certificate with a key of 16,384 bits, which takes long to check.
func longKey(ca *CA) (*tls.Certificate, error) {
	n := new(big.Int).SetBytes(bytes.Repeat([]byte{0xff}, 2048))
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().AddDate(0, 0, -1), NotAfter: time.Now().AddDate(0, 0, 1),
		DNSNames: []string{"time.test"},
	}
	pretended := pretender{rsa.PublicKey{N: n, E: 65537}}
	der, err := x509.CreateCertificate(rand.Reader, c, ca.cert, &pretended.key, ca.key)
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: pretended}, err
}

// pretender signs with a key that it does not have.
type pretender struct{ key rsa.PublicKey }

func (p pretender) Public() crypto.PublicKey { return &p.key }

func (p pretender) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	return make([]byte, p.key.Size()), nil
}
