package report

import (
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Printable makes a text that came from elsewhere fit to be shown on one line of
// a terminal. Control characters and with them escape sequences, invalid UTF-8,
// marks that change the order or the look of what is around them, and all white
// space but the blank become escapes as in a Go string. A printable text stays as
// it is, so that it does no harm to do it twice.
func Printable(s string) string {
	var b strings.Builder
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		switch {
		case r == utf8.RuneError && n == 1:
			b.WriteString(`\x` + strconv.FormatUint(uint64(s[0])|0x100, 16)[1:])
		case !unicode.IsPrint(r) || unicode.Is(unicode.M, r):
			quoted := strconv.QuoteRuneToASCII(r)
			b.WriteString(quoted[1 : len(quoted)-1])
		default:
			b.WriteString(s[:n])
		}
		s = s[n:]
	}
	return b.String()
}

var (
	asASCII  = strings.NewReplacer("µ", "u", "±", "+/-", "…", "...", "–", "-", "→", "->", "≤", "<=", "²", "2")
	unquoted = strings.NewReplacer(`\"`, `"`, `\\`, `\`)
)

// plain is a Printable text in ASCII.
func plain(s string) string {
	quoted := strconv.QuoteToASCII(asASCII.Replace(s))
	return unquoted.Replace(quoted[1 : len(quoted)-1])
}

// wrap breaks a text at its blanks into lines of at most width runes; a word
// that is longer than that is broken, too.
func wrap(s string, width int) []string {
	var lines []string
	line := ""
	for _, word := range strings.Fields(s) {
		if line != "" && runes(line)+1+runes(word) <= width {
			line += " " + word
			continue
		}
		if line != "" {
			lines = append(lines, line)
		}
		letters := []rune(word)
		for len(letters) > width {
			lines = append(lines, string(letters[:width]))
			letters = letters[width:]
		}
		line = string(letters)
	}
	if line != "" {
		lines = append(lines, line)
	}
	return lines
}

// shorten takes the middle out of a text that is longer than width runes: in
// names of hosts it tells least.
func shorten(s string, width int, ellipsis string) string {
	letters := []rune(s)
	if len(letters) <= width {
		return s
	}
	keep := width - runes(ellipsis)
	head := keep / 2
	return string(letters[:head]) + ellipsis + string(letters[len(letters)-(keep-head):])
}

func runes(s string) int { return utf8.RuneCountInString(s) }
