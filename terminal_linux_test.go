package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"ntsclient/nts/ntstest"
)

// terminal is a pseudo-terminal of 80 columns.
type terminal struct {
	master, slave *os.File
	shown         chan string
}

func newTerminal(t *testing.T) *terminal {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		skip(t, err.Error())
	}
	fd := int(master.Fd())
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err == nil {
		err = unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: 25, Col: 80})
	}
	if err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		skip(t, err.Error())
	}
	p := &terminal{master, slave, make(chan string, 1)}
	t.Cleanup(func() { master.Close() })
	go func() {
		all, _ := io.ReadAll(master) // ends with EIO where nobody has the other end
		p.shown <- string(all)
	}()
	return p
}

// text is what was shown, after everybody has closed the terminal.
func (p *terminal) text() string {
	p.slave.Close()
	return strings.ReplaceAll(<-p.shown, "\r\n", "\n")
}

func TestDrawing(t *testing.T) {
	file := configure(t, "", serve(t, ntstest.Options{}), serve(t, ntstest.Options{}))
	const bar, asciiBar, escape = "━", "=", "\x1b["
	for _, c := range []struct {
		name, env           string
		bar                 string
		drawing, color, raw bool
	}{
		{"plain", "TERM=xterm", bar, true, true, false},
		{"NO_COLOR", "NO_COLOR=1", bar, false, false, false},
		{"empty NO_COLOR", "NO_COLOR=", bar, true, true, false},
		{"dumb", "TERM=dumb", bar, true, false, false},
		{"not UTF-8", "LC_ALL=C", asciiBar, true, true, false},
		{"no terminal", "TERM=xterm", bar, false, false, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			cmd := program(t, "query", "-c", file)
			cmd.Env = append(cmd.Env, c.env)
			var text string
			if c.raw {
				text = output(t, cmd)
			} else {
				p := newTerminal(t)
				cmd.Stdout = p.slave
				if got := status(t, cmd); got != exitOK {
					t.Errorf("status %d", got)
				}
				text = p.text()
			}
			if strings.Contains(text, c.bar) != c.drawing || strings.Contains(text, escape) != c.color || !strings.Contains(text, "time.test") {
				t.Errorf("drawing %v, colour %v wanted:\n%q", c.drawing, c.color, text)
			}
			if c.name == "not UTF-8" && strings.ContainsFunc(text, func(r rune) bool { return r > 127 }) {
				t.Errorf("not ASCII:\n%q", text)
			}
		})
	}
}

// A round that takes long shows that it goes on, and then that is gone.
func TestProgress(t *testing.T) {
	hole := newBlackHole(t)
	const line = "\rwaiting: 0 of 1 servers done"
	gone := "\r" + strings.Repeat(" ", len(line)-1) + "\r"
	for args, want := range map[string]string{"query": line, "sync --dry-run": line, "sync --dry-run --quiet": ""} {
		t.Run(args, func(t *testing.T) {
			t.Parallel()
			p := newTerminal(t)
			file := write(t, t.TempDir()+"/slow.toml", slower(t, hole.file))
			cmd := program(t, append(strings.Fields(args), "-c", file)...)
			cmd.Stderr = p.slave
			if text := output(t, cmd); strings.Contains(text, "waiting") {
				t.Errorf("on standard output: %q", text)
			}
			text := p.text()
			if !strings.HasPrefix(text, want) || want != "" && !strings.HasSuffix(text, gone) || want == "" && text != "" {
				t.Errorf("%q", text)
			}
		})
	}
}

// slower is a configuration whose round ends after the progress was shown.
func slower(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Replace(string(text), `"10m"`, `"2s"`, 1)
}

// output is the standard output of a process, whatever its status.
func output(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	var stdout bytes.Buffer
	cmd.Stdout = &stdout
	status(t, cmd)
	return stdout.String()
}
