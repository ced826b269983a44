//go:build unix

package timesync

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"ntsclient/nts"
)

var stateTime = time.Date(2026, 11, 21, 21, 0, 0, 123456789, time.UTC)

// sessionWith is a session with these cookies.
func sessionWith(cookies ...string) *nts.Session {
	s := &nts.Session{
		AEAD:    nts.SIVCMAC,
		Keys:    nts.Keys{C2S: bytes.Repeat([]byte{1}, 32), S2C: bytes.Repeat([]byte{2}, 32)},
		Servers: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:123")},
		KEAddr:  netip.MustParseAddr("192.0.2.1"),
		Chain: nts.Chain{
			Raw:       [][]byte{{0x30, 0}},
			NotBefore: stateTime.AddDate(0, -1, 0), NotAfter: stateTime.AddDate(0, 1, 0),
		},
		Placeholders: 2,
		Largest:      956,
	}
	for _, c := range cookies {
		s.Cookies = append(s.Cookies, []byte(c))
	}
	return s
}

// fullState has every field set, of two servers.
func fullState() *Saved {
	other := sessionWith("x1")
	other.AEAD = nts.GCMSIV
	other.Keys = nts.Keys{C2S: make([]byte, 16), S2C: make([]byte, 16)}
	other.Other = &nts.Keys{C2S: make([]byte, 16), S2C: make([]byte, 16)}
	return &Saved{
		Agreed: &AgreedTime{
			Time: stateTime, Uncertainty: 11 * time.Millisecond,
			BootID: "3a1f", Raw: time.Hour, Suspended: time.Minute,
		},
		Servers: map[string]*ServerState{
			"time.example.net:4460": {
				Binding: Binding("time.example.net", 4460, nil, nil, nil),
				Session: sessionWith("a1", "a2", "a3"), Dated: true, Born: stateTime,
				Addrs: []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")},
			},
			"old.example.org:4460": {
				Session: other,
				Backoff: &Backoff{Failures: 2, Since: stateTime, Wait: 16 * time.Second, Stage: "connect", Code: "connect_refused", Message: "refused"},
				Rest:    &Rest{Since: stateTime, Wait: time.Hour, Pace: 64 * time.Second, Calm: 3, Kiss: "RATE", Message: "asks for fewer"},
			},
		},
	}
}

// openState opens dir and collects the warnings.
func openState(t *testing.T, dir string, machine string) (s *Store, warnings []string) {
	t.Helper()
	s, err := OpenStore(t.Context(), dir, StoreOptions{MachineID: machine, Warn: func(msg string, args ...any) {
		warnings = append(warnings, fmt.Sprintln(append([]any{msg}, args...)...))
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s, warnings
}

// saveState leaves state in a directory.
func saveState(t *testing.T, dir, machine string, saved *Saved) {
	t.Helper()
	s, _ := openState(t, dir, machine)
	s.saved = saved
	if err := s.Save(); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// cookiesOf names the cookies of all sessions.
func cookiesOf(saved *Saved) (all []string) {
	for _, server := range saved.Servers {
		if server.Session != nil {
			for _, c := range server.Session.Cookies {
				all = append(all, string(c))
			}
		}
	}
	slices.Sort(all)
	return all
}

func TestStateOutlivesTheProcess(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "made", "on the way")
	s, _ := openState(t, dir, "m")
	if saved := s.Saved(); saved == nil || saved.Servers == nil || saved.Agreed != nil {
		t.Fatalf("new state: %+v", saved)
	}
	*s.Saved() = *fullState()
	if err := s.Save(); err != nil {
		t.Fatal(err)
	}
	if err := s.SaveReport([]byte("{}\n")); err != nil {
		t.Fatal(err)
	}
	s.Close()
	if err := s.Save(); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("saved without the lock: %v", err)
	}

	again, warnings := openState(t, dir, "m")
	if !reflect.DeepEqual(again.Saved(), fullState()) || len(warnings) > 0 {
		got, _ := json.Marshal(again.Saved())
		t.Errorf("read back: %s; warnings %q", got, warnings)
	}
	for name, mode := range map[string]fs.FileMode{
		".": fs.ModeDir | 0o711, stateName: 0o600, reportName: 0o644, lockName: 0o600,
	} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode() != mode {
			t.Errorf("%s has mode %v, not %v", name, info.Mode(), mode)
		}
	}
	left, _ := filepath.Glob(filepath.Join(dir, "*"+newSuffix))
	if len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
}

func TestModesWhateverTheUmask(t *testing.T) {
	old := syscall.Umask(0o077) // no test of this package runs in parallel
	defer syscall.Umask(old)
	TestStateOutlivesTheProcess(t)
}

func TestWithdraw(t *testing.T) {
	for _, c := range []struct {
		n    int
		left string
	}{
		{0, "a1 a2 a3 x1"},
		{1, "a2 a3"},
		{2, "a3"},
		{3, ""},
		{9, ""},
		{-1, ""},
	} {
		dir := t.TempDir()
		s, _ := openState(t, dir, "")
		s.saved = fullState()
		if err := s.Withdraw(c.n); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(s.Saved(), fullState()) {
			t.Errorf("Withdraw(%d) changed what this process has", c.n)
		}
		s.Close()
		again, warnings := openState(t, dir, "")
		if got := strings.Join(cookiesOf(again.Saved()), " "); got != c.left || len(warnings) > 0 {
			t.Errorf("Withdraw(%d) left %q, not %q; warnings %q", c.n, got, c.left, warnings)
		}
		if c.left == "" && again.Saved().Servers["time.example.net:4460"].Dated {
			t.Error("a session that is not there is dated")
		}
		if again.Saved().Agreed == nil || again.Saved().Servers["old.example.org:4460"].Backoff == nil {
			t.Errorf("Withdraw(%d) took more than cookies", c.n)
		}
		again.Close()
	}
}

// What is left for the next process is not this one's any more, even where it
// cannot be written.
func TestLeave(t *testing.T) {
	for _, c := range []struct {
		n           int
		left, stays string
	}{
		{0, "", "a1 a2 a3 a4 a5 x1"},
		{1, "a5", "a1 a2 a3 a4 x1"},
		{2, "a4 a5", "a1 a2 a3 x1"},
		{3, "a4 a5", "a1 a2 a3 x1"}, // not more than half
	} {
		for _, broken := range []bool{false, true} {
			dir := t.TempDir()
			s, _ := openState(t, dir, "")
			s.saved = fullState()
			s.saved.Servers["time.example.net:4460"].Session = sessionWith("a1", "a2", "a3", "a4", "a5")
			s.saved.Servers["never asked"] = nil
			if s.closed = broken; (s.Leave(c.n) != nil) != broken {
				t.Errorf("Leave(%d) while writing fails: %v", c.n, broken)
			}
			s.closed = false
			delete(s.saved.Servers, "never asked")
			if got := strings.Join(cookiesOf(s.Saved()), " "); got != c.stays {
				t.Errorf("Leave(%d) keeps %q, not %q", c.n, got, c.stays)
			}
			session := s.Saved().Servers["time.example.net:4460"].Session
			session.Cookies = append(session.Cookies, []byte("new"))
			s.Close()
			again, warnings := openState(t, dir, "")
			want := c.left
			if broken {
				want = ""
			}
			if got := strings.Join(cookiesOf(again.Saved()), " "); got != want || len(warnings) > 0 {
				t.Errorf("Leave(%d) leaves %q, not %q; warnings %q", c.n, got, want, warnings)
			}
			again.Close()
		}
	}
}

// Without answers no cookie is lost by writing the state again and again.
func TestLeaveAgain(t *testing.T) {
	dir := t.TempDir()
	s, _ := openState(t, dir, "")
	s.saved = fullState()
	session := sessionWith("a1", "a2", "a3", "a4", "a5", "a6")
	s.saved.Servers = map[string]*ServerState{"a": {Session: session}}
	for i, c := range []struct {
		change      func()
		left, stays string
	}{
		{func() {}, "a5 a6", "a1 a2 a3 a4"},
		{func() {}, "a5 a6", "a1 a2 a3 a4"},
		{func() { session.Cookies = session.Cookies[1:] }, "a5 a6", "a2 a3 a4"}, // sent, and lost
		{func() { session.Cookies = append(session.Cookies, []byte("a7")) }, "a4 a7", "a2 a3"},
		{func() { session.Cookies = nil }, "a4 a7", ""},
		{func() { session = sessionWith("b1", "b2"); s.saved.Servers["a"].Session = session }, "b2", "b1"},
	} {
		c.change()
		if err := s.Leave(2); err != nil {
			t.Fatal(err)
		}
		written, _, err := decodeState(must(os.ReadFile(filepath.Join(dir, stateName))), "")
		if err != nil {
			t.Fatal(err)
		}
		left, stays := strings.Join(cookiesOf(written), " "), strings.Join(cookiesOf(s.Saved()), " ")
		if left != c.left || stays != c.stays {
			t.Errorf("%d: leaves %q and keeps %q, not %q and %q", i, left, stays, c.left, c.stays)
		}
	}
	s.Close()
}

func TestStateOfAnotherMachine(t *testing.T) {
	for _, c := range []struct {
		wrote, reads string
		same         bool
	}{
		{"0123", "0123", true},
		{"0123", "0123\n", true}, // as /etc/machine-id has it
		{"0123", "4567", false},
		{"", "0123", false},
		{"0123", "", false},
		{"", "", true},
		{"uninitialized\n", "", true},
		{"uninitialized", "0123", false},
	} {
		dir := t.TempDir()
		saveState(t, dir, c.wrote, fullState())
		raw, _ := os.ReadFile(filepath.Join(dir, stateName))
		if c.wrote != "" && bytes.Contains(raw, []byte(`"`+c.wrote)) {
			t.Errorf("the machine-id %q can be read in the file", c.wrote)
		}
		s, warnings := openState(t, dir, c.reads)
		if got := len(s.Saved().Servers) > 0; got != c.same || got != (len(warnings) == 0) {
			t.Errorf("written by %q: %q gets %v, warnings %q", c.wrote, c.reads, got, warnings)
		}
		a := s.Saved().Agreed
		if a == nil || !a.Time.Equal(stateTime) || a.Uncertainty != 11*time.Millisecond {
			t.Errorf("written by %q, read by %q: floor %+v", c.wrote, c.reads, a)
		} else if !c.same && (a.BootID != "" || a.Raw != 0) {
			t.Errorf("another machine's boot: %+v", a)
		}
		s.Close()
	}
}

// TestSetAside has a file that cannot be used, each of which costs a warning
// and nothing else.
func TestSetAside(t *testing.T) {
	later := func(t *testing.T, path string) {
		writeFile(t, path, []byte(`{"schema": 2, "servers": "quite different"}`))
	}
	for name, c := range map[string]struct {
		make func(t *testing.T, path string)
		says string
	}{
		"group may write":     {func(t *testing.T, path string) { chmod(t, path, 0o620) }, "others may write"},
		"everybody may write": {func(t *testing.T, path string) { chmod(t, path, 0o602) }, "others may write"},
		"later schema":        {later, "later version (schema 2)"},
		"no schema":           {func(t *testing.T, path string) { writeFile(t, path, []byte(`{}`)) }, "schema 0"},
		"empty":               {func(t *testing.T, path string) { writeFile(t, path, nil) }, "damaged"},
		"too large": {func(t *testing.T, path string) {
			if err := os.Truncate(path, maxStateFile+1); err != nil {
				t.Fatal(err)
			}
		}, "larger than"},
		"link": {func(t *testing.T, path string) {
			if err := errors.Join(os.Rename(path, path+".real"), os.Symlink(path+".real", path)); err != nil {
				t.Fatal(err)
			}
		}, "symbolic links"},
		"fifo": {func(t *testing.T, path string) {
			if err := errors.Join(os.Remove(path), syscall.Mkfifo(path, 0o600)); err != nil {
				t.Fatal(err)
			}
		}, "not a regular file"},
		"directory": {func(t *testing.T, path string) {
			if err := errors.Join(os.Remove(path), os.Mkdir(path, 0o700)); err != nil {
				t.Fatal(err)
			}
		}, "not a regular file"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, stateName)
			saveState(t, dir, "", fullState())
			c.make(t, path)
			s, warnings := openState(t, dir, "")
			if len(s.Saved().Servers) > 0 || s.Saved().Agreed != nil {
				t.Error("it was used")
			}
			if len(warnings) != 1 || !strings.Contains(warnings[0], c.says) {
				t.Errorf("warnings %q, not one of %q", warnings, c.says)
			}
			if _, err := os.Lstat(path + asideSuffix); err != nil {
				t.Error(err)
			}
			s.saved = fullState()
			if err := s.Save(); err != nil {
				t.Error(err)
			}
		})
	}
}

func writeFile(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func chmod(t *testing.T, path string, mode fs.FileMode) {
	t.Helper()
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

func TestTrustFile(t *testing.T) {
	const root, dir, us, foreign = 0, 10, 20, 30
	for _, c := range []struct {
		mode fs.FileMode
		uid  int
		ok   bool
	}{
		{0o600, root, true},
		{0o600, dir, true},
		{0o644, us, true},
		{0o600, foreign, false},
		{0o620, us, false},
		{0o602, us, false},
		{fs.ModeDevice | 0o600, root, false},
	} {
		err := trustFile(c.mode, owner{c.uid, 5}, owner{dir, 5}, us)
		if (err == nil) != c.ok {
			t.Errorf("mode %v of user %d: %v", c.mode, c.uid, err)
		}
	}
}

// TestDamagedValues changes one value each in a file that can be read.
func TestDamagedValues(t *testing.T) {
	const name = "time.example.net:4460"
	session := func(change func(*nts.Session)) func(*Saved) {
		return func(s *Saved) { change(s.Servers[name].Session) }
	}
	backoff := func(b Backoff) func(*Saved) {
		return func(s *Saved) { s.Servers[name].Backoff = &b }
	}
	rest := func(r Rest) func(*Saved) {
		return func(s *Saved) { s.Servers[name].Rest = &r }
	}
	for _, c := range []struct {
		says   string
		change func(*Saved)
	}{
		{"AEAD 0", session(func(s *nts.Session) { s.AEAD = 0 })},
		{"AEAD 17", session(func(s *nts.Session) { s.AEAD = 17 })},
		{"keys", session(func(s *nts.Session) { s.AEAD = nts.GCMSIV })},
		{"keys", session(func(s *nts.Session) { s.Keys.C2S = nil })},
		{"keys", session(func(s *nts.Session) { s.Keys.S2C = s.Keys.S2C[1:] })},
		{"keys", session(func(s *nts.Session) { s.Other = &nts.Keys{} })},
		{"9 cookies", session(func(s *nts.Session) { s.Cookies = make([][]byte, 9) })},
		{"cookie of 0", session(func(s *nts.Session) { s.Cookies[1] = []byte{} })},
		{"cookie of 1325", session(func(s *nts.Session) { s.Cookies[1] = make([]byte, 1325) })},
		{"cookie twice", session(func(s *nts.Session) { s.Cookies[2] = s.Cookies[0] })},
		{"0 addresses", session(func(s *nts.Session) { s.Servers = nil })},
		{"a name of 254 octets, port 123 and 0", session(func(s *nts.Session) { s.Servers, s.Host, s.Port = nil, strings.Repeat("a", 254), 123 })},
		{"a name of 1 octets, port 0 and 0", session(func(s *nts.Session) { s.Servers, s.Host = nil, "a" })},
		{"a name of 1 octets, port 123 and 1", session(func(s *nts.Session) { s.Host, s.Port = "a", 123 })},
		{"17 addresses", session(func(s *nts.Session) { s.Servers = slices.Repeat(s.Servers, 17) })},
		{"address 192.0.2.1:0", session(func(s *nts.Session) { s.Servers[0] = netip.MustParseAddrPort("192.0.2.1:0") })},
		{"address 0.0.0.0:123", session(func(s *nts.Session) { s.Servers[0] = netip.MustParseAddrPort("0.0.0.0:123") })},
		{"address [ff02::1]", session(func(s *nts.Session) { s.Servers[0] = netip.MustParseAddrPort("[ff02::1]:123") })},
		{"address [::ffff:224.", session(func(s *nts.Session) { s.Servers[0] = netip.MustParseAddrPort("[::ffff:224.0.1.1]:123") })},
		{"address invalid", session(func(s *nts.Session) { s.Servers[0] = netip.AddrPort{} })},
		{"0 certificates", session(func(s *nts.Session) { s.Chain.Raw = nil })},
		{"11 certificates", session(func(s *nts.Session) { s.Chain.Raw = make([][]byte, 11) })},
		{"before they begin", session(func(s *nts.Session) { s.Chain.NotAfter = time.Time{} })},
		{"-1 placeholders", session(func(s *nts.Session) { s.Placeholders = -1 })},
		{"8 placeholders", session(func(s *nts.Session) { s.Placeholders = 8 })},
		{"packet of -1", session(func(s *nts.Session) { s.Largest = -1 })},
		{"back-off", backoff(Backoff{Failures: 1, Wait: -time.Second})},
		{"back-off", backoff(Backoff{Failures: 1, Wait: maxBackoff + 1})},
		{"back-off", backoff(Backoff{Failures: 0, Wait: time.Minute})},
		{"rest", rest(Rest{Wait: -1})},
		{"rest", rest(Rest{Pace: -1})},
		{"rest", rest(Rest{Wait: maxRest + 1})},
		{"rest", rest(Rest{Pace: maxRest + 1})},
		{"rest", rest(Rest{Calm: -1})},
	} {
		saved := fullState()
		c.change(saved)
		raw, err := json.Marshal(stateFile{stateSchema, "", *saved})
		if err != nil {
			t.Fatal(err)
		}
		got, notes, err := decodeState(raw, "")
		if err != nil || len(notes) != 1 || !strings.Contains(notes[0], c.says) || !strings.Contains(notes[0], name) {
			t.Errorf("%s: notes %q, %v", c.says, notes, err)
			continue
		}
		server := got.Servers[name]
		if slices.Contains([]string{"back-off", "rest"}, c.says) == (server.Session == nil) || server.Backoff != nil || server.Rest != nil {
			t.Errorf("%s: left %+v", c.says, server)
		}
		if server.Session == nil && (server.Dated || !server.Born.IsZero()) {
			t.Errorf("%s: no session, but dated", c.says)
		}
		if got.Servers["old.example.org:4460"].Session == nil {
			t.Errorf("%s: cost the other server its session", c.says)
		}
	}
}

func TestDamagedHints(t *testing.T) {
	raw := []byte(`{"schema": 1, "machine": "", "agreed": {"time": "9999-12-31T23:59:59Z", "uncertainty": -5},
		"servers": {"none": null, "a": {"binding": "", "addrs": ["192.0.2.1", "", "0.0.0.0", "224.0.0.1"]}}}`)
	saved, notes, err := decodeState(raw, "")
	if err != nil || len(notes) > 0 {
		t.Fatal(notes, err)
	}
	if a := saved.Agreed; a.Time.Year() != 9999 || a.Uncertainty != 0 {
		t.Errorf("floor %+v", a)
	}
	if _, ok := saved.Servers["none"]; ok || len(saved.Servers["a"].Addrs) != 1 {
		t.Errorf("servers %+v", saved.Servers)
	}
}

func TestTruncatedState(t *testing.T) {
	raw, err := encodeState(fullState(), "m", 0)
	if err != nil {
		t.Fatal(err)
	}
	for n := range raw {
		if saved, _, err := decodeState(raw[:n], "m"); err == nil {
			t.Fatalf("%d of %d octets give %+v", n, len(raw), saved)
		}
	}
	if _, _, err := decodeState(append(slices.Clone(raw), '{'), "m"); err == nil {
		t.Error("octets after the end pass")
	}
}

func FuzzState(f *testing.F) {
	for _, n := range []int{0, 1, -1} {
		raw, err := encodeState(fullState(), "", n)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
		f.Add(raw[:len(raw)/2])
	}
	f.Add([]byte(`{"schema":1,"agreed":{},"servers":{"":{"session":{"cookies":[""]},"backoff":{}}}}`))
	f.Add([]byte(`{"schema":1,"servers":null}`))
	done, cancel := context.WithCancel(f.Context())
	cancel()
	f.Fuzz(func(t *testing.T, raw []byte) {
		saved, _, err := decodeState(raw, "")
		if err != nil {
			return
		}
		again, err := encodeState(saved, "", 0)
		if err != nil {
			t.Fatal(err)
		}
		twice, notes, err := decodeState(again, "")
		if err != nil || len(notes) > 0 || !reflect.DeepEqual(cookiesOf(saved), cookiesOf(twice)) {
			t.Fatalf("written and read again: %q, %v", notes, err)
		}
		for _, server := range saved.Servers {
			server.Backoff.Failed(stateTime, "", "", "").Remaining(stateTime)
			if s := server.Session; s != nil { // whatever it is, nts can work with it
				s.Servers = []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:9")}
				if _, err := s.Exchange(done, nts.Route{}); err == nil || nts.CodeOf(err) == nts.Internal {
					t.Fatal("exchange: ", err)
				}
			}
		}
	})
}

func TestBinding(t *testing.T) {
	a, b := [32]byte{1}, [32]byte{2}
	base := Binding("host", 4460, []byte("ca"), [][32]byte{a, b}, nil)
	proxied := Binding("host", 4460, []byte("ca"), [][32]byte{a, b}, &nts.Proxy{Host: "proxy", Port: 1080, User: "u", Password: "p"})
	for what, other := range map[string]string{
		"host":    Binding("hosT", 4460, []byte("ca"), [][32]byte{a, b}, nil),
		"port":    Binding("host", 4461, []byte("ca"), [][32]byte{a, b}, nil),
		"CA":      Binding("host", 4460, []byte("cA"), [][32]byte{a, b}, nil),
		"no CA":   Binding("host", 4460, nil, [][32]byte{a, b}, nil),
		"pin":     Binding("host", 4460, []byte("ca"), [][32]byte{a}, nil),
		"no pins": Binding("host", 4460, []byte("ca"), nil, nil),
		"shifted": Binding("hos", 4460, []byte("tca"), [][32]byte{a, b}, nil),
		"proxy":   proxied,
	} {
		if other == base {
			t.Errorf("another %s has the same binding", what)
		}
	}
	if Binding("host", 4460, []byte("ca"), [][32]byte{b, a, b}, nil) != base {
		t.Error("the order of pins matters")
	}
	for what, p := range map[string]nts.Proxy{
		"host": {Host: "proxi", Port: 1080, User: "u"}, "port": {Host: "proxy", Port: 1081, User: "u"},
		"user": {Host: "proxy", Port: 1080, User: "v"}, "no user": {Host: "proxy", Port: 1080},
	} {
		if Binding("host", 4460, []byte("ca"), [][32]byte{a, b}, &p) == proxied {
			t.Errorf("another %s of the proxy has the same binding", what)
		}
	}
	if Binding("host", 4460, []byte("ca"), [][32]byte{a, b}, &nts.Proxy{Host: "proxy", Port: 1080, User: "u", Password: "q"}) != proxied {
		t.Error("a new password is another identity")
	}
}

// TestBackoff is RFC 8915 §4.2: 10 s, half as much more each time, to 5 days.
// Up to a tenth more is chance, so that no two machines do the same.
func TestBackoff(t *testing.T) {
	waits := map[time.Duration]bool{}
	for range 10 {
		var b *Backoff
		now := stateTime
		least := 10 * time.Second
		for n := 1; n <= 100; n++ {
			b = b.Failed(now, "tls", fmt.Sprint(n), "why")
			if b.Failures != n || !b.Since.Equal(now) || b.Code != fmt.Sprint(n) || b.Message != "why" {
				t.Fatalf("after %d failures: %+v", n, b)
			}
			if b.Wait < least || b.Wait > min(least+least/10, 120*time.Hour) {
				t.Fatalf("after %d failures it waits for %v, not for %v and up to a tenth more", n, b.Wait, least)
			}
			if n <= 20 {
				waits[b.Wait] = true
			}
			now = now.Add(b.Wait + time.Second)
			least = min(b.Wait*3/2, 120*time.Hour)
		}
		if b.Wait != 120*time.Hour {
			t.Errorf("the longest is %v", b.Wait)
		}
	}
	if len(waits) < 150 {
		t.Errorf("%d different waits of 200", len(waits))
	}
}

// The last report is read as it was kept, and only from whom it can be believed.
func TestLastReport(t *testing.T) {
	dir := t.TempDir()
	if _, err := LastReport(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("none: %v", err)
	}
	if _, err := LastReport(filepath.Join(dir, "nowhere")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no directory: %v", err)
	}
	w := newWorld(t, 2, nil)
	w.options.StateDir = dir
	want := w.sync()
	if got, err := LastReport(dir); err != nil || got.Result != want.Result || !got.Time.Equal(want.Time) || len(got.Servers) != 2 {
		t.Errorf("%+v, %v, want %+v", got, err, want)
	}
	path := filepath.Join(dir, reportName)
	if err := os.Chmod(path, 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := LastReport(dir); err == nil || !strings.Contains(err.Error(), "others may write it") {
		t.Errorf("one that others may write: %v", err)
	}
	if err := errors.Join(os.Remove(path), os.WriteFile(path, []byte("{"), 0o600)); err != nil {
		t.Fatal(err)
	}
	if r, err := LastReport(dir); err == nil || r != nil {
		t.Errorf("half of one: %+v, %v", r, err)
	}
}

func TestBackoffRemaining(t *testing.T) {
	b := &Backoff{Failures: 3, Since: stateTime, Wait: time.Minute}
	for _, c := range []struct {
		b    *Backoff
		age  time.Duration
		want time.Duration
	}{
		{nil, 0, 0},
		{b, 0, time.Minute},
		{b, 20 * time.Second, 40 * time.Second},
		{b, time.Minute, 0},
		{b, time.Minute + 1, 0},
		{b, 56 * 365 * 24 * time.Hour, 0},
		{b, -1, 0}, // from the future: void
		{b, -time.Hour, 0},
		{&Backoff{Failures: 1, Wait: time.Minute}, 0, 0}, // 292 years and more
	} {
		if got := c.b.Remaining(stateTime.Add(c.age)); got != c.want {
			t.Errorf("%v after a failure: %v, not %v", c.age, got, c.want)
		}
	}
}
