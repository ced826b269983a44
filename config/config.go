// Package config turns ntsclient.toml into checked, typed values: an unknown key, a wrong type or a bad value is an
// *Error that names the file, the line, the column, the key and the server. Every default is in Default.
package config

import (
	"bytes"
	"errors"
	"io/fs"
	"net"
	"net/netip"
	"path/filepath"
	"strconv"
	"time"

	"github.com/pelletier/go-toml/v2/unstable"
)

// MaxSamples is the largest number of samples a server may be asked for in one round: as many as a full jar has
// cookies (RFC 8915 §5.7).
const MaxSamples = 8

// DefaultPort is the TCP port of the key exchange (RFC 8915 §7.2).
const DefaultPort = 4460

// maxFile bounds the configuration and each CA file, in octets.
const maxFile = 1 << 20

// Config is a whole configuration, with every default filled in and every path absolute or relative to the working
// directory.
type Config struct {
	StateDir      string // "": keep nothing
	StateDirSet   bool   // the file names it, be it as ""
	ControlSocket string // "": none
	Proxy         *Proxy // nil: none
	Bind          string // interface name or source address; "": none

	Servers   []Server
	Measure   Measure
	Agreement Agreement
	Bootstrap Bootstrap
	Clock     Clock
	Run       Run
	Metrics   Metrics
}

// Server is one NTS-KE service.
type Server struct {
	Host     string // lower case without trailing dot, or an IP address in its shortest form
	Port     uint16
	Operator string       // never empty
	IPs      []netip.Addr // nil: resolve Host
	CAFile   string       // "": the system's authorities
	CA       []byte       // PEM, the content of CAFile; nil where that is not set
	Pins     [][32]byte   // SHA-256 of public keys (SubjectPublicKeyInfo)
}

// Name is host:port, with brackets around an IPv6 address.
func (s Server) Name() string { return net.JoinHostPort(s.Host, strconv.Itoa(int(s.Port))) }

// Measure says how a round is measured.
type Measure struct {
	Samples       int
	Interval      time.Duration // between two samples of a server
	AnswerTimeout time.Duration
	Deadline      time.Duration // of a whole round with one sample
	MaxDistance   time.Duration
}

// Agreement says how many operators must agree.
type Agreement struct {
	MinOperators int // already lowered to 1 where a single operator is configured
}

// Bootstrap says what is believed before certificates can be dated.
type Bootstrap struct {
	Strict       bool // certificate_time = "strict": never look past a certificate's dates
	MinOperators int
}

// StepPolicy says which corrections may be steps.
type StepPolicy string

// The step policies, as they are written in the file.
const (
	StepAlways StepPolicy = "always"
	StepFirst  StepPolicy = "first"
	StepNever  StepPolicy = "never"
)

// Clock says how the clock may be corrected.
type Clock struct {
	StepAbove time.Duration
	MaxStep   time.Duration
	Step      StepPolicy
}

// Run is for the loop only.
type Run struct {
	MinPoll, MaxPoll time.Duration
}

// Metrics says where figures are written.
type Metrics struct {
	Textfile string // "": nowhere
}

// Default is the configuration of an empty file: every default, and no servers.
func Default() *Config {
	return &Config{
		StateDir:      "/var/lib/ntsclient",
		ControlSocket: "/run/ntsclient/control.sock",
		Measure: Measure{
			Samples:       1,
			Interval:      2 * time.Second,
			AnswerTimeout: 2 * time.Second,
			Deadline:      10 * time.Second,
			MaxDistance:   time.Second,
		},
		Agreement: Agreement{MinOperators: defaultMinOperators},
		Bootstrap: Bootstrap{MinOperators: 3},
		Clock:     Clock{StepAbove: 100 * time.Millisecond, MaxStep: 15 * time.Minute, Step: StepAlways},
		Run:       Run{MinPoll: 64 * time.Second, MaxPoll: 1024 * time.Second},
	}
}

const defaultMinOperators = 2

// Load reads and checks a configuration file. Errors are *Error; one that wraps fs.ErrNotExist says that there is no
// such file. A nil Reader is ReadFile.
func Load(path string, read Reader) (*Config, error) {
	if read == nil {
		read = ReadFile
	}
	data, err := read(path)
	if err != nil {
		return nil, &Error{File: path, Message: "cannot be read: " + reason(err), cause: err}
	}
	return Parse(path, data, read)
}

// Parse checks the content of a configuration file. Its name stands in messages, and its directory is the base of
// relative paths. Errors are *Error, the first one in the file.
func Parse(name string, data []byte, read Reader) (*Config, error) {
	if len(data) > maxFile {
		return nil, &Error{File: name, Message: "is larger than 1 MiB"}
	}
	in := newInput(filepath.Dir(name), read)
	problem := in.applyAll(scan(data))
	sound := data // to be checked by the library, which is slow where thousands of keys are unknown
	if problem != nil {
		sound = data[:bytes.LastIndexByte(data[:problem.item], '\n')+1]
	}
	if syntax := checkSyntax(sound); syntax != nil {
		syntax.File = name
		return nil, syntax
	}
	if problem == nil {
		problem = in.finish()
	}
	if problem == nil {
		return in.cfg, nil
	}
	problem.File = name
	if problem.offset >= 0 {
		problem.Line, problem.Column = position(data, problem.offset)
	}
	return nil, problem
}

// ForHosts is the configuration of `query HOST[:PORT] …`: these servers, and the defaults. The CA file, where it is
// not "", holds for all of them. Errors are *Error.
func ForHosts(hosts []string, caFile string, read Reader) (*Config, error) {
	in := newInput("", read)
	for _, host := range hosts {
		in.cfg.Servers = append(in.cfg.Servers, Server{})
		if problem := in.setAddress(value{kind: unstable.String, text: host}); problem != nil {
			return nil, problem
		}
		if problem := in.setCA(caFile); problem != nil {
			problem.Key = "--ca"
			return nil, problem
		}
	}
	if problem := in.finish(); problem != nil {
		return nil, problem
	}
	return in.cfg, nil
}

// reason is an error without the path that the message names already.
func reason(err error) string {
	var pathError *fs.PathError
	if errors.As(err, &pathError) {
		return pathError.Err.Error()
	}
	return err.Error()
}
