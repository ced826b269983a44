package config

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"unicode"
)

// Error is what is wrong with a configuration, and where. Fields that do not apply are zero.
type Error struct {
	File         string
	Line, Column int    // from 1; the column counts octets
	Key          string // as in "measure.samples"; of a server only its last part, as in "ca_file"
	Server       string // name, or "number 2" of the file where its address is no good
	Message      string
	Hint         string // the mend, where one is known; not part of Error()

	offset int // in the file; negative: none
	item   int // offset of the key or header, at the beginning of a line, that it was found in
	cause  error
}

// Error is one line: file:line:column: server X: key: message.
func (e *Error) Error() string {
	var parts []string
	if e.File != "" {
		place := e.File
		if e.Line > 0 {
			place += fmt.Sprintf(":%d:%d", e.Line, e.Column)
		}
		parts = append(parts, place)
	}
	if e.Server != "" {
		parts = append(parts, "server "+e.Server)
	}
	if e.Key != "" {
		parts = append(parts, e.Key)
	}
	return strings.Join(append(parts, e.Message), ": ")
}

// Unwrap gives the error of the Reader, if it was that.
func (e *Error) Unwrap() error { return e.cause }

// position turns an offset into a line and a column, both from 1.
func position(data []byte, offset int) (line, column int) {
	before := data[:offset]
	return bytes.Count(before, []byte("\n")) + 1, offset - bytes.LastIndexByte(before, '\n')
}

// printable shortens what stands in a file to something fit for a message of one line.
func printable(s string) string {
	const most = 80
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "") + "…"
	}
	if s == "" || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return strconv.Quote(s)
	}
	return s
}

// quote is printable in quotation marks, without the user and password of what
// may be a URL in the wrong place.
func quote(s string) string {
	if scheme, at := strings.Index(s, "://"), strings.LastIndex(s, "@"); scheme >= 0 && at > scheme {
		s = s[:scheme] + "://…" + s[at:]
	}
	p := printable(s)
	if strings.HasPrefix(p, `"`) {
		return p
	}
	return `"` + p + `"`
}
