package report

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// drawing shows each interval as a bar on one axis, with the agreed interval
// shaded, and says whether there was anything to draw.
func (p *page) drawing(r *Report) bool {
	a, ok := newAxis(r)
	if !ok {
		return false
	}
	width := p.nameWidth(r.Servers, p.Width/3)
	a.columns = p.Width - len("x ") - width - 2
	margin := strings.Repeat(" ", p.Width-a.columns)
	p.paragraph(dim, p.text(a.caption(p)))
	for i := range r.Servers {
		s := &r.Servers[i]
		if s.Measured == nil {
			continue
		}
		row := []span{{colors[s.Verdict], p.mark(s)}, {normal, " " + p.name(s, width) + "  "}}
		p.line(append(row, p.bar(a, s)...)...)
	}
	p.line(span{dim, margin + p.scale(a)})
	p.line(span{dim, margin + p.labels(a)})
	return true
}

// axis is the stretch of offsets that is drawn, in nanoseconds from base.
type axis struct {
	from, to float64
	columns  int
	base     time.Duration // 0, or where 0 is so far off that it would tell nothing, the middle
	agreed   *extent       // nil without agreement
}

// extent is an interval on the axis.
type extent struct{ lo, hi float64 }

// newAxis chooses the stretch around the agreed interval, or without one around
// most servers, so that those that are far off do not squeeze the others into one
// column. It is false if no server was measured.
func newAxis(r *Report) (*axis, bool) {
	var all, agreed []*Measured
	for i := range r.Servers {
		if s := &r.Servers[i]; s.Measured != nil {
			all = append(all, s.Measured)
			if s.Verdict == ServerAgreed {
				agreed = append(agreed, s.Measured)
			}
		}
	}
	if len(all) == 0 {
		return nil, false
	}
	a := &axis{base: middle(all, lower, func(m *Measured) time.Duration { return time.Duration(m.Offset) })}
	if r.Agreement != nil {
		a.base = time.Duration(r.Offset)
		a.agreed = &extent{a.at(r.Interval[0]), a.at(r.Interval[1])}
	}
	core, limit := a.core(all, agreed)
	for _, m := range all {
		if e := a.extent(m); e.lo >= limit.lo && e.hi <= limit.hi {
			core = extent{min(core.lo, e.lo), max(core.hi, e.hi)}
		}
	}
	// Labels have three digits: they tell the ends apart if the clock is not too
	// far off.
	if by := float64(a.base); math.Abs(by) < 20*(core.hi-core.lo) {
		a.base = 0
		core = extent{core.lo + by, core.hi + by}
		if a.agreed != nil {
			a.agreed = &extent{a.agreed.lo + by, a.agreed.hi + by}
		}
	}
	a.from, a.to = round(core)
	return a, true
}

// round widens the axis to ends that are round numbers, by a fifth at most, where
// it is not narrower than what float64 tells apart so far out.
func round(e extent) (from, to float64) {
	width := max(e.hi-e.lo, 100, math.Abs(e.lo)/1e12)
	step := math.Pow(10, math.Floor(math.Log10(width))-1)
	return math.Floor(e.lo/step) * step, math.Ceil((e.lo+width)/step) * step
}

// core is what must be on the axis, and the limit within which others may widen
// it.
func (a *axis) core(all, agreed []*Measured) (core, limit extent) {
	uncertainty := func(m *Measured) time.Duration { return time.Duration(m.Uncertainty) }
	if a.agreed == nil {
		far := middle(all, upper, func(m *Measured) time.Duration { return nearest(math.Abs(a.at(m.Offset))) })
		reach := 3 * (float64(far) + float64(middle(all, upper, uncertainty)))
		return extent{}, extent{-reach, reach}
	}
	core = *a.agreed
	for _, m := range agreed {
		if e := a.extent(m); float64(m.Uncertainty) <= 4*float64(middle(agreed, lower, uncertainty)) {
			core = extent{min(core.lo, e.lo), max(core.hi, e.hi)}
		}
	}
	width := core.hi - core.lo
	return core, extent{core.lo - 1.5*width, core.hi + 1.5*width}
}

// Of an even number of values, two are in the middle.
const (
	lower = -1
	upper = 0
)

// middle is the median of a value over all.
func middle(all []*Measured, which int, of func(*Measured) time.Duration) time.Duration {
	values := make([]time.Duration, len(all))
	for i, m := range all {
		values[i] = of(m)
	}
	slices.Sort(values)
	return values[(len(values)+which)/2]
}

// at is where an offset is on the axis. Whole nanoseconds are subtracted as such
// where they can be: float64 would lose them on a clock that is years off.
func (a *axis) at(offset Seconds) float64 {
	o := time.Duration(offset)
	if d := o - a.base; (d > 0) == (o > a.base) {
		return float64(d)
	}
	return float64(o) - float64(a.base)
}

func (a *axis) extent(m *Measured) extent {
	return extent{a.at(m.Offset) - float64(m.Uncertainty), a.at(m.Offset) + float64(m.Uncertainty)}
}

// column is the one that holds x, or the nearest.
func (a *axis) column(x float64) int {
	return int(min(max((x-a.from)/(a.to-a.from), 0)*float64(a.columns), float64(a.columns-1)))
}

// shaded says whether a column is inside the agreed interval.
func (a *axis) shaded(column int) bool {
	return a.agreed != nil && a.column(a.agreed.lo) <= column && column <= a.column(a.agreed.hi)
}

func (a *axis) caption(p *page) string {
	s := "offset " + p.plusMinus + " uncertainty"
	if a.base != 0 {
		s += ", counted from " + Offset(a.base)
	}
	if a.agreed != nil {
		s += fmt.Sprintf("; %s agreed %s to %s", p.shade, Offset(nearest(a.agreed.lo)), Offset(nearest(a.agreed.hi)))
	}
	return s
}

// bar is the interval of one server: thick where it is inside the agreed one,
// with an arrow where it goes on beyond the edge.
func (p *page) bar(a *axis, s *Server) []span {
	cells := make([]span, a.columns)
	for i := range cells {
		cells[i] = span{normal, " "}
		if a.shaded(i) {
			cells[i] = span{dim, p.shade}
		}
	}
	ink := colors[s.Verdict]
	offset, e := a.at(s.Offset), a.extent(s.Measured)
	if e.lo > a.to {
		far := p.text(strings.Repeat(p.thin, 2) + p.right + " " + Offset(nearest(offset)))
		overlay(cells, len(cells)-runes(far), ink, far)
		return cells
	}
	if e.hi < a.from {
		overlay(cells, 0, ink, p.text(Offset(nearest(offset))+" "+p.left+strings.Repeat(p.thin, 2)))
		return cells
	}
	for i := a.column(e.lo); i <= a.column(e.hi); i++ {
		cells[i] = span{ink, p.thin}
		if a.shaded(i) && s.Verdict == ServerAgreed {
			cells[i].text = p.thick
		}
	}
	if a.from <= offset && offset <= a.to {
		overlay(cells, a.column(offset), ink, p.dots[s.Verdict])
	}
	if e.lo < a.from {
		overlay(cells, 0, ink, p.left)
	}
	if e.hi > a.to {
		overlay(cells, len(cells)-1, ink, p.right)
	}
	return cells
}

// scale is the axis itself.
func (p *page) scale(a *axis) string {
	cells := make([]string, a.columns)
	for i := range cells {
		cells[i] = p.axis
		if a.shaded(i) {
			cells[i] = p.thick
		}
	}
	cells[0], cells[len(cells)-1] = p.begin, p.end
	if a.from < 0 && 0 < a.to {
		cells[a.column(0)] = p.zero
	}
	return strings.Join(cells, "")
}

// labels tell the ends of the axis and, where there is room, its zero.
func (p *page) labels(a *axis) string {
	from, to := p.text(Offset(nearest(a.from))), p.text(Offset(nearest(a.to)))
	zero := "0"
	if a.base == 0 {
		zero = "this clock"
	}
	room := a.columns - runes(from) - runes(to)
	begin := a.column(0) - runes(zero)/2 - runes(from)
	if a.from < 0 && 0 < a.to && begin > 1 && begin+runes(zero) < room-1 {
		from += strings.Repeat(" ", begin) + zero
		room -= begin + runes(zero)
	}
	return from + strings.Repeat(" ", room) + to
}

// overlay writes a text over the cells.
func overlay(cells []span, at int, c color, text string) {
	for _, r := range text {
		cells[at] = span{c, string(r)}
		at++
	}
}

// nearest is the nearest Duration that there is.
func nearest(ns float64) time.Duration {
	if ns >= math.MaxInt64 {
		return math.MaxInt64
	}
	return time.Duration(max(ns, math.MinInt64))
}
