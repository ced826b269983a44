package report

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
)

// StandAt makes a report that was read into that of `status`, at a moment of the
// local clock. Whether a loop is running, and what the kernel says of its clock,
// only the caller knows. What the loop counted from its last round is counted
// from now; without a loop what it knew is over.
func (r *Report) StandAt(now time.Time, loop, synchronized bool) {
	r.Standing = &Standing{Loop: loop, Synchronized: synchronized, Of: r.Command}
	r.Command = "status"
	made := r.Clock
	if r.Agreement != nil && r.Action == Step && !r.DryRun {
		made = r.Time // the clock was set to that
	}
	age := Seconds(now.Round(0).Sub(made))
	if age > -Seconds(time.Second) { // stamps of the loop may be slewed
		age = max(age, 0)
		r.Standing.Age = &age
	} else {
		age = 0
	}
	if !loop {
		r.Keeping = nil
	}
	if r.Keeping != nil {
		r.Loop, r.Synchronized = loop, synchronized
		r.NextPoll = max(r.NextPoll-age, 0)
	}
	for i := range r.Servers {
		switch w := r.Servers[i].Watched; {
		case !loop:
			r.Servers[i].Watched = nil
		case w != nil:
			w.KeyAge = older(w.KeyAge, age)
			w.LastAnswer = older(w.LastAnswer, age)
		}
	}
}

// older is an age, 0 for unknown, a while later.
func older(age, by Seconds) Seconds {
	if age <= 0 || age+by < age {
		return age
	}
	return age + by
}

// WriteStatus writes the report of `status` for people, as WriteText does: what
// was measured, what authenticates it, the drawing, the last offsets, and what
// it comes to.
func (r *Report) WriteStatus(w io.Writer, o Style) error {
	p := newPage(o)
	if len(r.Servers) > 0 {
		p.table(r.Servers)
		p.line()
	}
	if p.watched(r.Servers) {
		p.line()
	}
	if o.Draw && p.drawing(r) {
		p.line()
	}
	if o.Draw && r.Keeping != nil && p.offsets(r.Offsets) {
		p.line()
	}
	for _, s := range r.standing() {
		p.paragraph(bold, p.text(s))
	}
	_, err := io.WriteString(w, p.out.String())
	return err
}

// watched writes what a loop knows of its servers, and says whether there was
// anything.
func (p *page) watched(servers []Server) bool {
	if !slices.ContainsFunc(servers, func(s Server) bool { return s.Watched != nil }) {
		return false
	}
	columns, width := p.fit(servers, p.watchedColumns(servers))
	p.head(columns, width)
	for i := range servers {
		s := &servers[i]
		row := []span{{colors[s.Verdict], p.mark(s)}, {normal, " " + p.name(s, width)}}
		for _, c := range columns {
			row = append(row, span{normal, "  " + c.cells[i]})
		}
		p.line(row...)
	}
	return true
}

func (p *page) watchedColumns(servers []Server) []column {
	seconds := func(head string, of func(*Watched) Seconds) column {
		return p.quantity(servers, head, "", false, func(s *Server) (Seconds, bool) {
			if s.Watched == nil || of(s.Watched) == 0 {
				return 0, false
			}
			return of(s.Watched), true
		})
	}
	word := func(head string, of func(*Server) string) column {
		cells := make([]string, len(servers))
		for i := range servers {
			if servers[i].Watched != nil {
				cells[i] = shorten(p.text(of(&servers[i])), 8, p.ellipsis)
			}
		}
		return newColumn(head, cells, false)
	}
	return []column{
		word("reach", func(s *Server) string { return s.Reach }),
		seconds("answer", func(w *Watched) Seconds { return w.LastAnswer }),
		word("key bits", func(s *Server) string {
			if s.KeyBits == 0 {
				return ""
			}
			return strconv.Itoa(s.KeyBits)
		}),
		seconds("key age", func(w *Watched) Seconds { return w.KeyAge }),
		word("cookies", func(s *Server) string {
			if s.Measured == nil {
				return ""
			}
			return strconv.Itoa(s.Cookies)
		}),
		word("NAKs", func(s *Server) string { return strconv.Itoa(s.NAKs) }),
		seconds("poll", func(w *Watched) Seconds { return w.Poll }),
	}
}

// offsets draws the last offsets as blocks, from the least to the greatest, and
// says whether there were any.
func (p *page) offsets(all []Seconds) bool {
	all = all[max(0, len(all)-min(p.Width, MaxOffsets)):]
	if len(all) == 0 {
		return false
	}
	low, high := slices.Min(all), slices.Max(all)
	line, top := "", len(p.blocks)-1
	for _, o := range all {
		level := top / 2
		if low < high {
			level = int((float64(o) - float64(low)) / (float64(high) - float64(low)) * float64(top))
		}
		line += p.blocks[min(max(level, 0), top)]
	}
	p.paragraph(dim, p.text(fmt.Sprintf("the last %d offsets, %s to %s, the newest at the right",
		len(all), Offset(time.Duration(low)), Offset(time.Duration(high)))))
	p.line(span{normal, line})
	return true
}

// standing is what the report of `status` comes to, in sentences.
func (r *Report) standing() []string {
	s := r.Standing
	state := "not synchronized: nothing has set the kernel's clock since boot, or not for too long"
	if s.Synchronized {
		state = "synchronized"
	}
	if s.Of == "" {
		return []string{state + "; " + r.Reason}
	}
	ago := "at a time that this clock has not reached"
	if s.Age != nil {
		ago = Duration(time.Duration(*s.Age)) + " ago"
	}
	if !s.Loop {
		return append([]string{fmt.Sprintf("%s; no loop is running; the last `%s`, %s, said:", state, s.Of, ago)}, r.closing()...)
	}
	what := "a loop keeps the clock"
	if r.DryRun {
		what = "a loop runs, and leaves the clock alone (dry run)"
	}
	lines := []string{fmt.Sprintf("%s; %s: last round %s", state, what, ago)}
	k := r.Keeping
	if k != nil {
		lines[0] += fmt.Sprintf(", next in %s, every %s", interval(k.NextPoll), interval(k.Poll))
	}
	lines = append(lines, r.found())
	if k != nil {
		lines = append(lines, fmt.Sprintf("frequency %+.3f ± %.3f ppm; %s since the loop began",
			k.Frequency, k.FrequencyUncertainty, steps(k.Steps)))
	}
	return lines
}

// found is what a loop's last round came to.
func (r *Report) found() string {
	if r.Agreement == nil {
		s := "no agreed time: " + r.Reason
		if r.Keeping != nil && !r.LastAgreement.IsZero() {
			s += "; the last one was at " + r.LastAgreement.UTC().Format("2006-01-02 15:04:05 UTC")
		}
		return s
	}
	s := r.slowOrFast() + "; " + r.whoAgrees()
	if r.Result == Held {
		s += "; holding, and the clock is left alone: " + strings.TrimPrefix(r.Reason, "held: ")
	}
	return s
}

// interval is a duration as poll intervals are told: in seconds.
func interval(s Seconds) string {
	if d := time.Duration(s); d < 0 || d > time.Hour {
		return Duration(d)
	}
	return fmt.Sprintf("%.0f s", time.Duration(s).Seconds())
}

func steps(n int) string {
	switch n {
	case 0:
		return "no step"
	case 1:
		return "1 step"
	}
	return fmt.Sprintf("%d steps", n)
}
