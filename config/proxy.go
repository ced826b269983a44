package config

import (
	"net/url"
	"strconv"
	"strings"
)

const proxyForm = "write socks5h://host:port or socks5h://user:password@host:port, with % and two hex digits for characters that a URL reserves"

// CheckProxy checks what `--proxy` takes: socks5h://[user:password@]host:port, or "" for none. No message repeats
// any of it but the scheme, since it may hold a password. Errors are *Error.
func CheckProxy(proxy string) error {
	if problem := checkProxy(proxy); problem != nil {
		problem.Key = "--proxy"
		return problem
	}
	return nil
}

func checkProxy(proxy string) *Error {
	bad := func(hint, format string, args ...any) *Error { return value{}.problem(hint, format, args...) }
	if proxy == "" {
		return nil
	}
	u, err := url.Parse(proxy)
	if err != nil || !strings.Contains(proxy, "://") {
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
	if _, _, problem := parseAddress(u.Host); problem != nil {
		return bad(proxyForm, "the URL's host is neither a name nor an address")
	}
	if u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "" {
		return bad(proxyForm, "the URL has something after the port")
	}
	if u.User != nil {
		// RFC 1929 §2: one to 255 octets each.
		password, _ := u.User.Password()
		if n := len(u.User.Username()); n < 1 || n > 255 || len(password) < 1 || len(password) > 255 {
			return bad(proxyForm, "user and password must have 1 to 255 octets each")
		}
	}
	return nil
}
