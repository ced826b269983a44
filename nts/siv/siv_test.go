package siv

import (
	"bytes"
	"crypto/cipher"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

// octets is a string of hexadecimal digits in JSON.
type octets []byte

func (o *octets) UnmarshalText(text []byte) (err error) {
	*o, err = hex.DecodeString(string(text))
	return err
}

// vectors reads a file of testdata and refuses one that has not want vectors.
func vectors[V any](t *testing.T, name string, want int) []V {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Source  string
		Vectors []V
	}
	if err := json.Unmarshal(raw, &file); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	if len(file.Vectors) != want {
		t.Fatalf("%s has %d vectors, want %d", name, len(file.Vectors), want)
	}
	return file.Vectors
}

// each runs a test with both ciphers, and with each size of key.
func each(t *testing.T, test func(t *testing.T, aead cipher.AEAD)) {
	for _, c := range []struct {
		name string
		new  func([]byte) (cipher.AEAD, error)
		size int
	}{
		{"CMAC-256", NewCMAC, 32},
		{"CMAC-384", NewCMAC, 48},
		{"CMAC-512", NewCMAC, 64},
		{"GCM-128", NewGCM, 16},
		{"GCM-256", NewGCM, 32},
	} {
		t.Run(c.name, func(t *testing.T) {
			aead, err := c.new(random(rand.New(rand.NewPCG(1, 2)), c.size))
			if err != nil {
				t.Fatal(err)
			}
			test(t, aead)
		})
	}
}

func random(r *rand.Rand, n int) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(r.Uint32())
	}
	return p
}

func TestKeySizes(t *testing.T) {
	for size := range 80 {
		key := make([]byte, size)
		if _, err := NewCMAC(key); (err == nil) != (size == 32 || size == 48 || size == 64) {
			t.Errorf("NewCMAC with %d octets: %v", size, err)
		}
		if _, err := NewGCM(key); (err == nil) != (size == 16 || size == 32) {
			t.Errorf("NewGCM with %d octets: %v", size, err)
		}
	}
}

// Every length of plaintext around the borders of blocks opens to itself, and
// to nothing else.
func TestRoundTrip(t *testing.T) {
	each(t, func(t *testing.T, aead cipher.AEAD) {
		r := rand.New(rand.NewPCG(3, 4))
		for n := range 100 {
			nonce, plaintext, ad := random(r, aead.NonceSize()), random(r, n), random(r, r.IntN(70))
			sealed := aead.Seal(nil, nonce, plaintext, ad)
			if len(sealed) != n+aead.Overhead() {
				t.Fatalf("%d octets sealed are %d, want %d", n, len(sealed), n+aead.Overhead())
			}
			opened, err := aead.Open(nil, nonce, sealed, ad)
			if err != nil || !bytes.Equal(opened, plaintext) {
				t.Fatalf("%d octets: opened to %x (%v), want %x", n, opened, err, plaintext)
			}
		}
	})
}

func TestEveryOctetFlippedIsRefused(t *testing.T) {
	each(t, func(t *testing.T, aead cipher.AEAD) {
		r := rand.New(rand.NewPCG(5, 6))
		for _, n := range []int{0, 1, 15, 16, 17, 100} {
			parts := map[string][]byte{"nonce": random(r, aead.NonceSize()), "ad": random(r, 53)}
			parts["ciphertext"] = aead.Seal(nil, parts["nonce"], random(r, n), parts["ad"])
			for name, part := range parts {
				for i := range part {
					flip := byte(1) << r.IntN(8)
					part[i] ^= flip
					refused(t, aead, parts["nonce"], parts["ciphertext"], parts["ad"],
						fmt.Sprintf("%d octets, %s octet %d changed by %#x", n, name, i, flip))
					part[i] ^= flip
				}
			}
			if _, err := aead.Open(nil, parts["nonce"], parts["ciphertext"], parts["ad"]); err != nil {
				t.Fatalf("unchanged: %v", err)
			}
		}
	})
}

// refused fails unless Open fails, and leaves nothing but zeros.
func refused(t *testing.T, aead cipher.AEAD, nonce, ciphertext, ad []byte, what string) {
	t.Helper()
	room := bytes.Repeat([]byte{0xaa}, len(ciphertext))
	got, err := aead.Open(room[:0], nonce, ciphertext, ad)
	if err == nil || got != nil {
		t.Errorf("%s: opened to %x", what, got)
	}
	for _, b := range room {
		if b != 0 && b != 0xaa {
			t.Errorf("%s: left %x", what, room)
			break
		}
	}
}

// Octets moved between nonce, associated data and ciphertext, cut off or
// added, are noticed.
func TestBordersAreAuthenticated(t *testing.T) {
	each(t, func(t *testing.T, aead cipher.AEAD) {
		r := rand.New(rand.NewPCG(7, 8))
		nonce, ad := random(r, aead.NonceSize()), random(r, 32)
		ciphertext := aead.Seal(nil, nonce, random(r, 48), ad)
		for n := range ciphertext {
			refused(t, aead, nonce, ciphertext[:n], ad, fmt.Sprintf("ciphertext cut to %d", n))
		}
		for n := range ad {
			refused(t, aead, nonce, ciphertext, ad[:n], fmt.Sprintf("ad cut to %d", n))
		}
		for n := range nonce {
			refused(t, aead, nonce[:n], ciphertext, ad, fmt.Sprintf("nonce cut to %d", n))
		}
		zero := []byte{0}
		refused(t, aead, nonce, append(bytes.Clone(ciphertext), 0), ad, "ciphertext longer")
		refused(t, aead, nonce, ciphertext, append(bytes.Clone(ad), 0), "ad longer")
		refused(t, aead, append(bytes.Clone(nonce), 0), ciphertext, ad, "nonce longer")
		refused(t, aead, zero, zero, zero, "all of one octet")
		refused(t, aead, nil, nil, nil, "nothing at all")
		refused(t, aead, append(bytes.Clone(ad), nonce[0]), ciphertext, nonce[1:], "ad and nonce exchanged")
		refused(t, aead, nonce[1:], ciphertext, append(bytes.Clone(ad), nonce[0]), "an octet moved from nonce to ad")
	})
}

func TestNonceLengths(t *testing.T) {
	seal := func(aead cipher.AEAD, n int) (sealed []byte, panicked bool) {
		defer func() { panicked = recover() != nil }()
		return aead.Seal(nil, make([]byte, n), []byte("time"), nil), false
	}
	each(t, func(t *testing.T, aead cipher.AEAD) {
		_, gcm := aead.(*gcmSIV)
		for n := range 70 {
			legal := n == gcmNonceSize || !gcm && n > 0
			sealed, panicked := seal(aead, n)
			if panicked == legal {
				t.Errorf("Seal with a nonce of %d octets: panicked is %v", n, panicked)
			}
			if panicked {
				sealed = make([]byte, 20)
			}
			if _, err := aead.Open(nil, make([]byte, n), sealed, nil); (err == nil) != legal {
				t.Errorf("Open with a nonce of %d octets: %v", n, err)
			}
		}
	})
}

// Whatever dst shares with the inputs, the result is that of separate memory.
func TestOverlap(t *testing.T) {
	each(t, func(t *testing.T, aead cipher.AEAD) {
		const room = 256
		r := rand.New(rand.NewPCG(9, 10))
		fill := random(r, room)
		span := func(buf []byte, max int) []byte {
			from := r.IntN(room / 2)
			return buf[from : from+r.IntN(max)]
		}
		for range 2000 {
			buf := bytes.Clone(fill)
			plaintext, ad := span(buf, 80), span(buf, 80)
			nonce := buf[r.IntN(room/2):][:aead.NonceSize()]
			dst := buf[:r.IntN(room/2)]
			ad0, nonce0 := bytes.Clone(ad), bytes.Clone(nonce)
			want := aead.Seal(bytes.Clone(dst), nonce, bytes.Clone(plaintext), ad)
			before := bytes.Clone(plaintext)
			if got := aead.Seal(dst, nonce, plaintext, ad); !bytes.Equal(got, want) || &got[:1][0] != &buf[0] {
				t.Fatalf("sealed over its inputs: %x, want %x", got, want)
			}

			sealed := want[len(dst):]
			ciphertext := buf[r.IntN(room/2):][:len(sealed)]
			copy(ciphertext, sealed)
			dst = buf[:r.IntN(room/2)]
			got, err := aead.Open(dst, nonce0, ciphertext, ad0)
			if err != nil || !bytes.Equal(got[len(dst):], before) {
				t.Fatalf("opened over its ciphertext: %x (%v), want %x", got, err, before)
			}
		}
	})
}

// Associated data and nonce that lie where the plaintext goes are read first.
func TestOpenOverAssociatedData(t *testing.T) {
	each(t, func(t *testing.T, aead cipher.AEAD) {
		r := rand.New(rand.NewPCG(11, 12))
		buf, plaintext := random(r, 64), random(r, 50)
		nonce, ad := buf[:aead.NonceSize()], buf[20:60]
		sealed := aead.Seal(nil, nonce, plaintext, ad)
		got, err := aead.Open(buf[:0], nonce, sealed, ad)
		if err != nil || !bytes.Equal(got, plaintext) {
			t.Fatalf("opened to %x (%v), want %x", got, err, plaintext)
		}
	})
}

func TestAppends(t *testing.T) {
	each(t, func(t *testing.T, aead cipher.AEAD) {
		nonce := make([]byte, aead.NonceSize())
		sealed := aead.Seal([]byte("head"), nonce, []byte("time"), nil)
		if !bytes.HasPrefix(sealed, []byte("head")) {
			t.Fatalf("Seal gave %x, want it to begin with dst", sealed)
		}
		opened, err := aead.Open([]byte("head "), nonce, sealed[4:], nil)
		if err != nil || string(opened) != "head time" {
			t.Fatalf("Open gave %q (%v)", opened, err)
		}
	})
}

// For the race detector: one cipher, many goroutines, results as alone.
func TestConcurrentUse(t *testing.T) {
	each(t, func(t *testing.T, aead cipher.AEAD) {
		r := rand.New(rand.NewPCG(13, 14))
		nonce, ad, plaintext := random(r, aead.NonceSize()), random(r, 60), random(r, 500)
		want := make([][]byte, len(plaintext))
		for n := range want {
			want[n] = aead.Seal(nil, nonce, plaintext[:n], ad)
		}
		var group sync.WaitGroup
		for range 8 {
			group.Go(func() {
				for n, sealed := range want {
					if got := aead.Seal(nil, nonce, plaintext[:n], ad); !bytes.Equal(got, sealed) {
						t.Errorf("%d octets sealed to %x, want %x", n, got, sealed)
						return
					}
					if got, err := aead.Open(nil, nonce, sealed, ad); err != nil || !bytes.Equal(got, plaintext[:n]) {
						t.Errorf("%d octets opened to %x (%v)", n, got, err)
						return
					}
				}
			})
		}
		group.Wait()
	})
}

func FuzzOpenCMAC(f *testing.F) { fuzzOpen(f, NewCMAC, 32) }

func FuzzOpenGCM(f *testing.F) { fuzzOpen(f, NewGCM, 16) }

// Whatever comes, Open neither panics nor writes into what it was given; and as
// neither cipher is randomized, what opens is what Seal makes of the result.
func fuzzOpen(f *testing.F, newAEAD func([]byte) (cipher.AEAD, error), size int) {
	key := random(rand.New(rand.NewPCG(15, 16)), size)
	aead, err := newAEAD(key)
	if err != nil {
		f.Fatal(err)
	}
	nonce := make([]byte, aead.NonceSize())
	for _, n := range []int{0, 1, 15, 16, 17, 31, 32, 33, 104, 400} {
		f.Add(nonce, aead.Seal(nil, nonce, make([]byte, n), make([]byte, n)), make([]byte, n))
	}
	f.Add([]byte{}, []byte{}, []byte{})
	f.Add([]byte{1}, make([]byte, 15), []byte{})
	f.Add(make([]byte, 13), make([]byte, 16), make([]byte, 48))
	f.Fuzz(func(t *testing.T, nonce, ciphertext, ad []byte) {
		input := bytes.Join([][]byte{nonce, ciphertext, ad}, nil)
		plaintext, err := aead.Open(nil, nonce, ciphertext, ad)
		if !bytes.Equal(bytes.Join([][]byte{nonce, ciphertext, ad}, nil), input) {
			t.Fatal("Open changed its input")
		}
		if err != nil {
			if plaintext != nil {
				t.Fatalf("refused, yet gave %x", plaintext)
			}
			return
		}
		if again := aead.Seal(nil, nonce, plaintext, ad); !bytes.Equal(again, ciphertext) {
			t.Fatalf("%x opens, but its plaintext seals to %x", ciphertext, again)
		}
	})
}
