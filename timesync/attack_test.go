package timesync

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"ntsclient/nts"
	"ntsclient/timesync/report"
)

// A lie is what a liar answers who knows what all honest servers do, and that the
// truth is at 0.
type lie struct {
	name string
	tell func(r *rand.Rand, honest []Vote) (offset, uncertainty time.Duration)
}

// farOff is a time, and sure and unsure are uncertainties.
const (
	farOff = 500 * ms
	sure   = 1
	unsure = 10 * time.Second
)

// edgeOf is an end of an honest interval, on the given side.
func edgeOf(r *rand.Rand, honest []Vote, side int) time.Duration {
	i := honest[r.IntN(len(honest))].interval()
	if side < 0 {
		return i.lo
	}
	return i.hi
}

// side is -1 or 1.
func side(r *rand.Rand) int { return 2*r.IntN(2) - 1 }

var lies = []lie{
	{"far off", func(*rand.Rand, []Vote) (o, u time.Duration) { return farOff, 10 * ms }},
	{"far off and sure", func(*rand.Rand, []Vote) (o, u time.Duration) { return farOff, sure }},
	{"far off on either side", func(r *rand.Rand, _ []Vote) (o, u time.Duration) {
		return time.Duration(side(r)) * farOff, 10 * ms
	}},
	{"near and sure", func(r *rand.Rand, _ []Vote) (o, u time.Duration) {
		return time.Duration(r.Int64N(int64(30*ms))) - 15*ms, sure
	}},
	{"unsure", func(*rand.Rand, []Vote) (o, u time.Duration) { return unsure - 5*ms, unsure }},
	{"all time", func(*rand.Rand, []Vote) (o, u time.Duration) { return farOff, 1 << 62 }},
	{"one edge", func(r *rand.Rand, honest []Vote) (o, u time.Duration) { // touches it, or overlaps a little
		u = time.Duration(r.Int64N(int64(20 * ms)))
		return edgeOf(r, honest, 1) + u - time.Duration(r.Int64N(3)), u
	}},
	{"any edge", func(r *rand.Rand, honest []Vote) (o, u time.Duration) {
		s := side(r)
		u = time.Duration(r.Int64N(int64(20 * ms)))
		return edgeOf(r, honest, s) + time.Duration(s)*(u-time.Duration(r.Int64N(int64(ms)))), u
	}},
	{"from one edge to far off", func(r *rand.Rand, honest []Vote) (o, u time.Duration) {
		at := edgeOf(r, honest, 1)
		return at + farOff, farOff
	}},
	{"just not the truth", func(r *rand.Rand, honest []Vote) (o, u time.Duration) { // from 1 ns on
		return time.Duration(side(r)) * (10*ms + 1), 10 * ms
	}},
	{"as the honest", func(r *rand.Rand, honest []Vote) (o, u time.Duration) {
		v := honest[r.IntN(len(honest))]
		return v.Offset, v.Uncertainty
	}},
	{"sure at the edge of the honest", func(r *rand.Rand, honest []Vote) (o, u time.Duration) {
		return edgeOf(r, honest, side(r)), sure
	}},
	{"anywhere", func(r *rand.Rand, _ []Vote) (o, u time.Duration) {
		return time.Duration(r.Int64N(int64(60*ms))) - 30*ms, time.Duration(r.Int64N(int64(30 * ms)))
	}},
}

// company is a round's votes, with who is honest: an operator is if more than
// half of its servers have an interval that holds the truth, which is at 0.
type company struct {
	votes  []Vote
	honest map[string]bool
	liars  int
}

// most tells whether most of the operators are honest, and half whether at least
// half of them are.
func (c *company) most() bool { return 2*c.liars < len(c.honest) }
func (c *company) half() bool { return 2*c.liars <= len(c.honest) }

// gather makes a company of operators with up to so many servers each, and liars
// that tell lies of the one kind, or of any where it is nil. Within honest
// operators a minority of the servers lies, too.
func gather(r *rand.Rand, operators, liars, servers int, of *lie) *company {
	c := &company{honest: map[string]bool{}, liars: liars}
	scale := int64([]time.Duration{10, time.Microsecond, 10 * ms}[r.IntN(3)])
	var honest, unknown []Vote
	for o := range operators {
		name := "abcdefghi"[o : o+1]
		c.honest[name] = o >= liars
		n := 1 + r.IntN(servers)
		wrong := n
		if o >= liars {
			wrong = r.IntN((n + 1) / 2)
		}
		for i := range n {
			v := Vote{Operator: name}
			if i < wrong {
				unknown = append(unknown, v)
				continue
			}
			u := r.Int64N(scale)
			v.Uncertainty, v.Offset = time.Duration(u), time.Duration(r.Int64N(2*u+1)-u)
			if r.IntN(8) == 0 { // the truth is at its very edge
				v.Offset = time.Duration(int64(side(r)) * u)
			}
			honest = append(honest, v)
		}
	}
	heard := honest
	if len(heard) == 0 {
		heard = []Vote{{"", 0, 10 * ms}}
	}
	kind, together := of, r.IntN(2) == 0
	if kind == nil {
		kind = &lies[r.IntN(len(lies))]
	}
	said, unsaid := kind.tell(r, heard)
	for i := range unknown {
		v := &unknown[i]
		if !together {
			if of == nil {
				kind = &lies[r.IntN(len(lies))]
			}
			said, unsaid = kind.tell(r, heard)
		}
		v.Offset, v.Uncertainty = said, unsaid
	}
	c.votes = append(honest, unknown...)
	r.Shuffle(len(c.votes), func(i, j int) { c.votes[i], c.votes[j] = c.votes[j], c.votes[i] })
	return c
}

// check holds an agreement against what the rule promises. An error is what it
// breaks.
func (c *company) check(got Consensus, minimum int) error {
	switch {
	case got.Offset < got.Lo || got.Offset > got.Hi:
		return fmt.Errorf("the offset is outside the agreed interval")
	case got.Uncertainty != max(saturatedGap(got.Lo, got.Offset), saturatedGap(got.Offset, got.Hi)):
		return fmt.Errorf("the uncertainty does not reach the farther end")
	case got.Operators < minimum || 2*got.Operators <= got.Counting:
		return fmt.Errorf("too few operators")
	case c.most() && (got.Lo > 0 || got.Hi < 0):
		return fmt.Errorf("most are honest, and the truth is outside the agreed interval")
	case c.most() && got.Offset.Abs() > got.Uncertainty:
		return fmt.Errorf("most are honest, and the truth is not within the uncertainty of the offset")
	case !c.most() && c.half() && !(c.told(got.Lo) && c.told(got.Hi) && c.told(got.Offset)):
		return fmt.Errorf("half are honest, and none of them tells what is agreed on")
	}
	return nil
}

// told tells whether an honest operator covers a point.
func (c *company) told(at time.Duration) bool {
	yes, of := map[string]int{}, map[string]int{}
	for _, v := range c.votes {
		of[v.Operator]++
		if v.interval().overlaps(interval{at, at}) {
			yes[v.Operator]++
		}
	}
	for name, honest := range c.honest {
		if honest && 2*yes[name] > of[name] {
			return true
		}
	}
	return false
}

// Every number of liars in every company, with every lie. While they are a
// minority of the operators that answered, what is agreed on holds the truth. At
// half they cannot win either: what is agreed on is told by an honest one, too,
// and so is off by no more than that one allows. Most of them are believed if
// they tell one tale: that is what the rule says, and no client could know.
func TestAttackMatrix(t *testing.T) {
	for _, operators := range []int{3, 4, 5, 7, 9} {
		for liars := range operators + 1 {
			for k := range lies {
				t.Run(fmt.Sprintf("%d of %d %s", liars, operators, lies[k].name), func(t *testing.T) {
					r := rand.New(rand.NewPCG(uint64(operators*100+liars), uint64(k)))
					agreed, won := 0, 0
					for range 50 {
						c := gather(r, operators, liars, 1+r.IntN(3), &lies[k])
						got, _, err := Select(c.votes, 2)
						if err != nil {
							continue
						}
						agreed++
						if err := c.check(got, 2); err != nil {
							t.Fatalf("%v: %+v of %v", err, got, c.votes)
						}
						if got.Lo > 100*ms {
							won++
						}
					}
					tale := k < 2 // one, far off
					switch {
					case tale && 2*liars == operators && agreed > 0:
						t.Error("half of them agree with the other half, which tells another time")
					case tale && 2*liars != operators && agreed < 50:
						t.Errorf("agreed %d times of 50", agreed)
					case tale && won != map[bool]int{true: 50}[2*liars > operators]:
						t.Errorf("liars won %d times of %d", won, agreed)
					}
				})
			}
		}
	}
}

// cases is n, or a tenth of it with -short.
func cases(n int) int {
	if testing.Short() {
		return n / 10
	}
	return n
}

// One million companies of honest and lying operators: whenever most of those who
// answered are honest, and there is an agreement, it holds the truth.
func TestAttackProperty(t *testing.T) {
	const shards = 4
	for shard := range uint64(shards) {
		t.Run(fmt.Sprint(shard), func(t *testing.T) {
			t.Parallel()
			attackProperty(t, rand.New(rand.NewPCG(8915, shard)), cases(1_000_000/shards))
		})
	}
}

func attackProperty(t *testing.T, r *rand.Rand, n int) {
	var agreed, refused, tied, lost int
	for i := range n {
		operators := 1 + r.IntN(9)
		liars := r.IntN((operators + 1) / 2) // fewer than half
		if i%10 == 0 {
			liars = r.IntN(operators + 1)
		}
		minimum := 1 + r.IntN(3)
		c := gather(r, operators, liars, 1+r.IntN(3), nil)
		got, outcomes, err := Select(c.votes, minimum)
		if err != nil {
			refused++
			continue
		}
		if err := c.check(got, minimum); err != nil {
			t.Fatalf("case %d: %v: %+v of %v, %d liars", i, err, got, c.votes, liars)
		}
		switch {
		case c.most():
			agreed++
		case c.half():
			tied++
		case got.Lo > 0 || got.Hi < 0:
			lost++
		}
		if i%16 == 0 {
			if err := c.same(r, minimum, got, outcomes); err != nil {
				t.Fatalf("case %d: %v: %+v of %v", i, err, got, c.votes)
			}
		}
	}
	// The cases are worth something only if all kinds are among them.
	t.Logf("of %d: %d agreed with most honest, %d with half, %d where liars won; %d not agreed", n, agreed, tied, lost, refused)
	if agreed < n/2 || refused < n/50 || tied < n/1000 || lost < n/1000 {
		t.Errorf("of %d: %d, %d, %d, %d", n, agreed, tied, lost, refused)
	}
}

// same holds an agreement against that of the same votes told otherwise: in
// another order, about a clock that is off by years more, in a time that runs
// three times as fast, and with an operator more who is divided.
func (c *company) same(r *rand.Rand, minimum int, got Consensus, outcomes []Outcome) error {
	again := slices.Clone(c.votes)
	order := r.Perm(len(again))
	shift := time.Duration(r.Int64N(1<<61) - 1<<60)
	for i, j := range order {
		again[i] = c.votes[j]
		again[i].Offset = saturatedSum(again[i].Offset, shift)
	}
	moved, verdicts, err := Select(again, minimum)
	moved.Lo, moved.Hi, moved.Offset = moved.Lo-shift, moved.Hi-shift, moved.Offset-shift
	far := slices.ContainsFunc(c.votes, func(v Vote) bool { return v.Uncertainty > unsure }) // cut off elsewhere
	if err != nil || !far && moved != got {
		return fmt.Errorf("shuffled, %v later: %+v, %v", shift, moved, err)
	}
	for i, j := range order {
		if verdicts[i] != outcomes[j] {
			return fmt.Errorf("shuffled, %v later: %v is %v", shift, again[i], verdicts[i])
		}
	}
	for i := range again {
		again[i] = c.votes[i]
		again[i].Offset, again[i].Uncertainty = 3*again[i].Offset, 3*again[i].Uncertainty
	}
	if scaled, _, err := Select(again, minimum); !far && (err != nil || scaled.Lo != 3*got.Lo || scaled.Hi != 3*got.Hi ||
		scaled.Operators != got.Operators || scaled.Inside != got.Inside) {
		return fmt.Errorf("three times as fast: %+v, %v", scaled, err)
	}
	divided := append(slices.Clone(c.votes), Vote{"z", 0, 1}, Vote{"z", farOff, 1})
	if more, _, err := Select(divided, minimum); err != nil || more != got {
		return fmt.Errorf("with one that is divided: %+v, %v", more, err)
	}
	return nil
}

// exchanged is an exchange with an honest server by a clock whose crystal is off
// by rate, and how far that clock really is off at the moment now, age later. The
// ways take up and down, and the server has the packet for a while.
type exchanged struct {
	up, down, server, age time.Duration
	rate                  float64       // of the clock, s/s too fast
	slow                  time.Duration // the clock, when it begins
	wrong                 time.Duration // the server, within its root distance
	rootDelay, dispersion time.Duration
}

func (x exchanged) measurement(begin time.Time) (m *measurement, now time.Time, truth time.Duration) {
	local := func(d time.Duration) time.Duration { return d + time.Duration(x.rate*float64(d)) }
	all := x.up + x.server + x.down
	received := begin.Round(0).Add(x.slow + x.up + x.wrong)
	at := begin.Add(local(all))
	m = &measurement{
		source: &source{Server: Server{Operator: "a"}},
		sample: &nts.Sample{
			T1: begin.Round(0), T2: received, T3: received.Add(x.server), T4: at.Round(0), At: at,
			Stratum: 1, RootDelay: x.rootDelay, RootDispersion: x.dispersion,
		},
		session: &nts.Session{}, dated: true,
	}
	return m, begin.Add(local(all + x.age)), x.slow + all + x.age - local(all+x.age)
}

// Whatever way a packet takes, and however long, for as long as a round lasts: an
// honest server's interval holds the truth. Also where the kernel slews the clock
// meanwhile, as after the last sync.
func TestSampleHoldsTheTruth(t *testing.T) {
	r := rand.New(rand.NewPCG(5905, 8915))
	upTo := func(d time.Duration) time.Duration { // by orders of magnitude
		for r.IntN(3) == 0 {
			d /= 30
		}
		return time.Duration(r.Int64N(int64(d) + 1))
	}
	begin := time.Now()
	tight := 0
	for i := range cases(300_000) {
		x := exchanged{
			up: upTo(10 * time.Second), down: upTo(10 * time.Second), server: upTo(time.Second), age: upTo(10 * time.Second),
			rate: (2*r.Float64() - 1) * drift, slow: time.Duration(r.Int64N(1<<60) - 1<<59),
			rootDelay: upTo(time.Second), dispersion: upTo(time.Second),
		}
		if r.IntN(2) == 0 { // all of it one way
			x.up *= time.Duration(r.IntN(2))
			x.down *= time.Duration(r.IntN(2))
		}
		if r.IntN(2) == 0 {
			x.rate += float64(side(r)) * slewing
		}
		distance := x.rootDelay/2 + x.dispersion
		x.wrong = time.Duration(r.Int64N(2*int64(distance)+1)) - distance
		m, now, truth := x.measurement(begin)
		b := m.ballot(now, time.Minute)
		if b.out.Code == "impossible_times" && x.up+x.down < x.server/1000 {
			continue // by a slow clock it had the packet for longer than that was away
		}
		if !b.fit {
			t.Fatalf("case %d: %+v: %+v", i, x, b.out)
		}
		off := (b.vote.Offset - truth).Abs()
		if off > b.vote.Uncertainty {
			t.Fatalf("case %d: %+v: said %v ± %v, and the truth is %v", i, x, b.vote.Offset, b.vote.Uncertainty, truth)
		}
		if off > b.vote.Uncertainty*9/10 {
			tight++
		}
		// What was delayed, and only that, is what it is off by.
		if most := (x.up-x.down).Abs()/2 + x.wrong.Abs() + time.Duration((drift+slewing)*float64(x.up+x.down+x.server+x.age)) + time.Microsecond; off > most {
			t.Fatalf("case %d: %+v: off by %v, more than %v", i, x, off, most)
		}
	}
	if tight < cases(300_000)/100 {
		t.Errorf("%d cases were tight", tight)
	}
}

// Certificates that were stolen, expired or not. While most of the operators that
// answer are honest, the time that is accepted before certificates could be dated
// is right, or there is none. Whatever the others are, a wrong one takes what it
// is said to take: keys that are good at the floor, and at the time that they
// tell, of as many operators as must agree; or such as are good at a clock that is
// wrong, who then are the first to vote, and can keep it there.
func TestBootstrapAttack(t *testing.T) {
	r := rand.New(rand.NewPCG(1970, 2026))
	var right, dated, none, kept, taken int
	n := cases(100_000)
	for i := range n {
		s := newSiege(r)
		result := s.elect(s.ballots, s.now)
		off := s.now.Add(result.Offset).Sub(truth).Abs()
		agreed := s.now.Add(result.Offset)
		policy := Limits{StepAbove: 100 * ms, MaxStep: s.maxStep, Step: StepAlways, Bootstrap: s.bootstrap}
		switch d := policy.decide(finding{result.Offset, result.Uncertainty, result.Operators, s.doubt, result.bootstrapped}); {
		case result.err != nil || d.Refused:
			none++
		case off <= result.Uncertainty && result.bootstrapped:
			dated++
		case off <= result.Uncertainty:
			right++
		case result.bootstrapped && 2*s.liars >= s.operators && !agreed.Add(time.Second).Before(s.floor.at) && s.keys(s.floor.at, agreed) >= max(s.minimum, s.bootstrap):
			taken++
		case !result.bootstrapped && result.Offset.Abs() <= s.maxStep && s.keys(s.now, agreed) >= s.minimum:
			kept++
		case !result.bootstrapped && s.doubt && s.keys(s.now, agreed) >= s.bootstrap:
			kept++
		default:
			t.Fatalf("case %d: off by %v ± %v at %v (doubt %v, %d of %d lie, floor %v): %+v",
				i, off, result.Uncertainty, s.now, s.doubt, s.liars, s.electorate.operators, s.floor, s.voters)
		}
	}
	t.Logf("%d right, %d right with dates deferred, %d none, %d kept where the clock was, %d taken", right, dated, none, kept, taken)
	if min(right, dated, none) < n/20 || min(kept, taken) < n/1000 {
		t.Errorf("%d, %d, %d, %d, %d", right, dated, none, kept, taken)
	}
}

// siege is a vote in which some have stolen keys: the first operators.
type siege struct {
	electorate
	now     time.Time
	liars   int
	voters  []voter
	ballots []*ballot
}

func newSiege(r *rand.Rand) *siege {
	s := &siege{now: []time.Time{
		in1970, truth.Add(days(r, 10)), truth.Add(-days(r, 10)), truth.Add(-days(r, 4000)), truth.Add(days(r, 4000)), truth,
	}[r.IntN(6)]}
	operators := 3 + r.IntN(5)
	s.liars = (operators - 1) / 2
	if r.IntN(3) == 0 {
		s.liars = r.IntN(operators + 1)
	}
	kind := r.IntN(2 * stolenKeys)
	for o := range operators {
		v := voter{operator: "abcdefg"[o : o+1], says: truth, from: truth.Add(-days(r, 60)), to: truth.Add(days(r, 60))}
		v.dated = r.IntN(10) == 0
		if o < s.liars && kind < stolenKeys { // all alike
			v = liar(r, kind, v, s.now)
		} else if o < s.liars {
			v = liar(r, r.IntN(stolenKeys), v, s.now)
		}
		s.voters = append(s.voters, v)
		if r.IntN(4) == 0 { // and another server
			s.voters = append(s.voters, v)
		}
	}
	r.Shuffle(len(s.voters), func(i, j int) { s.voters[i], s.voters[j] = s.voters[j], s.voters[i] })
	s.electorate = electorateOf(s.voters)
	s.doubt = r.IntN(4) > 0
	if r.IntN(3) == 0 {
		s.floor.raise(floor{truth.Add(-days(r, 30)), "state", "the last agreed time", ""})
	}
	for _, v := range s.voters {
		s.ballots = append(s.ballots, v.ballot(s.now))
	}
	return s
}

// keys counts the liars whose certificate ends after one time, and is good at
// another, which they tell.
func (s *siege) keys(floor, agreed time.Time) int {
	names := map[string]bool{}
	for _, v := range s.voters {
		if v.operator < "abcdefgh"[s.liars:] && !v.to.Before(floor) && !v.from.After(agreed) && !v.to.Before(agreed) &&
			v.says.Sub(agreed).Abs() <= time.Second {
			names[v.operator] = true
		}
	}
	return len(names)
}

// days is up to so many days.
func days(r *rand.Rand, n int) time.Duration {
	return time.Duration(r.Int64N(int64(n)*24*int64(time.Hour)) + 1)
}

const stolenKeys = 6

// liar has the certificate of v, or one that was good before, and says another time.
func liar(r *rand.Rand, kind int, v voter, now time.Time) voter {
	v.dated = false
	lately := truth.AddDate(0, 0, -5)
	switch kind {
	case 0: // stolen today
		v.says = truth.Add(time.Duration(side(r)) * days(r, 50))
	case 1: // expired
		v.from = truth.Add(-days(r, 2000))
		v.to = v.from.Add(days(r, 90))
		v.says = v.from.Add(days(r, 90))
	case 2: // expired, and good at this clock
		v.from, v.to, v.says = now.Add(-days(r, 60)), now.Add(days(r, 60)), now.Add(time.Minute)
		if v.from.After(truth) { // nobody has one of the future
			v.from = truth.Add(-days(r, 60))
		}
	case 3: // of a long life
		v.from, v.to, v.says = ymd(2020, 1, 1), ymd(2040, 1, 1), lately
	case 4: // expired, and says that it is not
		v.from, v.to, v.says = truth.AddDate(0, -3, 0), lately.Add(-days(r, 20)), lately
	case 5: // expired long ago, all at one time
		v.from, v.to, v.says = ymd(2025, 3, 1), ymd(2025, 9, 1), ymd(2025, 6, 1)
	}
	return v
}

// onPath is what an attacker on the path, or in servers, does to a loop that keeps
// a clock by five operators.
var onPath = []struct {
	name   string
	attack func(m *machine)
	agreed float64       // part of the rounds, at least
	off    time.Duration // of the clock, at most
}{
	{"two drift slowly, 1 ppm", func(m *machine) {
		m.liars(func() time.Duration { return m.age() / 1_000_000 })
	}, 0.95, 5 * ms},
	{"two drift fast, 200 ppm", func(m *machine) {
		m.liars(func() time.Duration { return m.age() / 5000 })
	}, 0.95, 5 * ms},
	{"two drift apart", func(m *machine) {
		m.servers["a"].lie = func() time.Duration { return m.age() / 1_000_000 }
		m.servers["b"].lie = func() time.Duration { return -m.age() / 1_000_000 }
	}, 0.95, 5 * ms},
	{"two are honest for hours, and then far off", func(m *machine) {
		m.liars(func() time.Duration {
			if m.age() > 5*time.Hour {
				return time.Second
			}
			return 0
		})
	}, 0.95, 5 * ms},
	{"two are honest now and then", func(m *machine) {
		m.liars(func() time.Duration { return time.Duration(m.age()/(20*time.Minute)%2) * 100 * ms })
	}, 0.95, 5 * ms},
	{"two stay at the edge", func(m *machine) {
		m.liars(func() time.Duration { return 9 * ms })
	}, 0.95, 12 * ms},
	{"two follow the clock, but for what steers it away", func(m *machine) {
		m.liars(func() time.Duration { return m.error() + 9*ms })
	}, 0.95, 12 * ms},
	{"one way takes 800 ms more", func(m *machine) {
		m.each(func(s *loopServer) { s.upMore = 800 * ms })
	}, 0.95, 420 * ms},
	{"one way takes 800 ms more, from some time on", func(m *machine) {
		time.AfterFunc(5*time.Hour, func() { m.each(func(s *loopServer) { s.downMore = 800 * ms }) })
	}, 0.9, 600 * ms},
	{"one way takes as long as an answer may", func(m *machine) {
		m.options.Policy.MaxDistance = 5 * time.Second
		m.each(func(s *loopServer) { s.downMore = 1970 * ms })
	}, 0.95, time.Second},
	{"one way takes longer, with each server another", func(m *machine) {
		more := time.Duration(0)
		for _, name := range []string{"a", "b", "c", "d", "e"} {
			m.servers[name].upMore, m.servers[name].downMore = more, (800*ms-more)/7
			more += 200 * ms
		}
	}, 0.95, 420 * ms},
	{"delays come and go", func(m *machine) {
		for i, name := range []string{"a", "b", "c", "d", "e"} {
			s := m.servers[name]
			s.sway = func() (up, down time.Duration) {
				d := 500 * ms * (m.age() / (time.Duration(7+i) * time.Minute) % 2)
				return d, 500*ms - d
			}
		}
	}, 0.5, 900 * ms},
	{"two lie, and one who is honest is not heard", func(m *machine) { // that leaves half, who win nothing
		time.AfterFunc(5*time.Hour, func() {
			m.liars(func() time.Duration { return time.Second })
			m.servers["e"].set(func(s *loopServer) { s.deaf = true })
		})
	}, 0.3, 5 * ms},
	{"two lie, and answers are dropped at random", func(m *machine) {
		m.servers["a"].lie = func() time.Duration { return time.Second }
		m.servers["b"].lie = func() time.Duration { return -time.Second }
		m.each(func(s *loopServer) { s.loss = 0.3 })
	}, 0.3, 15 * ms},
}

// liars are the first two.
func (m *machine) liars(lie func() time.Duration) {
	for _, name := range []string{"a", "b"} {
		m.servers[name].set(func(s *loopServer) { s.lie = lie })
	}
}

// Whatever a minority of servers and the network do over a day, what a loop says
// of the time is true: it is within ± uncertainty_s of offset_s in each report, and
// the clock never further off than the kernel is told.
func TestLoopUnderAttack(t *testing.T) {
	for _, c := range onPath {
		t.Run(c.name, func(t *testing.T) {
			simulate(t, 5, func(m *machine) {
				rounds, agreed := 0, 0
				worst := time.Duration(0)
				m.run.Published = func(r *report.Report) {
					rounds++
					if r.Agreement == nil {
						return
					}
					agreed++
					if r.Action == report.Step {
						return // by what it was off is history
					}
					off := -m.error() - time.Duration(r.Agreement.Offset)
					if slack := 10 * time.Microsecond; off.Abs() > time.Duration(r.Uncertainty)+slack {
						t.Errorf("after %v: %v ± %v, and the truth is %v off that", m.age(), time.Duration(r.Agreement.Offset), time.Duration(r.Uncertainty), off)
					}
				}
				c.attack(m)
				m.start()
				wait(time.Minute)
				for range 24 * 60 {
					if maxError, _ := m.MaxError(); m.error().Abs() > maxError {
						t.Errorf("after %v: the clock is off by %v, and the kernel told %v", m.age(), m.error(), maxError)
					}
					worst = max(worst, m.error().Abs())
					wait(time.Minute)
				}
				m.end()
				t.Logf("%d of %d rounds agreed; the clock was off by %v at most", agreed, rounds, worst)
				if worst > c.off {
					t.Errorf("the clock was off by %v, more than %v", worst, c.off)
				}
				if float64(agreed) < c.agreed*float64(rounds) {
					t.Errorf("%d of %d rounds agreed", agreed, rounds)
				}
			})
		})
	}
}
