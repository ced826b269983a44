package nts

import (
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// maxPresented bounds the work that a chain can cause: real ones have two to
// four certificates.
const maxPresented = 10

// Chain is what a server showed for itself: verified in everything, but
// perhaps not against the time (see Options.DeferDates).
type Chain struct {
	Raw       [][]byte  `json:"raw"`        // DER, the leaf first
	NotBefore time.Time `json:"not_before"` // the latest of the verified chain
	NotAfter  time.Time `json:"not_after"`  // the earliest of the verified chain
}

// Leaf is the server's own certificate.
func (c *Chain) Leaf() (*x509.Certificate, error) {
	if len(c.Raw) == 0 {
		return nil, errors.New("no certificate")
	}
	return x509.ParseCertificate(c.Raw[0])
}

// Holds tells whether t lies in the chain's window.
func (c *Chain) Holds(t time.Time) bool {
	return !t.Before(c.NotBefore) && !t.After(c.NotAfter)
}

// VerifyChain verifies a chain once more, strictly, as of the time at. Its
// errors are *Error.
func (o *Options) VerifyChain(c *Chain, at time.Time) error {
	if c.Holds(at) {
		return nil // all but the dates has been verified, and these are the dates
	}
	certs := make([]*x509.Certificate, 0, len(c.Raw))
	for _, raw := range c.Raw {
		cert, err := x509.ParseCertificate(raw)
		if err != nil {
			return fail(StageCertificate, CertificateInvalid, "certificate: %w", err)
		}
		certs = append(certs, cert)
	}
	found, deferred, err := o.verify(certs, at)
	if err == nil && deferred {
		return dateError(found, at)
	}
	return err
}

// verify verifies the certificates presented: at the time at if possible, else
// at a moment of their own, where one of them or an authority begins and all
// are valid at once (then it is deferred). What fails even there is the error:
// the library names a date first, and a wrong name only after it.
func (o *Options) verify(certs []*x509.Certificate, at time.Time) (chain *Chain, deferred bool, err error) {
	if len(certs) == 0 || len(certs) > maxPresented {
		return nil, false, fail(StageCertificate, CertificateInvalid, "the server shows %d certificates", len(certs))
	}
	chain, err = o.verifyAt(certs, at)
	if err == nil {
		return chain, false, nil
	}
	for _, moment := range o.moments(certs) {
		chain, merr := o.verifyAt(certs, moment)
		if merr == nil {
			return chain, true, nil
		}
		// The first moment at which the dates are not what fails names the error.
		if !isDate(merr) && isDate(err) {
			err = merr
		}
	}
	return nil, false, o.explain(certs, at, err)
}

// moments are when certificates begin, the latest first, as far as their number
// is sane.
func (o *Options) moments(certs []*x509.Certificate) []time.Time {
	all := slices.Clone(o.Begins)
	for _, c := range certs {
		all = append(all, c.NotBefore)
	}
	slices.SortFunc(all, func(a, b time.Time) int { return b.Compare(a) })
	all = slices.CompactFunc(all, time.Time.Equal)
	return all[:min(len(all), 2*maxPresented)]
}

func isDate(err error) bool {
	var invalid x509.CertificateInvalidError
	return errors.As(err, &invalid) && invalid.Reason == x509.Expired
}

// errPin is told by verifyAt where the chain is good and holds no pinned key.
var errPin = errors.New("no pinned key in the chain")

func (o *Options) verifyAt(certs []*x509.Certificate, at time.Time) (*Chain, error) {
	intermediates := x509.NewCertPool()
	for _, c := range certs[1:] {
		intermediates.AddCert(c)
	}
	found, err := certs[0].Verify(x509.VerifyOptions{
		DNSName:       o.Host,
		Roots:         o.Roots,
		Intermediates: intermediates,
		CurrentTime:   at,
		KeyUsages:     []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	if err != nil {
		return nil, err
	}
	for _, path := range found {
		if !o.pinned(path) {
			continue
		}
		chain := window(path)
		for _, c := range certs {
			chain.Raw = append(chain.Raw, c.Raw)
		}
		return chain, nil
	}
	return nil, errPin
}

// pinned tells whether a verified path holds one of the pinned keys.
func (o *Options) pinned(path []*x509.Certificate) bool {
	return len(o.Pins) == 0 || slices.ContainsFunc(path, func(c *x509.Certificate) bool {
		return slices.Contains(o.Pins, sha256.Sum256(c.RawSubjectPublicKeyInfo))
	})
}

func window(path []*x509.Certificate) *Chain {
	w := &Chain{NotBefore: path[0].NotBefore, NotAfter: path[0].NotAfter}
	for _, c := range path[1:] {
		if c.NotBefore.After(w.NotBefore) {
			w.NotBefore = c.NotBefore
		}
		if c.NotAfter.Before(w.NotAfter) {
			w.NotAfter = c.NotAfter
		}
	}
	return w
}

// dateError is why a chain that is right in everything else is not valid at
// the time at.
func dateError(c *Chain, at time.Time) *Error {
	const day = "2006-01-02"
	now := at.UTC().Format(day)
	if at.Before(c.NotBefore) {
		return fail(StageCertificate, CertificateNotYetValid,
			"certificate not valid before %s (this clock says %s)", c.NotBefore.UTC().Format(day), now).
			hint("is this machine's clock behind?")
	}
	return fail(StageCertificate, CertificateExpired,
		"certificate expired on %s (this clock says %s)", c.NotAfter.UTC().Format(day), now).
		hint("the server's operator must renew it, unless this machine's clock is ahead")
}

// explain turns the library's error into one with a code and plain words.
func (o *Options) explain(certs []*x509.Certificate, at time.Time, err error) *Error {
	var wrongName x509.HostnameError
	var unknown x509.UnknownAuthorityError
	var invalid x509.CertificateInvalidError
	leaf := certs[0]
	switch {
	case errors.Is(err, errPin):
		return fail(StageCertificate, CertificatePinMismatch, "certificate: %w", err).
			hint("compare `pins` with the server's keys; someone may be in between")
	case errors.As(err, &wrongName):
		return fail(StageCertificate, CertificateWrongName, "certificate is not for %s but for %s", o.Host, names(leaf))
	case errors.As(err, &unknown):
		return fail(StageCertificate, CertificateUnknownAuthority,
			"certificate is from an authority not trusted here: %q", short([]byte(leaf.Issuer.String()))).
			hint("set `ca_file` if the authority is a private one; else someone may be in between")
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired: // and there is no moment at which all are valid
		return dateError(window([]*x509.Certificate{invalid.Cert}), at)
	}
	return fail(StageCertificate, CertificateInvalid, "certificate: %w", err)
}

// names lists what a certificate is for, as far as that is short.
func names(leaf *x509.Certificate) string {
	var all []string
	for _, n := range leaf.DNSNames {
		all = append(all, fmt.Sprintf("%q", short([]byte(n))))
	}
	for _, ip := range leaf.IPAddresses {
		all = append(all, ip.String())
	}
	switch {
	case len(all) == 0:
		return "no name at all"
	case len(all) > 5:
		return fmt.Sprintf("%s and %d more", strings.Join(all[:5], ", "), len(all)-5)
	}
	return strings.Join(all, ", ")
}

// SubjectName is what a certificate is for, in one name: the first of its
// names, since the subject itself is often empty.
func SubjectName(leaf *x509.Certificate) string {
	switch {
	case leaf.Subject.CommonName != "":
		return leaf.Subject.CommonName
	case len(leaf.DNSNames) > 0:
		return leaf.DNSNames[0]
	case len(leaf.IPAddresses) > 0:
		return leaf.IPAddresses[0].String()
	}
	return leaf.Subject.String()
}
