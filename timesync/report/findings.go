package report

import (
	"fmt"
	"io"
	"slices"
	"strings"
)

// Level is how much a finding matters.
type Level string

// The levels.
const (
	OK     Level = "ok"
	Note   Level = "note"   // to know; it stops nothing
	Blocks Level = "blocks" // no right time, or no correction, because of it
)

// Finding is one link of the chain from the configuration to the right time.
type Finding struct {
	Subject string `json:"subject"` // "clock", "server time.example.net:4460"
	Stage   string `json:"stage"`
	Level   Level  `json:"level"`
	Code    string `json:"code"` // for scripts; "ok" where nothing is to be said
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"` // the mend
}

// Findings is what a check found, in the order of the chain.
type Findings struct {
	Offline bool // nobody was asked
	List    []Finding
}

// Add adds a finding.
func (f *Findings) Add(level Level, subject, stage, code, message, hint string) {
	f.List = append(f.List, Finding{subject, stage, level, code, message, hint})
}

// OK adds that a link is as it should be.
func (f *Findings) OK(subject, stage, message string) {
	f.Add(OK, subject, stage, "ok", message, "")
}

// First is the first finding that blocks; nil: none does.
func (f *Findings) First() *Finding {
	i := slices.IndexFunc(f.List, func(f Finding) bool { return f.Level == Blocks })
	if i < 0 {
		return nil
	}
	return &f.List[i]
}

// WriteJSON writes the findings as one indented object and a line end, with
// what could steer a terminal written as \u escapes.
func (f *Findings) WriteJSON(w io.Writer) error {
	return writeJSON(w, struct {
		Schema   int       `json:"schema"`
		Command  string    `json:"command"`
		Findings []Finding `json:"findings"`
	}{Schema, "check", append([]Finding{}, f.List...)}) // never null
}

// signs are those that servers have, by level.
var signs = map[Level]Verdict{OK: ServerAgreed, Note: Unusable, Blocks: Falseticker}

// WriteText writes the findings for people: a line for each, its mend below,
// and what it comes to. What follows each other, is of one subject and fine
// shares a line.
func (f *Findings) WriteText(w io.Writer, o Style) error {
	p := newPage(o)
	names, width := make([]string, len(f.List)), 0
	for i, g := range f.List {
		names[i] = shorten(p.text(strings.TrimSuffix(strings.TrimPrefix(g.Subject, "server "), ":4460")), p.Width/3, p.ellipsis)
		width = max(width, runes(names[i]))
	}
	for i := 0; i < len(f.List); i++ {
		g := f.List[i]
		for ; g.Level == OK && i+1 < len(f.List) && f.List[i+1].Level == OK && f.List[i+1].Subject == g.Subject; i++ {
			g.Message += ", " + f.List[i+1].Message
		}
		verdict, name := signs[g.Level], names[i]+strings.Repeat(" ", width-runes(names[i]))
		indent := strings.Repeat(" ", width+4)
		row := []span{{colors[verdict], p.marks[verdict]}, {normal, " " + name + "  "}}
		for _, l := range wrap(p.text(g.Message), p.Width-len(indent)) {
			p.line(append(row, span{normal, l})...)
			row = []span{{normal, indent}}
		}
		p.indented(dim, indent+p.arrow+" ", p.text(g.Hint))
	}
	p.line()
	p.paragraph(bold, p.text(f.closing()))
	_, err := io.WriteString(w, p.out.String())
	return err
}

// closing is what the findings come to, in one sentence.
func (f *Findings) closing() string {
	var stopped []string
	notes := 0
	for _, g := range f.List {
		switch {
		case g.Level == Note:
			notes++
		case g.Level == Blocks && !slices.Contains(stopped, g.Subject):
			stopped = append(stopped, g.Subject)
		}
	}
	s := "nothing stops it"
	if len(stopped) > 0 {
		s = "stopped by: " + strings.Join(stopped, ", ")
	}
	switch notes {
	case 0:
	case 1:
		s += "; 1 thing to note"
	default:
		s += fmt.Sprintf("; %d things to note", notes)
	}
	if f.Offline {
		s += "; nothing was sent (--offline)"
	}
	return s
}
