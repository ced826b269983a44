package nts

import (
	"encoding/binary"
	"math/bits"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// exchange is one socket with one request, and when the kernel saw the
// packets.
type exchange struct {
	conn     *net.UDPConn
	via      *association // the proxy's end of it; nil: none
	raw      syscall.RawConn
	buf      [2048]byte // longer than any answer; what is cut off does not authenticate
	oob      [128]byte
	received time.Time // of the packet that was read last; zero: unknown
}

// readBuffer has room for an answer in a flood.
const readBuffer = 1 << 20

// newExchange asks the kernel for a large buffer, of which it gives what it
// allows, and for software stamps of both directions: with 64-bit seconds, so
// that 32-bit machines live past 2038, else as old kernels have them. Without
// them all is as well, a little less exact.
func newExchange(conn *net.UDPConn) *exchange {
	x := &exchange{conn: conn}
	conn.SetReadBuffer(readBuffer)
	raw, err := conn.SyscallConn()
	if err != nil {
		return x
	}
	x.raw = raw
	const flags = unix.SOF_TIMESTAMPING_SOFTWARE | unix.SOF_TIMESTAMPING_RX_SOFTWARE |
		unix.SOF_TIMESTAMPING_TX_SOFTWARE | unix.SOF_TIMESTAMPING_OPT_TSONLY
	raw.Control(func(fd uintptr) {
		if unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_TIMESTAMPING_NEW, flags) != nil {
			unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_TIMESTAMPING, flags)
		}
	})
	return x
}

// read is the next packet from the server's address and port.
func (x *exchange) read() ([]byte, error) {
	n, oobn, _, _, err := x.conn.ReadMsgUDPAddrPort(x.buf[:], x.oob[:])
	if err != nil {
		return nil, err
	}
	x.received = stampOf(x.oob[:oobn])
	return x.buf[:n], nil
}

// sent is when the request left, from the socket's error queue.
func (x *exchange) sent() (at time.Time) {
	if x.raw == nil {
		return at
	}
	x.raw.Control(func(fd uintptr) {
		for range 4 { // an ICMP error may lie before it
			n, oobn, _, _, err := unix.Recvmsg(int(fd), nil, x.oob[:], unix.MSG_ERRQUEUE|unix.MSG_DONTWAIT)
			if err != nil || n < 0 {
				return
			}
			if at = stampOf(x.oob[:oobn]); !at.IsZero() {
				return
			}
		}
	})
	return at
}

// stampOf is the software stamp among control messages, or zero. It is the
// first of three times, of 64 bits in the new kind and as the machine has
// them in the old.
func stampOf(oob []byte) time.Time {
	for len(oob) >= unix.SizeofCmsghdr { // the library would read on
		header, data, rest, err := unix.ParseOneSocketControlMessage(oob)
		if err != nil {
			return time.Time{}
		}
		oob = rest
		if header.Level != unix.SOL_SOCKET {
			continue
		}
		var at time.Time
		switch header.Type {
		case unix.SO_TIMESTAMPING_NEW:
			at = timespec(data, 64)
		case unix.SO_TIMESTAMPING:
			at = timespec(data, bits.UintSize)
		}
		if !at.IsZero() {
			return at
		}
	}
	return time.Time{}
}

// timespec reads seconds and nanoseconds, each of so many bits. Both zero are
// no time.
func timespec(data []byte, size int) time.Time {
	var seconds, nanos int64
	switch {
	case size == 64 && len(data) >= 16:
		seconds = int64(binary.NativeEndian.Uint64(data))
		nanos = int64(binary.NativeEndian.Uint64(data[8:]))
	case size == 32 && len(data) >= 8:
		seconds = int64(int32(binary.NativeEndian.Uint32(data)))
		nanos = int64(int32(binary.NativeEndian.Uint32(data[4:])))
	}
	if seconds == 0 && nanos == 0 {
		return time.Time{}
	}
	return time.Unix(seconds, nanos)
}
