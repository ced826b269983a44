package siv_test

import (
	"bytes"
	"crypto/cipher"
	"encoding/json"
	"io/fs"
	"slices"
	"testing"

	"github.com/c2sp/wycheproof"

	"ntsclient/nts/siv"
)

// Wycheproof's cases are made to hit what random ones miss: synthetic IVs and
// counters full of ones, tags changed in single bits.
func TestWycheproof(t *testing.T) {
	tests := map[string]struct {
		new  func([]byte) (cipher.AEAD, error)
		join func(ct, tag []byte) []byte
	}{
		"aead_aes_siv_cmac_test.json": {siv.NewCMAC, func(ct, tag []byte) []byte { return slices.Concat(tag, ct) }},
		"aes_gcm_siv_test.json":       {siv.NewGCM, func(ct, tag []byte) []byte { return slices.Concat(ct, tag) }},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			raw, err := fs.ReadFile(wycheproof.TestVectors, name)
			if err != nil {
				t.Fatal(err)
			}
			var file struct {
				NumberOfTests int
				TestGroups    []struct{ Tests []wycheproofCase }
			}
			if err := json.Unmarshal(raw, &file); err != nil {
				t.Fatal(err)
			}
			ran := 0
			for _, group := range file.TestGroups {
				for _, c := range group.Tests {
					aead, err := test.new(c.Key)
					if err != nil {
						t.Fatal(err)
					}
					c.check(t, aead, test.join(c.Ct, c.Tag))
					ran++
				}
			}
			if ran == 0 || ran != file.NumberOfTests {
				t.Errorf("%d cases ran of %d", ran, file.NumberOfTests)
			}
		})
	}
}

type wycheproofCase struct {
	TcID                       int
	Comment, Result            string
	Key, Iv, Aad, Msg, Ct, Tag octets
}

func (c wycheproofCase) check(t *testing.T, aead cipher.AEAD, sealed []byte) {
	t.Helper()
	opened, err := aead.Open(nil, c.Iv, sealed, c.Aad)
	if c.Result != "valid" {
		if err == nil {
			t.Errorf("case %d (%s) opens to %x", c.TcID, c.Comment, opened)
		}
		return
	}
	if err != nil || !bytes.Equal(opened, c.Msg) {
		t.Errorf("case %d (%s) opens to %x (%v), want %x", c.TcID, c.Comment, opened, err, c.Msg)
	}
	if got := aead.Seal(nil, c.Iv, c.Msg, c.Aad); !bytes.Equal(got, sealed) {
		t.Errorf("case %d (%s) sealed to %x, want %x", c.TcID, c.Comment, got, sealed)
	}
}
