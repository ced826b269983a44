//go:build !linux

package nts

import (
	"net"
	"time"
)

// exchange is one socket with one request. Only Linux stamps its packets.
type exchange struct {
	conn     *net.UDPConn
	via      *association // the proxy's end of it; nil: none
	buf      [2048]byte
	received time.Time
}

func newExchange(conn *net.UDPConn) *exchange { return &exchange{conn: conn} }

func (x *exchange) read() ([]byte, error) {
	n, err := x.conn.Read(x.buf[:])
	return x.buf[:n], err
}

func (x *exchange) sent() time.Time { return time.Time{} }
