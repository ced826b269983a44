package siv

import (
	"crypto/cipher"
	"fmt"
	"testing"
)

func BenchmarkSealCMAC(b *testing.B) { benchmark(b, NewCMAC, 32, seal) }
func BenchmarkOpenCMAC(b *testing.B) { benchmark(b, NewCMAC, 32, open) }
func BenchmarkSealGCM(b *testing.B)  { benchmark(b, NewGCM, 16, seal) }
func BenchmarkOpenGCM(b *testing.B)  { benchmark(b, NewGCM, 16, open) }

// An NTS packet has most of its octets in the associated data when it is a
// request, and in the ciphertext (new cookies) when it is an answer.
func benchmark(b *testing.B, newAEAD func([]byte) (cipher.AEAD, error), size int, run func(*testing.B, cipher.AEAD, int, int)) {
	aead, err := newAEAD(make([]byte, size))
	if err != nil {
		b.Fatal(err)
	}
	for _, s := range []struct{ plaintext, ad int }{{0, 200}, {104, 84}, {832, 84}} {
		b.Run(fmt.Sprintf("plaintext=%d/ad=%d", s.plaintext, s.ad), func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(s.plaintext + s.ad))
			run(b, aead, s.plaintext, s.ad)
		})
	}
}

func seal(b *testing.B, aead cipher.AEAD, plaintext, ad int) {
	nonce, p, a := make([]byte, aead.NonceSize()), make([]byte, plaintext), make([]byte, ad)
	dst := make([]byte, 0, plaintext+aead.Overhead())
	for b.Loop() {
		aead.Seal(dst, nonce, p, a)
	}
}

func open(b *testing.B, aead cipher.AEAD, plaintext, ad int) {
	nonce, a := make([]byte, aead.NonceSize()), make([]byte, ad)
	sealed := aead.Seal(nil, nonce, make([]byte, plaintext), a)
	dst := make([]byte, 0, plaintext)
	for b.Loop() {
		if _, err := aead.Open(dst, nonce, sealed, a); err != nil {
			b.Fatal(err)
		}
	}
}
