package config

import (
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"
)

const testCA = `-----BEGIN CERTIFICATE-----
MIIBnTCCAUOgAwIBAgIUXHzyCIeO+tEc2fZDjmEU64KO6sowCgYIKoZIzj0EAwIw
IzEhMB8GA1UEAwwYbnRzY2xpZW50IHRlc3QgYXV0aG9yaXR5MCAXDTI2MTEyMTIz
MTMxNloYDzIxMjYxMDI4MjMxMzE2WjAjMSEwHwYDVQQDDBhudHNjbGllbnQgdGVz
dCBhdXRob3JpdHkwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAARkOG/GlXRZrLyj
WleMHp9eNzZyqbl6rmpA3nMpEttoqmsnteFNwZ5BEeQFlizv1Og5ryZ94holRph4
OXdeNJcyo1MwUTAdBgNVHQ4EFgQUMoWVz7nIx6ByoRy4sPHMznY6bRowHwYDVR0j
BBgwFoAUMoWVz7nIx6ByoRy4sPHMznY6bRowDwYDVR0TAQH/BAUwAwEB/zAKBggq
hkjOPQQDAgNIADBFAiEA16WXVmqQgs7AYjuHYthb5gBjLCJF1QN1AnpyaIrlBYMC
IEpS3qXnoZp2VR+BsKgY8n0QMO/g1FK0mdRzn1RFsXgL
-----END CERTIFICATE-----
`

// files is a Reader of files that exist in the test only.
func files(content map[string]string) Reader {
	return func(path string) ([]byte, error) {
		data, ok := content[path]
		if !ok {
			return nil, &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
		}
		return []byte(data), nil
	}
}

var lab = files(map[string]string{
	"/etc/nts/ca.pem": testCA, "/etc/nts/other.pem": testCA,
	"/etc/nts/key.pem": "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
	"/etc/nts/bad.pem": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
	"/etc/nts/big.pem": strings.Repeat("\n", maxFile+1),
})

func parse(text string) (*Config, error) { return Parse("/etc/nts/n.toml", []byte(text), lab) }

// one is a server that nothing is wrong with.
const one = "[[server]]\naddress = \"a.example.net\"\n"

var shippedServers = []Server{
	{Host: "time.cloudflare.com", Port: 4460, Operator: "cloudflare.com"},
	{Host: "nts.netnod.se", Port: 4460, Operator: "netnod.se"},
	{Host: "ptbtime1.ptb.de", Port: 4460, Operator: "ptb.de"},
	{Host: "ntppool1.time.nl", Port: 4460, Operator: "time.nl"},
	{Host: "virginia.time.system76.com", Port: 4460, Operator: "system76.com"},
}

func TestShippedFile(t *testing.T) {
	want := Default()
	want.Servers = shippedServers
	got, err := Load("../ntsclient.toml", nil)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("as shipped:\n got %+v\nwant %+v", got, want)
	}

	shipped, err := os.ReadFile("../ntsclient.toml")
	if err != nil {
		t.Fatal(err)
	}
	// With every commented key made active it must still say the same: the comments show the true defaults.
	active := regexp.MustCompile(`(?m)^#([a-z_]+ = )`).ReplaceAll(shipped, []byte("$1"))
	want.StateDirSet = true
	if got, err = Parse("ntsclient.toml", active, nil); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("with its comments active:\n got %+v\nwant %+v", got, want)
	}

	set := map[string]bool{}
	for _, it := range scan(active) {
		set[it.name] = true
	}
	for _, k := range keys {
		if !set[k.name] {
			t.Errorf("ntsclient.toml does not show %s", k.name)
		}
	}
}

// TestEveryFieldHasAKey changes every key and looks whether every field of the Config follows.
func TestEveryFieldHasAKey(t *testing.T) {
	got, err := parse(`
state_dir = "state"
control_socket = "run/sock"
proxy = "socks5h://u:p@proxy.example.net:1080"
bind = "eth0"
[[server]]
address = "Time.Example.NET.:4461"
operator = "someone"
ips = ["192.0.2.1", "::ffff:192.0.2.2", "2001:db8::1"]
ca_file = "ca.pem"
pins = ["sha256/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAE="]
[[server]]
address = "b.example.org"
[[server]]
address = "c.example.com"
[measure]
samples = 4
interval = "0s"
answer_timeout = "1.5s"
deadline = "1m30s"
max_distance = "3s"
[agreement]
min_operators = 3
[bootstrap]
certificate_time = "strict"
min_operators = 9
[clock]
step_above = "0s"
max_step = "24h"
step = "never"
[run]
min_poll = "1s"
max_poll = "1h"
[metrics]
textfile = "/var/lib/node/nts.prom"
`)
	if err != nil {
		t.Fatal(err)
	}
	want := &Config{
		StateDir: "/etc/nts/state", StateDirSet: true, ControlSocket: "/etc/nts/run/sock",
		Proxy: &Proxy{"proxy.example.net", 1080, "u", "p"}, Bind: "eth0",
		Servers: []Server{
			{
				Host: "time.example.net", Port: 4461, Operator: "someone",
				IPs:    []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("2001:db8::1")},
				CAFile: "/etc/nts/ca.pem", CA: []byte(testCA), Pins: [][32]byte{{31: 1}},
			},
			{Host: "b.example.org", Port: 4460, Operator: "example.org"},
			{Host: "c.example.com", Port: 4460, Operator: "example.com"},
		},
		Measure:   Measure{Samples: 4, AnswerTimeout: 1500 * time.Millisecond, Deadline: 90 * time.Second, MaxDistance: 3 * time.Second},
		Agreement: Agreement{MinOperators: 3},
		Bootstrap: Bootstrap{Strict: true, MinOperators: 9},
		Clock:     Clock{MaxStep: 24 * time.Hour, Step: StepNever},
		Run:       Run{MinPoll: time.Second, MaxPoll: time.Hour},
		Metrics:   Metrics{Textfile: "/var/lib/node/nts.prom"},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("\n got %+v\nwant %+v", got, want)
	}
}

func TestFormsOfTOML(t *testing.T) {
	for name, text := range map[string]string{
		"inline tables": `server = [{address = "a.example.net", operator = "x"}, {address = "b.example.net"}]` + "\nmeasure = {samples = 2}",
		"dotted keys":   "measure.samples = 2\n[[server]]\naddress = 'a.example.net'\noperator = 'x'\n[[server]]\naddress = 'b.example.net'",
		"quoted keys":   "[[\"server\"]]\n\"address\" = 'a.example.net'\noperator = 'x'\n[[server]]\naddress = \"\"\"b.example.net\"\"\"\n[measure]\nsamples = 0b10",
	} {
		c, err := parse(text)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if c.Measure.Samples != 2 || len(c.Servers) != 2 || c.Servers[0].Operator != "x" || c.Servers[1].Name() != "b.example.net:4460" {
			t.Errorf("%s: %+v", name, c)
		}
	}
}

func TestMinOperators(t *testing.T) {
	two := one + "[[server]]\naddress = \"b.example.org\"\n"
	for _, test := range []struct {
		text string
		want int
	}{
		{one, 1},
		{one + "[agreement]\nmin_operators = 1", 1},
		{one + "[agreement]\nmin_operators = 2", 1},
		{one + "[[server]]\naddress = \"b.example.net\"", 1},
		{two, 2},
		{two + "[agreement]\nmin_operators = 1", 1},
		{two + "[agreement]\nmin_operators = 2", 2},
	} {
		c, err := parse(test.text)
		if err != nil {
			t.Errorf("%s: %v", test.text, err)
		} else if c.Agreement.MinOperators != test.want || c.Bootstrap.MinOperators != 3 {
			t.Errorf("%s: %d of %d, want %d", test.text, c.Agreement.MinOperators, c.Bootstrap.MinOperators, test.want)
		}
	}
}

func TestOperators(t *testing.T) {
	const ca, other = "ca_file = 'ca.pem'", "ca_file = 'other.pem'"
	for _, test := range []struct {
		name    string
		servers [][2]string // address, other lines
		want    []string
	}{
		{"registrable domain", [][2]string{{"a.b.example.co.uk"}, {"x.example.co.uk"}, {"example.net"}}, []string{"example.co.uk", "example.co.uk", "example.net"}},
		{"private suffix", [][2]string{{"a.one.github.io"}, {"two.github.io"}}, []string{"one.github.io", "two.github.io"}},
		{"a suffix itself", [][2]string{{"co.uk"}, {"github.io"}}, []string{"co.uk", "github.io"}},
		{"unlisted, own", [][2]string{{"a.lan"}, {"b.lan"}, {"c.x.internal"}, {"ntp"}, {"10.0.0.1"}, {"[::1]"}}, []string{"a.lan", "b.lan", "c.x.internal", "ntp", "10.0.0.1", "::1"}},
		{
			"unlisted, shared authority",
			[][2]string{{"a.lan", ca}, {"ntp", ca}, {"10.0.0.1", "ca_file = './ca.pem'"}, {"b.lan", other}, {"c.lan"}},
			[]string{"ca_file /etc/nts/ca.pem", "ca_file /etc/nts/ca.pem", "ca_file /etc/nts/ca.pem", "ca_file /etc/nts/other.pem", "c.lan"},
		},
		{"listed, shared authority", [][2]string{{"a.example.net", ca}, {"b.example.org", ca}}, []string{"example.net", "example.org"}},
		{"one host, two ports", [][2]string{{"a.lan:1"}, {"a.lan:2"}}, []string{"a.lan", "a.lan"}},
		{"said so", [][2]string{{"a.lan", "operator = 'me'"}, {"b.example.net", "operator = 'me'"}, {"c.lan", "operator = ''"}}, []string{"me", "me", "c.lan"}},
		{"case", [][2]string{{"a.lan", "operator = 'Example.NET'"}, {"b.example.net"}}, []string{"Example.NET", "Example.NET"}},
	} {
		text := ""
		for _, s := range test.servers {
			text += "[[server]]\naddress = \"" + s[0] + "\"\n" + s[1] + "\n"
		}
		c, err := parse(text)
		if err != nil {
			t.Errorf("%s: %v", test.name, err)
			continue
		}
		for i, s := range c.Servers {
			if s.Operator != test.want[i] {
				t.Errorf("%s: %s has operator %q, want %q", test.name, s.Name(), s.Operator, test.want[i])
			}
		}
	}
}

func TestForHosts(t *testing.T) {
	c, err := ForHosts([]string{"TIME.example.net", "[2001:DB8::1]:4461", "::1", "192.0.2.1:123"}, "/etc/nts/ca.pem", lab)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, s := range c.Servers {
		names = append(names, s.Name())
		if s.CAFile != "/etc/nts/ca.pem" || string(s.CA) != testCA {
			t.Errorf("%s: CA %q", s.Name(), s.CAFile)
		}
	}
	if got := strings.Join(names, " "); got != "time.example.net:4460 [2001:db8::1]:4461 [::1]:4460 192.0.2.1:123" {
		t.Error(got)
	}
	c.Servers = nil
	if want := Default(); !reflect.DeepEqual(c, want) {
		t.Errorf("\n got %+v\nwant %+v", c, want)
	}
	for _, test := range []struct {
		hosts  []string
		ca     string
		want   string
		detail string
	}{
		{nil, "", "no server is configured", "[[server]]"},
		{[]string{"a.lan", "A.lan.:4460"}, "", "a.lan:4460 is given twice", ""},
		{[]string{"https://time.example.net/x"}, "", `"https://time.example.net/x" is a URL or a path, not host[:port]`, `write "time.example.net"`},
		{[]string{"a.lan"}, "/none.pem", `--ca: "/none.pem" cannot be read: file does not exist`, ""},
	} {
		_, err := ForHosts(test.hosts, test.ca, lab)
		check(t, strings.Join(test.hosts, " "), err, test.want, test.detail)
	}
}

// check holds an error against its line and a part of its hint.
func check(t *testing.T, text string, err error, want, hint string) {
	t.Helper()
	var problem *Error
	if !errors.As(err, &problem) {
		t.Errorf("%s\n got %v\nwant %s", text, err, want)
		return
	}
	if got := strings.TrimPrefix(err.Error(), "/etc/nts/n.toml:"); got != want {
		t.Errorf("%s\n got %s\nwant %s", text, got, want)
	}
	if !strings.Contains(problem.Hint, hint) || hint == "" && problem.Hint != "" {
		t.Errorf("%s\n got hint %q\nwant %q", text, problem.Hint, hint)
	}
	if strings.ContainsAny(err.Error()+problem.Hint, "\n\x1b") {
		t.Errorf("%s: more than a line, or control characters: %q %q", text, err, problem.Hint)
	}
}

func TestLoad(t *testing.T) {
	_, err := Load(filepath.Join(t.TempDir(), "none.toml"), nil)
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
	_, err = Load("/etc/none.toml", files(nil))
	check(t, "", err, "/etc/none.toml: cannot be read: file does not exist", "")

	big := filepath.Join(t.TempDir(), "big.toml")
	if err := os.WriteFile(big, []byte(one+strings.Repeat("\n", maxFile)), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = Load(big, nil)
	check(t, "", err, big+": is larger than 1 MiB", "")
}
