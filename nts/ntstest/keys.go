package ntstest

import (
	"crypto/cipher"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"

	"ntsclient/nts/siv"
)

// AEADs by their number at IANA.
const (
	aeadCMACSIV = 15 // AEAD_AES_SIV_CMAC_256
	aeadGCMSIV  = 30 // AEAD_AES_128_GCM_SIV
)

// keyLength is that of an AEAD in octets, or 0.
func keyLength(id uint16) int {
	return map[uint16]int{aeadCMACSIV: 32, aeadGCMSIV: 16}[id]
}

// nonceLength is the one to use, in octets (RFC 8915 §5.6).
func nonceLength(id uint16) int {
	return map[uint16]int{aeadCMACSIV: 16, aeadGCMSIV: 12}[id]
}

func newAEAD(id uint16, key []byte) (cipher.AEAD, error) {
	if id == aeadGCMSIV {
		return siv.NewGCM(key)
	}
	return siv.NewCMAC(key)
}

// keys of one session.
type keys struct {
	aead     uint16
	c2s, s2c []byte
}

// exportKeys: RFC 8915 §5.1. The context names the AEAD exported, which is not
// the one agreed on in old chronyds.
func exportKeys(state tls.ConnectionState, id, exported uint16) (keys, error) {
	var key [2][]byte
	for direction := range key {
		context := []byte{0, 0, byte(exported >> 8), byte(exported), byte(direction)}
		var err error
		key[direction], err = state.ExportKeyingMaterial("EXPORTER-network-time-security", context, keyLength(id))
		if err != nil {
			return keys{}, fmt.Errorf("exporting keys: %w", err)
		}
	}
	return keys{id, key[0], key[1]}, nil
}

// A cookie is two octets of zeros and the AEAD, 16 octets of nonce, and what
// the master key seals: C2S and S2C. Zeros follow up to the length wanted.
const (
	cookieAEAD   = 4
	cookieHeader = cookieAEAD + 16
	sivTag       = 16
)

// cookie seals the keys into a new cookie.
func (s *Server) cookie(k keys, length int) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	seal, err := siv.NewCMAC(s.master)
	if err != nil {
		return nil, err
	}
	c := append([]byte{0, 0, byte(k.aead >> 8), byte(k.aead)}, random(cookieHeader-cookieAEAD)...)
	plain := append(append([]byte{}, k.c2s...), k.s2c...)
	c = seal.Seal(c, c[cookieAEAD:cookieHeader], plain, c[:cookieAEAD])
	if length > len(c) {
		c = append(c, make([]byte, length-len(c))...)
	}
	return c, nil
}

// openCookie is the way back.
func (s *Server) openCookie(c []byte) (keys, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(c) < cookieHeader {
		return keys{}, errors.New("too short")
	}
	id := binary.BigEndian.Uint16(c[2:])
	n := keyLength(id)
	end := cookieHeader + 2*n + sivTag
	if n == 0 || len(c) < end {
		return keys{}, errors.New("malformed")
	}
	seal, err := siv.NewCMAC(s.master)
	if err != nil {
		return keys{}, err
	}
	plain, err := seal.Open(nil, c[cookieAEAD:cookieHeader], c[cookieHeader:end], c[:cookieAEAD])
	if err != nil {
		return keys{}, err
	}
	return keys{id, plain[:n], plain[n:]}, nil
}
