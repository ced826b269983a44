//go:build linux

package interop

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// Authority is a private CA, made for one run.
type Authority struct {
	File string // its certificate, PEM

	cert  *x509.Certificate
	key   crypto.Signer
	above *Authority // nil for a root
	dir   string
}

// Identity is what a server proves its name with: paths of PEM files.
type Identity struct {
	Chain     string // leaf, and what is between it and the root
	Key       string
	NotBefore time.Time
	NotAfter  time.Time
}

// Edit changes a certificate before it is signed.
type Edit func(*x509.Certificate)

// NewAuthority makes a root CA, or one below another. It is three years old,
// as real ones are: no server certificate is older than its issuer.
func NewAuthority(t T, name string, above *Authority, edits ...Edit) *Authority {
	t.Helper()
	a := &Authority{above: above, key: newKey(t), dir: t.TempDir()}
	a.File = filepath.Join(a.dir, "ca.pem")
	a.cert = sign(t, &x509.Certificate{
		Subject:               pkix.Name{CommonName: name},
		NotBefore:             time.Now().AddDate(-3, 0, 0),
		NotAfter:              time.Now().AddDate(3, 0, 0),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign,
	}, a.key, above, edits)
	writePEM(t, a.File, "CERTIFICATE", a.cert.Raw)
	return a
}

// Issue makes a server certificate for a DNS name and the loopback addresses,
// valid from and for the days given.
func (a *Authority) Issue(t T, name string, fromDay, days int) Identity {
	t.Helper()
	return a.IssueFor(t, newKey(t), name, fromDay, days)
}

// IssueFor does the same for a key of any kind. An authority that is nil has
// the certificate signed by its own key.
func (a *Authority) IssueFor(t T, key crypto.Signer, name string, fromDay, days int, edits ...Edit) Identity {
	t.Helper()
	from := time.Now().AddDate(0, 0, fromDay).UTC().Truncate(time.Second)
	cert := sign(t, &x509.Certificate{
		Subject:     pkix.Name{CommonName: name},
		DNSNames:    []string{name},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
		NotBefore:   from,
		NotAfter:    from.AddDate(0, 0, days),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, key, a, edits)
	dir := t.TempDir()
	id := Identity{filepath.Join(dir, "chain.pem"), filepath.Join(dir, "key.pem"), cert.NotBefore, cert.NotAfter}
	chain := [][]byte{cert.Raw}
	for above := a; above != nil && above.above != nil; above = above.above {
		chain = append(chain, above.cert.Raw)
	}
	writePEM(t, id.Chain, "CERTIFICATE", chain...)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	check(t, err)
	writePEM(t, id.Key, "PRIVATE KEY", der)
	return id
}

func newKey(t T) crypto.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(t, err)
	return key
}

// sign has the certificate for a key signed by the authority, or by itself
// where that is nil.
func sign(t T, template *x509.Certificate, key crypto.Signer, by *Authority, edits []Edit) *x509.Certificate {
	t.Helper()
	var err error
	template.SerialNumber, err = rand.Int(rand.Reader, big.NewInt(1<<62))
	check(t, err)
	for _, edit := range edits {
		edit(template)
	}
	parent, signer := template, key
	if by != nil {
		parent, signer = by.cert, by.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	check(t, err)
	cert, err := x509.ParseCertificate(der)
	check(t, err)
	return cert
}

func writePEM(t T, file, kind string, blocks ...[]byte) {
	t.Helper()
	var text []byte
	for _, der := range blocks {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})...)
	}
	check(t, os.WriteFile(file, text, 0o600))
}
