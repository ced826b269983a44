package timesync

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"ntsclient/nts"
)

// Saved is what outlives the process. It is a help, never a need.
type Saved struct {
	Agreed  *AgreedTime             `json:"agreed,omitempty"`
	Crystal Crystal                 `json:"crystal,omitzero"`
	Servers map[string]*ServerState `json:"servers"` // by host:port of the key exchange
}

// AgreedTime is the last time that was agreed on: nothing can be earlier.
type AgreedTime struct {
	Time        time.Time     `json:"time"`
	Uncertainty time.Duration `json:"uncertainty"` // ± around Time

	// When it was, on clocks that nothing sets; they mean something within
	// one boot only.
	BootID    string        `json:"boot_id,omitempty"`
	Raw       time.Duration `json:"raw,omitzero"`       // CLOCK_MONOTONIC_RAW
	Suspended time.Duration `json:"suspended,omitzero"` // CLOCK_BOOTTIME − CLOCK_MONOTONIC
}

// ServerState is what is kept of one server.
type ServerState struct {
	Binding string       `json:"binding"`           // what the keys are bound to; see Binding
	Session *nts.Session `json:"session,omitempty"` // nil: none
	Dated   bool         `json:"dated,omitempty"`   // its chain was valid at an agreed time
	Born    time.Time    `json:"born,omitzero"`     // agreed time of its key exchange
	Backoff *Backoff     `json:"backoff,omitempty"` // nil: none
	Rest    *Rest        `json:"rest,omitempty"`    // nil: it asked for none
	Addrs   []netip.Addr `json:"addrs,omitempty"`   // the last that worked
}

// Binding is a fingerprint of what a session's keys are bound to: whose name
// was verified, by which authorities (PEM; empty: the system's) and pins
// (SHA-256 of public keys, in any order), and as whom: through which proxy (nil:
// none) and as which of its users. A session of another binding is not to be
// used; by its cookies the server would know that it is the same client.
func Binding(host string, port uint16, ca []byte, pins [][32]byte, proxy *nts.Proxy) string {
	h := sha256.New()
	field := func(b []byte) { // with its length, so that no two lists look alike
		h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(b))))
		h.Write(b)
	}
	field([]byte("ntsclient binding 1"))
	field([]byte(host))
	field(binary.BigEndian.AppendUint16(nil, port))
	field(ca)
	sorted := slices.SortedFunc(slices.Values(pins), func(a, b [32]byte) int {
		return slices.Compare(a[:], b[:])
	})
	for _, pin := range slices.Compact(sorted) {
		field(pin[:])
	}
	if proxy != nil {
		field([]byte("proxy"))
		field([]byte(proxy.Host))
		field(binary.BigEndian.AppendUint16(nil, proxy.Port))
		field([]byte(proxy.User))
	}
	return hex.EncodeToString(h.Sum(nil))
}

// ErrLoopRunning says that a loop holds the state.
var ErrLoopRunning = errors.New("a loop is running")

// StoreOptions say who opens a Store.
type StoreOptions struct {
	// MachineID is this machine's, empty early in its first boot. Cookies and
	// keys are bound to it, so that a cloned image does not share them. It is
	// stored only as a keyed hash.
	MachineID string
	Loop      bool                          // this process is the loop; others then get ErrLoopRunning
	Warn      func(msg string, args ...any) // as slog.Logger.Warn; nil: nobody is told
}

// Store keeps Saved and the last report in a directory. Whoever has it open
// has them alone. One goroutine uses it at a time, and no session of Saved is
// in use meanwhile.
type Store struct {
	dir     string
	disk    disk
	owner   *owner // whom files are given to; nil: they stay with who writes them
	machine string // machineKey of this machine
	saved   *Saved
	locks   []io.Closer
	warn    func(msg string, args ...any)
	left    map[string]leftover // by server
	closed  bool
}

// leftover is what Leave left of a session on the disk.
type leftover struct {
	session *nts.Session
	cookies [][]byte
	newest  []byte // of those that stayed in use
}

// OpenStore opens the state in dir, which is made if it is missing. It waits
// until ctx ends for another process that has it open, but not for a loop:
// that is ErrLoopRunning. Errors are of the directory and the lock, and mean
// to go on without a store. State that cannot be used is none: it is set aside
// with a warning, and the store begins empty.
func OpenStore(ctx context.Context, dir string, o StoreOptions) (*Store, error) {
	s := &Store{
		dir:     dir,
		disk:    directory(dir),
		machine: machineKey(o.MachineID),
		saved:   &Saved{Servers: map[string]*ServerState{}},
		warn:    o.Warn,
	}
	if s.warn == nil {
		s.warn = func(string, ...any) {}
	}
	if err := s.open(ctx, o.Loop); err != nil {
		s.Close()
		return nil, fmt.Errorf("state in %s: %w", dir, err)
	}
	return s, nil
}

func (s *Store) open(ctx context.Context, loop bool) error {
	if err := MakeStateDir(s.dir); err != nil {
		return err
	}
	info, err := os.Stat(s.dir)
	if err != nil {
		return err
	}
	if err := trustDir(info); err != nil {
		return err
	}
	of := ownerOf(info)
	if os.Geteuid() == 0 && of.uid != 0 {
		s.owner = &of
	}
	if err := s.lock(ctx, loop); err != nil {
		return err
	}
	// Whether the directory can be written is better known now than when
	// cookies must be taken out.
	f, err := s.disk.create(stateName + newSuffix)
	if err != nil {
		return fmt.Errorf("%w: make it writable, or set `state_dir`", err)
	}
	f.Close()
	if err := s.disk.remove(stateName + newSuffix); err != nil {
		return err
	}
	s.read(of)
	return nil
}

// MakeStateDir makes the directory, in which everybody may look for the report
// by its name (0711, whatever the umask), and those above it, for a process that
// cannot do so later on. One that is there stays as it is.
func MakeStateDir(dir string) error {
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	switch err := os.Mkdir(dir, 0o711); {
	case errors.Is(err, fs.ErrExist):
		return nil
	case err != nil:
		return err
	}
	return os.Chmod(dir, 0o711)
}

// Saved is the state, never nil, to be read and changed; Save writes it. What
// another machine wrote, sessions and back-off, is not in it.
func (s *Store) Saved() *Saved { return s.saved }

// Withdraw writes Saved with n cookies fewer in each session, the oldest
// first (n < 0: without any), and keeps them in Saved. On return that is on
// the disk, so that no crash can bring back a cookie that is sent from then
// on. If it fails, the cookies that were read from the store must not be sent.
func (s *Store) Withdraw(n int) error {
	data, err := encodeState(s.saved, s.machine, n)
	if err != nil {
		return fmt.Errorf("state in %s: %w", s.dir, err)
	}
	return s.write(stateName, data, 0o600)
}

// Save writes Saved as it is. It fails where it cannot be written whole; then
// what was there stays.
func (s *Store) Save() error { return s.Withdraw(0) }

// Leave writes Saved with the n newest cookies of each session, and takes them
// out of Saved, whether that works or not: they are the next process's, and this
// one never sends them. A session with less than twice as many is left half. One
// that got none since the last time is left what it was then, so that it is not
// used up where no answers come.
func (s *Store) Leave(n int) error {
	file := *s.saved
	file.Servers = maps.Clone(s.saved.Servers)
	now := make(map[string]leftover, len(file.Servers))
	for name, server := range file.Servers {
		if server == nil || server.Session == nil {
			continue
		}
		left, session := *server, *server.Session
		jar := session.Cookies
		was := s.left[name]
		if was.session != server.Session || len(jar) > 0 && !bytes.Equal(jar[len(jar)-1], was.newest) {
			at := len(jar) - min(n, len(jar)/2)
			was = leftover{session: server.Session, cookies: jar[at:]}
			if at > 0 {
				was.newest = jar[at-1]
			}
			server.Session.Cookies = jar[:at:at]
		}
		now[name] = was
		session.Cookies = was.cookies
		left.Session = &session
		file.Servers[name] = &left
	}
	s.left = now
	data, err := encodeState(&file, s.machine, 0)
	if err != nil {
		return fmt.Errorf("state in %s: %w", s.dir, err)
	}
	return s.write(stateName, data, 0o600)
}

// SaveReport writes the last report, which everybody may read.
func (s *Store) SaveReport(json []byte) error {
	return s.write(reportName, json, 0o644)
}

// Close lets others open the store. It saves nothing.
func (s *Store) Close() error {
	if s.closed {
		return nil
	}
	s.closed = true
	var errs []error
	for _, l := range slices.Backward(s.locks) {
		errs = append(errs, l.Close())
	}
	return errors.Join(errs...)
}

// Backoff is why, and for how long, a server is not asked for a new key
// exchange (RFC 8915 §4.2).
type Backoff struct {
	Failures int           `json:"failures"`
	Since    time.Time     `json:"since"` // of the last failure
	Wait     time.Duration `json:"wait"`  // from then on

	// What the last failure was, to be told while waiting.
	Stage   string `json:"stage"`
	Code    string `json:"code"`
	Message string `json:"message"`
}

// The intervals of RFC 8915 §4.2: the first, and the longest. They grow by half
// at least, and by up to a tenth more, so that a fleet that a server failed does
// not come back as one.
const (
	minBackoff = 10 * time.Second
	maxBackoff = 5 * 24 * time.Hour
)

// Failed is the back-off after one more failure, the first one if b is nil.
func (b *Backoff) Failed(now time.Time, stage, code, message string) *Backoff {
	next := &Backoff{
		Failures: 1,
		Since:    now.Round(0), // its age counts over restarts and steps
		Wait:     minBackoff,
		Stage:    stage, Code: code, Message: message,
	}
	if b != nil {
		next.Failures = b.Failures + 1
		next.Wait = cmp.Or(b.Wait, minBackoff) * 3 / 2
	}
	next.Wait = min(next.Wait+rand.N(next.Wait/10), maxBackoff)
	return next
}

// Remaining is how long to wait still: 0 if there is no back-off or it is
// over. A stamp further off than its own interval is void, and so is one in
// the future: the clock that wrote it was wrong.
func (b *Backoff) Remaining(now time.Time) time.Duration {
	if b == nil {
		return 0
	}
	return remaining(b.Since, b.Wait, now)
}

func remaining(since time.Time, wait time.Duration, now time.Time) time.Duration {
	age := now.Round(0).Sub(since)
	if age < 0 || age > wait {
		return 0
	}
	return wait - age
}

// Rest is what a server asked for by a kiss (RFC 5905 §7.4): to be asked less,
// or not for a while.
type Rest struct {
	Since time.Time     `json:"since"`
	Wait  time.Duration `json:"wait"` // from then on it is not asked
	Pace  time.Duration `json:"pace"` // between requests after that, at least
	Calm  int           `json:"calm"` // answers without a kiss since

	Kiss    string `json:"kiss"`
	Message string `json:"message"` // to be told while it rests
}
