package siv

import (
	"crypto/aes"
	"encoding/binary"
	"math/bits"
)

// polyval is POLYVAL (RFC 8452 §3), a hash over GF(2¹²⁸) whose elements have
// the coefficient of x⁰ in the least bit of the first octet. It uses neither
// tables nor branches on data.
type polyval struct {
	h0, h1 uint64 // key, low and high half
	y0, y1 uint64 // hash so far
}

func newPolyval(key []byte) polyval {
	return polyval{h0: binary.LittleEndian.Uint64(key), h1: binary.LittleEndian.Uint64(key[8:])}
}

// update takes in p, padded with zeros to whole blocks.
func (v *polyval) update(p []byte) {
	for ; len(p) >= aes.BlockSize; p = p[aes.BlockSize:] {
		v.block(binary.LittleEndian.Uint64(p), binary.LittleEndian.Uint64(p[8:]))
	}
	if len(p) > 0 {
		var last [aes.BlockSize]byte
		copy(last[:], p)
		v.block(binary.LittleEndian.Uint64(last[:]), binary.LittleEndian.Uint64(last[8:]))
	}
}

// block takes in one block, given as its low and high half: y = (y + x)·h·x⁻¹²⁸.
func (v *polyval) block(x0, x1 uint64) {
	a0, a1 := v.y0^x0, v.y1^x1

	// The product of 256 bits, r3…r0, by Karatsuba's method.
	r0, r1 := carrylessMul(a0, v.h0)
	r2, r3 := carrylessMul(a1, v.h1)
	m0, m1 := carrylessMul(a0^a1, v.h0^v.h1)
	m0, m1 = m0^r0^r2, m1^r1^r3
	r1 ^= m0
	r2 ^= m1

	// Divide by x¹²⁸: add multiples of x¹²⁸ + x¹²⁷ + x¹²⁶ + x¹²¹ + 1 that make
	// r0, then r1, zero, and drop them.
	r1 ^= r0<<63 ^ r0<<62 ^ r0<<57
	r2 ^= r0 ^ r0>>1 ^ r0>>2 ^ r0>>7
	r2 ^= r1<<63 ^ r1<<62 ^ r1<<57
	r3 ^= r1 ^ r1>>1 ^ r1>>2 ^ r1>>7
	v.y0, v.y1 = r2, r3
}

func (v *polyval) sum() (out [aes.BlockSize]byte) {
	binary.LittleEndian.PutUint64(out[:], v.y0)
	binary.LittleEndian.PutUint64(out[8:], v.y1)
	return out
}

// carrylessMul multiplies two polynomials over GF(2). The upper half of the
// product is the lower half of the product of the reversed polynomials.
func carrylessMul(a, b uint64) (low, high uint64) {
	return lowMul(a, b), bits.Reverse64(lowMul(bits.Reverse64(a), bits.Reverse64(b))) >> 1
}

// lowMul returns the lower half of the carry-less product of a and b. It is
// done with integer multiplications of every fourth bit: at most 16 ones meet
// at a place, and only at the highest, so that their carries stay in the three
// zeros above them (or leave at the top) and are masked away.
func lowMul(a, b uint64) uint64 {
	const m0, m1, m2, m3 = 0x1111111111111111, 0x2222222222222222, 0x4444444444444444, 0x8888888888888888
	a0, a1, a2, a3 := a&m0, a&m1, a&m2, a&m3
	b0, b1, b2, b3 := b&m0, b&m1, b&m2, b&m3
	return (a0*b0^a1*b3^a2*b2^a3*b1)&m0 |
		(a0*b1^a1*b0^a2*b3^a3*b2)&m1 |
		(a0*b2^a1*b1^a2*b0^a3*b3)&m2 |
		(a0*b3^a1*b2^a2*b1^a3*b0)&m3
}
