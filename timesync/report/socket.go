package report

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"time"
)

// Bounds of what others can make a Socket do: so many of them are answered at
// once, each has so long to take its answer, and so long goes by between two.
const (
	maxAnswers  = 16
	answerTime  = time.Second
	answerPause = 5 * time.Millisecond
)

// fetchTime is how long Fetch waits for an answer.
const fetchTime = 3 * time.Second

// ErrNothingYet says that a loop runs, and has not finished a round.
var ErrNothingYet = errors.New("the loop has not measured yet")

// Socket is the control socket's end at the loop: whoever connects is given the
// latest report as JSON. Nothing is read, so that nothing can be done to the
// loop through it.
type Socket struct {
	listener net.Listener
	latest   func() *Report
	last     atomic.Pointer[answer]
}

// answer is a report as it is sent to all who ask for it.
type answer struct {
	of   *Report
	text []byte
}

// Listen opens the control socket, for everybody (mode 0666), and answers until
// Close. It is for the start of a program: for a moment, the umask of the whole
// process is another one. Latest is asked for what to answer, at any time and by any goroutine;
// a report that it has returned does not change, and nil is none yet.
//
// A socket file that was left behind is replaced. One that a process listens at
// is an error, and so is anything else of that name.
func Listen(path string, latest func() *Report) (*Socket, error) {
	if err := sweep(path); err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	os.Mkdir(filepath.Dir(path), 0o755) // if that is what is missing; else the next line tells
	l, err := listenForAll(path)
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	s := &Socket{listener: l, latest: latest}
	go s.serve()
	return s, nil
}

// sweep removes a socket that nobody listens at.
func sweep(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("%s is there, and is no socket: remove it, or set `control_socket`", path)
	}
	conn, err := net.DialTimeout("unix", path, answerTime)
	switch {
	case err == nil:
		conn.Close()
		return fmt.Errorf("another process answers at %s: is a loop running already?", path)
	case errors.Is(err, syscall.ECONNREFUSED):
		return os.Remove(path)
	}
	return err
}

// Close ends the socket and removes its file.
func (s *Socket) Close() error { return s.listener.Close() }

func (s *Socket) serve() {
	free := make(chan struct{}, maxAnswers)
	for {
		free <- struct{}{}
		conn, err := s.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // no descriptor is left, for now
			<-free
			time.Sleep(answerTime)
			continue
		}
		text := s.text()
		go func() {
			defer func() { <-free }()
			defer conn.Close()
			conn.SetWriteDeadline(time.Now().Add(answerTime))
			conn.Write(text)
		}()
		time.Sleep(answerPause)
	}
}

// text is the latest report as JSON, made once for all who ask. Only serve
// calls it.
func (s *Socket) text() []byte {
	r := s.latest()
	if r == nil {
		return nil
	}
	if a := s.last.Load(); a != nil && a.of == r {
		return a.text
	}
	var b bytes.Buffer
	if r.WriteJSON(&b) != nil {
		return nil
	}
	s.last.Store(&answer{r, b.Bytes()})
	return b.Bytes()
}

// Fetch asks the loop at a control socket for its latest report, as Parse takes
// it. Without a loop the error wraps fs.ErrNotExist or syscall.ECONNREFUSED.
func Fetch(ctx context.Context, path string) (*Report, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTime)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	defer conn.Close()
	end, _ := ctx.Deadline()
	conn.SetReadDeadline(end)
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	text, err := io.ReadAll(io.LimitReader(conn, MaxText+1))
	if err != nil {
		return nil, fmt.Errorf("control socket %s: %w", path, err)
	}
	if len(text) == 0 {
		return nil, ErrNothingYet
	}
	r, err := Parse(text)
	if err != nil {
		return nil, fmt.Errorf("control socket %s: %w", path, err)
	}
	return r, nil
}
