//go:build linux

package interop

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"

	"ntsclient/timesync/report"
)

// strict, so that a machine whose kernel says "unsynchronized" (most containers'
// hosts do not, virtual machines may) fails at once, too.
const strict = "[bootstrap]\ncertificate_time = \"strict\""

// What certificates must not pass, and what they must.
func TestCertificates(t *testing.T) {
	l := newLab(t)
	stranger := NewAuthority(t, "Stranger CA", nil)
	deep := NewAuthority(t, "Deep CA", l.issuing)
	over := NewAuthority(t, "Expired CA", l.root, func(c *x509.Certificate) { c.NotAfter = c.NotBefore.AddDate(1, 0, 0) })
	within := NewAuthority(t, "Constrained CA", l.root, func(c *x509.Certificate) {
		c.PermittedDNSDomainsCritical, c.PermittedDNSDomains = true, []string{"nts.test"}
	})
	beside := NewAuthority(t, "Elsewhere CA", l.root, func(c *x509.Certificate) {
		c.PermittedDNSDomainsCritical, c.PermittedDNSDomains = true, []string{"example.test"}
	})
	alone := (*Authority)(nil).IssueFor(t, newKey(t), name, -1, 10)
	names := func(all ...string) Edit {
		return func(c *x509.Certificate) { c.DNSNames, c.IPAddresses = all, nil }
	}
	addresses := func(c *x509.Certificate) {
		c.DNSNames, c.IPAddresses = nil, []net.IP{net.IPv4(127, 0, 0, 1)}
	}
	issue := func(by *Authority, edits ...Edit) Identity { return by.IssueFor(t, newKey(t), name, -1, 10, edits...) }
	good := issue(l.issuing)
	const (
		unknown, wrong = "certificate_unknown_authority", "certificate_wrong_name"
		late, early    = "certificate_expired", "certificate_not_yet_valid"
		mismatch, bad  = "certificate_pin_mismatch", "certificate_invalid"
	)
	for _, c := range []struct {
		title    string
		identity Identity
		trust    string // file of authorities; empty: the root
		host     string // that the configuration names; empty: name
		lines    string // more of the configuration's [[server]]
		code     string
		part     string // of the message
	}{
		{title: "root alone", identity: issue(l.root)},
		{title: "intermediate", identity: good},
		{title: "two intermediates", identity: issue(deep)},
		{title: "trusted intermediate", identity: good, trust: l.issuing.File},
		{title: "self-signed, and trusted", identity: alone, trust: alone.Chain},
		{title: "address as name", identity: issue(l.issuing, addresses), host: "127.0.0.1"},
		{title: "IPv6 address as name", identity: good, host: "[::1]"},
		{title: "wildcard", identity: issue(l.issuing, names("*.nts.test"))},
		{title: "one name of several", identity: issue(l.issuing, names("a.test", "b.test", name))},
		{title: "name within the authority's", identity: issue(within, names(name))},
		{title: "pinned key", identity: good, lines: pins(t, good.Chain, stranger.File)},
		{title: "pinned authority", identity: good, lines: pins(t, l.issuing.File)},

		{title: "other authority", identity: good, trust: stranger.File, code: unknown, part: "Interop Issuing CA"},
		{title: "self-signed", identity: alone, code: unknown},
		{title: "other name", identity: issue(l.issuing, names("other.nts.test")), code: wrong, part: "other.nts.test"},
		{title: "wildcard too high", identity: issue(l.issuing, names("*.test")), code: wrong, part: "*.test"},
		{title: "other address", identity: issue(l.issuing, names(name)), host: "127.0.0.1", code: wrong, part: name},
		{title: "only a common name", identity: issue(l.issuing, names()), code: wrong, part: "no name at all"},
		{title: "expired", identity: l.issuing.Issue(t, name, -60, 30), code: late},
		{title: "not yet valid", identity: l.issuing.Issue(t, name, 2, 30), code: early},
		{title: "expired authority", identity: issue(over), code: late},
		{title: "name beyond the authority's", identity: issue(beside, names(name)), code: bad},
		{title: "for clients", identity: issue(l.issuing, func(c *x509.Certificate) {
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
		}), code: bad},
		{title: "pinned key of another", identity: good, lines: pins(t, stranger.File), code: mismatch},
	} {
		t.Run(c.title, func(t *testing.T) {
			s := &Server{Kind: Chrony12, Identity: c.identity}
			s.Start(t)
			e := entry{address: join(name, s.KE), operator: "operator-1.test", ip: "127.0.0.1", caFile: l.root.File}
			if c.trust != "" {
				e.caFile = c.trust
			}
			if c.host != "" {
				e.address, e.ip = fmt.Sprintf("%s:%d", c.host, s.KE), strings.Trim(c.host, "[]")
			}
			if strings.Contains(e.ip, ":") && len(s.Listen) < 2 {
				t.Skip("no IPv6 here")
			}
			exit := 0
			if c.code != "" {
				exit = 3
			}
			got := run(t, also(t, configure(t, []entry{e}, strict), c.lines), exit, "query", "--json").Servers[0]
			if c.code == "" {
				if got.Verdict != report.ServerAgreed {
					t.Errorf("verdict %s", got.Verdict)
				}
				return
			}
			checkFailed(t, got, "certificate", c.code)
			if !strings.Contains(got.Error.Message, c.part) {
				t.Errorf("%q is not in the message: %s", c.part, got.Error.Message)
			}
		})
	}
}

// pins is the configuration's line for the first key in each file.
func pins(t *testing.T, files ...string) string {
	t.Helper()
	var all []string
	for _, file := range files {
		sum := sha256.Sum256(readCertificate(t, file).RawSubjectPublicKeyInfo)
		all = append(all, fmt.Sprintf("%q", "sha256/"+base64.StdEncoding.EncodeToString(sum[:])))
	}
	return "pins = [" + strings.Join(all, ", ") + "]"
}

// Each kind of key that a certificate can be for, at each kind of server.
func TestCertificateKeys(t *testing.T) {
	l := newLab(t)
	signer := func(key crypto.Signer, err error) Identity {
		check(t, err)
		return l.issuing.IssueFor(t, key, name, -1, 10)
	}
	ec := func(c elliptic.Curve) Identity {
		key, err := ecdsa.GenerateKey(c, rand.Reader)
		return signer(key, err)
	}
	rs := func(bits int) Identity {
		key, err := rsa.GenerateKey(rand.Reader, bits)
		return signer(key, err)
	}
	_, edwards, err := ed25519.GenerateKey(rand.Reader)
	identities := map[string]Identity{
		"RSA 2048": rs(2048), "RSA 4096": rs(4096), "Ed25519": signer(edwards, err),
		"P-256": ec(elliptic.P256()), "P-384": ec(elliptic.P384()), "P-521": ec(elliptic.P521()),
	}
	for _, kind := range []Kind{Chrony12, Chrony13, NTPsec, NTPdRS} {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel() // NTPsec takes 2 seconds to start
			needPort123(t, kind)
			for key, identity := range identities {
				if kind == NTPdRS && key == "P-521" {
					continue // its library has no such keys
				}
				s := &Server{Kind: kind, Identity: identity}
				s.Start(t)
				r := run(t, configure(t, l.entries([]*Server{s}, "127.0.0.1"), strict), 0, "query", "--json")
				checkRound(t, r, "query")
				s.Stop() // NTPsec's ports are needed again
			}
		})
	}
}

// readCertificate is the first one in a PEM file.
func readCertificate(t *testing.T, file string) *x509.Certificate {
	t.Helper()
	text, err := os.ReadFile(file)
	check(t, err)
	block, _ := pem.Decode(text)
	cert, err := x509.ParseCertificate(block.Bytes)
	check(t, err)
	return cert
}
