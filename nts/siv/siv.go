// Package siv implements the two misuse-resistant ciphers that authenticate
// network time: AES-SIV-CMAC (RFC 5297; AEAD 15 of RFC 8915) and AES-GCM-SIV
// (RFC 8452; AEAD 30), each as a [cipher.AEAD] on top of crypto/aes.
//
// Both are safe for concurrent use. What is done here, doubling, POLYVAL,
// key stream and comparison, takes time that depends on lengths only, never
// on keys or data; AES itself is as constant in time as crypto/aes is on the
// machine at hand (it is wherever the processor has instructions for AES).
//
// dst may overlap any input of Seal and Open, in any way: all that is still
// to be read is read before it is written over. A failed Open returns nil and
// leaves zeros, never unauthenticated plaintext, in the spare room of dst.
// Every failure of Open is the same error, whatever was wrong.
package siv

import (
	"crypto/aes"
	"errors"
	"slices"
	"sync"
)

// overhead is what either cipher adds to a plaintext, in octets.
const overhead = aes.BlockSize

var errOpen = errors.New("siv: message authentication failed")

// scratch is the working memory of one call. It is pooled, because what goes
// through the interface cipher.Block cannot stay on the stack.
type scratch struct {
	sum  [aes.BlockSize]byte // CMAC's chaining value, or the GCM-SIV tag
	d    [aes.BlockSize]byte // S2V's D
	tag  [aes.BlockSize]byte // the tag as received
	ctr  [aes.BlockSize]byte // counter block
	ks   [aes.BlockSize]byte // one block of key stream
	tail [2 * aes.BlockSize]byte
	keys [aes.BlockSize + 32]byte // GCM-SIV: authentication key, encryption key
}

var pool = sync.Pool{New: func() any { return new(scratch) }}

func newScratch() *scratch { return pool.Get().(*scratch) }

// release wipes s, which holds keys and plaintext, and gives it back.
func (s *scratch) release() {
	*s = scratch{}
	pool.Put(s)
}

// extend returns dst with n more octets, and these octets alone. It allocates
// only where dst has no room for them.
func extend(dst []byte, n int) (whole, added []byte) {
	whole = slices.Grow(dst, n)[:len(dst)+n]
	return whole, whole[len(dst):]
}
