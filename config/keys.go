package config

import (
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/pelletier/go-toml/v2/unstable"
)

// key is a key of the file, and what sets it.
type key struct {
	name string
	set  func(in *input, v value) *Error
}

const (
	day  = 24 * time.Hour
	year = 365 * day
	// maxPoll is 2^17 s, the longest poll of RFC 5905 §7.2.
	maxPoll = 131072 * time.Second
	// maxDistance is MAXDISP of RFC 5905 §7.2: beyond it nothing counts as synchronized.
	maxDistance = 16 * time.Second
)

// keys is every key of the file, in its order.
var keys = []key{
	{"state_dir", func(in *input, v value) *Error {
		in.cfg.StateDirSet = true
		return in.setPath(&in.cfg.StateDir, v)
	}},
	{"control_socket", (*input).setSocket},
	{"proxy", (*input).setProxy},
	{"bind", (*input).setBind},

	{"server.address", (*input).setAddress},
	{"server.operator", (*input).setOperator},
	{"server.ips", (*input).setIPs},
	{"server.ca_file", (*input).setCAFile},
	{"server.pins", (*input).setPins},

	{"measure.samples", number(func(c *Config) *int { return &c.Measure.Samples }, MaxSamples)},
	{"measure.interval", duration(func(c *Config) *time.Duration { return &c.Measure.Interval }, 0, 10*time.Minute)},
	{"measure.answer_timeout", duration(func(c *Config) *time.Duration { return &c.Measure.AnswerTimeout }, time.Millisecond, time.Minute)},
	{"measure.deadline", duration(func(c *Config) *time.Duration { return &c.Measure.Deadline }, time.Millisecond, 10*time.Minute)},
	{"measure.max_distance", duration(func(c *Config) *time.Duration { return &c.Measure.MaxDistance }, time.Millisecond, maxDistance)},

	{"agreement.min_operators", number(func(c *Config) *int { return &c.Agreement.MinOperators }, 1000)},

	{"bootstrap.certificate_time", func(in *input, v value) *Error {
		word, problem := oneOf(v, "defer", "strict")
		in.cfg.Bootstrap.Strict = word == "strict"
		return problem
	}},
	{"bootstrap.min_operators", number(func(c *Config) *int { return &c.Bootstrap.MinOperators }, 1000)},

	{"clock.step_above", duration(func(c *Config) *time.Duration { return &c.Clock.StepAbove }, 0, time.Hour)},
	{"clock.max_step", duration(func(c *Config) *time.Duration { return &c.Clock.MaxStep }, time.Millisecond, 100*year)},
	{"clock.step", func(in *input, v value) *Error {
		word, problem := oneOf(v, string(StepAlways), string(StepFirst), string(StepNever))
		in.cfg.Clock.Step = StepPolicy(word)
		return problem
	}},

	{"run.min_poll", duration(func(c *Config) *time.Duration { return &c.Run.MinPoll }, time.Second, maxPoll)},
	{"run.max_poll", duration(func(c *Config) *time.Duration { return &c.Run.MaxPoll }, time.Second, maxPoll)},

	{"metrics.textfile", func(in *input, v value) *Error { return in.setPath(&in.cfg.Metrics.Textfile, v) }},
}

// text takes a string that is to stand in a message, a path or a name: control and format characters have no place there.
func text(v value) (string, *Error) {
	if v.kind != unstable.String {
		return "", v.problem("", "must be a string, not %s", v.describe())
	}
	if strings.ContainsFunc(v.text, func(r rune) bool { return unicode.Is(unicode.C, r) }) {
		return "", v.problem("", "%s holds a control character", quote(v.text))
	}
	return v.text, nil
}

func oneOf(v value, words ...string) (string, *Error) {
	word, problem := text(v)
	if problem != nil {
		return "", problem
	}
	for _, w := range words {
		if word == w {
			return word, nil
		}
	}
	return "", v.problem(didYouMean(word, words), `must be "%s", not %s`, strings.Join(words, `" or "`), quote(word))
}

// number takes a count from 1 to most.
func number(field func(*Config) *int, most int) func(*input, value) *Error {
	return func(in *input, v value) *Error {
		if v.kind != unstable.Integer {
			hint := ""
			if _, err := strconv.Atoi(v.text); err == nil && v.kind == unstable.String {
				hint = "leave out the quotation marks"
			}
			return v.problem(hint, "must be an integer, not %s", v.describe())
		}
		// Base 0 reads all forms of TOML; a leading zero, which it would read otherwise, is an error of syntax.
		n, err := strconv.ParseInt(v.text, 0, 64)
		if err != nil || n < 1 || n > int64(most) {
			return v.problem("", "must be from 1 to %d, not %s", most, printable(v.text))
		}
		*field(in.cfg) = int(n)
		return nil
	}
}

// duration takes a string such as "100ms" or "1h30m" within a range.
func duration(field func(*Config) *time.Duration, least, most time.Duration) func(*input, value) *Error {
	return func(in *input, v value) *Error {
		if v.kind == unstable.Integer || v.kind == unstable.Float {
			return v.problem(`add a unit (ms, s, m or h) and quotation marks: "`+printable(v.text)+`s" are seconds`,
				"must be a duration such as %q, not %s", short(*field(in.cfg)), v.describe())
		}
		written, problem := text(v)
		if problem != nil {
			return problem
		}
		d, err := time.ParseDuration(written)
		if _, bare := strconv.ParseFloat(written, 64); bare == nil && (err != nil || written == "0") {
			return v.problem(`add a unit (ms, s, m or h): "`+printable(written)+`s" are seconds`, "%s has no unit", quote(written))
		}
		if err != nil {
			return v.problem(`units are ms, s, m and h, as in "1h30m"; a day is "24h"`, "%s is not a duration", quote(written))
		}
		if d < least || d > most {
			return v.problem("", "must be from %s to %s, not %s", short(least), short(most), quote(written))
		}
		*field(in.cfg) = d
		return nil
	}
}

// short writes a duration without the zeros that time.Duration appends: 15m, not 15m0s.
func short(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// setPath takes a path, relative to the file; "" stays "".
func (in *input) setPath(field *string, v value) *Error {
	path, problem := text(v)
	if problem != nil {
		return problem
	}
	*field = in.join(path)
	return nil
}

func (in *input) join(path string) string {
	if path == "" || filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(in.dir, path)
}

// setSocket takes the path of a Unix socket, which has to fit in sun_path: 108 octets with a zero at the end (unix(7)).
func (in *input) setSocket(v value) *Error {
	if problem := in.setPath(&in.cfg.ControlSocket, v); problem != nil {
		return problem
	}
	if n := len(in.cfg.ControlSocket); n > 107 {
		return v.problem("", "the path has %d octets; a socket's may have 107", n)
	}
	return nil
}

func (in *input) setProxy(v value) *Error {
	written, problem := text(v)
	if problem != nil {
		return v.problem("", "must be a string without control characters") // never show it: it may hold a password
	}
	if written == "" {
		return nil
	}
	if in.cfg.Proxy, problem = parseProxy(written); problem != nil {
		problem.offset = v.offset
	}
	return problem
}

// setBind takes a source address, or a name that the kernel would take for an interface (1 to 15 octets).
func (in *input) setBind(v value) *Error {
	written, problem := text(v)
	if problem != nil {
		return problem
	}
	in.cfg.Bind = written
	if written == "" {
		return nil
	}
	if addr, err := netip.ParseAddr(written); err == nil {
		if addr.IsUnspecified() || addr.IsMulticast() {
			return v.problem(`leave it out to let the system choose`, "%s cannot be a source address", quote(written))
		}
		return nil
	}
	if len(written) > 15 || written == "." || written == ".." || strings.ContainsFunc(written, func(r rune) bool {
		return r == '/' || r == ':' || unicode.IsSpace(r)
	}) {
		return v.problem(`as in "eth0" or "192.0.2.7", without a port`, "%s is neither an address nor the name of an interface", quote(written))
	}
	return nil
}
