package siv

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/subtle"
	"encoding/binary"
	"fmt"
)

// cmacSIV is AES-SIV-CMAC. Nothing in it changes after NewCMAC.
type cmacSIV struct {
	mac, enc cipher.Block        // under the first and second half of the key
	k1, k2   [aes.BlockSize]byte // CMAC's subkeys (RFC 4493 §2.3)
	zero     [aes.BlockSize]byte // CMAC of the zero block, where S2V begins
}

// NewCMAC returns AES-SIV-CMAC (RFC 5297) for a key of 32 octets
// (AEAD_AES_SIV_CMAC_256), 48 or 64.
//
// The nonce is the last component of associated data (RFC 5297 §3) and may
// have any length but zero (N_MIN in §6): with an empty one Seal panics and
// Open fails. A ciphertext is the synthetic IV, 16 octets, and then as many
// octets as the plaintext has.
func NewCMAC(key []byte) (cipher.AEAD, error) { return newCMAC(key) }

func newCMAC(key []byte) (*cmacSIV, error) {
	if n := len(key); n != 32 && n != 48 && n != 64 {
		return nil, fmt.Errorf("siv: AES-SIV-CMAC key has %d octets, want 32, 48 or 64", n)
	}
	half := len(key) / 2
	mac, err := aes.NewCipher(key[:half])
	if err != nil {
		return nil, fmt.Errorf("siv: authentication key: %w", err)
	}
	enc, err := aes.NewCipher(key[half:])
	if err != nil {
		return nil, fmt.Errorf("siv: encryption key: %w", err)
	}
	c := &cmacSIV{mac: mac, enc: enc}
	mac.Encrypt(c.k1[:], c.k1[:])
	double(&c.k1)
	c.k2 = c.k1
	double(&c.k2)

	s := newScratch()
	defer s.release()
	c.finish(s, c.zero[:])
	c.zero = s.sum
	return c, nil
}

// NonceSize is the length that RFC 8915 §5.6 suggests; others work as well.
func (c *cmacSIV) NonceSize() int { return aes.BlockSize }

func (c *cmacSIV) Overhead() int { return overhead }

func (c *cmacSIV) Seal(dst, nonce, plaintext, additionalData []byte) []byte {
	if len(nonce) == 0 {
		panic("siv: empty nonce given to AES-SIV-CMAC")
	}
	return c.seal(dst, plaintext, additionalData, nonce)
}

func (c *cmacSIV) Open(dst, nonce, ciphertext, additionalData []byte) ([]byte, error) {
	if len(nonce) == 0 {
		return nil, errOpen
	}
	return c.open(dst, ciphertext, additionalData, nonce)
}

// seal is RFC 5297 §2.6 for any number of components up to 126.
func (c *cmacSIV) seal(dst, plaintext []byte, components ...[]byte) []byte {
	s := newScratch()
	defer s.release()
	c.components(s, components)
	c.plaintext(s, plaintext)
	whole, out := extend(dst, overhead+len(plaintext))
	copy(out[overhead:], plaintext)
	c.xorKeyStream(s, out[overhead:], &s.sum)
	copy(out, s.sum[:])
	return whole
}

// open is RFC 5297 §2.7.
func (c *cmacSIV) open(dst, ciphertext []byte, components ...[]byte) ([]byte, error) {
	if len(ciphertext) < overhead {
		return nil, errOpen
	}
	s := newScratch()
	defer s.release()
	c.components(s, components)
	copy(s.tag[:], ciphertext)
	whole, out := extend(dst, len(ciphertext)-overhead)
	copy(out, ciphertext[overhead:])
	c.xorKeyStream(s, out, &s.tag)
	c.plaintext(s, out)
	if subtle.ConstantTimeCompare(s.sum[:], s.tag[:]) != 1 {
		clear(out)
		return nil, errOpen
	}
	return whole, nil
}

// components is S2V (RFC 5297 §2.4) up to its last string: it leaves D in s.d.
func (c *cmacSIV) components(s *scratch, components [][]byte) {
	s.d = c.zero
	for _, p := range components {
		double(&s.d)
		clear(s.sum[:])
		c.finish(s, p)
		subtle.XORBytes(s.d[:], s.d[:], s.sum[:])
	}
}

// plaintext is S2V's last step: it leaves the synthetic IV in s.sum.
func (c *cmacSIV) plaintext(s *scratch, p []byte) {
	clear(s.sum[:])
	if len(p) < aes.BlockSize {
		double(&s.d)
		subtle.XORBytes(s.d[:], s.d[:], p)
		s.d[len(p)] ^= 0x80
		c.finish(s, s.d[:])
		return
	}
	// "xorend": D goes onto the last 16 octets, wherever a block begins, so
	// the last 16 to 31 octets are worked on in a copy.
	for len(p) >= 2*aes.BlockSize {
		c.absorb(s, p[:aes.BlockSize])
		p = p[aes.BlockSize:]
	}
	tail := s.tail[:copy(s.tail[:], p)]
	end := tail[len(tail)-aes.BlockSize:]
	subtle.XORBytes(end, end, s.d[:])
	c.finish(s, tail)
}

// absorb continues the CMAC in s.sum (RFC 4493 §2.4) by one block that is not
// the last.
func (c *cmacSIV) absorb(s *scratch, block []byte) {
	subtle.XORBytes(s.sum[:], s.sum[:], block)
	c.mac.Encrypt(s.sum[:], s.sum[:])
}

// finish continues the CMAC in s.sum by all that is left of its message.
func (c *cmacSIV) finish(s *scratch, p []byte) {
	for len(p) > aes.BlockSize {
		c.absorb(s, p[:aes.BlockSize])
		p = p[aes.BlockSize:]
	}
	subkey := &c.k1
	if len(p) < aes.BlockSize {
		subkey = &c.k2
		s.sum[len(p)] ^= 0x80
	}
	subtle.XORBytes(s.sum[:], s.sum[:], subkey[:])
	c.absorb(s, p)
}

// xorKeyStream is RFC 5297 §2.5. Bit 63 of the counter starts as zero, so
// adding to its lower half never carries into the upper.
func (c *cmacSIV) xorKeyStream(s *scratch, p []byte, iv *[aes.BlockSize]byte) {
	s.ctr = *iv
	s.ctr[8] &= 0x7f
	s.ctr[12] &= 0x7f
	for len(p) > 0 {
		c.enc.Encrypt(s.ks[:], s.ctr[:])
		p = p[subtle.XORBytes(p, p, s.ks[:]):]
		binary.BigEndian.PutUint64(s.ctr[8:], binary.BigEndian.Uint64(s.ctr[8:])+1)
	}
}

// double multiplies by x in GF(2¹²⁸) (RFC 5297 §2.3), without branches.
func double(b *[aes.BlockSize]byte) {
	high, low := binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])
	carry := high >> 63
	binary.BigEndian.PutUint64(b[:8], high<<1|low>>63)
	binary.BigEndian.PutUint64(b[8:], low<<1^(-carry&0x87))
}
