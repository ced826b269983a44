// Package oracle is how a virtual machine and its host talk about clocks: over
// a serial port, so that the guest needs no network and no clock of its own to
// learn the true time, which is the host's. The host's clock is only read.
package oracle

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"time"
)

// Record is what the guest reports about one command that it ran.
type Record struct {
	Name           string
	Exit           int
	Stdout, Stderr string
	Took           time.Duration // from the start of the process to its end
	Right          time.Duration // until the clock was within Near; 0 where it never was
	Before, After  time.Duration // by how much the clock was ahead
	Trip           time.Duration // After is right within half of this
	MaxError       time.Duration // of the kernel afterwards
	Status         int32         // of the kernel afterwards, STA_...
	Frequency      int64         // of the kernel afterwards, 2^-16 ppm
	Tick           int64         // of the kernel afterwards, µs
	Pending        time.Duration // what the kernel has still to slew afterwards
}

// Near is how close to the true time a clock must be to be right.
const Near = 50 * time.Millisecond

// Serve answers a guest: "time" with the nanoseconds since 1970, while records
// are collected. It ends with "exit N", and returns N.
func Serve(guest io.ReadWriter) (records []Record, exit int, err error) {
	r := bufio.NewReader(guest)
	for {
		line, err := r.ReadString('\n')
		now := time.Now().UnixNano()
		if err != nil {
			return records, 0, fmt.Errorf("the guest ended without saying so: %w", err)
		}
		word, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch word {
		case "time":
			_, err = fmt.Fprintf(guest, "%d\n", now)
		case "record":
			var record Record
			err = json.Unmarshal([]byte(rest), &record)
			records = append(records, record)
		case "exit":
			exit, err = strconv.Atoi(rest)
			return records, exit, err
		default:
			err = fmt.Errorf("unknown word %q", line)
		}
		if err != nil {
			return records, 0, fmt.Errorf("from the guest: %w", err)
		}
	}
}

// Host is the guest's end.
type Host struct {
	port io.ReadWriter
	r    *bufio.Reader
}

// NewHost talks to the host through a serial port.
func NewHost(port io.ReadWriter) *Host { return &Host{port, bufio.NewReader(port)} }

// Report hands a record to the host.
func (h *Host) Report(r Record) error {
	text, err := json.Marshal(r)
	if err == nil {
		_, err = fmt.Fprintf(h.port, "record %s\n", text)
	}
	return err
}

// Exit tells the host to end the machine.
func (h *Host) Exit(code int) error {
	_, err := fmt.Fprintf(h.port, "exit %d\n", code)
	return err
}

// Anchor is a moment at which the true time was learned.
type Anchor struct {
	True int64         // the true time then, ns since 1970
	Raw  int64         // what clock Raw said then, ns
	Trip time.Duration // how long asking took: True is right within half of it
}

// Ask asks for the time a few times, and returns the quickest answer. Raw reads
// a clock that nobody adjusts.
func (h *Host) Ask(raw func() int64) (Anchor, error) {
	best := Anchor{Trip: math.MaxInt64}
	for range 9 {
		began := raw()
		if _, err := io.WriteString(h.port, "time\n"); err != nil {
			return best, err
		}
		line, err := h.r.ReadString('\n')
		if err != nil {
			return best, err
		}
		trip := raw() - began
		now, err := strconv.ParseInt(strings.TrimSpace(line), 10, 64)
		if err != nil {
			return best, err
		}
		if time.Duration(trip) < best.Trip {
			best = Anchor{now, began + trip/2, time.Duration(trip)}
		}
	}
	return best, nil
}
