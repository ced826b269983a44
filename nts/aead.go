package nts

import (
	"crypto/cipher"
	"fmt"

	"ntsclient/nts/siv"
)

// AEAD is an algorithm for the exchange, by its number in the IANA registry.
type AEAD uint16

// The algorithms that this client offers.
const (
	SIVCMAC AEAD = 15 // AES-SIV-CMAC-256, RFC 5297: what every server has
	GCMSIV  AEAD = 30 // AES-128-GCM-SIV, RFC 8452: shorter cookies
)

func (a AEAD) String() string {
	switch a {
	case SIVCMAC:
		return "AES-SIV-CMAC-256"
	case GCMSIV:
		return "AES-128-GCM-SIV"
	}
	return fmt.Sprintf("AEAD %d", uint16(a))
}

// keyLen is the length of a key in octets, 0 for what was not offered.
func (a AEAD) keyLen() int {
	switch a {
	case SIVCMAC:
		return 32
	case GCMSIV:
		return 16
	}
	return 0
}

// nonceLen is the length of the nonces that we send (RFC 8915 §5.6). NTPsec
// takes nothing but 16 for AES-SIV.
func (a AEAD) nonceLen() int {
	if a == GCMSIV {
		return 12
	}
	return 16
}

func (a AEAD) new(key []byte) (cipher.AEAD, error) {
	switch {
	case a.keyLen() == 0 || len(key) != a.keyLen():
		return nil, fmt.Errorf("%v with a key of %d octets", a, len(key))
	case a == GCMSIV:
		return siv.NewGCM(key)
	}
	return siv.NewCMAC(key)
}
