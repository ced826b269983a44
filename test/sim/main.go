// Command sim holds the loop that keeps a clock, as it ships, against a model
// of clocks and networks, and prints what comes out beside the targets and
// beside chrony's figures in the same model. It exits with status 1 if a row
// misses its target.
//
// The model: the raw clock's frequency walks at random, a step each second
// (class A 1e-9, class B 1e-8 s/s per √s); the clock is the raw clock and a
// correction, whose rate is quantized as the kernel's. All servers of a round
// are asked at once; they are perfect, the networks are not (network.go).
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"time"
)

func main() {
	from := flag.Uint64("from", 1, "first `seed`")
	to := flag.Uint64("to", 200, "last `seed`")
	run := flag.String("run", "", "only rows whose group and name match this `expression`")
	drawing := flag.String("svg", "", "also draw two of them into this `file`")
	flag.Parse()
	rows, err := regexp.Compile(*run)
	if err != nil || *to < *from || flag.NArg() > 0 {
		fmt.Fprintln(os.Stderr, "sim: bad flags:", err)
		os.Exit(2)
	}
	begun := time.Now()
	missed, tried := table(os.Stdout, rows, *from, *to)
	if *drawing != "" {
		if err := os.WriteFile(*drawing, draw(*from), 0o644); err != nil {
			fmt.Fprintln(os.Stderr, "sim:", err)
			os.Exit(1)
		}
	}
	fmt.Printf("\n%d rows, seeds %d to %d, in %.0f s: ", tried, *from, *to, time.Since(begun).Seconds())
	if missed > 0 || tried == 0 {
		fmt.Printf("%d missed\n", missed)
		os.Exit(1)
	}
	fmt.Println("all within their targets")
}

// heads are the groups' headings: what their columns are.
var heads = map[string]string{
	"keep":     "poll 64 s, second half of 20,000 s",
	"adapt":    "poll 64 to 1024 s, second half of 40,000 s",
	"stress":   "poll 64 s, second half of 20,000 s",
	"converge": "from 1 s off, 100 ppm: seconds until right within 1 ms for good, median",
	"one-shot": "hourly runs over 20 ms ± 2 ms each way: largest offset from the fifth on",
}

// table prints the rows, and returns how many missed their targets, of how many.
func table(out io.Writer, rows *regexp.Regexp, from, to uint64) (missed, tried int) {
	group := ""
	for i := range scenarios {
		s := &scenarios[i]
		if !rows.MatchString(s.group + " " + s.name) {
			continue
		}
		if s.group != group {
			group = s.group
			fmt.Fprintf(out, "\n%s: %s\n%-26s %s\n", group, heads[group], "",
				columns([]string{"", "ours", "target", "chrony", "ours/target", "ours/chrony"}))
		}
		f := many(s, from, to)
		tried++
		misses := f.misses(s.target, 1)
		if len(misses) > 0 {
			missed++
		}
		label := s.name
		for _, l := range lines(f, s.target, s.chrony) {
			fmt.Fprintf(out, "%-26s %s\n", label, columns(l))
			label = ""
		}
		if len(misses) > 0 {
			fmt.Fprintf(out, "%-26s MISSED: %s\n", "", strings.Join(misses, "; "))
		}
	}
	return missed, tried
}

// lines are the cells of what is asked of a row.
func lines(f, target, chrony figures) (all [][]string) {
	line := func(what string, value, target, chrony, unit float64) {
		if target == 0 {
			return
		}
		l := []string{what, number(value / unit), number(target / unit), "", fmt.Sprintf("%.2f", value/target), ""}
		if chrony > 0 {
			l[3], l[5] = number(chrony/unit), fmt.Sprintf("%.2f", value/chrony)
		}
		all = append(all, l)
	}
	line("time, µs", f.time, target.time, chrony.time, us)
	line("frequency, ppb", f.frequency, target.frequency, chrony.frequency, ppb)
	line("packets", f.packets, target.packets, chrony.packets, 1)
	line("settled, s", f.settled, target.settled, chrony.settled, 1)
	line("largest, µs", f.worst, target.worst, chrony.worst, us)
	return all
}

func columns(cells []string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%-15s", cells[0])
	for _, c := range cells[1:] {
		fmt.Fprintf(&b, "%12s", c)
	}
	return strings.TrimRight(b.String(), " ")
}
