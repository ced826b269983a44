package config

import (
	"net/url"
	"strconv"
	"strings"
)

// Proxy is a SOCKS5 proxy that resolves names itself.
type Proxy struct {
	Host           string // as Server.Host
	Port           uint16
	User, Password string // 1 to 255 octets each; both empty: none
}

const proxyForm = "write socks5h://host:port or socks5h://user:password@host:port, with % and two hex digits for characters that a URL reserves"

// ParseProxy reads what `--proxy` takes: socks5h://[user:password@]host:port. No message repeats any of it but the
// scheme, since it may hold a password. Errors are *Error.
func ParseProxy(written string) (*Proxy, error) {
	p, problem := parseProxy(written)
	if problem != nil {
		problem.Key = "--proxy"
		return nil, problem
	}
	return p, nil
}

func parseProxy(written string) (*Proxy, *Error) {
	bad := func(hint, format string, args ...any) (*Proxy, *Error) {
		return nil, value{}.problem(hint, format, args...)
	}
	u, err := url.Parse(written)
	if err != nil || !strings.Contains(written, "://") {
		return bad(proxyForm, "not a URL")
	}
	switch u.Scheme {
	case "socks5h":
	case "socks5":
		return bad("write socks5h://", "socks5:// looks names up on this machine, outside the proxy: they must be resolved by the proxy")
	default:
		return bad(proxyForm, "scheme %s is not supported: time needs UDP, which of proxies only SOCKS5 carries", quote(u.Scheme))
	}
	port, err := strconv.ParseUint(u.Port(), 10, 16)
	if err != nil || port == 0 || u.Hostname() == "" {
		return bad(proxyForm, "the URL needs a host and a port from 1 to 65535")
	}
	host, _, problem := parseAddress(u.Host)
	if problem != nil {
		return bad(proxyForm, "the URL's host is neither a name nor an address")
	}
	if u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "" {
		return bad(proxyForm, "the URL has something after the port")
	}
	p := &Proxy{Host: host, Port: uint16(port)}
	if u.User != nil {
		// RFC 1929 §2: one to 255 octets each.
		p.User = u.User.Username()
		p.Password, _ = u.User.Password()
		if n := len(p.User); n < 1 || n > 255 || len(p.Password) < 1 || len(p.Password) > 255 {
			return bad(proxyForm, "user and password must have 1 to 255 octets each")
		}
	}
	return p, nil
}
