// Package siv_test holds ntsclient/nts/siv against the independent
// implementation of tink-go, on random inputs and on the vectors of the RFCs.
// It is a module of its own so that the product does not depend on tink-go.
package siv_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"encoding/hex"
	"encoding/json"
	"math/big"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	tinkgcm "github.com/tink-crypto/tink-go/v2/aead/subtle"
	tinkcmac "github.com/tink-crypto/tink-go/v2/daead/subtle"
	tinkmac "github.com/tink-crypto/tink-go/v2/mac/subtle"

	"ntsclient/nts/siv"
)

const cases = 5000

func newRand() *rand.Rand { return rand.New(rand.NewPCG(0x5297, 0x8452)) }

func random(r *rand.Rand, n int) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(r.Uint32())
	}
	return p
}

// length is short as often as it is long, so that the borders of blocks are met.
func length(r *rand.Rand) int {
	if r.IntN(2) == 0 {
		return r.IntN(50)
	}
	return r.IntN(1300)
}

func cmac(t *testing.T, key, message []byte) []byte {
	t.Helper()
	mac, err := tinkmac.NewAESCMAC(key, 16)
	if err != nil {
		t.Fatal(err)
	}
	sum, err := mac.ComputeMAC(message)
	if err != nil {
		t.Fatal(err)
	}
	return sum
}

func xor(a, b []byte) []byte {
	sum := bytes.Clone(a)
	for i := range sum {
		sum[i] ^= b[i]
	}
	return sum
}

// double is that of RFC 5297 §2.3, with big numbers.
func double(p []byte) []byte {
	n := new(big.Int).SetBytes(p)
	n.Lsh(n, 1)
	if n.Bit(128) == 1 {
		n.SetBit(n, 128, 0)
		n.Xor(n, big.NewInt(0x87))
	}
	return n.FillBytes(make([]byte, 16))
}

// state is S2V's D after all components (RFC 5297 §2.4), on tink-go's CMAC.
func state(t *testing.T, key []byte, components ...[]byte) []byte {
	t.Helper()
	d := cmac(t, key, make([]byte, 16))
	for _, c := range components {
		d = xor(double(d), cmac(t, key, c))
	}
	return d
}

// equivalent returns the one component that leaves S2V in the same state as
// components do. tink-go's AES-SIV takes a single one; with the key at hand, a
// CMAC of one block can be turned around to give it.
func equivalent(t *testing.T, key []byte, components ...[]byte) []byte {
	t.Helper()
	want := xor(state(t, key, components...), double(state(t, key)))
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	subkey := make([]byte, 16)
	block.Encrypt(subkey, subkey)
	block.Decrypt(want, want)
	return xor(want, double(subkey))
}

// The whole of AES-SIV with keys of 64 octets, the only ones tink-go takes.
func TestCMACAgainstTink(t *testing.T) {
	r := newRand()
	for i := range cases {
		key, nonce, ad, plaintext := random(r, 64), random(r, 1+r.IntN(40)), random(r, length(r)), random(r, length(r))
		ours, err := siv.NewCMAC(key)
		if err != nil {
			t.Fatal(err)
		}
		theirs, err := tinkcmac.NewAESSIV(key)
		if err != nil {
			t.Fatal(err)
		}
		single := equivalent(t, key[:32], ad, nonce)
		want, err := theirs.EncryptDeterministically(plaintext, single)
		if err != nil {
			t.Fatal(err)
		}
		if got := ours.Seal(nil, nonce, plaintext, ad); !bytes.Equal(got, want) {
			t.Fatalf("case %d: sealed to %x, tink-go to %x", i, got, want)
		}
		if got, err := ours.Open(nil, nonce, want, ad); err != nil || !bytes.Equal(got, plaintext) {
			t.Fatalf("case %d: opened to %x (%v), want %x", i, got, err, plaintext)
		}
		want[r.IntN(len(want))] ^= 1 << r.IntN(8)
		_, ourErr := ours.Open(nil, nonce, want, ad)
		_, theirErr := theirs.DecryptDeterministically(want, single)
		if ourErr == nil || theirErr == nil {
			t.Fatalf("case %d: a changed ciphertext: ours %v, tink-go %v", i, ourErr, theirErr)
		}
	}
}

// reference is AES-SIV (RFC 5297 §2.6) on tink-go's CMAC and the standard
// library's CTR, for keys of any size.
func reference(t *testing.T, key, plaintext []byte, components ...[]byte) []byte {
	t.Helper()
	half := len(key) / 2
	d := state(t, key[:half], components...)
	last := bytes.Clone(plaintext)
	if n := len(last); n >= 16 {
		copy(last[n-16:], xor(last[n-16:], d))
	} else {
		last = append(append(last, 0x80), make([]byte, 15-n)...)
		last = xor(last, double(d))
	}
	out := cmac(t, key[:half], last)
	block, err := aes.NewCipher(key[half:])
	if err != nil {
		t.Fatal(err)
	}
	counter := bytes.Clone(out)
	counter[8] &= 0x7f
	counter[12] &= 0x7f
	out = append(out, plaintext...)
	cipher.NewCTR(block, counter).XORKeyStream(out[16:], out[16:])
	return out
}

// The key of 32 octets that RFC 8915 uses.
func TestCMAC256AgainstTinkMAC(t *testing.T) {
	r := newRand()
	for i := range cases {
		key, nonce, ad, plaintext := random(r, 32), random(r, 1+r.IntN(40)), random(r, length(r)), random(r, length(r))
		ours, err := siv.NewCMAC(key)
		if err != nil {
			t.Fatal(err)
		}
		want := reference(t, key, plaintext, ad, nonce)
		if got := ours.Seal(nil, nonce, plaintext, ad); !bytes.Equal(got, want) {
			t.Fatalf("case %d: sealed to %x, the reference to %x", i, got, want)
		}
		if got, err := ours.Open(nil, nonce, want, ad); err != nil || !bytes.Equal(got, plaintext) {
			t.Fatalf("case %d: opened to %x (%v), want %x", i, got, err, plaintext)
		}
	}
}

// tink-go chooses the nonce and puts it before the ciphertext.
func TestGCMAgainstTink(t *testing.T) {
	r := newRand()
	for i := range cases {
		key, ad, plaintext := random(r, 16<<r.IntN(2)), random(r, length(r)), random(r, length(r))
		ours, err := siv.NewGCM(key)
		if err != nil {
			t.Fatal(err)
		}
		theirs, err := tinkgcm.NewAESGCMSIV(key)
		if err != nil {
			t.Fatal(err)
		}
		sealed, err := theirs.Encrypt(plaintext, ad)
		if err != nil {
			t.Fatal(err)
		}
		nonce, want := sealed[:12], sealed[12:]
		if got := ours.Seal(nil, nonce, plaintext, ad); !bytes.Equal(got, want) {
			t.Fatalf("case %d, nonce %x: sealed to %x, tink-go to %x", i, nonce, got, want)
		}
		if got, err := ours.Open(nil, nonce, want, ad); err != nil || !bytes.Equal(got, plaintext) {
			t.Fatalf("case %d, nonce %x: opened to %x (%v), want %x", i, nonce, got, err, plaintext)
		}

		// A nonce from the seed, and our ciphertext opened by tink-go.
		nonce = random(r, 12)
		sealed = ours.Seal(bytes.Clone(nonce), nonce, plaintext, ad)
		if got, err := theirs.Decrypt(sealed, ad); err != nil || !bytes.Equal(got, plaintext) {
			t.Fatalf("case %d: tink-go opened ours to %x (%v), want %x", i, got, err, plaintext)
		}
		sealed[r.IntN(len(sealed))] ^= 1 << r.IntN(8)
		_, ourErr := ours.Open(nil, sealed[:12], sealed[12:], ad)
		_, theirErr := theirs.Decrypt(sealed, ad)
		if ourErr == nil || theirErr == nil {
			t.Fatalf("case %d: a changed ciphertext: ours %v, tink-go %v", i, ourErr, theirErr)
		}
	}
}

type octets []byte

func (o *octets) UnmarshalText(text []byte) (err error) {
	*o, err = hex.DecodeString(string(text))
	return err
}

func vectors[V any](t *testing.T, name string) []V {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("..", "..", "nts", "siv", "testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	var file struct{ Vectors []V }
	if err := json.Unmarshal(raw, &file); err != nil || len(file.Vectors) == 0 {
		t.Fatalf("%s: %d vectors, %v", name, len(file.Vectors), err)
	}
	return file.Vectors
}

// The vectors themselves are right, not only what our own code makes of them.
func TestVectorsAgainstTink(t *testing.T) {
	for _, v := range vectors[struct {
		Name                                  string
		Key, Nonce, AD, Plaintext, Ciphertext octets
	}](t, "rfc8452.json") {
		theirs, err := tinkgcm.NewAESGCMSIV(v.Key)
		if err != nil {
			t.Fatal(err)
		}
		got, err := theirs.Decrypt(append(v.Nonce, v.Ciphertext...), v.AD)
		if err != nil || !bytes.Equal(got, v.Plaintext) {
			t.Errorf("RFC 8452 %s: tink-go opens it to %x (%v), want %x", v.Name, got, err, v.Plaintext)
		}
	}
	for _, v := range vectors[struct {
		Name                       string
		Key, Plaintext, Ciphertext octets
		AD                         []octets
	}](t, "rfc5297.json") {
		var components [][]byte
		for _, ad := range v.AD {
			components = append(components, ad)
		}
		if got := reference(t, v.Key, v.Plaintext, components...); !bytes.Equal(got, v.Ciphertext) {
			t.Errorf("RFC 5297 %s: the reference gives %x, want %x", v.Name, got, v.Ciphertext)
		}
	}
}
