package timesync

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"ntsclient/timesync/report"
)

// Vote is one authenticated, usable answer: the truth is within ± Uncertainty
// of Offset, if the server is honest.
type Vote struct {
	Operator            string
	Offset, Uncertainty time.Duration
}

// Outcome is what became of one vote.
type Outcome struct {
	Verdict report.Verdict
	Code    string // "", "outside_agreement" or "operator_divided"
	Reason  string // the same in words, with numbers
}

// Consensus is what most operators agree on.
type Consensus struct {
	Lo, Hi time.Duration // the agreed interval, both ends included

	// Offset is the mean of those inside, weighted by 1/uncertainty², and never
	// outside the agreed interval; Uncertainty reaches from it to the farther
	// end, so that the truth is within ± Uncertainty of Offset as long as most
	// of the operators that answered are honest.
	Offset, Uncertainty time.Duration

	Spread    time.Duration // weighted standard deviation of the offsets of those inside
	Operators int           // operators that overlap the agreed interval
	Counting  int           // operators that count: those not divided in themselves
	Inside    int           // servers whose interval overlaps the agreed one
}

// ErrNoAgreement is what every error of Select wraps.
var ErrNoAgreement = errors.New("no agreed time")

// disagreement is an ErrNoAgreement that says why.
type disagreement string

func (d disagreement) Error() string { return string(d) }
func (d disagreement) Unwrap() error { return ErrNoAgreement }

// Select finds the interval that most operators agree on, and says of each vote
// what became of it, in the order of votes and also where there is an error.
//
// It votes on two levels, so that nobody outvotes others by running many
// servers. An operator covers the points that a strict majority of its servers
// cover; one that covers none is divided and does not count. The agreed interval
// is what a strict majority of the counting operators covers. It must be one
// piece, and at least minOperators must overlap it, which never narrow it. This
// is Marzullo's algorithm in the manner of RFC 5905 §11.2.1, but with a majority
// in place of the deepest intersection: a liar that overlaps the honest at one
// edge would pull the deepest one off the truth, while what a majority covers
// always holds the truth if most operators are honest.
//
// Without agreement the Consensus holds no more than the two counts of
// operators, and the error wraps ErrNoAgreement.
func Select(votes []Vote, minOperators int) (Consensus, []Outcome, error) {
	operators := byOperator(votes)
	outcomes := make([]Outcome, len(votes))
	var covered []interval
	counting := 0
	for _, o := range operators {
		if len(o.covers) > 0 {
			counting++
			covered = append(covered, o.covers...)
			continue
		}
		for _, i := range o.votes {
			outcomes[i] = Outcome{report.Unusable, "operator_divided", fmt.Sprintf(
				"the %d servers of %s disagree among themselves: no time is told by more than half of them",
				len(o.votes), o.name)}
		}
	}

	agreed, deepest := majority(covered, counting)
	if len(agreed) != 1 {
		err := noPlace(agreed, deepest, counting, len(operators))
		refuseAll(outcomes)
		return Consensus{Counting: counting}, outcomes, err
	}

	c := Consensus{Lo: agreed[0].lo, Hi: agreed[0].hi, Counting: counting}
	for _, o := range operators {
		if slices.ContainsFunc(o.covers, agreed[0].overlaps) {
			c.Operators++
		}
	}
	inside := judge(votes, outcomes, agreed[0])
	if c.Operators < minOperators {
		return Consensus{Operators: c.Operators, Counting: counting}, outcomes, tooFew(c.Operators, minOperators)
	}
	c.combine(inside)
	return c, outcomes, nil
}

// operator is one operator's votes, by index, and the pieces of time that a
// strict majority of them covers: none, if it is divided.
type operator struct {
	name   string
	votes  []int
	covers []interval
}

// byOperator groups the votes, in the order in which operators first appear.
func byOperator(votes []Vote) []*operator {
	var all []*operator
	names := map[string]*operator{}
	for i, v := range votes {
		o := names[v.Operator]
		if o == nil {
			o = &operator{name: v.Operator}
			names[v.Operator] = o
			all = append(all, o)
		}
		o.votes = append(o.votes, i)
	}
	for _, o := range all {
		says := make([]interval, 0, len(o.votes))
		for _, i := range o.votes {
			says = append(says, votes[i].interval())
		}
		o.covers, _ = majority(says, len(o.votes))
	}
	return all
}

// interval holds its two ends: touching is overlapping.
type interval struct{ lo, hi time.Duration }

func (v Vote) interval() interval {
	u := max(v.Uncertainty, 0)
	return interval{saturatedSum(v.Offset, -u), saturatedSum(v.Offset, u)}
}

func (i interval) overlaps(j interval) bool { return i.lo <= j.hi && j.lo <= i.hi }

// majority returns the pieces that more than half of the voters cover, in
// ascending order, and how many voters at most cover one point. The intervals of
// one voter must not overlap each other.
func majority(says []interval, voters int) (pieces []interval, deepest int) {
	type edge struct {
		at   time.Duration
		step int // +1 where an interval begins, -1 where one ends
	}
	edges := make([]edge, 0, 2*len(says))
	for _, s := range says {
		edges = append(edges, edge{s.lo, +1}, edge{s.hi, -1})
	}
	// What begins comes before what ends at the same point, so that intervals
	// that touch overlap.
	slices.SortFunc(edges, func(a, b edge) int {
		return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(b.step, a.step))
	})
	need, depth := voters/2+1, 0
	var begin time.Duration
	for _, e := range edges {
		if e.step < 0 && depth == need {
			pieces = append(pieces, interval{begin, e.at})
		}
		depth += e.step
		if e.step > 0 && depth == need {
			begin = e.at
		}
		deepest = max(deepest, depth)
	}
	return pieces, deepest
}

func tooFew(agree, needed int) error {
	verb, need := "operators agree", "are"
	if agree == 1 {
		verb = "operator agrees"
	}
	if needed == 1 {
		need = "is"
	}
	return disagreement(fmt.Sprintf("%d %s, %d %s needed", agree, verb, needed, need))
}

// noPlace says why there is not exactly one place that a majority covers.
func noPlace(agreed []interval, deepest, counting, answered int) error {
	switch {
	case answered == 0:
		return disagreement("no server gave a usable answer")
	case counting == 0:
		return disagreement(fmt.Sprintf(
			"no majority: each of the operators that answered (%d) is divided in itself", answered))
	case len(agreed) == 0:
		divided := ""
		if counting < answered {
			divided = fmt.Sprintf(" (%d divided in themselves)", answered-counting)
		}
		return disagreement(fmt.Sprintf("no majority: %d operators answered%s and at most %d agree",
			answered, divided, deepest))
	}
	count := fmt.Sprint(len(agreed))
	if len(agreed) == 2 {
		count = "two"
	}
	where := report.Offset(agreed[0].lo) + " to " + report.Offset(agreed[0].hi)
	for i, a := range agreed[1:] {
		where += ", and " + report.Duration(saturatedGap(agreed[i].hi, a.lo)) + " above that"
	}
	return disagreement(fmt.Sprintf("the majority is in %s places: %s", count, where))
}

// refuseAll gives its verdict to each vote that has none yet, where there is no
// agreement that it could be inside of.
func refuseAll(outcomes []Outcome) {
	for i := range outcomes {
		if outcomes[i].Verdict == "" {
			outcomes[i] = Outcome{
				report.Falseticker, "outside_agreement",
				"there is no agreement that it could be inside of",
			}
		}
	}
}

// judge gives its verdict to each vote that has none yet, and returns those
// inside the agreed interval.
func judge(votes []Vote, outcomes []Outcome, agreed interval) (inside []Vote) {
	for i, v := range votes {
		says := v.interval()
		switch {
		case outcomes[i].Verdict != "": // its operator is divided
		case says.overlaps(agreed):
			outcomes[i].Verdict = report.ServerAgreed
			inside = append(inside, v)
		case says.hi < agreed.lo:
			outcomes[i] = outside(saturatedGap(says.hi, agreed.lo), "below")
		default:
			outcomes[i] = outside(saturatedGap(agreed.hi, says.lo), "above")
		}
	}
	return inside
}

func outside(gap time.Duration, side string) Outcome {
	return Outcome{report.Falseticker, "outside_agreement", fmt.Sprintf(
		"its interval lies %s %s the agreed one", report.Duration(gap), side)}
}

// combine sets what follows from the votes inside the agreed interval. It counts
// from Lo, so that float64 loses nothing on a clock that is years off, and in an
// order of its own, so that the order of the votes changes nothing.
func (c *Consensus) combine(inside []Vote) {
	c.Inside = len(inside)
	slices.SortFunc(inside, func(a, b Vote) int {
		return cmp.Or(cmp.Compare(a.Offset, b.Offset), cmp.Compare(a.Uncertainty, b.Uncertainty))
	})
	weigh := func(f func(x float64) float64) float64 {
		var sum, weights float64
		for _, v := range inside {
			u := float64(max(v.Uncertainty, 1))
			sum += f(float64(saturatedGap(c.Lo, v.Offset))) / (u * u)
			weights += 1 / (u * u)
		}
		return sum / weights
	}
	mean := weigh(func(x float64) float64 { return x })
	c.Spread = nanoseconds(math.Sqrt(weigh(func(x float64) float64 { return (x - mean) * (x - mean) })))
	c.Offset = min(max(saturatedSum(c.Lo, nanoseconds(mean)), c.Lo), c.Hi)
	c.Uncertainty = max(saturatedGap(c.Lo, c.Offset), saturatedGap(c.Offset, c.Hi))
}

// saturatedGap is b - a, or the nearest that a Duration can hold.
func saturatedGap(a, b time.Duration) time.Duration {
	d := b - a
	switch {
	case b >= a && d < 0:
		return math.MaxInt64
	case b < a && d >= 0:
		return math.MinInt64
	}
	return d
}

// saturatedSum is a + b, or the nearest that a Duration can hold.
func saturatedSum(a, b time.Duration) time.Duration {
	sum := a + b
	switch {
	case a > 0 && b > 0 && sum < 0:
		return math.MaxInt64
	case a < 0 && b < 0 && sum >= 0:
		return math.MinInt64
	}
	return sum
}

// nanoseconds is the nearest Duration that there is.
func nanoseconds(f float64) time.Duration {
	if f >= math.MaxInt64 {
		return math.MaxInt64
	}
	return time.Duration(math.Round(max(f, math.MinInt64)))
}
