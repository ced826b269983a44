package timesync

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"ntsclient/timesync/report"
)

const ms = time.Millisecond

// vote is offset ± uncertainty in milliseconds.
func vote(operator string, offset, uncertainty int) Vote {
	return Vote{operator, time.Duration(offset) * ms, time.Duration(uncertainty) * ms}
}

// letters are verdicts for short: Agreed, Falseticker, Unusable.
func letters(outcomes []Outcome) string {
	var b strings.Builder
	for _, o := range outcomes {
		b.WriteString(strings.ToUpper(string(o.Verdict[:1])))
	}
	return b.String()
}

func TestSelect(t *testing.T) {
	for _, c := range []struct {
		name     string
		votes    []Vote
		minimum  int
		lo, hi   int    // milliseconds
		verdicts string // one letter each
		err      string // exact; or else agreement
	}{
		{"nobody", nil, 1, 0, 0, "", "no server gave a usable answer"},
		{"one of one", []Vote{vote("a", 5, 10)}, 1, -5, 15, "A", ""},
		{"one of two needed", []Vote{vote("a", 5, 10)}, 2, 0, 0, "A", "1 operator agrees, 2 are needed"},
		{"two of three needed", []Vote{vote("a", 5, 10), vote("b", 5, 10)}, 3, 0, 0, "AA", "2 operators agree, 3 are needed"},
		{"two", []Vote{vote("a", 0, 10), vote("b", 5, 10)}, 2, -5, 10, "AA", ""},
		{"two that touch", []Vote{vote("a", 0, 10), vote("b", 20, 10)}, 2, 10, 10, "AA", ""},
		{
			"two that do not",
			[]Vote{vote("a", 0, 10), vote("b", 21, 10)},
			1, 0, 0, "FF",
			"no majority: 2 operators answered and at most 1 agree",
		},
		{"one liar of three", []Vote{vote("a", 0, 10), vote("b", 500, 10), vote("c", 2, 10)}, 2, -8, 10, "AFA", ""},
		// The deepest intersection is 9 to 10. What a majority covers is wider.
		{"a liar at one edge", []Vote{vote("a", 0, 10), vote("b", 0, 10), vote("c", 19, 10)}, 2, -10, 10, "AAA", ""},
		{"a liar who touches", []Vote{vote("a", 0, 10), vote("b", 0, 10), vote("c", 20, 10)}, 2, -10, 10, "AAA", ""},
		{"a liar just off", []Vote{vote("a", 0, 10), vote("b", 0, 10), vote("c", 21, 10)}, 2, -10, 10, "AAF", ""},
		{"who claims to know exactly", []Vote{vote("a", 0, 10), vote("b", 0, 10), vote("c", 9, 0)}, 2, -10, 10, "AAA", ""},
		{"who claims to know nothing", []Vote{vote("a", 0, 10), vote("b", 0, 10), vote("c", 9, 100_000)}, 2, -10, 10, "AAA", ""},
		{"all know exactly", []Vote{vote("a", 7, 0), vote("b", 7, 0), vote("c", 7, 0)}, 3, 7, 7, "AAA", ""},
		{
			"ten servers of one operator outvote nobody",
			slices.Concat([]Vote{vote("a", 0, 10), vote("b", 1, 10), vote("c", 2, 10)}, slices.Repeat([]Vote{vote("liar", 500, 10)}, 10)),
			2, -8, 10, "AAA" + strings.Repeat("F", 10), "",
		},
		{
			"nor where two honest ones are left", slices.Concat([]Vote{vote("a", 0, 10), vote("b", 1, 10)}, slices.Repeat([]Vote{vote("liar", 500, 10)}, 10)),
			2, -9, 10, "AA" + strings.Repeat("F", 10), "",
		},
		{
			"a divided operator does not count",
			[]Vote{vote("a", 0, 10), vote("a", 500, 10), vote("b", 1, 10), vote("c", 2, 10)},
			2, -8, 11, "UUAA", "",
		},
		{
			"it is named where the rest disagree",
			[]Vote{vote("a", 0, 10), vote("a", 500, 10), vote("b", 1, 10), vote("c", 100, 10)},
			2, 0, 0, "UUFF", "no majority: 3 operators answered (1 divided in themselves) and at most 1 agree",
		},
		{
			"all are divided",
			[]Vote{vote("a", 0, 10), vote("a", 500, 10)},
			1, 0, 0, "UU",
			"no majority: each of the operators that answered (1) is divided in itself",
		},
		{
			"two of an operator's three outvote its third",
			[]Vote{vote("a", 0, 10), vote("a", 2, 10), vote("a", 500, 10), vote("b", 1, 10)},
			2, -8, 10, "AAFA", "",
		},
		{
			"two places",
			[]Vote{vote("a", 0, 10), vote("b", 50, 100), vote("c", 100, 10)},
			2, 0, 0, "FFF",
			"the majority is in two places: -10.0 ms to +10.0 ms, and 80.0 ms above that",
		},
		// a covers -10 to 10 and 90 to 110: it overlaps with either piece.
		{
			"an operator in two pieces",
			[]Vote{
				vote("a", 0, 10), vote("a", 50, 60), vote("a", 100, 10), vote("b", 100, 10), vote("c", 105, 10),
			},
			2, 90, 110, "FAAAA", "",
		},
		// Of a, only the two pieces at the ends vote, and the agreed interval is
		// between them: those of its servers that overlap it are inside all the
		// same, but the operator is not one of those that agree.
		{
			"an operator on both sides",
			[]Vote{
				vote("a", 0, 10), vote("a", 50, 60), vote("a", 100, 10), vote("b", 50, 10), vote("c", 50, 10),
			},
			3, 0, 0, "FAFAA", "2 operators agree, 3 are needed",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, outcomes, err := Select(c.votes, c.minimum)
			if v := letters(outcomes); v != c.verdicts {
				t.Errorf("verdicts %s, want %s", v, c.verdicts)
			}
			for i, o := range outcomes {
				if (o.Verdict == report.ServerAgreed) != (o.Code == "") || (o.Code == "") != (o.Reason == "") {
					t.Errorf("server %d: a code and a reason belong to those that are out: %+v", i, o)
				}
			}
			if c.err != "" {
				if !errors.Is(err, ErrNoAgreement) || err.Error() != c.err {
					t.Errorf("error %q, want %q", err, c.err)
				}
				if got.Lo != 0 || got.Hi != 0 || got.Offset != 0 || got.Uncertainty != 0 || got.Inside != 0 {
					t.Errorf("an interval without agreement: %+v", got)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if lo, hi := time.Duration(c.lo)*ms, time.Duration(c.hi)*ms; got.Lo != lo || got.Hi != hi {
				t.Errorf("agreed %v to %v, want %v to %v", got.Lo, got.Hi, lo, hi)
			}
			if n := strings.Count(c.verdicts, "A"); got.Inside != n {
				t.Errorf("inside %d, want %d", got.Inside, n)
			}
			checkEnds(t, got)
		})
	}
}

// checkEnds holds what is true of every agreement.
func checkEnds(t *testing.T, c Consensus) {
	t.Helper()
	if c.Offset < c.Lo || c.Offset > c.Hi {
		t.Errorf("offset %v outside the agreed %v to %v", c.Offset, c.Lo, c.Hi)
	}
	if want := max(c.Offset-c.Lo, c.Hi-c.Offset); c.Uncertainty != want {
		t.Errorf("uncertainty %v does not reach the farther end, %v", c.Uncertainty, want)
	}
}

func TestSelectSaysWhy(t *testing.T) {
	_, outcomes, err := Select([]Vote{
		vote("a", 0, 10), vote("b", 2, 10), vote("late", 500, 10), vote("early", -500, 10), vote("c", 0, 10),
		vote("torn", 0, 1), vote("torn", 5, 1),
	}, 2)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range map[int]Outcome{
		0: {Verdict: report.ServerAgreed},
		2: {report.Falseticker, "outside_agreement", "its interval lies 480 ms above the agreed one"},
		3: {report.Falseticker, "outside_agreement", "its interval lies 482 ms below the agreed one"},
		6: {report.Unusable, "operator_divided", "the 2 servers of torn disagree among themselves: no time is told by more than half of them"},
	} {
		if outcomes[i] != want {
			t.Errorf("%d: %+v, want %+v", i, outcomes[i], want)
		}
	}
}

func TestSelectCombines(t *testing.T) {
	// Weights 1, 1 and 1/4: mean (0+8+1)/2.25 = 4, variance (16+16+0)/2.25.
	c, _, err := Select([]Vote{vote("a", 0, 10), vote("b", 8, 10), vote("c", 4, 20)}, 3)
	if err != nil {
		t.Fatal(err)
	}
	want := Consensus{
		Lo: -10 * ms, Hi: 18 * ms, Offset: 4 * ms, Uncertainty: 14 * ms,
		Spread: time.Duration(math.Round(4e6 * math.Sqrt(2/2.25))), Operators: 3, Counting: 3, Inside: 3,
	}
	if c != want {
		t.Errorf("got  %+v\nwant %+v", c, want)
	}

	// One who overlaps by a hair and claims to know exactly drags the mean to
	// him, but not out of the agreed interval.
	c, _, err = Select([]Vote{vote("a", 0, 10), vote("b", 0, 10), {"liar", 10*ms + 3, 4}}, 2)
	if err != nil || c.Offset != 10*ms || c.Uncertainty != 20*ms {
		t.Errorf("%+v, %v", c, err)
	}

	// 56 years off, where float64 can no longer tell nanoseconds.
	far := 56 * 8766 * time.Hour
	c, _, err = Select([]Vote{{"a", far + 1, 9}, {"b", far + 3, 9}}, 2)
	if err != nil || c.Offset != far+2 || c.Spread != 1 {
		t.Errorf("%+v, %v", c, err)
	}
}

// Every number of liars in every company: those who collude on one time change
// nothing while most are honest, nothing is agreed where they are half, and where
// they are most they are believed: no client can tell then. What a minority can
// do is to make a second place where it and the less certain of the honest are a
// majority; that ends in no agreement, never in a wrong one.
func TestSelectLiars(t *testing.T) {
	for _, operators := range []int{3, 4, 5, 7, 9} {
		for liars := range operators + 1 {
			for name, lie := range map[string]Vote{
				"far":              vote("", 500, 10),
				"near":             vote("", 40, 10),
				"overlapping":      vote("", 15, 10), // 5 to 25 ms, and the honest say -10 to 10 at least
				"sure of itself":   {"", 500 * ms, 1},
				"edge and sure":    {"", 9 * ms, 1},
				"sure of nothing":  vote("", 500, 485), // 15 to 985 ms
				"knows everything": vote("", 500, 10_000),
			} {
				t.Run(fmt.Sprintf("%s, %d of %d", name, liars, operators), func(t *testing.T) {
					var votes []Vote
					for i := range operators {
						v := vote("", i-operators/2, 10+i) // honest: the truth is 0
						if i < liars {
							v = lie
						}
						v.Operator = fmt.Sprint(i)
						votes = append(votes, v)
					}
					c, _, err := Select(votes, 2)
					holdsTruth := err == nil && c.Lo <= 0 && 0 <= c.Hi && -c.Uncertainty <= c.Offset && c.Offset <= c.Uncertainty
					disjoint := name == "far" || name == "near" || name == "sure of itself" || name == "sure of nothing"
					switch {
					case 2*liars < operators && name == "sure of nothing" && err != nil:
						if !strings.Contains(err.Error(), "two places") {
							t.Errorf("a minority denies agreement: %v", err)
						}
					case 2*liars < operators && !holdsTruth:
						t.Errorf("a minority spoils it: %+v, %v", c, err)
					case disjoint && 2*liars == operators && err == nil:
						t.Errorf("a half is believed: %+v", c)
					case disjoint && 2*liars > operators && liars >= 2 && (err != nil || holdsTruth):
						t.Errorf("a majority of liars is a majority all the same: %+v, %v", c, err)
					}
				})
			}
		}
	}
}

func TestSelectExtremes(t *testing.T) {
	ends := []time.Duration{math.MinInt64, math.MinInt64 + 1, -1, 0, 1, math.MaxInt64 - 1, math.MaxInt64}
	for _, offset := range ends {
		for _, uncertainty := range ends {
			hostile := Vote{"liar", offset, uncertainty}
			c, _, err := Select([]Vote{vote("a", 0, 10), vote("b", 1, 10), hostile}, 2)
			if err != nil || c.Lo > 0 || c.Hi < 0 || c.Offset < c.Lo || c.Offset > c.Hi {
				t.Errorf("%+v: %+v, %v", hostile, c, err)
			}
			checkEnds(t, c)
			c, _, err = Select([]Vote{hostile}, 1)
			if err != nil || c.Offset < c.Lo || c.Offset > c.Hi || c.Uncertainty < 0 || c.Spread < 0 {
				t.Errorf("%+v alone: %+v, %v", hostile, c, err)
			}
		}
	}
}

// randomVotes are of up to six operators with up to four servers each, in
// nanoseconds so small that ends often meet. The truth is 0; a server is honest
// if its interval holds it.
func randomVotes(r *rand.Rand) []Vote {
	var votes []Vote
	for o := range 1 + r.IntN(6) {
		liar := r.IntN(3) == 0
		for range 1 + r.IntN(4) {
			v := Vote{"abcdef"[o : o+1], time.Duration(r.IntN(41) - 20), time.Duration(r.IntN(15))}
			if !liar {
				v.Offset = time.Duration(r.IntN(2*int(v.Uncertainty)+1)) - v.Uncertainty
			}
			votes = append(votes, v)
		}
	}
	r.Shuffle(len(votes), func(i, j int) { votes[i], votes[j] = votes[j], votes[i] })
	return votes
}

func TestSelectRandom(t *testing.T) {
	r := rand.New(rand.NewPCG(8915, 5905))
	var agreements, twoPlaces, honest int
	for n := range 120_000 {
		votes := randomVotes(r)
		c, outcomes, err := Select(votes, 1)

		if n%8 == 0 {
			checkByDefinition(t, votes, c, outcomes, err)
		}
		if err != nil && strings.Contains(err.Error(), "places") {
			twoPlaces++
		}
		if err != nil {
			continue
		}
		agreements++
		checkEnds(t, c)
		if mostHonest(votes) {
			honest++
			if c.Lo > 0 || c.Hi < 0 || c.Offset > c.Uncertainty || c.Offset < -c.Uncertainty {
				t.Fatalf("case %d %v: most are honest and %+v does not hold the truth", n, votes, c)
			}
		}

		order := r.Perm(len(votes))
		shuffled := make([]Vote, len(votes))
		for i, j := range order {
			shuffled[i] = votes[j]
		}
		again, verdicts, _ := Select(shuffled, 1)
		if again != c {
			t.Fatalf("case %d %v: the order of votes makes %+v into %+v", n, votes, c, again)
		}
		for i, j := range order {
			if verdicts[i] != outcomes[j] {
				t.Fatalf("case %d %v: the order of votes makes %v into %v", n, votes, outcomes[j], verdicts[i])
			}
		}
	}
	// The cases are worth something only if all kinds are among them.
	if agreements < 10_000 || honest < 10_000 || twoPlaces < 500 {
		t.Errorf("%d agreements, %d with most honest, %d in several places", agreements, honest, twoPlaces)
	}
}

// checkByDefinition holds what Select made of the votes against bruteForce.
func checkByDefinition(t *testing.T, votes []Vote, c Consensus, outcomes []Outcome, err error) {
	t.Helper()
	pieces, divided := bruteForce(votes)
	if (err == nil) != (len(pieces) == 1) {
		t.Fatalf("%v: %d pieces, but %v", votes, len(pieces), err)
	}
	if err == nil && (interval{c.Lo, c.Hi}) != pieces[0] {
		t.Fatalf("%v: %+v, want %v", votes, c, pieces)
	}
	for i, o := range outcomes {
		if (o.Verdict == report.Unusable) != divided[votes[i].Operator] {
			t.Fatalf("%v: server %d: %+v", votes, i, o)
		}
		if inside := err == nil && votes[i].interval().overlaps(pieces[0]) && !divided[votes[i].Operator]; inside != (o.Verdict == report.ServerAgreed) {
			t.Fatalf("%v: server %d: %+v", votes, i, o)
		}
	}
}

// mostHonest says whether more than half of the operators have only servers
// whose interval holds the truth.
func mostHonest(votes []Vote) bool {
	honest := map[string]bool{}
	for _, v := range votes {
		was, seen := honest[v.Operator]
		honest[v.Operator] = (was || !seen) && v.interval().lo <= 0 && v.interval().hi >= 0
	}
	n := 0
	for _, h := range honest {
		if h {
			n++
		}
	}
	return 2*n > len(honest)
}

// bruteForce is the definition of the contract, point by point: at every end of
// an interval, and once between any two that are neighbours.
func bruteForce(votes []Vote) (pieces []interval, divided map[string]bool) {
	servers := map[string][]Vote{}
	var points []time.Duration // doubled, so that there is one between any two
	for _, v := range votes {
		servers[v.Operator] = append(servers[v.Operator], v)
		points = append(points, 2*v.interval().lo, 2*v.interval().hi)
	}
	slices.Sort(points)
	points = slices.Compact(points)
	for i := range len(points) - 1 {
		points = append(points, (points[i]+points[i+1])/2)
	}
	slices.Sort(points)

	divided = map[string]bool{}
	covers := map[string][]bool{}
	for name, own := range servers {
		divided[name] = true
		for _, p := range points {
			n := 0
			for _, v := range own {
				if 2*v.interval().lo <= p && p <= 2*v.interval().hi {
					n++
				}
			}
			covers[name] = append(covers[name], 2*n > len(own))
			divided[name] = divided[name] && 2*n <= len(own)
		}
	}
	counting := 0
	for _, d := range divided {
		if !d {
			counting++
		}
	}
	before := false
	for i, p := range points {
		n := 0
		for _, c := range covers {
			if c[i] {
				n++
			}
		}
		now := 2*n > counting && counting > 0
		switch {
		case now && before:
			pieces[len(pieces)-1].hi = p / 2
		case now:
			pieces = append(pieces, interval{p / 2, p / 2})
		}
		before = now
	}
	return pieces, divided
}

func BenchmarkSelect200(b *testing.B) {
	votes := make([]Vote, 200)
	for i := range votes {
		votes[i] = vote(fmt.Sprint(i%70), i%7, 10+i%5)
	}
	for b.Loop() {
		if _, _, err := Select(votes, 2); err != nil {
			b.Fatal(err)
		}
	}
}
