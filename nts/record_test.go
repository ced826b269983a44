package nts

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"ntsclient/nts/ntstest"
)

// scan comes to the same however the octets come in.
func TestScan(t *testing.T) {
	raw := message(answerRecords())
	at, ended := 0, false
	for n := range len(raw) + 1 {
		if ended {
			t.Fatalf("ended within %d octets of %d", n-1, len(raw))
		}
		at, ended = scan(raw[:n], at)
		if whole, _ := scan(raw[:n], 0); whole != at {
			t.Fatalf("%d of %d octets, and at once %d", at, n, whole)
		}
	}
	if !ended || at != len(raw) {
		t.Errorf("ended %v at %d of %d octets", ended, at, len(raw))
	}
	if at, ended := scan(append(raw, 1, 2, 3), 0); !ended || at != len(raw) {
		t.Errorf("with octets after it: ended %v at %d", ended, at)
	}
}

// No beginning of an answer is an answer.
func TestCutAnswers(t *testing.T) {
	raw := message(answerRecords())
	for n := range raw {
		a, err := parseKE(raw[:n])
		if a != nil {
			t.Errorf("%d octets are an answer", n)
		}
		wantError(t, err, StageKeyExchange, KEMalformed, "")
	}
	if _, err := parseKE(raw); err != nil {
		t.Error(err)
	}
}

func TestHostNames(t *testing.T) {
	for name, want := range map[string]bool{
		"a": true, "a.b": true, "A-1.example": true, "_ntp.example": true, "1.example": true, "1a": true, "xn--bcher-kva.example": true,
		strings.Repeat("a", 63): true, strings.Repeat("a", 64): false,
		strings.Repeat("a.", 126) + "a": true, strings.Repeat("a.", 127) + "a": false,
		"": false, ".": false, "a.": false, ".a": false, "a..b": false, "1": false, "1.2": false, "a b": false, "a:1": false, "é": false,
	} {
		if isHostName(name) != want {
			t.Errorf("%q: %v", name, !want)
		}
	}
}

// FuzzParseKE: hostile octets never harm; what is accepted holds what a
// session needs, and is accepted again when it is written anew from that.
func FuzzParseKE(f *testing.F) {
	f.Add(message(answerRecords()))
	f.Add(message(instead(4, record(4, true, 0, 30), record(1024, false))(answerRecords())))
	f.Add(message(instead(6, record(6, true, []byte("a.example.")...))(answerRecords())))
	f.Add(message(with(record(2, true, 0, 1))(answerRecords())))
	f.Add(message(with(record(4711, true))(answerRecords())))
	f.Add(keRequest)
	f.Add([]byte{0x80, 0, 0, 0})
	f.Fuzz(func(t *testing.T, raw []byte) {
		a, err := parseKE(raw)
		if err != nil {
			var e *Error
			if !errors.As(err, &e) || len(e.Error()) > 1000 {
				t.Errorf("%T: %v", err, err)
			}
			wantError(t, err, StageKeyExchange, e.Code, "")
			return
		}
		if a.aead.keyLen() == 0 || len(a.cookies) == 0 || len(a.cookies) > maxJar || a.port == 0 {
			t.Fatalf("%+v", a)
		}
		again := []ntstest.Record{
			record(1, true, 0, 0), record(4, true, byte(a.aead>>8), byte(a.aead)), record(7, true, byte(a.port>>8), byte(a.port)),
		}
		for _, cookie := range a.cookies {
			again = append(again, record(5, false, cookie...))
		}
		if a.server != "" {
			again = append(again, record(6, true, []byte(a.server)...))
		}
		if a.compliant {
			again = append(again, record(1024, false))
		}
		b, err := parseKE(message(append(again, record(0, true))))
		if err != nil {
			t.Fatalf("%+v is refused when written again: %v", a, err)
		}
		if !slices.EqualFunc(a.cookies, b.cookies, bytes.Equal) || a.aead != b.aead || a.compliant != b.compliant || a.server != b.server || a.port != b.port {
			t.Errorf("%+v becomes %+v", a, b)
		}
	})
}
