// Command fleet counts the key exchanges that a server is asked for on two bad
// days, with what this program does about it and without, and prints them as
// one table beside what is modelled. It exits with status 1 if saved cookies,
// random delays and back-off do not bring the peak to a hundredth.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"time"
)

func main() {
	machines := flag.Int("machines", 1_000_000, "how `many` there are")
	flag.Parse()
	if *machines < 1000 || flag.NArg() > 0 {
		fmt.Fprintln(os.Stderr, "fleet: want no arguments, and at least 1000 machines")
		os.Exit(2)
	}
	begun := time.Now()
	rows := simulate(*machines)
	table(os.Stdout, *machines, rows)
	missed := misses(rows)
	for _, m := range missed {
		fmt.Println("missed:", m)
	}
	if len(missed) > 0 {
		os.Exit(1)
	}
	fmt.Printf("all within their targets, in %.0f s\n", time.Since(begun).Seconds())
}

// row is one line of the table.
type row struct {
	day         day
	has         measures
	peak, total int // key exchanges: in the worst second, and until all have keys
}

// variants are what is compared: the first as it ships, the last nothing of it.
var variants = []struct {
	name string
	has  measures
}{
	{"as shipped", measures{cookies: true, random: true, backoff: true}},
	{"without saved cookies", measures{random: true, backoff: true}},
	{"without random delays", measures{cookies: true, backoff: true}},
	{"without back-off", measures{cookies: true, random: true}},
	{"with back-off alone", measures{backoff: true}},
	{"without any of these", measures{}},
}

func simulate(machines int) (rows []row) {
	for _, d := range []day{powerCut, keysLost} {
		for _, v := range variants {
			peak, total := newFleet(machines, d, v.has).live()
			rows = append(rows, row{d, v.has, peak, total})
		}
	}
	return rows
}

// find is the row of a day with these measures.
func find(rows []row, d day, has measures) row {
	for _, r := range rows {
		if r.day == d && r.has == has {
			return r
		}
	}
	panic("no such row")
}

// misses says where the peak as shipped is more than a hundredth of what it is
// without. After a power cut saved cookies and random delays have to do that
// alone. Cookies are worth nothing to a server that lost its keys.
func misses(rows []row) (all []string) {
	shipped := variants[0].has
	for _, c := range []struct {
		day day
		has measures
	}{
		{powerCut, measures{backoff: true}},
		{powerCut, measures{}},
		{keysLost, measures{}},
	} {
		with, without := find(rows, c.day, shipped).peak, find(rows, c.day, c.has).peak
		if with*100 > without {
			all = append(all, fmt.Sprintf("%s: a peak of %d a second is more than a hundredth of %d", c.day, with, without))
		}
	}
	return all
}

func table(out io.Writer, machines int, rows []row) {
	fmt.Fprintf(out, "Key exchanges at a server of %d machines\n", machines)
	for i, r := range rows {
		v := variants[i%len(variants)]
		if i%len(variants) == 0 {
			fmt.Fprintf(out, "\n%-42s %12s %12s %10s\n", r.day, "peak, 1/s", "total", "of worst")
		}
		worst := find(rows, r.day, measures{}).peak
		share := "1"
		if r.peak < worst {
			share = fmt.Sprintf("1/%d", worst/max(r.peak, 1))
		}
		fmt.Fprintf(out, "  %-40s %12d %12d %10s\n", v.name, r.peak, r.total, share)
	}
	fmt.Fprintf(out, `
What is modelled: %d %% of the machines run the loop, %d %% the timer, and the rest
cron, all as they ship. All get their power back in the same second and have
booted %.0f to %.0f s later. Their networks are there by then, and lose 1 packet of
%.0f; 1 machine of %.0f has no state. Until a machine has its answer, it has no
other servers to go by. A server forgets its keys %.0f hours after such a power cut;
the others are well then, and loops have come to poll every %.0f s (those that poll
more often find out, and ask, so much sooner). The server makes %d key exchanges
a second and refuses the rest; a total counts those as well. Without back-off,
who was refused tries again after %.0f s.

`, share[loop], share[timer], bootLeast.Seconds(), bootMost.Seconds(), 1/loss, 1/stateless,
		calm.Hours(), maxPoll.Seconds(), capacity(machines), hasty.Seconds())
}
