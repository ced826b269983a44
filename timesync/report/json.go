package report

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// WriteJSON writes the report as one indented object and a line end. Characters
// that could steer a terminal are written as \u escapes.
func (r *Report) WriteJSON(w io.Writer) error { return writeJSON(w, r) }

func writeJSON(w io.Writer, what any) error {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(what); err != nil {
		return fmt.Errorf("report as JSON: %w", err)
	}
	_, err := w.Write(escapeUnprintable(b.Bytes()))
	return err
}

// MarshalJSON puts the agreed time in front of the clock's, where people look
// for it. A type that embeds a Report inherits this, and would lose its other
// fields: let it hold the Report in a field, or give the Report the fields.
func (r Report) MarshalJSON() ([]byte, error) {
	type fields Report // those named below stand in for their namesakes in it
	standing := r.Standing
	if standing == nil && r.Keeping != nil {
		standing = &Standing{Loop: r.Loop, Synchronized: r.Synchronized}
	}
	ordered := struct {
		Schema  int        `json:"schema"`
		Command string     `json:"command"`
		DryRun  bool       `json:"dry_run"`
		Result  Result     `json:"result"`
		Time    *time.Time `json:"time,omitempty"`
		*Standing
		fields
	}{r.Schema, r.Command, r.DryRun, r.Result, nil, standing, fields(r)}
	ordered.Clock = r.Clock.UTC()
	if r.Agreement != nil {
		agreed := r.Time.UTC()
		ordered.Time = &agreed
	}
	if r.Servers == nil {
		ordered.Servers = []Server{} // scripts loop over it
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(ordered)
	return b.Bytes(), err
}

// escapeUnprintable rewrites what is not printable in a JSON text. Outside of
// its strings there is nothing but ASCII and line ends.
func escapeUnprintable(text []byte) []byte {
	out := make([]byte, 0, len(text))
	for len(text) > 0 {
		r, n := utf8.DecodeRune(text)
		switch {
		case r == '\n' || unicode.IsPrint(r):
			out = append(out, text[:n]...)
		case r > 0xffff:
			hi, lo := utf16.EncodeRune(r)
			out = fmt.Appendf(out, `\u%04x\u%04x`, hi, lo)
		default:
			out = fmt.Appendf(out, `\u%04x`, r)
		}
		text = text[n:]
	}
	return out
}

// MarshalJSON writes the seconds in decimal, without an exponent.
func (s Seconds) MarshalJSON() ([]byte, error) {
	const second = int64(time.Second)
	whole, rest := int64(s)/second, int64(s)%second
	sign := ""
	if s < 0 {
		sign, whole, rest = "-", -whole, -rest
	}
	text := sign + strconv.FormatInt(whole, 10)
	if rest != 0 {
		text += strings.TrimRight(fmt.Sprintf(".%09d", rest), "0")
	}
	return []byte(text), nil
}

// UnmarshalJSON reads a number of seconds as MarshalJSON writes it.
func (s *Seconds) UnmarshalJSON(b []byte) error {
	d, err := time.ParseDuration(string(b) + "s")
	if err != nil {
		return fmt.Errorf("%q is no number of seconds", b)
	}
	*s = Seconds(d)
	return nil
}
