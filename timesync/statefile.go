package timesync

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"ntsclient/nts"
)

// The files in the directory.
const (
	stateName   = "state.json"
	reportName  = "report.json"
	newSuffix   = ".new"       // while it is written
	asideSuffix = ".set-aside" // of state that could not be used
)

// stateSchema is the one that is written, and the latest that is understood.
const stateSchema = 1

// Bounds of what is read. Those of a session are the ones that a key exchange
// holds to (RFC 8915 §4.1.6).
const (
	maxStateFile   = 16 << 20 // octets
	maxCookies     = 8
	maxCookieLen   = 1324
	maxServerAddrs = 16
	maxName        = 253
	maxChain       = 10
)

// stateFile is the file as it is written.
type stateFile struct {
	Schema  int    `json:"schema"`
	Machine string `json:"machine"` // see machineKey
	Saved
}

// machineKey is what is stored of a machine-id: enough to know it again, too
// little to name the machine by (machine-id(5) asks for a keyed hash). Without
// an id, as early in the first boot, it is empty, which is a kind of its own:
// a machine that gets its id later drops what it kept before, as it must be
// taken for another one.
func machineKey(id string) string {
	id = strings.TrimSpace(id)
	if id == "" || id == "uninitialized" { // the latter is written by image builders
		return ""
	}
	h := hmac.New(sha256.New, []byte(id))
	h.Write([]byte("ntsclient state"))
	return hex.EncodeToString(h.Sum(nil))
}

// encodeState is the file's content, with n cookies fewer in each session, the
// oldest first (n < 0: without any). A session without cookies is left out.
func encodeState(saved *Saved, machine string, n int) ([]byte, error) {
	file := stateFile{stateSchema, machine, Saved{saved.Agreed, saved.Crystal, map[string]*ServerState{}}}
	for name, server := range saved.Servers {
		if server == nil {
			continue
		}
		copied := *server
		if s := server.Session; s != nil {
			session := *s
			session.Cookies = s.Cookies[len(s.Cookies):]
			if n >= 0 {
				session.Cookies = s.Cookies[min(n, len(s.Cookies)):]
			}
			copied.Session = &session
			if len(session.Cookies) == 0 {
				copied.dropSession()
			}
		}
		file.Servers[name] = &copied
	}
	return json.MarshalIndent(file, "", "\t")
}

// dropSession forgets the session and what is known of it.
func (s *ServerState) dropSession() {
	s.Session, s.Dated, s.Born = nil, false, time.Time{}
}

// decodeState reads a file's content. Parts that cannot be used are not in
// what it returns, and notes say so; an error means that nothing can be.
func decodeState(raw []byte, machine string) (saved *Saved, notes []string, err error) {
	var head struct {
		Schema int `json:"schema"`
	}
	if err := json.Unmarshal(raw, &head); err != nil {
		return nil, nil, fmt.Errorf("damaged: %w", err)
	}
	if head.Schema > stateSchema {
		return nil, nil, fmt.Errorf("written by a later version (schema %d)", head.Schema)
	}
	var file stateFile
	if err := json.Unmarshal(raw, &file); err != nil {
		return nil, nil, fmt.Errorf("damaged: %w", err)
	}
	if file.Schema != stateSchema {
		return nil, nil, fmt.Errorf("damaged: schema %d", file.Schema)
	}
	saved = &Saved{Agreed: file.Agreed, Servers: map[string]*ServerState{}}
	if a := saved.Agreed; a != nil {
		a.Uncertainty = max(a.Uncertainty, 0) // less than nothing would lift the floor
	}
	if file.Machine != machine {
		// Two machines with the same cookies could be told to belong together
		// (RFC 8915 §9.1), and another one's failures say nothing of ours. The
		// agreed time stays a floor: time that has been is over everywhere.
		if a := saved.Agreed; a != nil {
			saved.Agreed = &AgreedTime{Time: a.Time, Uncertainty: a.Uncertainty}
		}
		return saved, []string{"written on another machine: its cookies are not used"}, nil
	}
	saved.Crystal = file.Crystal // of this machine
	for name, server := range file.Servers {
		if server == nil {
			continue
		}
		for _, err := range server.clean() {
			notes = append(notes, fmt.Sprintf("server %q: %v", name, err))
		}
		saved.Servers[name] = server
	}
	slices.Sort(notes)
	return saved, notes, nil
}

// clean drops what no version of ours has written, so that a damaged file that
// can still be read does no harm.
func (s *ServerState) clean() (dropped []error) {
	if s.Session != nil {
		if err := checkSession(s.Session); err != nil {
			dropped = append(dropped, fmt.Errorf("session: %w", err))
			s.dropSession()
		}
	}
	if b := s.Backoff; b != nil && (b.Failures < 1 || b.Wait < minBackoff || b.Wait > maxBackoff) {
		dropped = append(dropped, fmt.Errorf("back-off of %v after %d failures", b.Wait, b.Failures))
		s.Backoff = nil
	}
	if r := s.Rest; r != nil && (min(r.Wait, r.Pace) < 0 || max(r.Wait, r.Pace) > maxRest || r.Calm < 0) {
		dropped = append(dropped, fmt.Errorf("rest of %v, then every %v", r.Wait, r.Pace))
		s.Rest = nil
	}
	s.Addrs = slices.DeleteFunc(s.Addrs, func(a netip.Addr) bool { return !usable(a) })
	s.Addrs = s.Addrs[:min(len(s.Addrs), maxServerAddrs)]
	return dropped
}

// usable tells whether a is the address of one host.
func usable(a netip.Addr) bool {
	return a.IsValid() && !a.Unmap().IsUnspecified() && !a.Unmap().IsMulticast()
}

// checkSession tells what keeps a session that was read from being used.
func checkSession(s *nts.Session) error {
	keyLen, known := map[nts.AEAD]int{nts.SIVCMAC: 32, nts.GCMSIV: 16}[s.AEAD]
	fits := func(k *nts.Keys) bool { return len(k.C2S) == keyLen && len(k.S2C) == keyLen }
	switch {
	case !known:
		return fmt.Errorf("unknown %v", s.AEAD)
	case !fits(&s.Keys), s.Other != nil && !fits(s.Other):
		return errors.New("keys of wrong length")
	case len(s.Cookies) < 1 || len(s.Cookies) > maxCookies:
		return fmt.Errorf("%d cookies", len(s.Cookies))
	case s.Host == "" && len(s.Servers) < 1 || len(s.Servers) > maxServerAddrs:
		return fmt.Errorf("%d addresses", len(s.Servers))
	case s.Host != "" && (len(s.Servers) > 0 || len(s.Host) > maxName || s.Port == 0):
		return fmt.Errorf("a name of %d octets, port %d and %d addresses", len(s.Host), s.Port, len(s.Servers))
	case len(s.Chain.Raw) < 1 || len(s.Chain.Raw) > maxChain:
		return fmt.Errorf("%d certificates", len(s.Chain.Raw))
	case s.Chain.NotAfter.Before(s.Chain.NotBefore):
		return errors.New("certificates that end before they begin")
	case s.Placeholders < 0 || s.Placeholders >= maxCookies:
		return fmt.Errorf("%d placeholders", s.Placeholders)
	case s.Largest < 0 || s.Largest > 1<<16:
		return fmt.Errorf("packet of %d octets", s.Largest)
	}
	for i, c := range s.Cookies {
		if len(c) < 1 || len(c) > maxCookieLen {
			return fmt.Errorf("cookie of %d octets", len(c))
		}
		if slices.ContainsFunc(s.Cookies[:i], func(other []byte) bool { return bytes.Equal(c, other) }) {
			return errors.New("the same cookie twice")
		}
	}
	for _, a := range s.Servers {
		if !usable(a.Addr()) || a.Port() == 0 {
			return fmt.Errorf("address %v", a)
		}
	}
	return nil
}

// read fills Saved from the file. A file that cannot be used is set aside.
func (s *Store) read(dir owner) {
	path := filepath.Join(s.dir, stateName)
	raw, err := readTrusted(path, dir)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	var saved *Saved
	var notes []string
	if err == nil {
		saved, notes, err = decodeState(raw, s.machine)
	}
	if err != nil {
		s.warn("going on without the saved state", "file", path, "error", err)
		if err := os.Rename(path, path+asideSuffix); err != nil {
			s.warn("cannot set the saved state aside", "error", err)
		}
		return
	}
	for _, note := range notes {
		s.warn("part of the saved state is not used", "file", path, "reason", note)
	}
	s.saved = saved
}

// readTrusted reads a regular file that nobody can have written but root, this
// user, or the directory's owner.
func readTrusted(path string, dir owner) ([]byte, error) {
	// A link leads nowhere, and a FIFO does not block.
	f, err := os.OpenFile(path, os.O_RDONLY|carefully, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if err := trustFile(info.Mode(), ownerOf(info), dir, os.Geteuid()); err != nil {
		return nil, err
	}
	raw, err := io.ReadAll(io.LimitReader(f, maxStateFile+1))
	if err != nil {
		return nil, err
	}
	if len(raw) > maxStateFile {
		return nil, fmt.Errorf("larger than %d octets", maxStateFile)
	}
	return raw, nil
}

// owner is whom a file belongs to.
type owner struct{ uid, gid int }

// trustFile says why a file of this mode and owner, in a directory of owner
// dir, is not to be believed by user euid.
func trustFile(mode fs.FileMode, file, dir owner, euid int) error {
	switch {
	case !mode.IsRegular():
		return errors.New("not a regular file")
	case mode&0o022 != 0:
		return fmt.Errorf("others may write it (mode %04o)", mode.Perm())
	case file.uid != 0 && file.uid != dir.uid && file.uid != euid:
		return fmt.Errorf("it belongs to user %d", file.uid)
	}
	return nil
}

// disk is the directory, as far as files are written in it.
type disk interface {
	create(name string) (diskFile, error) // new and empty, mode 0600; one that is there goes
	rename(from, to string) error
	remove(name string) error
	sync() error // what was created, renamed and removed
}

type diskFile interface {
	io.WriteCloser
	Chmod(mode fs.FileMode) error
	Chown(uid, gid int) error
	Sync() error
}

// write puts a file in the place of another: whole and on the disk on return,
// or, if a crash or an error comes between, the old one stays.
func (s *Store) write(name string, data []byte, mode fs.FileMode) error {
	if s.closed {
		return fmt.Errorf("state in %s: %w", s.dir, fs.ErrClosed)
	}
	err := s.fill(name+newSuffix, data, mode)
	if err == nil {
		err = s.disk.rename(name+newSuffix, name)
	}
	if err != nil {
		s.disk.remove(name + newSuffix) // else the next one does it
		return fmt.Errorf("state in %s: %w", s.dir, err)
	}
	if err := s.disk.sync(); err != nil {
		return fmt.Errorf("state in %s: %w", s.dir, err)
	}
	return nil
}

// fill makes a file with data, synced. Root's belong to the directory's owner,
// who could not read them otherwise.
func (s *Store) fill(name string, data []byte, mode fs.FileMode) error {
	f, err := s.disk.create(name)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Chmod(mode) // whatever the umask
	}
	if err == nil && s.owner != nil {
		err = f.Chown(s.owner.uid, s.owner.gid)
	}
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// directory is a real disk.
type directory string

func (d directory) path(name string) string { return filepath.Join(string(d), name) }

func (d directory) create(name string) (diskFile, error) {
	if err := d.remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return os.OpenFile(d.path(name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
}

func (d directory) rename(from, to string) error { return os.Rename(d.path(from), d.path(to)) }

func (d directory) remove(name string) error { return os.Remove(d.path(name)) }

func (d directory) sync() error {
	f, err := os.Open(string(d))
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Sync(); err != nil && !noDirSync(err) {
		return err
	}
	return nil
}
