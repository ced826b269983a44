// Package ntstest is an NTS server on loopback for tests and the demo: key
// exchange over TLS 1.3 and NTP (RFC 8915). On request it lies, delays, loses,
// refuses and sends nonsense. It is strict about what it is sent, so that a
// client's fault shows in its Stats. It shares no code with the client but the
// AEADs, so that a misreading of the RFC does not cancel out.
package ntstest

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// Options say how a server behaves. The zero value is an honest server with an
// authority of its own.
type Options struct {
	CA                  *CA
	Names               []string  // of the certificate: DNS names and addresses; default 127.0.0.1, ::1, localhost
	NotBefore, NotAfter time.Time // of the certificate; default a day before Now and 30 days after
	Certificate         *tls.Certificate
	TLS                 func(*tls.Config) // changes the set-up of TLS

	Listen    string // host:port of the key exchange; default 127.0.0.1:0
	ListenNTP string // host:port of NTP when elsewhere; the answer then names the address (record 6)

	Now                       func() time.Time // its clock; default time.Now
	Offset                    time.Duration    // added to Now: it lies
	Delay                     time.Duration    // of each NTP exchange, half each way
	Loss                      func(n int) bool // is the n-th NTP request (from 0) lost?
	Stratum                   uint8            // default 1
	Leap                      uint8
	RootDelay, RootDispersion time.Duration

	AEADs        []uint16 // accepted, in order of preference; default 30, 15
	NoCompliant  bool     // as chrony before 4.6.1: no record 1024, keys of AEAD 30 exported as for 15
	Cookies      int      // in the key exchange; default 8
	CookieLength int      // in octets; default and least 100 for AEAD 15, 68 for AEAD 30

	RawConn func(net.Conn) bool                   // takes a connection over before TLS; false: go on
	Wrap    func(net.Conn) net.Conn               // changes what goes through below TLS
	KE      func([]Record) []Record               // edits the records of the answer
	KERaw   func(*tls.Conn, []Record) bool        // takes over after the request; false: go on
	KEWrite func(*tls.Conn, []byte)               // sends the answer
	Seal    func(*Packet)                         // edits an answer before it is sealed
	Answer  func(request, answer []byte) [][]byte // what is sent instead of an answer
	Key     func(c2s, s2c []byte) []byte          // what seals answers in place of s2c
	From    string                                // host:port that answers come from, where it is not the one asked

	// Kiss is sent instead of each answer: "NTSN" without authentication, all
	// others with it, as NTPsec does. With KissBare they carry the Unique
	// Identifier only, as chronyd does.
	Kiss     string
	KissBare bool
}

// Stats is what a server has seen since its start.
type Stats struct {
	Connections  int // of the key exchange
	KeyExchanges int // answered with cookies
	KEWrites     int // TLS records of the last request: 1 if written at once
	KESegments   int // TCP reads of the client's last flight: 1 if the request came with the end of the handshake

	Requests     int // NTP datagrams
	Answers      int // authenticated answers to them (also those that Answer took out)
	NAKs         int
	Replayed     int // cookies that had been sent before
	Octets       int // of the last NTP request
	Placeholders int // in the last well-formed NTP request

	Bad []string // what was wrong with requests; the first 100
}

// A Server serves from Start to Close.
type Server struct {
	ke     net.Listener
	ntp    *net.UDPConn
	from   *net.UDPConn // that answers
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu       sync.Mutex
	options  Options
	master   []byte // seals the cookies
	conns    map[net.Conn]bool
	seen     map[string]bool // cookies, Unique Identifiers and transmit timestamps
	requests [][]byte
	stats    Stats
}

// Start listens and serves.
func Start(o Options) (*Server, error) {
	if err := o.setDefaults(); err != nil {
		return nil, err
	}
	s := &Server{options: o, conns: map[net.Conn]bool{}, seen: map[string]bool{}}
	s.Rekey()
	var err error
	if s.ke, err = net.Listen("tcp", o.Listen); err != nil {
		return nil, fmt.Errorf("listening for key exchanges: %w", err)
	}
	listen := o.ListenNTP
	if listen == "" {
		listen = netip.AddrPortFrom(s.KE().Addr(), 0).String()
	}
	packets, err := net.ListenPacket("udp", listen)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("listening for NTP: %w", err), s.ke.Close())
	}
	s.ntp = packets.(*net.UDPConn)
	s.from = s.ntp
	if o.From != "" {
		if packets, err = net.ListenPacket("udp", o.From); err != nil {
			return nil, errors.Join(fmt.Errorf("listening to answer: %w", err), s.ke.Close(), s.ntp.Close())
		}
		s.from = packets.(*net.UDPConn)
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.wg.Go(s.serveKE)
	s.wg.Go(s.serveNTP)
	return s, nil
}

func (o *Options) setDefaults() error {
	if o.Listen == "" {
		o.Listen = "127.0.0.1:0"
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Stratum == 0 {
		o.Stratum = 1
	}
	if o.AEADs == nil {
		o.AEADs = []uint16{aeadGCMSIV, aeadCMACSIV}
	}
	if o.Cookies == 0 {
		o.Cookies = 8
	}
	if o.Names == nil {
		o.Names = []string{"127.0.0.1", "::1", "localhost"}
	}
	if o.NotBefore.IsZero() {
		o.NotBefore = o.Now().AddDate(0, 0, -1)
	}
	if o.NotAfter.IsZero() {
		o.NotAfter = o.Now().AddDate(0, 0, 30)
	}
	for _, id := range o.AEADs {
		if keyLength(id) == 0 {
			return fmt.Errorf("AEAD %d is none that this server has", id)
		}
	}
	var err error
	if o.CA == nil {
		if o.CA, err = NewCA("ntstest"); err != nil {
			return err
		}
	}
	if o.Certificate == nil {
		o.Certificate, err = o.CA.Certificate(o.Names, o.NotBefore, o.NotAfter, nil)
	}
	return err
}

// KE is the address of the key exchange.
func (s *Server) KE() netip.AddrPort { return s.ke.Addr().(*net.TCPAddr).AddrPort() }

// NTP is the address that answers NTP.
func (s *Server) NTP() netip.AddrPort { return s.ntp.LocalAddr().(*net.UDPAddr).AddrPort() }

// CA is the authority that issued the server's certificate.
func (s *Server) CA() *CA { return s.get().CA }

// Close stops the server and waits until nothing of it runs.
func (s *Server) Close() error {
	s.cancel()
	err := errors.Join(s.ke.Close(), s.ntp.Close())
	if s.from != s.ntp {
		err = errors.Join(err, s.from.Close())
	}
	s.mu.Lock()
	for conn := range s.conns {
		conn.Close()
	}
	s.mu.Unlock()
	s.wg.Wait()
	return err
}

// Change changes the behaviour from the next connection or request on. Names
// and dates are those of the certificate that was made at the start; set
// another Certificate to change them.
func (s *Server) Change(edit func(*Options)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	edit(&s.options)
}

func (s *Server) get() Options {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.options
}

// Rekey forgets the keys: cookies given out before are answered with a NAK.
func (s *Server) Rekey() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.master = random(keyLength(aeadCMACSIV))
}

// Stats tells what the server has seen.
func (s *Server) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	stats := s.stats
	stats.Bad = slices.Clone(stats.Bad)
	return stats
}

// Requests are the NTP datagrams received, the first 1000.
func (s *Server) Requests() [][]byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.requests)
}

// count changes the statistics.
func (s *Server) count(edit func(*Stats)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	edit(&s.stats)
}

// bad notes a request that no right client sends.
func (s *Server) bad(format string, args ...any) {
	s.count(func(stats *Stats) {
		if len(stats.Bad) < 100 {
			stats.Bad = append(stats.Bad, fmt.Sprintf(format, args...))
		}
	})
}

// sawBefore says whether this was seen before, and remembers it.
func (s *Server) sawBefore(kind string, octets []byte) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := kind + string(octets)
	before := s.seen[key]
	s.seen[key] = true
	return before
}

// sleep waits, and says false if the server was closed meanwhile.
func (s *Server) sleep(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-s.ctx.Done():
		return false
	}
}

func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b) // never fails
	return b
}
