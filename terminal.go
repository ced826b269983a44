package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"ntsclient/timesync/report"
)

// style is how to write for people on w.
func style(w io.Writer) report.Style {
	columns := width(w)
	s := report.Style{UTF8: isUTF8()}
	if columns > 0 {
		s.Width, s.Draw = columns, true
		_, plain := os.LookupEnv("NO_COLOR")
		s.Color = !plain && os.Getenv("TERM") != "dumb"
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
	timer    *time.Timer
	done, of int
	shown    bool
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
	p.shown = true
	fmt.Fprintf(p.w, "\rwaiting: %d of %d servers done ", p.done, p.of)
}

func (p *progress) show(done, of int) {
	p.mu.Lock()
	p.done, p.of = done, of
	shown := p.shown
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
	if p.shown {
		fmt.Fprintf(p.w, "\r%s\r", strings.Repeat(" ", 60))
		p.shown = false
	}
}
