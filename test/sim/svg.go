package main

import (
	"bytes"
	"fmt"
	"math"
)

// Sizes of the drawing, px.
const (
	width, height = 760, 200 // of a panel
	left, top     = 64, 34
	right, gap    = 16, 46
)

// draw shows the clock's error over time in two networks, within the band that
// is the target (its RMS, both ways) and the one that is chrony's.
func draw(seed uint64) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">`+"\n",
		left+width+right, 2*(top+height+gap))
	fmt.Fprintf(&b, `<rect width="100%%" height="100%%" fill="white"/>`+"\n")
	at := 0
	for _, p := range []struct{ name, title string }{
		{"LAN4-A", "Local network, four servers"},
		{"WAN4-A", "Internet, four servers, 20 ms round trip"},
	} {
		for i := range scenarios {
			if s := &scenarios[i]; s.group == "keep" && s.name == p.name {
				panel(&b, s, p.title, seed, at)
			}
		}
		at += top + height + gap
	}
	b.WriteString("</svg>\n")
	return b.Bytes()
}

// panel draws one of them, at y.
func panel(b *bytes.Buffer, s *scenario, title string, seed uint64, y int) {
	const step = 20.0 // s
	var points bytes.Buffer
	limit := 4 * s.target.time
	place := func(e float64) float64 {
		return height / 2 * (1 - min(max(e/limit, -1), 1))
	}
	var squares, n float64
	simulate(&s.world, seed, func(t, e float64) {
		if t > s.length/2 {
			squares += e * e
			n++
		}
		if math.Mod(t, step) == 0 {
			fmt.Fprintf(&points, "%.1f,%.1f ", t/s.length*width, place(e))
		}
	})
	fmt.Fprintf(b, `<g transform="translate(%d,%d)">`+"\n", left, y+top)
	fmt.Fprintf(b, `<text y="-10" font-weight="bold">%s</text>`+"\n", title)
	fmt.Fprintf(b, `<text x="%d" y="-10" text-anchor="end">offset of this run: %.1f µs RMS; green: target, ± %.1f; grey: chrony, ± %.1f</text>`+"\n",
		width, math.Sqrt(squares/n)/us, s.target.time/us, s.chrony.time/us)
	band(b, place, s.chrony.time, "#eeeeee")
	band(b, place, s.target.time, "#cfe8cf")
	fmt.Fprintf(b, `<rect width="%d" height="%d" fill="none" stroke="#999"/>`+"\n", width, height)
	for _, e := range []float64{-s.chrony.time, 0, s.chrony.time} {
		fmt.Fprintf(b, `<text x="-6" y="%.1f" text-anchor="end" dominant-baseline="middle">%.0f µs</text>`+"\n", place(e), e/us)
	}
	for h := 0; float64(h)*3600 <= s.length; h++ {
		fmt.Fprintf(b, `<text x="%.1f" y="%d" text-anchor="middle">%d h</text>`+"\n", float64(h)*3600/s.length*width, height+16, h)
	}
	fmt.Fprintf(b, `<polyline fill="none" stroke="#1f5fa8" points="%s"/>`+"\n</g>\n", bytes.TrimSpace(points.Bytes()))
}

func band(b *bytes.Buffer, place func(float64) float64, e float64, colour string) {
	fmt.Fprintf(b, `<rect y="%.1f" width="%d" height="%.1f" fill="%s"/>`+"\n", place(e), width, place(-e)-place(e), colour)
}
