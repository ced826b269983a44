package ntstest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"time"
)

// A CA is a private authority made on the spot (ECDSA P-256).
type CA struct {
	cert  *x509.Certificate
	key   *ecdsa.PrivateKey
	chain [][]byte // DER from this authority up to, but without, the root
}

// NewCA makes a root. It is valid from 1960 to 2200, so that any date of a
// server's certificate lies within.
func NewCA(name string) (*CA, error) {
	return (*CA)(nil).authority(name, time.Time{}, time.Time{}, nil)
}

// Intermediate makes an authority below ca; servers with it present the chain
// of leaf and intermediates. Zero dates are those of NewCA.
func (ca *CA) Intermediate(name string, notBefore, notAfter time.Time) (*CA, error) {
	return ca.authority(name, notBefore, notAfter, nil)
}

// authority makes one that ca signs, or that signs itself where ca is nil.
// edit, unless nil, changes the template.
func (ca *CA) authority(name string, notBefore, notAfter time.Time, edit func(*x509.Certificate)) (*CA, error) {
	if notBefore.IsZero() {
		notBefore = time.Date(1960, 1, 1, 0, 0, 0, 0, time.UTC)
	}
	if notAfter.IsZero() {
		notAfter = time.Date(2200, 1, 1, 0, 0, 0, 0, time.UTC)
	}
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: name},
		NotBefore:             notBefore,
		NotAfter:              notAfter,
		KeyUsage:              x509.KeyUsageCertSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
	if edit != nil {
		edit(template)
	}
	der, key, err := ca.sign(template)
	if err != nil {
		return nil, fmt.Errorf("making authority %q: %w", name, err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("making authority %q: %w", name, err)
	}
	made := &CA{cert: cert, key: key}
	if ca != nil {
		made.chain = append([][]byte{der}, ca.chain...)
	}
	return made, nil
}

// Certificate issues a server's certificate for names (DNS names and
// addresses, as subject alternative names). edit, unless nil, changes the
// template before it is signed.
func (ca *CA) Certificate(names []string, notBefore, notAfter time.Time, edit func(*x509.Certificate)) (*tls.Certificate, error) {
	template := &x509.Certificate{
		NotBefore:   notBefore,
		NotAfter:    notAfter,
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	if len(names) > 0 {
		template.Subject.CommonName = names[0]
	}
	if edit != nil {
		edit(template)
	}
	der, key, err := ca.sign(template)
	if err != nil {
		return nil, fmt.Errorf("issuing a certificate for %q: %w", names, err)
	}
	return &tls.Certificate{Certificate: append([][]byte{der}, ca.chain...), PrivateKey: key}, nil
}

// sign makes a key and signs template for it.
func (ca *CA) sign(template *x509.Certificate) ([]byte, *ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	if template.SerialNumber, err = rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120)); err != nil {
		return nil, nil, err
	}
	parent, signer := template, key
	if ca != nil {
		parent, signer = ca.cert, ca.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	return der, key, err
}

// PEM is the authority's own certificate, as for a ca_file.
func (ca *CA) PEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.cert.Raw})
}

// Pool holds the authority's own certificate.
func (ca *CA) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(ca.cert)
	return pool
}
