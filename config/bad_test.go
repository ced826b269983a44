package config

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestBadFiles(t *testing.T) {
	const old = "server = is how the original ntsclient wrote it; write [[server]] and below it address = "
	const quotes = "strings stand in quotation marks"
	for _, test := range []struct{ text, want, hint string }{
		// Syntax.
		{"x = \n" + one, "1:5: not TOML: unexpected character U+000A at start of value", ""},
		{"state_dir = \"\"\nstate_dir = \"\"\n" + one, "2:1: state_dir: not TOML: key state_dir is already defined", ""},
		{one + "[run]\n[run]\n", "4:2: run: not TOML: table run already exists", ""},
		{one + "[clock]\nstep = \"no\"\n[run\n", `4:8: clock.step: must be "always" or "first" or "never", not "no"`, ""},
		{"bind = \"\"\nbind = \"\"\n[[server]]\nadres = 1", "2:1: bind: not TOML: key bind is already defined", ""},
		{"server = [\n{address = \"x\"},\n{address = \"x\", pin = 1}\n]", "3:12: server x:4460: address: x:4460 is given twice", ""},
		{"[agreement]\nmin_operators = 2\n" + one + one[:10] + "\naddress = \"b.example.net\"\n!", "7:1: not TOML: invalid character at start of key: U+0021 '!'", ""},
		{"[[server]]\naddress = time.cloudflare.com\n", `2:11: not TOML: expected keyword "true"`, quotes},
		{"[[server]]\naddress = 192.0.2.1\n", "2:16: not TOML: expected newline but got U+002E '.'", quotes},
		{"[[server]]\naddress = \"a.example.net\n", "2:25: not TOML: basic strings cannot have new lines", quotes},
		{"[[server]]\noperator = x\naddress = \"a.example.net\"", "2:12: not TOML: unexpected character U+0078 'x' at start of value", quotes},
		{"[[server]]\naddress =\n", "2:10: not TOML: unexpected character U+000A at start of value", ""},
		{"[[server]]\naddress\n", "2:8: not TOML: expected '=' after key", ""},
		{one + "ips = [\"::1\"\n", "3:13: not TOML: array is incomplete", ""},
		{"[[server]]\n[run]\nmin_poll = 3s", "1:3: server number 1: address: missing", "add address = "},

		// Keys that nobody knows, or that stand in the wrong place.
		{"[[server]]\nadress = \"a.example.net\"", "2:1: server number 1: adress: unknown key", `did you mean "address"?`},
		{"[[server]]\nhost = \"a.example.net\"", "2:1: server number 1: host: unknown key", "the keys of a server are address, operator, ips, ca_file, pins"},
		{"server = [{adress = \"a.example.net\"}]", "1:12: server number 1: adress: unknown key", `did you mean "address"?`},
		{"statedir = \"\"\n" + one, "1:1: statedir: unknown key", `did you mean "state_dir"?`},
		{"state-dir = \"\"\n" + one, "1:1: state-dir: unknown key", `did you mean "state_dir"?`},
		{one + "state_dir = \"\"", "3:1: server a.example.net:4460: state_dir: unknown key", "move it above the first [table]"},
		{one + "[run]\nproxy = \"\"", "4:1: run.proxy: unknown key", "move it above the first [table]"},
		{one + "ip = []", "3:1: server a.example.net:4460: ip: unknown key", `did you mean "ips"?`},
		{one + "[measure]\n  sampels = 1", "4:3: measure.sampels: unknown key", `did you mean "samples"?`},
		{one + "[clock]\nsamples = 1", "4:1: clock.samples: unknown key", "it belongs under [measure]"},
		{one + "[clock]\nmin_operators = 1", "4:1: clock.min_operators: unknown key", "it belongs under [agreement] or [bootstrap]"},
		{"address = \"x\"", "1:1: address: unknown key", "it belongs under [[server]]"},
		{one + "[clock]\nmaxpoll = 1", "4:1: clock.maxpoll: unknown key", `did you mean "run.max_poll"?`},
		{one + "[clock]\nzzzzzz = 1", "4:1: clock.zzzzzz: unknown key", ""},
		{"\"measure.samples\" = 1\n" + one, `1:1: "measure.samples": unknown key`, `did you mean "measure.samples"?`},
		{"\"\\u001b[31m\" = 1\n" + one, `1:1: "\x1b[31m": unknown key`, ""},
		{one + "[Measure]", "3:2: Measure: unknown table", `did you mean "measure"?`},
		{"[[servers]]\naddress = \"x\"", "1:3: servers: unknown table", `did you mean "server"?`},
		{one + "[measure.more]", "3:2: measure.more: unknown table", ""},
		{one + "[[measure]]", "3:3: measure: stands once, not in a list", "write [measure]"},
		{one + "[proxy]", "3:2: proxy: is a key, not a table", ""},
		{"measure = 1\n" + one, "1:11: measure: must be a table, not an integer", "[measure]"},
		{one + "[server.more]", "3:2: server a.example.net:4460: more: unknown table", "the keys of a server are address, operator, ips, ca_file, pins"},

		// Servers.
		{"", " no server is configured", "[[server]]"},
		{"server = []", " no server is configured", "[[server]]"},
		{"[server]\naddress = \"x\"", "1:2: server: must be a list of tables", "write [[server]]"},
		{"server = {address = \"x\"}", "1:1: server: must be a list of tables", "write [[server]]"},
		{"server.address = \"x\"", "1:1: server.address: must stand under [[server]]", "write [[server]]"},
		{"server = \"zoo.example.net:4446\"\ncacert = \"ca.pem\"", "1:1: server: a server is written as a table", old + `"zoo.example.net:4446" and ca_file = "ca.pem"`},
		{"server = \"\"\ncacert = \"\"", "1:1: server: a server is written as a table", old + `"host:port"`},
		{"server = [\"a.example.net\"]", "1:11: server: a server is written as a table", old + `"a.example.net"`},
		{"cacert = \"ca.pem\"\nserver = \"x\"", "1:1: cacert: unknown key", "ca_file"},
		{"interval = 1000\n" + one, "1:1: interval: unknown key", "[run]"},
		{"[[server]]\noperator = \"x\"\n" + one, "1:3: server number 1: address: missing", `add address = `},
		{one + "[[server]]\naddress = \"A.Example.Net.:4460\"", "4:11: server a.example.net:4460: address: a.example.net:4460 is given twice", ""},
		{"[[server]]\naddress = \"::1\"\n[[server]]\naddress = \"[0:0::1]:4460\"", "4:11: server [::1]:4460: address: [::1]:4460 is given twice", ""},
		{"server = [{address = \"x\"}, {address = 1}]", "1:39: server number 2: address: must be a string, not an integer", ""},
		{"server = [{address = \"x\", pin = 1}]", "1:27: server x:4460: pin: unknown key", `did you mean "pins"?`},
		{one + "operator = \" x\"", "3:12: server a.example.net:4460: operator: must have at most 253 octets, and no space at its ends", ""},
		{one + "operator = \"\\u202ex\"", "3:12: server a.example.net:4460: operator: \"\\u202ex\" holds a control character", ""},
		{one + "ips = \"::1\"", "3:7: server a.example.net:4460: ips: must be an array of strings, not a string", `put it in brackets: ["::1"]`},
		{one + "ips = [\"::1\", 1]", "3:15: server a.example.net:4460: ips: each element must be a string, not an integer", ""},
		{one + "ips = [\n\"192.0.2.1\",\n\"192.0.2.1:123\"]", `5:1: server a.example.net:4460: ips: "192.0.2.1:123" is not an IP address of a server`, "without a port"},
		{one + "ips = [\"::\"]", `3:8: server a.example.net:4460: ips: "::" is not an IP address of a server`, "without a port"},
		{one + "pins = [\"sha256//AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAE=\"]", `3:9: server a.example.net:4460: pins: "sha256//AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAE=" is not a pin: it must be "sha256/" and 44 characters, the base64 of 32 octets`, "openssl"},
		{one + "pins = [\"sha256/AAAA\"]", `3:9: server a.example.net:4460: pins: "sha256/AAAA" is not a pin: it must be "sha256/" and 44 characters, the base64 of 32 octets`, "openssl"},
		{one + "pins = [\"sha1/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAE=\"]", `3:9: server a.example.net:4460: pins: "sha1/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAE=" is not a pin: it must be "sha256/" and 44 characters, the base64 of 32 octets`, "openssl"},
		{one + "ca_file = \"none.pem\"", `3:11: server a.example.net:4460: ca_file: "/etc/nts/none.pem" cannot be read: file does not exist`, ""},
		{one + "ca_file = \"key.pem\"", `3:11: server a.example.net:4460: ca_file: "/etc/nts/key.pem" holds no PEM certificate`, "BEGIN CERTIFICATE"},
		{one + "ca_file = \"/etc/nts/bad.pem\"", `3:11: server a.example.net:4460: ca_file: "/etc/nts/bad.pem" holds no PEM certificate`, "BEGIN CERTIFICATE"},
		{one + "ca_file = \"big.pem\"", `3:11: server a.example.net:4460: ca_file: "/etc/nts/big.pem" is larger than 1 MiB`, ""},

		// Values.
		{"state_dir = 1\n" + one, "1:13: state_dir: must be a string, not an integer", ""},
		{"state_dir = \"a\\u0000b\"\n" + one, `1:13: state_dir: "a\x00b" holds a control character`, ""},
		{"state_dir = {a = 1}\n" + one, "1:13: state_dir: must be a string, not a table", ""},
		{"control_socket = \"/" + strings.Repeat("x", 107) + "\"\n" + one, "1:18: control_socket: the path has 108 octets; a socket's may have 107", ""},
		{"bind = \"socks5h://u:secret@h\"\n" + one, `1:8: bind: "socks5h://…@h" is neither an address nor the name of an interface`, "without a port"},
		{"bind = \"eth0:1\"\n" + one, `1:8: bind: "eth0:1" is neither an address nor the name of an interface`, "without a port"},
		{"bind = \"0.0.0.0\"\n" + one, `1:8: bind: "0.0.0.0" cannot be a source address`, "leave it out"},
		{one + "[measure]\nsamples = 0", "4:11: measure.samples: must be from 1 to 8, not 0", ""},
		{one + "[measure]\nsamples = 9", "4:11: measure.samples: must be from 1 to 8, not 9", ""},
		{one + "[measure]\nsamples = \"2\"", "4:11: measure.samples: must be an integer, not a string", "quotation marks"},
		{one + "[measure]\nsamples = 1.0", "4:11: measure.samples: must be an integer, not a float", ""},
		{one + "[measure]\ninterval = 2", `4:12: measure.interval: must be a duration such as "2s", not an integer`, `add a unit (ms, s, m or h) and quotation marks: "2s" are seconds`},
		{one + "[measure]\ninterval = \"2\"", `4:12: measure.interval: "2" has no unit`, `add a unit (ms, s, m or h): "2s" are seconds`},
		{one + "[measure]\ninterval = \"-1s\"", `4:12: measure.interval: must be from 0s to 10m, not "-1s"`, ""},
		{one + "[measure]\nanswer_timeout = \"0s\"", `4:18: measure.answer_timeout: must be from 1ms to 1m, not "0s"`, ""},
		{one + "[measure]\ndeadline = \"0\"", `4:12: measure.deadline: "0" has no unit`, "add a unit"},
		{one + "[measure]\nmax_distance = \"17s\"", `4:16: measure.max_distance: must be from 1ms to 16s, not "17s"`, ""},
		{one + "[clock]\nmax_step = \"1d\"", `4:12: clock.max_step: "1d" is not a duration`, `a day is "24h"`},
		{one + "[clock]\nmax_step = \"0s\"", `4:12: clock.max_step: must be from 1ms to 876000h, not "0s"`, ""},
		{one + "[clock]\nmax_step = 15m", "4:14: not TOML: strings must be quoted", quotes},
		{one + "[clock]\nstep = \"allways\"", `4:8: clock.step: must be "always" or "first" or "never", not "allways"`, `did you mean "always"?`},
		{one + "[bootstrap]\ncertificate_time = false", "4:20: bootstrap.certificate_time: must be a string, not a boolean", ""},
		{one + "[bootstrap]\nmin_operators = 0", "4:17: bootstrap.min_operators: must be from 1 to 1000, not 0", ""},
		{one + "[agreement]\nmin_operators = -1", "4:17: agreement.min_operators: must be from 1 to 1000, not -1", ""},
		{one + "[agreement]\nmin_operators = 3", "4:17: agreement.min_operators: 3 operators can never agree: the servers have 1 in all", "add servers"},
		{one + "[[server]]\naddress = \"b.lan\"\n[agreement]\nmin_operators = 3", "6:17: agreement.min_operators: 3 operators can never agree: the servers have 2 in all", "add servers"},
		{one + "[run]\nmin_poll = \"1h\"", "4:12: run: min_poll (1h) is longer than max_poll (17m4s)", ""},
		{"[run]\nmax_poll = \"2s\"\n[agreement]\nmin_operators = 3\n" + one, "2:12: run: min_poll (1m4s) is longer than max_poll (2s)", ""},
		{"[agreement]\nmin_operators = 3\n[run]\nmax_poll = \"2s\"\n" + one, "2:17: agreement.min_operators: 3 operators can never agree: the servers have 1 in all", "add servers"},
		{one + "[run]\nmax_poll = 1979-05-27", `4:12: run.max_poll: must be a string, not a date or time`, ""},
		{one + "[metrics]\ntextfile = [\"x\"]", "4:1: metrics.textfile: must be a string, not an array", ""},
	} {
		_, err := parse(test.text)
		check(t, test.text, err, test.want, test.hint)
	}
}

func TestAddresses(t *testing.T) {
	for written, want := range map[string]string{
		"time.example.net":         "time.example.net:4460",
		"time.example.net:1":       "time.example.net:1",
		"Time.Example.Net.:65535":  "time.example.net:65535",
		"xn--bcher-kva.example":    "xn--bcher-kva.example:4460",
		"ntp":                      "ntp:4460",
		"3com.example":             "3com.example:4460",
		"192.0.2.1":                "192.0.2.1:4460",
		"192.0.2.1:123":            "192.0.2.1:123",
		"::1":                      "[::1]:4460",
		"[::1]":                    "[::1]:4460",
		"[::1]:4461":               "[::1]:4461",
		"[2001:DB8:0::1]:4461":     "[2001:db8::1]:4461",
		"::ffff:192.0.2.1":         "192.0.2.1:4460",
		strings.Repeat("a", 63):    strings.Repeat("a", 63) + ":4460",
		"a.example.net:0":          `"0" is not a port: it must be a number from 1 to 65535`,
		"a.example.net:65536":      `"65536" is not a port: it must be a number from 1 to 65535`,
		"a.example.net:":           `"" is not a port: it must be a number from 1 to 65535`,
		"a.example.net:+1":         `"+1" is not a port: it must be a number from 1 to 65535`,
		"a.example.net:ntp":        `"ntp" is not a port: it must be a number from 1 to 65535`,
		"[::1]:":                   `"" is not a port: it must be a number from 1 to 65535`,
		"[::1]4460":                `"[::1]4460" is not host[:port]`,
		"[::1":                     `"[::1" is not host[:port]`,
		"[a.example.net]:4460":     `"[a.example.net]:4460" is not host[:port]`,
		"2001:db8::g":              `"2001:db8::g" is not host[:port]`,
		"[fe80::1%eth0]:4460":      `"fe80::1%eth0" has a zone`,
		"0.0.0.0":                  `"0.0.0.0" is the address of no server`,
		"[ff02::101]:4460":         `"ff02::101" is the address of no server`,
		"socks5h://u:secret@h:1":   `"socks5h://…@h:1" is a URL or a path, not host[:port]`,
		"https://a.example.net":    `"https://a.example.net" is a URL or a path, not host[:port]`,
		"a.example.net/nts":        `"a.example.net/nts" is a URL or a path, not host[:port]`,
		"":                         `"" is not a host: it is empty`,
		".":                        `"" is not a host: it is empty`,
		"a..b":                     `"a..b" is not a host: two dots, or one at the beginning`,
		".a":                       `".a" is not a host: two dots, or one at the beginning`,
		"-a.net":                   `"-a.net" is not a host: a hyphen beside a dot or at an end`,
		"a-.net":                   `"a-.net" is not a host: a hyphen beside a dot or at an end`,
		"a_b.net":                  `"a_b.net" is not a host: a name has no '_'`,
		"a b.net":                  `"a b.net" is not a host: a name has no ' '`,
		"user@a.net":               `"user@a.net" is not a host: a name has no '@'`,
		"bücher.example":           `"bücher.example" is not a host: it is not ASCII`,
		"192.0.2.256":              `"192.0.2.256" is not a host: neither a name nor an IPv4 address`,
		"192.0.2":                  `"192.0.2" is not a host: neither a name nor an IPv4 address`,
		strings.Repeat("a", 64):    `"` + strings.Repeat("a", 64) + `" is not a host: more than 63 octets between two dots`,
		strings.Repeat("a.", 127):  "a" + strings.Repeat(".a", 126) + ":4460",
		strings.Repeat("aa.", 100): `"` + strings.Repeat("aa.", 26) + `aa…" is not a host: it has more than 253 octets`,
	} {
		host, port, problem := parseAddress(written)
		got := Server{Host: host, Port: port}.Name()
		if problem != nil {
			got = problem.Error()
		}
		if got != want {
			t.Errorf("%q\n got %s\nwant %s", written, got, want)
		}
		// The name of a server is an address of the same server.
		if h, p, again := parseAddress(got); problem == nil && (again != nil || h != host || p != port) {
			t.Errorf("%q: %s is read as %s %d: %v", written, got, h, p, again)
		}
	}
}

func TestParseProxy(t *testing.T) {
	for good, want := range map[string]Proxy{
		"socks5h://Proxy.example.net.:1080":        {"proxy.example.net", 1080, "", ""},
		"socks5h://user:pass@[::1]:9050":           {"::1", 9050, "user", "pass"},
		"socks5h://user:p%40s%3A@127.0.0.1:09050/": {"127.0.0.1", 9050, "user", "p@s:"},
	} {
		if got, err := ParseProxy(good); err != nil || *got != want {
			t.Errorf("%s: %+v, %v", good, got, err)
		}
	}
	if c, err := parse("proxy = \"\"\n" + one); err != nil || c.Proxy != nil {
		t.Errorf("none: %+v, %v", c, err)
	}
	for _, test := range []struct{ proxy, want, hint string }{
		{"socks5://u:secret@h:1", "--proxy: socks5:// looks names up on this machine, outside the proxy: they must be resolved by the proxy", "write socks5h://"},
		{"http://u:secret@h:1", `--proxy: scheme "http" is not supported: time needs UDP, which of proxies only SOCKS5 carries`, "socks5h://host:port"},
		{"", "--proxy: not a URL", "socks5h://host:port"},
		{"127.0.0.1:1080", "--proxy: not a URL", "socks5h://host:port"},
		{"h:1080", "--proxy: not a URL", "socks5h://host:port"},
		{"socks5h://u:sec/ret@h:1", "--proxy: not a URL", "hex digits"},
		{"socks5h://u:secret@h", "--proxy: the URL needs a host and a port from 1 to 65535", "socks5h://host:port"},
		{"socks5h://:1080", "--proxy: the URL needs a host and a port from 1 to 65535", "socks5h://host:port"},
		{"socks5h://h:0", "--proxy: the URL needs a host and a port from 1 to 65535", "socks5h://host:port"},
		{"socks5h://h_h:1", "--proxy: the URL's host is neither a name nor an address", "socks5h://host:port"},
		{"socks5h://h:1/secret", "--proxy: the URL has something after the port", "socks5h://host:port"},
		{"socks5h://secret@h:1", "--proxy: user and password must have 1 to 255 octets each", "user:password"},
		{"socks5h://u:" + strings.Repeat("s", 256) + "@h:1", "--proxy: user and password must have 1 to 255 octets each", "user:password"},
	} {
		_, err := ParseProxy(test.proxy)
		check(t, test.proxy, err, test.want, test.hint)
		if err != nil && strings.Contains(err.Error()+err.(*Error).Hint, "secret") {
			t.Errorf("%s: shows the secret: %v", test.proxy, err)
		}
	}
	_, err := parse("proxy = \"socks5://h:1\"\n" + one)
	check(t, "in a file", err, "1:9: proxy: socks5:// looks names up on this machine, outside the proxy: they must be resolved by the proxy", "write socks5h://")
	_, err = parse("proxy = \"socks5h://u:secret\\u0001@h:1\"\n" + one)
	check(t, "in a file", err, "1:9: proxy: must be a string without control characters", "")
}

// TestHostileSize: a file that is as large as can be in one way is refused, in few words, and in no more than linear time.
func TestHostileSize(t *testing.T) {
	var many, wide strings.Builder
	for i := 0; many.Len() < maxFile-20; i++ {
		fmt.Fprintf(&many, "k%d = 1\n", i)
	}
	wide.WriteString("[" + strings.Repeat("a", maxFile/2) + "]\n")
	wide.WriteString(many.String()[:maxFile/2-20])
	for name, text := range map[string]string{
		"many keys": many.String(), "long table name": wide.String(), "deep key": strings.Repeat("a.", maxFile/2-10) + "a = 1",
		"deep array": "bind = " + strings.Repeat("[", maxFile-10), "deep table": "measure = " + strings.Repeat("{a = ", maxFile/5-10),
	} {
		_, err := parse(text)
		if err == nil {
			t.Errorf("%s: passed", name)
		} else if len(err.Error()) > 300 {
			t.Errorf("%s: a message of %d octets", name, len(err.Error()))
		}
	}
}

// FuzzParse: whatever stands in a file, the answer is a configuration within its limits or a message of one line.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"", one, one + one, "server = \"a:1\"\ncacert = \"x\"", "server = [{address = \"::1\"}]", "[a.b.\"c\"]\nd.e = {f = [1, {g = 2}]}",
		one + "operator = 'x'\nips = ['::1']\nca_file = 'ca.pem'\npins = ['sha256/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAE=']\n[measure]\nsamples = 2\ninterval = '1s'\n" +
			"[agreement]\nmin_operators = 1\n[bootstrap]\ncertificate_time = 'strict'\n[clock]\nstep = 'never'\n[run]\nmin_poll = '2s'\n[metrics]\ntextfile = ''",
		"proxy = 'socks5h://u:p@h:1'\nbind = 'lo'\ncontrol_socket = ''\nstate_dir = ''\n" + one, "a = 1979-05-27T07:32:00Z\nb = 0x1F\nc = \"\"\"\n\"\"\"\xff",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := Parse("f.toml", data, lab)
		if err == nil {
			if len(c.Servers) == 0 || c.Agreement.MinOperators < 1 || c.Measure.Samples < 1 || c.Measure.Deadline <= 0 ||
				c.Run.MinPoll < time.Second || c.Run.MaxPoll < c.Run.MinPoll {
				t.Errorf("passed: %+v", c)
			}
			return
		}
		problem := err.(*Error)
		if line := err.Error() + problem.Hint; strings.ContainsAny(line, "\n\r\x1b") || len(line) > 2000 {
			t.Errorf("not fit for a terminal: %q", line)
		}
		if lines := strings.Count(string(data), "\n") + 1; problem.Line > lines || problem.Line > 0 && problem.Column < 1 {
			t.Errorf("no such place: %v", err)
		}
	})
}
