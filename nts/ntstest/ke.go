package ntstest

import (
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
)

// Records of the key exchange (RFC 8915 §4.1), and the deployed one that says
// that keys of AEAD 30 are exported as the RFC says.
const (
	recordEnd          = 0
	recordNextProtocol = 1
	recordError        = 2
	recordWarning      = 3
	recordAEAD         = 4
	recordCookie       = 5
	recordServer       = 6
	recordPort         = 7
	recordCompliant    = 1024
)

// A Record of the key exchange.
type Record struct {
	Type     uint16
	Critical bool
	Body     []byte
}

// append writes the record to b.
func (r Record) append(b []byte) []byte {
	kind := r.Type
	if r.Critical {
		kind |= 1 << 15
	}
	b = binary.BigEndian.AppendUint16(b, kind)
	b = binary.BigEndian.AppendUint16(b, uint16(len(r.Body)))
	return append(b, r.Body...)
}

// parseRecords reads records up to End of Message, and says how many octets
// those are: 0 if there is no end yet.
func parseRecords(b []byte) (records []Record, n int) {
	for len(b)-n >= 4 {
		kind := binary.BigEndian.Uint16(b[n:])
		length := int(binary.BigEndian.Uint16(b[n+2:]))
		if len(b)-n < 4+length {
			return nil, 0
		}
		r := Record{kind & 0x7fff, kind>>15 == 1, b[n+4 : n+4+length]}
		records, n = append(records, r), n+4+length
		if r.Type == recordEnd {
			return records, n
		}
	}
	return nil, 0
}

// countingConn counts the reads since the last write.
type countingConn struct {
	net.Conn
	reads int
}

func (c *countingConn) Read(b []byte) (int, error) {
	c.reads++
	return c.Conn.Read(b)
}

func (c *countingConn) Write(b []byte) (int, error) {
	c.reads = 0
	return c.Conn.Write(b)
}

func (s *Server) serveKE() {
	for {
		conn, err := s.ke.Accept()
		if err != nil {
			return // closed
		}
		s.mu.Lock()
		s.stats.Connections++
		s.conns[conn] = true
		s.mu.Unlock()
		s.wg.Go(func() {
			s.exchangeKeys(conn)
			conn.Close()
			s.mu.Lock()
			delete(s.conns, conn)
			s.mu.Unlock()
		})
	}
}

func (s *Server) exchangeKeys(raw net.Conn) {
	if s.ctx.Err() != nil {
		return // accepted while Close was closing the others
	}
	o := s.get()
	if o.RawConn != nil && o.RawConn(raw) {
		return
	}
	if o.Wrap != nil {
		raw = o.Wrap(raw)
	}
	config := &tls.Config{
		Certificates:           []tls.Certificate{*o.Certificate},
		MinVersion:             tls.VersionTLS13,
		NextProtos:             []string{"ntske/1"},
		SessionTicketsDisabled: true,
	}
	if o.TLS != nil {
		o.TLS(config)
	}
	counting := &countingConn{Conn: raw}
	conn := tls.Server(counting, config)
	defer conn.Close()
	if conn.HandshakeContext(s.ctx) != nil {
		return // the client's right: most likely it does not like the certificate
	}
	request, err := s.readRequest(conn, counting)
	if err != nil {
		s.bad("key exchange: %v", err)
		conn.Write(slices.Concat(
			Record{recordError, true, []byte{0, 1}}.append(nil),
			Record{recordEnd, true, nil}.append(nil)))
		return
	}
	if request == nil || o.KERaw != nil && o.KERaw(conn, request) {
		return
	}
	s.answerKE(conn, request, o)
}

// readRequest reads and checks one request. There is none, and no error, if
// the client goes away before it sends any of it.
func (s *Server) readRequest(conn *tls.Conn, counting *countingConn) ([]Record, error) {
	var request []byte
	part := make([]byte, 1<<16)
	for writes := 1; ; writes++ {
		n, err := conn.Read(part)
		request = append(request, part[:n]...)
		records, used := parseRecords(request)
		switch {
		case used > 0:
			s.count(func(stats *Stats) { stats.KEWrites, stats.KESegments = writes, counting.reads })
			if used < len(request) {
				return nil, errors.New("octets after the end of the message")
			}
			return records, errors.Join(checkConnection(conn.ConnectionState()), checkRequest(records))
		case err != nil && len(request) == 0:
			return nil, nil
		case err == io.EOF || len(request) > 1<<16:
			return nil, fmt.Errorf("no end of the message within %d octets", len(request))
		case err != nil:
			return nil, err
		}
	}
}

// checkConnection: RFC 8915 §3 and §4.
func checkConnection(state tls.ConnectionState) error {
	if state.Version < tls.VersionTLS13 {
		return fmt.Errorf("a request over %s", tls.VersionName(state.Version))
	}
	if state.NegotiatedProtocol != "ntske/1" {
		return fmt.Errorf("a request under the protocol %q", state.NegotiatedProtocol)
	}
	return nil
}

// checkRequest: RFC 8915 §4.1.
func checkRequest(records []Record) error {
	count := map[uint16]int{}
	for _, r := range records {
		count[r.Type]++
		var ok bool
		switch r.Type {
		case recordEnd:
			ok = r.Critical && len(r.Body) == 0
		case recordNextProtocol:
			ok = r.Critical && slices.Equal(r.Body, []byte{0, 0})
		case recordAEAD:
			ok = len(r.Body) > 0 && len(r.Body)%2 == 0
		case recordCompliant:
			ok = !r.Critical && len(r.Body) == 0
		case recordError, recordWarning, recordCookie:
		default:
			ok = !r.Critical
		}
		if !ok {
			return fmt.Errorf("record %d (critical %v) with body %x", r.Type, r.Critical, r.Body)
		}
	}
	for _, kind := range []uint16{recordEnd, recordNextProtocol, recordAEAD} {
		if count[kind] != 1 {
			return fmt.Errorf("%d records of type %d", count[kind], kind)
		}
	}
	if offersGCM := slices.Contains(offered(records), aeadGCMSIV); offersGCM != (count[recordCompliant] == 1) {
		return fmt.Errorf("AEAD 30 offered: %v, but %d records 1024", offersGCM, count[recordCompliant])
	}
	return nil
}

// offered lists the AEADs of a request.
func offered(records []Record) (ids []uint16) {
	for _, r := range records {
		if r.Type == recordAEAD {
			for i := 0; i+2 <= len(r.Body); i += 2 {
				ids = append(ids, binary.BigEndian.Uint16(r.Body[i:]))
			}
		}
	}
	return ids
}

func (s *Server) answerKE(conn *tls.Conn, request []Record, o Options) {
	answer := []Record{{recordNextProtocol, true, []byte{0, 0}}}
	id, ok := choose(o.AEADs, offered(request))
	if ok {
		agreed, err := s.agree(conn.ConnectionState(), id, o)
		if err != nil {
			s.bad("key exchange: %v", err)
			return
		}
		answer = append(answer, agreed...)
	} else {
		answer = append(answer, Record{recordAEAD, true, nil}) // as chronyd does
	}
	answer = append(answer, Record{recordEnd, true, nil})
	if o.KE != nil {
		answer = o.KE(answer)
	}
	var b []byte
	for _, r := range answer {
		b = r.append(b)
	}
	if ok {
		s.count(func(stats *Stats) { stats.KeyExchanges++ })
	}
	if o.KEWrite != nil {
		o.KEWrite(conn, b)
		return
	}
	conn.Write(b)
}

// choose takes the first that was offered.
func choose(accepted, offered []uint16) (uint16, bool) {
	for _, id := range accepted {
		if slices.Contains(offered, id) {
			return id, true
		}
	}
	return 0, false
}

// agree makes the records that follow from the choice of an AEAD.
func (s *Server) agree(state tls.ConnectionState, id uint16, o Options) ([]Record, error) {
	exported := id
	records := []Record{{recordAEAD, true, uint16Octets(id)}}
	if id == aeadGCMSIV && o.NoCompliant {
		exported = aeadCMACSIV
	} else if id == aeadGCMSIV {
		records = append(records, Record{recordCompliant, false, nil})
	}
	k, err := exportKeys(state, id, exported)
	if err != nil {
		return nil, err
	}
	if o.ListenNTP != "" {
		records = append(records, Record{recordServer, true, []byte(s.NTP().Addr().String())})
	}
	records = append(records, Record{recordPort, true, uint16Octets(s.NTP().Port())})
	for range o.Cookies {
		cookie, err := s.cookie(k, o.CookieLength)
		if err != nil {
			return nil, err
		}
		records = append(records, Record{recordCookie, false, cookie})
	}
	return records, nil
}

func uint16Octets(n uint16) []byte { return binary.BigEndian.AppendUint16(nil, n) }
