package siv

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

func TestRFC5297(t *testing.T) {
	for _, v := range vectors[struct {
		Name                       string
		Key, Plaintext, Ciphertext octets
		AD                         []octets
	}](t, "rfc5297.json", 2) {
		t.Run(v.Name, func(t *testing.T) {
			c, err := newCMAC(v.Key)
			if err != nil {
				t.Fatal(err)
			}
			var components [][]byte
			for _, ad := range v.AD {
				components = append(components, ad)
			}
			if got := c.seal(nil, v.Plaintext, components...); !bytes.Equal(got, v.Ciphertext) {
				t.Errorf("sealed to %x, want %x", got, v.Ciphertext)
			}
			got, err := c.open(nil, v.Ciphertext, components...)
			if err != nil || !bytes.Equal(got, v.Plaintext) {
				t.Errorf("opened to %x (%v), want %x", got, err, v.Plaintext)
			}
		})
	}
}

func TestRFC8452(t *testing.T) {
	for _, v := range vectors[struct {
		Name                                  string
		Key, Nonce, AD, Plaintext, Ciphertext octets
	}](t, "rfc8452.json", 50) {
		t.Run(v.Name, func(t *testing.T) {
			g, err := NewGCM(v.Key)
			if err != nil {
				t.Fatal(err)
			}
			if got := g.Seal(nil, v.Nonce, v.Plaintext, v.AD); !bytes.Equal(got, v.Ciphertext) {
				t.Errorf("sealed to %x, want %x", got, v.Ciphertext)
			}
			got, err := g.Open(nil, v.Nonce, v.Ciphertext, v.AD)
			if err != nil || !bytes.Equal(got, v.Plaintext) {
				t.Errorf("opened to %x (%v), want %x", got, err, v.Plaintext)
			}
		})
	}
}

func TestPolyvalRFC8452(t *testing.T) {
	for _, v := range vectors[struct{ H, X, Polyval octets }](t, "rfc8452-polyval.json", 1) {
		p := newPolyval(v.H)
		p.update(v.X)
		if got := p.sum(); !bytes.Equal(got[:], v.Polyval) {
			t.Errorf("POLYVAL is %x, want %x", got, v.Polyval)
		}
	}
}

// element is an element of POLYVAL's field, one coefficient an entry.
type element [128]bool

func toElement(p []byte) (e element) {
	for i := range e {
		e[i] = p[i/8]>>(i%8)&1 == 1
	}
	return e
}

// times adds up e·x⁰, e·x¹, … wherever o has a coefficient.
func (e element) times(o element) (product element) {
	for _, bit := range o {
		if bit {
			for i := range product {
				product[i] = product[i] != e[i]
			}
		}
		e = e.timesX()
	}
	return product
}

// timesX uses x¹²⁸ = x¹²⁷ + x¹²⁶ + x¹²¹ + 1 (RFC 8452 §3).
func (e element) timesX() (shifted element) {
	copy(shifted[1:], e[:127])
	if e[127] {
		for _, i := range []int{127, 126, 121, 0} {
			shifted[i] = !shifted[i]
		}
	}
	return shifted
}

// The fast hash agrees with the definition, written down bit by bit:
// dot(a, b) = a·b·x⁻¹²⁸, where x⁻¹²⁸ = x¹²⁷ + x¹²⁴ + x¹²¹ + x¹¹⁴ + 1.
func TestPolyvalDefinition(t *testing.T) {
	var inverse element
	for _, i := range []int{127, 124, 121, 114, 0} {
		inverse[i] = true
	}
	r := rand.New(rand.NewPCG(17, 18))
	ones := bytes.Repeat([]byte{0xff}, 16)
	for range 200 {
		h, x := random(r, 16), random(r, 16*(1+r.IntN(4)))
		if r.IntN(8) == 0 {
			h = ones // most carries
			copy(x, ones)
		}
		var want element
		for i := 0; i < len(x); i += 16 {
			block := toElement(x[i:])
			for j := range want {
				want[j] = want[j] != block[j]
			}
			want = want.times(toElement(h)).times(inverse)
		}
		p := newPolyval(h)
		p.update(x)
		if got := p.sum(); toElement(got[:]) != want {
			t.Fatalf("POLYVAL(%x, %x) = %x is not what the definition says", h, x, got)
		}
	}
}
