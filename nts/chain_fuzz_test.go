package nts

import (
	"crypto/x509"
	"errors"
	"testing"
	"time"

	"ntsclient/nts/ntstest"
)

// FuzzChain: whatever a server shows for itself, or a damaged state holds, is
// refused in words fit for a terminal, or verified and good at a time.
func FuzzChain(f *testing.F) {
	root, err := ntstest.NewCA("root")
	if err != nil {
		f.Fatal(err)
	}
	issuing, err := root.Intermediate("issuing", time.Time{}, time.Time{})
	if err != nil {
		f.Fatal(err)
	}
	now := time.Now()
	for _, ca := range []*ntstest.CA{root, issuing} {
		for _, names := range [][]string{{"one.test"}, {"*.test", "127.0.0.1", "::1"}, {"\x1b[31m"}} {
			cert, err := ca.Certificate(names, now.Add(-time.Hour), now.Add(time.Hour), nil)
			if err != nil {
				f.Fatal(err)
			}
			above := append(cert.Certificate, nil)[1]
			f.Add(cert.Certificate[0], above, now.Unix())
			f.Add(cert.Certificate[0], above, int64(0))
			f.Add(cert.Certificate[0], cert.Certificate[0], now.Unix())
		}
	}
	o := &Options{Host: "one.test", Roots: root.Pool()}
	f.Fuzz(func(t *testing.T, leaf, above []byte, seconds int64) {
		at := time.Unix(seconds, 0)
		kept := &Chain{Raw: [][]byte{leaf, above}, NotBefore: at.Add(1), NotAfter: at}
		certificateError(t, o.VerifyChain(kept, at)) // as from the state
		var certs []*x509.Certificate
		for _, raw := range kept.Raw {
			if cert, err := x509.ParseCertificate(raw); err == nil {
				certs = append(certs, cert)
				SubjectName(cert)
			}
		}
		chain, deferred, err := o.verify(certs, at) // as from TLS
		certificateError(t, err)
		if (chain == nil) != (err != nil) || chain != nil && deferred == chain.Holds(at) {
			t.Errorf("%+v, deferred %v, %v", chain, deferred, err)
		}
	})
}

// certificateError checks that what is not nil says what is wrong with a chain.
func certificateError(t *testing.T, err error) {
	t.Helper()
	var e *Error
	switch {
	case err == nil:
	case !errors.As(err, &e) || e.Stage != StageCertificate || len(e.Error()) > 1000:
		t.Errorf("%T: %v", err, err)
	default:
		wantError(t, err, StageCertificate, e.Code, "")
	}
}
