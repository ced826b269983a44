package main

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"ntsclient/timesync/report"
)

// style is how to write for people on w.
func style(w io.Writer) report.Style {
	columns := width(w)
	s := report.Style{UTF8: isUTF8(), Width: columns}
	if columns > 0 && os.Getenv("NO_COLOR") == "" { // which turns drawing off, too
		s.Draw = true
		s.Color = os.Getenv("TERM") != "dumb"
	}
	return s
}

// width is how many columns the terminal behind w has, 0 if there is none.
func width(w io.Writer) int {
	f, ok := w.(*os.File)
	if !ok {
		return 0
	}
	columns, ok := terminalWidth(f.Fd())
	switch {
	case !ok:
		return 0
	case columns == 0: // a terminal that does not say, such as a serial line
		return 80
	}
	return columns
}

// isUTF8 goes by the locale's variables, the first that is set.
func isUTF8() bool {
	for _, name := range []string{"LC_ALL", "LC_CTYPE", "LANG"} {
		if value := os.Getenv(name); value != "" {
			value = strings.ToLower(value)
			return strings.Contains(value, "utf-8") || strings.Contains(value, "utf8")
		}
	}
	return false
}

// progress is a line that comes after a second and goes when all is done.
type progress struct {
	mu       sync.Mutex
	w        io.Writer
	timer    *time.Timer // nil: nothing is shown
	done, of int
	line     string // that is shown
	stopped  bool
}

func newProgress(w io.Writer, of int) *progress {
	p := &progress{w: w, of: of}
	if width(w) > 0 {
		p.timer = time.AfterFunc(time.Second, p.draw)
	}
	return p
}

func (p *progress) draw() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.stopped {
		digits := len(strconv.Itoa(p.of)) // so that each line covers the one before
		p.line = fmt.Sprintf("waiting: %*d of %d servers done", digits, p.done, p.of)
		fmt.Fprint(p.w, "\r", p.line)
	}
}

func (p *progress) show(done, of int) {
	p.mu.Lock()
	p.done, p.of = done, of
	shown := p.line != ""
	p.mu.Unlock()
	if shown {
		p.draw()
	}
}

func (p *progress) stop() {
	if p.timer == nil {
		return
	}
	p.timer.Stop()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stopped = true
	if p.line != "" {
		fmt.Fprintf(p.w, "\r%s\r", strings.Repeat(" ", len(p.line)))
	}
}
