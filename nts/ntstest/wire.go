package ntstest

import (
	"io"
	"net"
	"time"
)

// wire is a connection that damages what is written to it.
type wire struct {
	net.Conn
	size  int           // of the pieces in which it is sent; 0: as it comes
	pause time.Duration // before each
	stall int           // nothing is sent after so many octets; 0: all is
	cut   bool          // and then the connection is reset
	flip  int           // the octet to be changed; 0: none
	sent  int
}

func (w *wire) Write(b []byte) (int, error) {
	for n := 0; n < len(b); {
		piece := b[n:]
		if w.size > 0 {
			piece = piece[:min(w.size, len(piece))]
		}
		if w.stall > 0 {
			piece = piece[:min(w.stall-w.sent, len(piece))]
		}
		if len(piece) == 0 {
			if w.cut {
				reset(w.Conn)
			}
			untilClosed(w.Conn)
			return n, io.ErrClosedPipe
		}
		if at := w.flip - w.sent; w.flip > 0 && at >= 0 && at < len(piece) {
			piece = flip(piece, at)
		}
		time.Sleep(w.pause)
		if _, err := w.Conn.Write(piece); err != nil {
			return n, err
		}
		n += len(piece)
		w.sent += len(piece)
	}
	return len(b), nil
}
