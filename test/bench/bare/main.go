// Command bare does what a cold round needs, and nothing else: key exchange
// over TLS 1.3 and one authenticated exchange with each server, all at once.
// It is what ntsclient's speed is held against.
//
// usage: bare CA NAME IP:PORT ...
package main

import (
	"bytes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"time"

	"ntsclient/nts/siv"
)

const cmac = 15 // AEAD_AES_SIV_CMAC_256

func main() {
	pem, err := os.ReadFile(os.Args[1])
	roots := x509.NewCertPool()
	if err != nil || !roots.AppendCertsFromPEM(pem) {
		fail(fmt.Errorf("no CA in %s: %w", os.Args[1], err))
	}
	config := &tls.Config{
		RootCAs: roots, ServerName: os.Args[2], MinVersion: tls.VersionTLS13,
		NextProtos: []string{"ntske/1"}, SessionTicketsDisabled: true,
	}
	servers := os.Args[3:]
	results := make(chan error)
	for _, address := range servers {
		go func() {
			offset, err := query(address, config)
			if err == nil {
				fmt.Println(address, offset)
			}
			results <- err
		}()
	}
	for range servers {
		if err := <-results; err != nil {
			fail(err)
		}
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "bare:", err)
	os.Exit(1)
}

// session is what a key exchange yields (RFC 8915 section 4).
type session struct {
	cookie   []byte
	port     int
	c2s, s2c cipher.AEAD
}

func query(address string, config *tls.Config) (time.Duration, error) {
	conn, err := tls.Dial("tcp", address, config)
	if err != nil {
		return 0, err
	}
	s, err := exchangeKeys(conn)
	conn.Close()
	if err != nil {
		return 0, fmt.Errorf("%s: key exchange: %w", address, err)
	}
	host, _, _ := net.SplitHostPort(address)
	return s.exchange(net.JoinHostPort(host, strconv.Itoa(s.port)))
}

func exchangeKeys(conn *tls.Conn) (*session, error) {
	// Next Protocol NTPv4, AEAD 15, End of Message
	if _, err := conn.Write([]byte{0x80, 1, 0, 2, 0, 0, 0x80, 4, 0, 2, 0, cmac, 0x80, 0, 0, 0}); err != nil {
		return nil, err
	}
	s := &session{port: 123}
	for {
		var head [4]byte
		if _, err := io.ReadFull(conn, head[:]); err != nil {
			return nil, err
		}
		body := make([]byte, binary.BigEndian.Uint16(head[2:]))
		if _, err := io.ReadFull(conn, body); err != nil {
			return nil, err
		}
		switch binary.BigEndian.Uint16(head[:]) & 0x7fff {
		case 0:
			return s, s.deriveKeys(conn)
		case 5:
			s.cookie = body
		case 7:
			s.port = int(binary.BigEndian.Uint16(body))
		}
	}
}

func (s *session) deriveKeys(conn *tls.Conn) error {
	state := conn.ConnectionState()
	for i, aead := range []*cipher.AEAD{&s.c2s, &s.s2c} {
		key, err := state.ExportKeyingMaterial("EXPORTER-network-time-security", []byte{0, 0, 0, cmac, byte(i)}, 32)
		if err != nil {
			return err
		}
		if *aead, err = siv.NewCMAC(key); err != nil {
			return err
		}
	}
	return nil
}

// exchange returns the server's offset (RFC 8915 section 5, RFC 5905 section 8).
func (s *session) exchange(address string) (time.Duration, error) {
	conn, err := net.Dial("udp", address)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return 0, err
	}
	request := make([]byte, 48, 512)
	request[0] = 4<<3 | 3
	rand.Read(request[40:48])
	id, nonce := make([]byte, 32), make([]byte, 16)
	rand.Read(id)
	rand.Read(nonce)
	request = field(request, 0x0104, id)
	request = field(request, 0x0204, s.cookie)
	sealed := s.c2s.Seal(append([]byte{0, 16, 0, 16}, nonce...), nonce, nil, request)
	request = field(request, 0x0404, sealed)

	t1 := time.Now()
	if _, err := conn.Write(request); err != nil {
		return 0, err
	}
	answer := make([]byte, 2048)
	n, err := conn.Read(answer)
	t4 := time.Now()
	if err != nil {
		return 0, err
	}
	if err := s.open(answer[:n], id); err != nil {
		return 0, fmt.Errorf("%s: %w", address, err)
	}
	return (ntpTime(answer[32:]).Sub(t1) + ntpTime(answer[40:]).Sub(t4)) / 2, nil
}

// field appends an extension field (RFC 7822).
func field(packet []byte, kind uint16, body []byte) []byte {
	packet = binary.BigEndian.AppendUint16(packet, kind)
	packet = binary.BigEndian.AppendUint16(packet, uint16(4+len(body)))
	return append(packet, body...)
}

// open checks that the answer is authentic and to our request.
func (s *session) open(answer, id []byte) error {
	for at := 48; at+8 <= len(answer); {
		end := at + int(binary.BigEndian.Uint16(answer[at+2:]))
		if end < at+8 || end > len(answer) {
			break
		}
		if binary.BigEndian.Uint16(answer[at:]) == 0x0404 {
			nonce := at + 8 + int(binary.BigEndian.Uint16(answer[at+4:]))
			sealed := nonce + int(binary.BigEndian.Uint16(answer[at+6:]))
			if sealed > end || !bytes.Contains(answer[:at], id) {
				break
			}
			_, err := s.s2c.Open(nil, answer[at+8:nonce], answer[nonce:sealed], answer[:at])
			return err
		}
		at = end
	}
	return errors.New("answer without authenticator")
}

func ntpTime(b []byte) time.Time {
	seconds := int64(binary.BigEndian.Uint32(b)) - 2208988800 // 1900 to 1970
	return time.Unix(seconds, int64(binary.BigEndian.Uint32(b[4:]))*1e9>>32)
}
