package config

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2/unstable"
	"golang.org/x/net/publicsuffix"
)

func (in *input) server() *Server { return &in.cfg.Servers[len(in.cfg.Servers)-1] }

func (in *input) setAddress(v value) *Error {
	written, problem := text(v)
	if problem != nil {
		return problem
	}
	s := in.server()
	if s.Host, s.Port, problem = parseAddress(written); problem != nil {
		problem.offset = v.offset
		return problem
	}
	if in.taken[s.Name()] {
		return v.problem("", "%s is given twice", s.Name())
	}
	in.taken[s.Name()] = true
	return nil
}

// parseAddress takes host[:port] apart. Names become lower case and lose a trailing dot, addresses their shortest
// form, so that the same server always has the same name.
func parseAddress(written string) (host string, port uint16, problem *Error) {
	bad := func(hint, format string, args ...any) (string, uint16, *Error) {
		return "", 0, value{}.problem(hint, format, args...)
	}
	if strings.Contains(written, "/") {
		hint := `write host or host:port, as in "time.example.net"`
		if u, err := url.Parse(written); err == nil && u.Host != "" {
			hint = "write " + quote(u.Host)
		}
		return bad(hint, "%s is a URL or a path, not host[:port]", quote(written))
	}
	host, port = written, DefaultPort
	bracketed := strings.HasPrefix(written, "[")
	if digits, ok := cutPort(written, bracketed, &host); ok {
		n, err := strconv.ParseUint(digits, 10, 16)
		if err != nil || n == 0 {
			return bad("", "%s is not a port: it must be a number from 1 to 65535", quote(digits))
		}
		port = uint16(n)
	}
	if addr, err := netip.ParseAddr(host); err == nil {
		addr = addr.Unmap()
		switch {
		case addr.Zone() != "":
			return bad(`no certificate names a zone: write the address without it, and ips = [`+quote(addr.String())+`]`, "%s has a zone", quote(host))
		case addr.IsUnspecified() || addr.IsMulticast():
			return bad("", "%s is the address of no server", quote(host))
		}
		return addr.String(), port, nil
	}
	if bracketed || strings.Contains(host, ":") {
		return bad(`an IPv6 address with a port is written "[2001:db8::1]:4460"`, "%s is not host[:port]", quote(written))
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if hint, fault := checkHost(host); fault != "" {
		return bad(hint, "%s is not a host: %s", quote(host), fault)
	}
	return host, port, nil
}

// cutPort splits a port off, unless all of it is an IPv6 address, and the brackets of one.
func cutPort(written string, bracketed bool, host *string) (port string, ok bool) {
	if bracketed {
		address, rest, closed := strings.Cut(written[1:], "]")
		if !closed || !strings.Contains(address, ":") || rest != "" && rest[0] != ':' {
			return "", false // what is left is no address, and refused as such
		}
		*host = address
		return strings.TrimPrefix(rest, ":"), rest != ""
	}
	if strings.Count(written, ":") != 1 {
		return "", false
	}
	*host, port, _ = strings.Cut(written, ":")
	return port, true
}

// checkHost holds a name against RFC 1123 §2.1: letters, digits, hyphens and dots.
func checkHost(host string) (hint, fault string) {
	if host == "" {
		return `as in "time.example.net"`, "it is empty"
	}
	if len(host) > 253 {
		return "", "it has more than 253 octets"
	}
	for _, r := range host {
		if r > 127 {
			return "write the name as DNS has it, beginning with xn--", "it is not ASCII"
		}
		if notBare(r) && r != '.' || r == '_' {
			return "", fmt.Sprintf("a name has no %q", r)
		}
	}
	labels := strings.Split(host, ".")
	for _, label := range labels {
		switch {
		case label == "":
			return "", "two dots, or one at the beginning"
		case len(label) > 63:
			return "", "more than 63 octets between two dots"
		case label[0] == '-' || label[len(label)-1] == '-':
			return "", "a hyphen beside a dot or at an end"
		}
	}
	if strings.Trim(labels[len(labels)-1], "0123456789") == "" {
		return "", "neither a name nor an IPv4 address"
	}
	return "", ""
}

func (in *input) setOperator(v value) *Error {
	operator, problem := text(v)
	if problem != nil {
		return problem
	}
	if len(operator) > 253 || strings.TrimSpace(operator) != operator {
		return v.problem("", "must have at most 253 octets, and no space at its ends")
	}
	in.server().Operator = operator
	return nil
}

// strings takes an array of strings.
func (v value) strings() ([]string, *Error) {
	if v.kind != unstable.Array {
		hint := ""
		if v.kind == unstable.String {
			hint = "put it in brackets: [" + quote(v.text) + "]"
		}
		return nil, v.problem(hint, "must be an array of strings, not %s", v.describe())
	}
	var all []string
	for _, element := range v.list {
		s, problem := text(element)
		if problem != nil {
			problem.Message = "each element " + problem.Message
			return nil, problem
		}
		all = append(all, s)
	}
	return all, nil
}

func (in *input) setIPs(v value) *Error {
	all, problem := v.strings()
	for i, s := range all {
		addr, err := netip.ParseAddr(s)
		if err != nil || addr.IsUnspecified() || addr.IsMulticast() {
			return v.list[i].problem(`as in "192.0.2.1" or "2001:db8::1", without a port`, "%s is not an IP address of a server", quote(s))
		}
		in.server().IPs = append(in.server().IPs, addr.Unmap())
	}
	return problem
}

func (in *input) setPins(v value) *Error {
	all, problem := v.strings()
	for i, s := range all {
		encoded, ok := strings.CutPrefix(s, "sha256/")
		digest, err := base64.StdEncoding.Strict().DecodeString(encoded)
		if !ok || err != nil || len(digest) != 32 {
			return v.list[i].problem("openssl x509 -in cert.pem -noout -pubkey | openssl pkey -pubin -outform der | openssl dgst -sha256 -binary | base64",
				`%s is not a pin: it must be "sha256/" and 44 characters, the base64 of 32 octets`, quote(s))
		}
		in.server().Pins = append(in.server().Pins, [32]byte(digest))
	}
	return problem
}

func (in *input) setCAFile(v value) *Error {
	path, problem := text(v)
	if problem != nil {
		return problem
	}
	if problem := in.setCA(path); problem != nil {
		problem.offset = v.offset
		return problem
	}
	return nil
}

// setCA reads the authorities of the last server. A file that several servers share is read once.
func (in *input) setCA(path string) *Error {
	if path == "" {
		return nil
	}
	path = in.join(path)
	if in.cas[path] == nil {
		data, err := in.read(path)
		switch {
		case err != nil:
			return &Error{Message: fmt.Sprintf("%s cannot be read: %s", quote(path), reason(err)), cause: err}
		case len(data) > maxFile:
			return &Error{Message: quote(path) + " is larger than 1 MiB"}
		case !holdsCertificate(data):
			return &Error{Message: quote(path) + " holds no PEM certificate", Hint: "it must hold at least one block BEGIN CERTIFICATE, the authority's own"}
		}
		in.cas[path] = data
	}
	in.server().CAFile, in.server().CA = path, in.cas[path]
	return nil
}

func holdsCertificate(data []byte) bool {
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			return false
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		if _, err := x509.ParseCertificate(block.Bytes); err == nil {
			return true
		}
	}
}

// nameOperators gives each server without an operator the default one and counts the operators. Spelling that differs
// in case only is the first one's, else one operator could vote twice.
func (c *Config) nameOperators() int {
	spelling := map[string]string{}
	for i := range c.Servers {
		s := &c.Servers[i]
		if s.Operator == "" {
			s.Operator = defaultOperator(s.Host, s.CAFile)
		}
		folded := strings.ToLower(s.Operator)
		if spelling[folded] == "" {
			spelling[folded] = s.Operator
		}
		s.Operator = spelling[folded]
	}
	return len(spelling)
}

// defaultOperator is the registrable domain of a name. What has none (addresses, single labels, names under a suffix
// that is not on the list) is run by whoever has its authority's key, else by someone of its own.
func defaultOperator(host, caFile string) string {
	if _, err := netip.ParseAddr(host); err != nil {
		// The library takes the last label of an unlisted name for a suffix of its own: not ICANN's, and without a
		// dot, which the suffixes of private owners have.
		suffix, icann := publicsuffix.PublicSuffix(host)
		if icann || strings.Contains(suffix, ".") {
			if domain, err := publicsuffix.EffectiveTLDPlusOne(host); err == nil {
				return domain
			}
		}
	}
	if caFile != "" {
		return "ca_file " + caFile
	}
	return host
}
