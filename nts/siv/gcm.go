package siv

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/subtle"
	"encoding/binary"
	"fmt"
)

// gcmNonceSize is the one length of nonce that RFC 8452 §6 allows, in octets.
const gcmNonceSize = 12

// gcmMax is the longest plaintext or associated data (RFC 8452 §6), in octets.
const gcmMax = 1 << 36

// gcmSIV is AES-GCM-SIV. Nothing in it changes after NewGCM.
type gcmSIV struct {
	block   cipher.Block // under the key-generating key
	keySize int
}

// NewGCM returns AES-GCM-SIV (RFC 8452) for a key of 16 octets
// (AEAD_AES_128_GCM_SIV) or 32.
//
// The nonce has 12 octets: with any other length Seal panics and Open fails.
// A ciphertext has as many octets as the plaintext and then the tag, 16
// octets. Each call allocates once, for the key schedule of its nonce.
func NewGCM(key []byte) (cipher.AEAD, error) {
	if n := len(key); n != 16 && n != 32 {
		return nil, fmt.Errorf("siv: AES-GCM-SIV key has %d octets, want 16 or 32", n)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("siv: key-generating key: %w", err)
	}
	return &gcmSIV{block: block, keySize: len(key)}, nil
}

func (g *gcmSIV) NonceSize() int { return gcmNonceSize }

func (g *gcmSIV) Overhead() int { return overhead }

func (g *gcmSIV) Seal(dst, nonce, plaintext, additionalData []byte) []byte {
	if len(nonce) != gcmNonceSize {
		panic("siv: nonce given to AES-GCM-SIV does not have 12 octets")
	}
	if uint64(len(plaintext)) > gcmMax || uint64(len(additionalData)) > gcmMax {
		panic("siv: message too long for AES-GCM-SIV")
	}
	s := newScratch()
	defer s.release()
	m := g.begin(s, nonce, additionalData)
	m.tag(s, plaintext)
	whole, out := extend(dst, len(plaintext)+overhead)
	copy(out, plaintext)
	m.xorKeyStream(s, out[:len(plaintext)], &s.sum)
	copy(out[len(plaintext):], s.sum[:])
	return whole
}

func (g *gcmSIV) Open(dst, nonce, ciphertext, additionalData []byte) ([]byte, error) {
	size := len(ciphertext) - overhead
	if len(nonce) != gcmNonceSize || size < 0 || uint64(size) > gcmMax || uint64(len(additionalData)) > gcmMax {
		return nil, errOpen
	}
	s := newScratch()
	defer s.release()
	m := g.begin(s, nonce, additionalData)
	copy(s.tag[:], ciphertext[size:])
	whole, out := extend(dst, size)
	copy(out, ciphertext[:size])
	m.xorKeyStream(s, out, &s.tag)
	m.tag(s, out)
	if subtle.ConstantTimeCompare(s.sum[:], s.tag[:]) != 1 {
		clear(out)
		return nil, errOpen
	}
	return whole, nil
}

// gcmMessage is what AES-GCM-SIV holds while it works on one message.
type gcmMessage struct {
	enc    cipher.Block // under the message-encryption key
	hash   polyval      // under the message-authentication key
	nonce  [gcmNonceSize]byte
	adSize int
}

// begin derives the keys of one message (RFC 8452 §4) and takes in the
// associated data.
func (g *gcmSIV) begin(s *scratch, nonce, additionalData []byte) gcmMessage {
	keys := s.keys[:aes.BlockSize+g.keySize]
	copy(s.ctr[4:], nonce)
	for i := range len(keys) / 8 {
		binary.LittleEndian.PutUint32(s.ctr[:4], uint32(i))
		g.block.Encrypt(s.ks[:], s.ctr[:])
		copy(keys[8*i:], s.ks[:8])
	}
	enc, err := aes.NewCipher(keys[aes.BlockSize:])
	if err != nil {
		panic("siv: " + err.Error()) // its length was checked by NewGCM
	}
	m := gcmMessage{enc: enc, hash: newPolyval(keys[:aes.BlockSize]), adSize: len(additionalData)}
	copy(m.nonce[:], nonce)
	m.hash.update(additionalData)
	return m
}

// tag leaves the tag of the plaintext in s.sum (RFC 8452 §4). It uses the
// hash up, so it is called once a message.
func (m *gcmMessage) tag(s *scratch, plaintext []byte) {
	m.hash.update(plaintext)
	m.hash.block(8*uint64(m.adSize), 8*uint64(len(plaintext)))
	s.sum = m.hash.sum()
	subtle.XORBytes(s.sum[:], s.sum[:], m.nonce[:])
	s.sum[15] &= 0x7f
	m.enc.Encrypt(s.sum[:], s.sum[:])
}

// xorKeyStream is AES_CTR of RFC 8452 §4: the first 32 bits of the counter
// block count, least octet first, and wrap without a carry.
func (m *gcmMessage) xorKeyStream(s *scratch, p []byte, tag *[aes.BlockSize]byte) {
	s.ctr = *tag
	s.ctr[15] |= 0x80
	for len(p) > 0 {
		m.enc.Encrypt(s.ks[:], s.ctr[:])
		p = p[subtle.XORBytes(p, p, s.ks[:]):]
		binary.LittleEndian.PutUint32(s.ctr[:4], binary.LittleEndian.Uint32(s.ctr[:4])+1)
	}
}
