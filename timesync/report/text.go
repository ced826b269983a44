package report

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Style says what kind of terminal or file a report is written for.
type Style struct {
	Width int  // columns: 0 for 80; what is not between 40 and 100 is taken to be
	Color bool // with colours, which are never the only sign of anything
	Draw  bool // with the drawing
	UTF8  bool // else ASCII
}

// WriteText writes the report for people: a line for each server, the drawing,
// and what it comes to. No line is longer than the style's width, and nothing
// that a server sent reaches the terminal raw.
func (r *Report) WriteText(w io.Writer, o Style) error {
	p := newPage(o)
	if len(r.Servers) > 0 {
		p.table(r.Servers)
		p.line()
	}
	if o.Draw && p.drawing(r) {
		p.line()
	}
	for _, s := range r.closing() {
		p.paragraph(bold, p.text(s))
	}
	_, err := io.WriteString(w, p.out.String())
	return err
}

// glyphs are the signs of one character set.
type glyphs struct {
	marks               map[Verdict]string
	dots                map[Verdict]string
	plusMinus, ellipsis string
	arrow               string // before a hint

	shade, thin, thick     string // of the drawing: agreed, a bar outside of that, and inside
	left, right            string // where a bar goes on beyond the edge
	axis, begin, zero, end string

	blocks []string // low to high
}

var unicodes = glyphs{
	marks:     map[Verdict]string{ServerAgreed: "✓", Falseticker: "✗", Unusable: "–", Failed: "!"},
	dots:      map[Verdict]string{ServerAgreed: "●", Falseticker: "✗", Unusable: "○"},
	plusMinus: "±", ellipsis: "…", arrow: "→",
	shade: "░", thin: "─", thick: "━", left: "◀", right: "▶",
	axis: "─", begin: "├", zero: "┼", end: "┤",
	blocks: []string{"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"},
}

var ascii = glyphs{
	marks:     map[Verdict]string{ServerAgreed: "+", Falseticker: "x", Unusable: "o", Failed: "!"},
	dots:      map[Verdict]string{ServerAgreed: "*", Falseticker: "x", Unusable: "o"},
	plusMinus: "+/-", ellipsis: "...", arrow: "->",
	shade: ":", thin: "-", thick: "=", left: "<", right: ">",
	axis: "-", begin: "|", zero: "+", end: "|",
	blocks: []string{"_", ".", "-", "~", "=", "+", "*", "#"},
}

// color is the number of a colour or a weight in an escape sequence.
type color int

const (
	normal color = 0
	bold   color = 1
	dim    color = 2
	red    color = 31
	green  color = 32
	yellow color = 33
)

var colors = map[Verdict]color{ServerAgreed: green, Falseticker: red, Unusable: yellow, Failed: yellow}

// span is a piece of a line.
type span struct {
	color color
	text  string
}

// page is a text as it grows.
type page struct {
	Style
	glyphs
	out strings.Builder
}

func newPage(o Style) *page {
	if o.Width == 0 {
		o.Width = 80
	}
	o.Width = min(max(o.Width, 40), 100)
	p := &page{Style: o, glyphs: ascii}
	if o.UTF8 {
		p.glyphs = unicodes
	}
	return p
}

// line writes one line, and no blanks at its end.
func (p *page) line(spans ...span) {
	for n := len(spans); n > 0; n-- {
		last := &spans[n-1]
		last.text = strings.TrimRight(last.text, " ")
		if last.text != "" {
			break
		}
	}
	for len(spans) > 0 {
		ink, text := spans[0].color, ""
		for len(spans) > 0 && spans[0].color == ink {
			text += spans[0].text
			spans = spans[1:]
		}
		if p.Color && ink != normal && text != "" {
			text = fmt.Sprintf("\x1b[%dm%s\x1b[0m", ink, text)
		}
		p.out.WriteString(text)
	}
	p.out.WriteByte('\n')
}

// paragraph writes a text over as many lines as it needs.
func (p *page) paragraph(c color, s string) {
	for _, l := range wrap(s, p.Width) {
		p.line(span{c, l})
	}
}

// text makes any text fit to be shown: printable, not without end, and ASCII
// where that is asked for.
func (p *page) text(s string) string {
	s = s[:min(len(s), 4000)] // whatever its length, the work is small
	s = shorten(Printable(s), 600, p.ellipsis)
	if !p.UTF8 {
		s = plain(s)
	}
	return s
}

// name is a server's name without the port that all of them have.
func (p *page) name(s *Server, width int) string {
	name := shorten(p.text(strings.TrimSuffix(s.Name, ":4460")), width, p.ellipsis)
	return name + strings.Repeat(" ", width-runes(name))
}

// nameWidth is the width that the longest name needs, but at most limit.
func (p *page) nameWidth(servers []Server, limit int) int {
	width := len("server")
	for i := range servers {
		width = max(width, runes(p.text(strings.TrimSuffix(servers[i].Name, ":4460"))))
	}
	return min(width, limit)
}

// fit takes the columns that there is room for, and tells the width of names.
// On a narrow terminal what is least needed goes first, from the right.
func (p *page) fit(servers []Server, columns []column) (fitting []column, width int) {
	rest := p.Width - len("x ")
	for _, c := range columns {
		rest -= c.width() + 2
	}
	for rest < 16 && len(columns) > 2 {
		rest += columns[len(columns)-1].width() + 2
		columns = columns[:len(columns)-1]
	}
	return columns, p.nameWidth(servers, min(rest, p.Width/2))
}

func (p *page) head(columns []column, width int) {
	head := "  " + p.name(&Server{Name: "server"}, width)
	for _, c := range columns {
		head += "  " + c.head
	}
	p.line(span{dim, head})
}

// table writes a line for each server, and below it why it is out.
func (p *page) table(servers []Server) {
	columns, width := p.fit(servers, p.columns(servers))
	if len(columns) > 0 {
		p.head(columns, width)
	}
	anyAgrees := slices.ContainsFunc(servers, func(s Server) bool { return s.Verdict == ServerAgreed })
	for i := range servers {
		s := &servers[i]
		row := []span{{colors[s.Verdict], p.mark(s)}, {normal, " " + p.name(s, width)}}
		if s.Measured == nil {
			p.failure(row, s, width+4)
			continue
		}
		for _, c := range columns {
			row = append(row, span{normal, "  " + c.cells[i]})
		}
		p.line(row...)
		// Where nobody agrees, the closing sentence says why once for all.
		if s.Verdict != Falseticker || anyAgrees {
			p.indented(dim, "    ", p.text(s.Reason))
		}
	}
}

func (p *page) mark(s *Server) string {
	if m := p.marks[s.Verdict]; m != "" {
		return m
	}
	return "?"
}

// failure writes what went wrong with a server, and the mend.
func (p *page) failure(row []span, s *Server, indent int) {
	message, hint := "no authenticated answer", ""
	if s.Error != nil {
		message, hint = s.Error.Message, s.Error.Hint
		if message == "" {
			message = s.Error.Code
		}
	}
	if message == "" {
		message = s.Reason
	}
	for i, l := range wrap(p.text(message), p.Width-indent) {
		if i > 0 {
			row = []span{{normal, strings.Repeat(" ", indent-2)}}
		}
		p.line(append(row, span{normal, "  " + l})...)
	}
	p.indented(dim, strings.Repeat(" ", indent)+p.arrow+" ", p.text(hint))
}

// indented writes a text below a line, its first line after the given prefix and
// the others below its own beginning.
func (p *page) indented(c color, prefix, s string) {
	for _, l := range wrap(s, p.Width-runes(prefix)) {
		p.line(span{c, prefix + l})
		prefix = strings.Repeat(" ", runes(prefix))
	}
}

// column is one of the table: its cells, empty where a server has none, are of
// one width, which is that of the head.
type column struct {
	head  string
	cells []string
}

func (c column) width() int { return runes(c.head) }

// columns are those of the servers that were measured; none, if none was.
func (p *page) columns(servers []Server) []column {
	if !slices.ContainsFunc(servers, func(s Server) bool { return s.Measured != nil }) {
		return nil
	}
	seconds := func(head, prefix string, signed bool, of func(*Measured) Seconds) column {
		return p.quantity(servers, head, prefix, signed, func(s *Server) (Seconds, bool) {
			if s.Measured == nil {
				return 0, false
			}
			return of(s.Measured), true
		})
	}
	word := func(head string, left bool, of func(*Measured) string) column {
		cells := make([]string, len(servers))
		for i, s := range servers {
			if s.Measured != nil {
				cells[i] = of(s.Measured)
			}
		}
		return newColumn(head, cells, left)
	}
	return []column{
		seconds("offset", "", true, func(m *Measured) Seconds { return m.Offset }),
		seconds("uncertainty", p.plusMinus+" ", false, func(m *Measured) Seconds { return m.Uncertainty }),
		seconds("delay", "", false, func(m *Measured) Seconds { return m.Delay }),
		word("stratum", false, func(m *Measured) string { return strconv.Itoa(int(m.Stratum)) }),
		word("AEAD", true, func(m *Measured) string { return shorten(p.text(shortAEAD(m.AEAD)), 8, p.ellipsis) }),
	}
}

// quantity is a column of durations, with their units below each other.
func (p *page) quantity(servers []Server, head, prefix string, signed bool, of func(*Server) (Seconds, bool)) column {
	numbers, units := make([]string, len(servers)), make([]string, len(servers))
	for i := range servers {
		d, ok := of(&servers[i])
		if !ok {
			continue
		}
		numbers[i], units[i] = human(time.Duration(d))
		if signed {
			numbers[i] = sign(time.Duration(d)) + numbers[i]
		}
		numbers[i], units[i] = prefix+numbers[i], p.text(units[i])
	}
	align(numbers, false)
	align(units, true)
	cells := make([]string, len(servers))
	for i := range cells {
		cells[i] = numbers[i] + " " + units[i]
	}
	return newColumn(head, cells, false)
}

// newColumn brings the head and the cells to one width.
func newColumn(head string, cells []string, left bool) column {
	all := append([]string{head}, cells...)
	align(all, left)
	return column{all[0], all[1:]}
}

// align pads texts to the width of the longest.
func align(texts []string, left bool) {
	width := 0
	for _, t := range texts {
		width = max(width, runes(t))
	}
	for i, t := range texts {
		pad := strings.Repeat(" ", width-runes(t))
		if left {
			texts[i] = t + pad
		} else {
			texts[i] = pad + t
		}
	}
}

// shortAEAD is what tells the algorithms of RFC 8915 §5.1 apart.
func shortAEAD(name string) string {
	switch {
	case strings.Contains(name, "SIV-CMAC"):
		return "SIV-CMAC"
	case strings.Contains(name, "GCM-SIV"):
		return "GCM-SIV"
	}
	return name
}
