package report

import (
	"fmt"
	"math"
	"time"
)

// units are those in which people are told durations, largest first.
var units = []struct {
	name string
	size time.Duration
}{
	{"years", 8766 * time.Hour}, // of 365.25 days
	{"days", 24 * time.Hour},
	{"h", time.Hour},
	{"min", time.Minute},
	{"s", time.Second},
	{"ms", time.Millisecond},
	{"µs", time.Microsecond},
}

// Duration is |d| for people, with three digits: "12.3 ms", "56.9 years". The
// sign is left to the words around it, as in "slow by 12.3 ms".
func Duration(d time.Duration) string {
	number, unit := human(d)
	return number + " " + unit
}

// Offset is d for people, with its sign and three digits: "+12.3 ms".
func Offset(d time.Duration) string { return sign(d) + Duration(d) }

func sign(d time.Duration) string {
	switch {
	case d > 0:
		return "+"
	case d < 0:
		return "-"
	}
	return ""
}

// human is |d| with three digits, and its unit.
func human(d time.Duration) (number, unit string) {
	if d == 0 {
		return "0", "s"
	}
	abs := math.Abs(float64(d)) // of the least Duration, too, which -d cannot be
	for _, u := range units {
		// What would be rounded to 1000 of the next smaller unit is 1.00 of this.
		switch v := abs / float64(u.size); {
		case v >= 99.95:
			return fmt.Sprintf("%.0f", v), u.name
		case v >= 9.995:
			return fmt.Sprintf("%.1f", v), u.name
		case v >= 0.9995:
			return fmt.Sprintf("%.2f", v), u.name
		}
	}
	return fmt.Sprintf("%.0f", abs), "ns"
}
