//go:build !race

package siv

import (
	"crypto/cipher"
	"testing"
)

// With room in dst CMAC allocates nothing, and GCM one key schedule for each
// nonce. (Not with the race detector, where sync.Pool forgets on purpose.)
func TestAllocations(t *testing.T) {
	each(t, func(t *testing.T, aead cipher.AEAD) {
		want := 0.0
		if _, gcm := aead.(*gcmSIV); gcm {
			want = 1
		}
		nonce, ad, plaintext := make([]byte, aead.NonceSize()), make([]byte, 100), make([]byte, 200)
		sealed, opened := make([]byte, 0, 300), make([]byte, 0, 300)
		if got := testing.AllocsPerRun(1000, func() { sealed = aead.Seal(sealed[:0], nonce, plaintext, ad) }); got > want {
			t.Errorf("Seal allocates %v times, want %v", got, want)
		}
		if got := testing.AllocsPerRun(1000, func() {
			if _, err := aead.Open(opened[:0], nonce, sealed, ad); err != nil {
				t.Fatal(err)
			}
		}); got > want {
			t.Errorf("Open allocates %v times, want %v", got, want)
		}
	})
}
