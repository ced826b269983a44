package nts

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"ntsclient/nts/ntstest"
)

// Whom a certificate convinces, beyond what the table of malice has.
func TestCertificates(t *testing.T) {
	root, err := ntstest.NewCA("root")
	if err != nil {
		t.Fatal(err)
	}
	other, err := ntstest.NewCA("other \x1b[31m")
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	day := 24 * time.Hour
	below := func(notBefore, notAfter time.Time) *ntstest.CA {
		ca, err := root.Intermediate("issuing", notBefore, notAfter)
		if err != nil {
			t.Fatal(err)
		}
		return ca
	}
	old := below(now.Add(-9*day), now.Add(-5*day))
	issue := func(ca *ntstest.CA, notBefore, notAfter time.Time, edit func(*x509.Certificate), names ...string) *tls.Certificate {
		cert, err := ca.Certificate(names, notBefore, notAfter, edit)
		if err != nil {
			t.Fatal(err)
		}
		return cert
	}
	good := func(ca *ntstest.CA, names ...string) *tls.Certificate {
		return issue(ca, now.Add(-day), now.Add(day), nil, names...)
	}
	for _, test := range []struct {
		name   string
		cert   *tls.Certificate
		client func(*Options)
		code   Code
		part   string
	}{
		{"address", good(root, "127.0.0.1"), nil, "", ""},
		{"address among names", good(root, "a.test", "127.0.0.1", "::1"), nil, "", ""},
		{"name", good(root, "one.test"), func(o *Options) { o.Host = "one.test" }, "", ""},
		{"absolute name", good(root, "one.test"), func(o *Options) { o.Host = "one.test." }, "", ""},
		{"name and ips", good(root, "far.example"), func(o *Options) { o.Host, o.IPs = "far.example", []netip.Addr{netip.MustParseAddr("127.0.0.1")} }, "", ""},

		{"only a common name", issue(root, now.Add(-day), now.Add(day), func(c *x509.Certificate) { c.Subject.CommonName = "127.0.0.1" }), nil, CertificateWrongName, "no name at all"},
		{"a name that is none", issue(root, now.Add(-day), now.Add(day), func(c *x509.Certificate) { c.DNSNames = []string{"\x1b[31m" + strings.Repeat("x", 100)} }), nil, CertificateWrongName, `"\x1b[31mxxx`},

		{"intermediate that expired before the leaf began", good(below(now.Add(-9*day), now.Add(-5*day)), "127.0.0.1"), nil, CertificateExpired, "expired on " + now.Add(-5*day).UTC().Format("2006-01-02")},
		{"authority that expired", good(old, "127.0.0.1"), func(o *Options) { o.Roots = old.Pool() }, CertificateExpired, "expired on " + now.Add(-5*day).UTC().Format("2006-01-02")},
		{"intermediate of the future", good(below(now.Add(day/2), now.Add(9*day)), "127.0.0.1"), nil, CertificateNotYetValid, "not valid before"},
		{"expired and another name", issue(root, now.Add(-9*day), now.Add(-day), nil, "b.test"), nil, CertificateWrongName, `"b.test"`},
		{"expired and unknown", issue(other, now.Add(-9*day), now.Add(-day), nil, "127.0.0.1"), nil, CertificateUnknownAuthority, `"CN=other \x1b[31m"`},
		{"expired, and may be", issue(root, now.Add(-9*day), now.Add(-day), nil, "127.0.0.1"), func(o *Options) { o.DeferDates = true }, "", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := start(t, ntstest.Options{CA: root, Certificate: test.cert})
			o := clientOf(s)
			if test.client != nil {
				test.client(o)
			}
			session, err := KeyExchange(enough(t), o)
			wantError(t, err, StageCertificate, test.code, test.part)
			if err == nil && !bytes.Equal(session.Chain.Raw[0], test.cert.Certificate[0]) {
				t.Error("another chain is kept")
			}
		})
	}
}

// pinOf is the pin of a certificate's key.
func pinOf(t *testing.T, der []byte) [32]byte {
	t.Helper()
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return sha256.Sum256(cert.RawSubjectPublicKeyInfo)
}

func TestPins(t *testing.T) {
	root, err := ntstest.NewCA("root")
	if err != nil {
		t.Fatal(err)
	}
	issuing, err := root.Intermediate("issuing", time.Time{}, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	s := start(t, ntstest.Options{CA: issuing})
	o := clientOf(s)
	o.Roots = root.Pool()
	session, err := KeyExchange(enough(t), o)
	if err != nil {
		t.Fatal(err)
	}
	leaf, between := pinOf(t, session.Chain.Raw[0]), pinOf(t, session.Chain.Raw[1])
	other := start(t, ntstest.Options{})
	foreign := pinOf(t, establish(t, other).Chain.Raw[0])
	block, _ := pem.Decode(root.PEM())
	for _, test := range []struct {
		name string
		pins [][32]byte
		code Code
	}{
		{"leaf", [][32]byte{leaf}, ""},
		{"intermediate", [][32]byte{between}, ""},
		{"root, which is not shown", [][32]byte{pinOf(t, block.Bytes)}, ""},
		{"one of two", [][32]byte{foreign, leaf}, ""},
		{"foreign", [][32]byte{foreign}, CertificatePinMismatch},
		{"zero", make([][32]byte, 1), CertificatePinMismatch},
	} {
		t.Run(test.name, func(t *testing.T) {
			o.Pins = test.pins
			_, err := KeyExchange(enough(t), o)
			wantError(t, err, StageCertificate, test.code, "no pinned key")
		})
	}
}

// A chain whose dates were put off is held against the time later on.
func TestVerifyChain(t *testing.T) {
	began := time.Date(2001, 2, 3, 4, 5, 6, 0, time.UTC)
	ended := began.AddDate(0, 0, 90)
	root, err := ntstest.NewCA("root")
	if err != nil {
		t.Fatal(err)
	}
	later := began.AddDate(0, 0, 10)
	issuing, err := root.Intermediate("issuing", later, ended.AddDate(0, 0, 10))
	if err != nil {
		t.Fatal(err)
	}
	s := start(t, ntstest.Options{CA: issuing, NotBefore: began, NotAfter: ended})
	o := clientOf(s)
	o.Roots, o.DeferDates = root.Pool(), true
	session, err := KeyExchange(enough(t), o)
	if err != nil {
		t.Fatal(err)
	}
	chain := &session.Chain
	if !chain.NotBefore.Equal(later) || !chain.NotAfter.Equal(ended) || len(chain.Raw) != 2 {
		t.Fatalf("%d certificates from %v to %v", len(chain.Raw), chain.NotBefore, chain.NotAfter)
	}
	for _, test := range []struct {
		at   time.Time
		code Code
		part string
	}{
		{later.Add(-time.Second), CertificateNotYetValid, "before 2001-02-13 (this clock says 2001-02-13)"},
		{later, "", ""},
		{ended, "", ""},
		{ended.Add(time.Second), CertificateExpired, "on 2001-05-04 (this clock says 2001-05-04)"},
		{ended.AddDate(100, 0, 0), CertificateExpired, "on 2001-05-04 (this clock says 2101-05-04)"},
	} {
		wantError(t, o.VerifyChain(chain, test.at), StageCertificate, test.code, test.part)
		if chain.Holds(test.at) != (test.code == "") {
			t.Errorf("holds %v: %v", test.at, chain.Holds(test.at))
		}
	}
	for _, raw := range [][][]byte{nil, {nil}, {{0x30, 0}}} {
		wantError(t, o.VerifyChain(&Chain{Raw: raw}, later), StageCertificate, CertificateInvalid, "certificate")
	}
	o.Host = "b.test" // a name that was not verified comes before the dates
	wantError(t, o.VerifyChain(chain, ended.Add(time.Second)), StageCertificate, CertificateWrongName, "b.test")
	if leaf, err := chain.Leaf(); err != nil || !leaf.NotBefore.Equal(began) {
		t.Errorf("%v, %v", leaf, err)
	}
	if _, err := new(Chain).Leaf(); err == nil {
		t.Error("a leaf of no chain")
	}
}

func TestSubjectName(t *testing.T) {
	for _, test := range []struct {
		cert x509.Certificate
		want string
	}{
		{x509.Certificate{Subject: pkix.Name{CommonName: "a"}, DNSNames: []string{"b"}}, "a"},
		{x509.Certificate{DNSNames: []string{"b", "c"}, IPAddresses: []net.IP{{127, 0, 0, 1}}}, "b"},
		{x509.Certificate{IPAddresses: []net.IP{{127, 0, 0, 1}}}, "127.0.0.1"},
		{x509.Certificate{Subject: pkix.Name{Organization: []string{"o"}}}, "O=o"},
		{x509.Certificate{}, ""},
	} {
		if got := SubjectName(&test.cert); got != test.want {
			t.Errorf("%q, want %q", got, test.want)
		}
	}
}

// An authority that was renewed after it signed: only from its own beginning on
// is all of the chain valid.
func TestRenewedAuthority(t *testing.T) {
	root, err := ntstest.NewCA("old")
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	renewed, err := root.Intermediate("renewed", now.AddDate(0, 0, -1), now.AddDate(1, 0, 0))
	if err != nil {
		t.Fatal(err)
	}
	made, err := renewed.Certificate([]string{"time.test"}, now.AddDate(0, 0, -30), now.AddDate(0, 0, 30), nil)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(made.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	o := &Options{Host: "time.test"}
	o.Trust(append([]byte("no block\n"), renewed.PEM()...))
	chain, deferred, err := o.verify([]*x509.Certificate{leaf}, time.Unix(0, 0))
	if err != nil || !deferred || !chain.NotBefore.Equal(o.Begins[0]) || !chain.NotAfter.Equal(leaf.NotAfter) {
		t.Errorf("%v, deferred %v, %+v", err, deferred, chain)
	}
}
