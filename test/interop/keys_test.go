//go:build linux

package interop

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// fast is for servers that limit nothing.
const fast = "[measure]\ninterval = \"20ms\"\nanswer_timeout = \"300ms\""

// session is what is kept of one.
type session struct {
	AEAD    int `json:"aead"`
	Keys    struct{ C2S, S2C []byte }
	Other   json.RawMessage `json:"other"`
	Cookies [][]byte        `json:"cookies"`
}

// savedSession is the one that a sync with a single server has left.
func savedSession(t *testing.T, config string) session {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(filepath.Dir(config), "state", "state.json"))
	check(t, err)
	var saved struct {
		Servers map[string]struct{ Session session }
	}
	check(t, json.Unmarshal(text, &saved))
	for _, s := range saved.Servers {
		return s.Session
	}
	t.Fatalf("no session in %s", text)
	return session{}
}

// Whatever algorithms a server has, the best of both is used, with keys of its
// length; and cookies of all lengths are kept.
func TestAlgorithms(t *testing.T) {
	const cmac, gcm = 15, 30
	keyLen := map[int]int{cmac: 32, gcm: 16}
	l := newLab(t)
	for _, c := range []struct {
		kind   Kind
		extra  string
		aead   int
		cookie int // octets
	}{
		{Chrony12, "", cmac, 100},
		{Chrony13, "", gcm, 64},
		{Chrony13, "ntsaeads 15", cmac, 96},
		{Chrony13, "ntsaeads 30", gcm, 64},
		{Chrony13, "ntsaeads 15 30", gcm, 64}, // the client's order counts
		{Chrony13, "ntsaeads 30 15", gcm, 64},
		{NTPsec, "", cmac, 104},
		{NTPsec, "nts aead AES_SIV_CMAC_512", cmac, 104}, // that is for who asks for none that it has
		{NTPdRS, "", cmac, 104},
	} {
		t.Run(string(c.kind)+" "+c.extra, func(t *testing.T) {
			needPort123(t, c.kind)
			s := &Server{Kind: c.kind, Identity: l.issuing.Issue(t, name, -1, 10), Extra: c.extra}
			s.Start(t)
			defer s.Stop()
			config := configure(t, l.entries([]*Server{s}, "127.0.0.1"), "")
			for _, warm := range []bool{false, true} {
				r := run(t, config, 0, "sync", "--dry-run", "--json")
				checkRound(t, r, "sync")
				got := savedSession(t, config)
				if got.AEAD != c.aead || len(got.Keys.C2S) != keyLen[c.aead] || len(got.Keys.S2C) != keyLen[c.aead] || got.Other != nil {
					t.Errorf("AEAD %d with keys of %d and %d octets, others %s", got.AEAD, len(got.Keys.C2S), len(got.Keys.S2C), got.Other)
				}
				if r.Servers[0].KeyExchange == warm || len(got.Cookies) != 8 {
					t.Errorf("key exchange %v, %d cookies", r.Servers[0].KeyExchange, len(got.Cookies))
				}
				for _, cookie := range got.Cookies {
					if len(cookie) != c.cookie {
						t.Errorf("a cookie of %d octets, want %d", len(cookie), c.cookie)
					}
				}
			}
		})
	}
}

// What servers answer to an offer of AEAD 30 alone. Our client always offers 15
// as well; its own tests hold that these answers are failures with a code.
func TestForeignOffer(t *testing.T) {
	l := newLab(t)
	for kind, want := range map[Kind][]byte{
		Chrony12: {}, // it has none of those
		Chrony13: {0, 30},
		NTPsec:   {0, 15}, // which was not offered
		NTPdRS:   nil,     // an error instead
	} {
		t.Run(string(kind), func(t *testing.T) {
			s := l.start(t, kind)[0]
			conn, err := tls.Dial("tcp", join("127.0.0.1", s.KE), &tls.Config{
				InsecureSkipVerify: true, NextProtos: []string{"ntske/1"}, MinVersion: tls.VersionTLS13,
			})
			check(t, err)
			defer conn.Close()
			check(t, conn.SetDeadline(time.Now().Add(10*time.Second)))
			_, err = conn.Write([]byte{0x80, 1, 0, 2, 0, 0, 0x80, 4, 0, 2, 0, 30, 0x80, 0, 0, 0})
			check(t, err)
			answer, err := io.ReadAll(conn)
			check(t, err)
			if got := aeadRecord(answer); !bytes.Equal(got, want) || (got == nil) != (want == nil) {
				t.Errorf("AEAD record %x, want %x, in %x", got, want, answer)
			}
		})
	}
}

// aeadRecord is the body of the AEAD record of a message, nil if it has none.
func aeadRecord(b []byte) []byte {
	for len(b) >= 4 {
		kind, n := binary.BigEndian.Uint16(b)&0x7fff, int(binary.BigEndian.Uint16(b[2:]))
		if len(b) < 4+n {
			return nil
		}
		if kind == 4 {
			return b[4 : 4+n : 4+n]
		}
		b = b[4+n:]
	}
	return nil
}

// round runs a sync that must agree, with or without a key exchange.
func round(t *testing.T, config string, keyExchange bool) {
	t.Helper()
	r := run(t, config, 0, "sync", "--dry-run", "--json")
	checkRound(t, r, "sync")
	if got := r.Servers[0]; got.KeyExchange != keyExchange || got.Cookies != 8 {
		t.Errorf("key exchange %v, %d cookies; want %v, 8", got.KeyExchange, got.Cookies, keyExchange)
	}
}

// With state, the second round makes no key exchange; after the server lost
// its keys its NAK leads to one, and only one; where it keeps them, to none.
// NTPsec says nothing then: its cookies are used up first, three in a round.
func TestKeysLost(t *testing.T) {
	dir := t.TempDir()
	for _, c := range []struct {
		title, extra string
		kind         Kind
		kept         bool
	}{
		{"lost", "", Chrony12, false},
		{"kept", "ntsdumpdir " + filepath.Join(dir, "12"), Chrony12, true},
		{"lost", "", Chrony13, false},
		{"kept", "ntsdumpdir " + filepath.Join(dir, "13"), Chrony13, true},
		{"lost", "", NTPsec, false},
		{"kept", "", NTPsec, true},
		{"lost", "", NTPdRS, false},
		{"kept", "[keyset]\nkey-storage-path = \"" + filepath.Join(dir, "rs") + "\"", NTPdRS, true},
	} {
		t.Run(c.title+" "+string(c.kind), func(t *testing.T) {
			needPort123(t, c.kind)
			l := newLab(t)
			s := &Server{
				Kind: c.kind, Identity: l.issuing.Issue(t, name, -1, 10), Listen: []string{"127.0.0.1"}, Extra: c.extra,
			}
			s.Start(t)
			defer func() { s.Stop() }()
			config := configure(t, l.entries([]*Server{s}, "127.0.0.1"), fast)
			round(t, config, true)
			round(t, config, false)
			s.Stop()
			silent := c.kind == NTPsec && !c.kept
			if silent {
				check(t, os.Remove(s.CookieKeys()))
			}
			s.Start(t)
			for range map[bool]int{true: 2}[silent] { // 8 cookies
				r := run(t, config, 3, "sync", "--dry-run", "--json")
				checkFailed(t, r.Servers[0], "exchange", "exchange_timeout")
			}
			before := exchanges(t, s)
			round(t, config, !c.kept)
			round(t, config, false)
			if got, want := exchanges(t, s)-before, map[bool]int{false: 1}[c.kept]; got != want && before > 0 {
				t.Errorf("%d key exchanges, want %d", got, want)
			}
		})
	}
}

// exchanges is how many key exchanges chrony has served; others do not say.
func exchanges(t *testing.T, s *Server) int {
	t.Helper()
	if s.Kind != Chrony12 && s.Kind != Chrony13 {
		return 0
	}
	return s.KeyExchanges(t)
}

// A server that changes its keys each second knows a cookie for about three.
// Whatever a client has kept, it gets the time in its next round, with one key
// exchange.
func TestKeysRotated(t *testing.T) {
	for _, kind := range []Kind{Chrony12, Chrony13} {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			dir := t.TempDir()
			s := &Server{Kind: kind, Identity: l.issuing.Issue(t, name, -1, 10), Extra: "ntsrotate 1\nntsdumpdir " + dir}
			s.Start(t)
			config := configure(t, l.entries([]*Server{s}, "127.0.0.1"), fast)
			round(t, config, true)
			awaitRotations(t, filepath.Join(dir, "ntskeys"), 4)
			before := s.KeyExchanges(t)
			round(t, config, true)
			if n := s.KeyExchanges(t) - before; n != 1 {
				t.Errorf("%d key exchanges", n)
			}
		})
	}
}

// awaitRotations waits until the file of keys was written that often.
func awaitRotations(t *testing.T, file string, n int) {
	t.Helper()
	var last []byte
	for end := time.Now().Add(20 * time.Second); n >= 0; time.Sleep(20 * time.Millisecond) {
		if text, err := os.ReadFile(file); err == nil && !bytes.Equal(text, last) {
			last, n = text, n-1
		}
		if time.Now().After(end) {
			t.Fatalf("the keys were not changed another %d times", n)
		}
	}
}

// A server for key exchange alone names another one for NTP, which has the same
// keys for cookies.
func TestSharedKeys(t *testing.T) {
	for _, kind := range []Kind{Chrony12, Chrony13} {
		t.Run(string(kind), func(t *testing.T) {
			l := newLab(t)
			dir := t.TempDir()
			serving := &Server{
				Kind: kind, Identity: l.issuing.Issue(t, name, -1, 10),
				Listen: []string{"127.0.0.2"}, Extra: "ntsdumpdir " + dir,
			}
			serving.Start(t)
			serving.Stop() // which writes the keys
			serving.Start(t)
			handing := &Server{
				Kind: kind, Identity: l.issuing.Issue(t, name, -1, 10), Listen: []string{"127.0.0.1"},
				Extra: "ntsrotate 0\nntsntpserver 127.0.0.2\nntsdumpdir " + dir, NTP: serving.NTP,
			}
			handing.Start(t)
			before, beside := handing.KeyExchanges(t), serving.KeyExchanges(t)
			config := configure(t, l.entries([]*Server{handing}, "127.0.0.1"), "")
			for range 3 {
				r := run(t, config, 0, "sync", "--dry-run", "--json")
				checkRound(t, r, "sync")
				if got, want := r.Servers[0].Address, join("127.0.0.2", serving.NTP); got != want {
					t.Errorf("address %s, want %s", got, want)
				}
			}
			if a, b := handing.KeyExchanges(t)-before, serving.KeyExchanges(t)-beside; a != 1 || b != 0 {
				t.Errorf("%d and %d key exchanges", a, b)
			}
		})
	}
}
