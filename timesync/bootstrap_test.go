package timesync

import (
	"errors"
	"strings"
	"testing"
	"time"

	"ntsclient/nts"
	"ntsclient/timesync/report"
)

func ymd(year, month, day int) time.Time {
	return time.Date(year, time.Month(month), day, 0, 0, 0, 0, time.UTC)
}

var (
	truth  = ymd(2026, 11, 21)
	in1970 = time.Unix(100, 0).UTC()
	built  = ymd(2026, 1, 1)
)

// voter is a server in a ballot: what time it says, ± 10 ms, and from when to
// when its certificate is good.
type voter struct {
	operator string
	says     time.Time
	from, to time.Time
	dated    bool
}

func (v voter) ballot(now time.Time) *ballot {
	inside := func(at time.Time) bool { return !at.Before(v.from) && !at.After(v.to) }
	return &ballot{
		vote: Vote{v.operator, v.says.Sub(now), 10 * ms}, fit: true,
		answer: v.says, notBefore: v.from, notAfter: v.to,
		dated: v.dated, valid: v.dated || inside(now),
		verify: func(at time.Time) error {
			if !inside(at) {
				return &nts.Error{Stage: nts.StageCertificate, Code: nts.CertificateExpired, Err: errors.New("expired")}
			}
			return nil
		},
	}
}

// honest servers say the truth, and their certificates are of last month.
func honest(operators ...string) (all []voter) {
	for _, o := range operators {
		all = append(all, voter{o, truth, truth.AddDate(0, -1, 0), truth.AddDate(0, 2, 0), false})
	}
	return all
}

// stolen servers have expired certificates, and say the time of old in which
// these were good.
func stolen(old time.Time, operators ...string) (all []voter) {
	for _, o := range operators {
		all = append(all, voter{o, old, old.AddDate(0, -1, 0), old.AddDate(0, 2, 0), false})
	}
	return all
}

func join(groups ...[]voter) (all []voter) {
	for _, g := range groups {
		all = append(all, g...)
	}
	return all
}

// with are the voters, each changed by edit.
func with(voters []voter, edit func(v *voter)) []voter {
	for i := range voters {
		edit(&voters[i])
	}
	return voters
}

// electorateOf has a floor that certificates raised, as in a round.
func electorateOf(voters []voter) electorate {
	e := electorate{
		minimum: 2, bootstrap: 3, maxStep: 15 * time.Minute, doubt: true,
		floor: floor{built, "build", "the date of this program", ""},
	}
	operators := map[string]bool{}
	for _, v := range voters {
		operators[v.operator] = true
		e.floor.raise(floor{v.from, "certificates", "the newest certificate, that of " + v.operator, "leave it out"})
	}
	e.operators = len(operators)
	return e
}

func TestElect(t *testing.T) {
	soon := truth.Add(3 * time.Second)
	longLived := func(v *voter) { v.from, v.to = ymd(1970, 1, 1), ymd(2050, 1, 1) }
	floorOf := func(at time.Time, from, mend string) func(*electorate) {
		return func(e *electorate) { e.floor = floor{at, from, "from " + from, mend} }
	}
	for _, c := range []struct {
		says   string // the sentence that this shows
		now    time.Time
		voters []voter
		edit   func(*electorate)

		err          string    // a part; or else agreement
		at           time.Time // the agreed time, if not the truth
		verdicts     string    // one letter each
		codes        string    // of those that are out, with spaces between
		bootstrapped bool
		reverified   int
	}{
		{
			says: "the clock is in 1970: all vote, those with wrong dates deferred",
			now:  in1970, voters: honest("a", "b", "c"), verdicts: "AAA", bootstrapped: true, reverified: 3,
		},
		{
			says: "a clock that is ahead is corrected in the same way",
			now:  truth.AddDate(10, 0, 0), voters: honest("a", "b", "c"), verdicts: "AAA", bootstrapped: true, reverified: 3,
		},
		{
			says: "five years behind, and certificates renewed since",
			now:  truth.AddDate(-5, 0, 0), voters: honest("a", "b", "c", "d"), verdicts: "AAAA", bootstrapped: true, reverified: 4,
		},
		{
			says: "first the servers whose chains are valid at the local clock: if they agree, that is the answer, as on any other day",
			now:  soon, voters: join(honest("a", "b"), stolen(ymd(2021, 5, 1), "c", "d", "e")),
			verdicts: "AAUUU", codes: "outside_window outside_window outside_window", reverified: 2,
		},
		{
			says: "for a correction over max_step also bootstrap.min_operators: only two are valid, so all vote",
			now:  truth.Add(-time.Hour), voters: join(honest("a", "b"), with(honest("c"), func(v *voter) { v.from = truth.Add(-time.Minute) })),
			verdicts: "AAA", bootstrapped: true, reverified: 3,
		},
		{
			says: "for a correction over max_step also bootstrap.min_operators: three are valid, and that is the answer",
			now:  truth.Add(-time.Hour), voters: join(honest("a", "b", "c"), stolen(ymd(2021, 5, 1), "d")),
			verdicts: "AAAU", codes: "outside_window", reverified: 3,
		},
		{
			says: "only if they do not agree, all vote: valid ones that disagree",
			now:  in1970, voters: join(with(stolen(ymd(1971, 1, 1), "x"), longLived), honest("a", "b", "c")),
			verdicts: "UAAA", codes: "below_floor", bootstrapped: true, reverified: 3,
		},
		{
			says: "strict turns all of this off",
			now:  in1970, voters: honest("a", "b", "c"), edit: func(e *electorate) { e.doubt = false },
			err: "no server gave a usable answer", verdicts: "UUU", codes: "outside_window outside_window outside_window",
		},
		{
			says: "in the second vote time cannot be earlier than the date of the commit that the binary was built from",
			now:  in1970, voters: stolen(ymd(2025, 6, 1), "a", "b", "c"), edit: floorOf(built, "build", ""),
			err:      "no server gave a usable answer; left out as earlier than any time believed (2026-01-01, from build): 3",
			verdicts: "UUU", codes: "below_floor below_floor below_floor",
		},
		{
			says: "nor than the last agreed time; the message names the file to delete should the floor itself be wrong",
			now:  in1970, voters: honest("a", "b", "c"),
			edit: floorOf(ymd(2040, 1, 1), "state", "if that was wrong, delete /var/lib/ntsclient/state.json"),
			err:  "(2040-01-01, from state): 3; if that was wrong, delete /var/lib/ntsclient/state.json", verdicts: "UUU",
			codes: "below_floor below_floor below_floor",
		},
		{
			says: "nor than the latest notBefore of all leaf certificates verified: one that is honest and fresh stops any number of stolen expired keys",
			now:  in1970, voters: join(honest("a"), stolen(ymd(2026, 3, 1), "b", "c", "d", "e")),
			err:      "1 operator agrees, 3 are needed; left out as earlier than any time believed (2026-10-21, the newest certificate, that of a): 4; leave it out",
			verdicts: "AUUUU", codes: "below_floor below_floor below_floor below_floor",
		},
		{
			says: "a certificate dated into the future could at worst stop the sync",
			now:  in1970, voters: join(honest("a", "b", "c"), with(honest("d"), func(v *voter) { v.from, v.to = ymd(2030, 1, 1), ymd(2031, 1, 1) })),
			err: "the newest certificate, that of d", verdicts: "UUUU", codes: "below_floor below_floor below_floor below_floor",
		},
		{
			says: "a server whose window ends before the floor is below it, even if it says the right time",
			now:  in1970, voters: join(honest("a", "b", "c"), with(stolen(ymd(2021, 1, 1), "x"), func(v *voter) { v.says = truth })),
			verdicts: "AAAU", codes: "below_floor", bootstrapped: true, reverified: 3,
		},
		{
			says: "a server whose answer lies below the floor is below it, even if its window does not end before",
			now:  in1970, voters: join(honest("a", "b", "c"), with(stolen(ymd(2021, 1, 1), "x"), func(v *voter) { v.to = ymd(2030, 1, 1) })),
			verdicts: "AAAU", codes: "below_floor", bootstrapped: true, reverified: 3,
		},
		{
			says: "agreement as always, but with bootstrap.min_operators: two of three that answer agree, and that is too few",
			now:  in1970, voters: join(honest("a", "b"), with(honest("c"), func(v *voter) { v.says = truth.Add(time.Minute) })),
			err: "2 operators agree, 3 are needed", verdicts: "AAF", codes: "outside_agreement",
		},
		{
			says: "agreement as always: a lower bootstrap.min_operators does not lower that of any other day",
			now:  in1970, voters: honest("a"), edit: func(e *electorate) { e.bootstrap = 1 },
			err: "1 operator agrees, 2 are needed", verdicts: "A",
		},
		{
			says: "with fewer configured operators it is refused, and the message gives the line that accepts less",
			now:  in1970, voters: honest("a", "a", "a"),
			err:      "1 of the 3 needed are configured; add servers of other operators, or accept fewer with `[bootstrap] min_operators = 1`",
			verdicts: "AAA",
		},
		{
			says: "[bootstrap] min_operators = 1 on an intranet with one CA",
			now:  in1970, voters: honest("a", "a", "a"), edit: func(e *electorate) { e.bootstrap, e.minimum = 1, 1 },
			verdicts: "AAA", bootstrapped: true, reverified: 3,
		},
		{
			says: "at the agreed time every kept chain is verified again: those that fail drop out, and the rest agree",
			now:  in1970, voters: join(honest("a", "b", "c"), with(honest("d"), func(v *voter) { v.to = truth.Add(-time.Hour) })),
			verdicts: "AAAU", codes: "outside_window", bootstrapped: true, reverified: 3,
		},
		{
			says: "if the rest no longer agree in sufficient number, nothing happens: a server whose certificate ends between",
			now:  in1970, voters: join(honest("a", "b"), with(honest("c"), func(v *voter) { v.to = truth.Add(-time.Hour) })),
			err:      "2 operators agree, 3 are needed; dropped out as their certificates are not good at the time agreed on with them: 1",
			verdicts: "AAU", codes: "outside_window",
		},
		{
			says: "the same on any other day: chains are dated by what was agreed on",
			now:  truth.Add(-5 * time.Minute), voters: join(honest("a"), with(honest("b"), func(v *voter) { v.to = truth.Add(-time.Minute) })),
			edit: func(e *electorate) { e.doubt = false },
			err:  "1 operator agrees, 2 are needed; dropped out", verdicts: "AU", codes: "outside_window",
		},
		{
			says: "a chain dated once is good for the life of its session: it votes at any clock, whatever its window",
			now:  in1970, voters: with(honest("a", "b", "c"), func(v *voter) { v.dated, v.to = true, truth.AddDate(0, 0, -7) }),
			verdicts: "AAA", reverified: 0,
		},
		{
			says: "a chain dated once is good for the life of its session, also in the second vote",
			now:  in1970, voters: join(honest("a"),
				with(honest("b", "c"), func(v *voter) { v.dated, v.from, v.to = true, truth.AddDate(0, -5, 0), truth.AddDate(0, -2, 0) })),
			verdicts: "AAA", bootstrapped: true, reverified: 1,
		},
		{
			says: "one stolen expired key that serves its own old time gets nothing: alone",
			now:  in1970, voters: stolen(ymd(2026, 3, 1), "x"), edit: func(e *electorate) { e.operators = 5 },
			err: "1 operator agrees, 3 are needed", verdicts: "A",
		},
		{
			says: "one stolen expired key that serves its own old time gets nothing: it does not stop the others",
			now:  in1970, voters: join(stolen(ymd(2026, 3, 1), "x"), honest("a", "b", "c")),
			verdicts: "UAAA", codes: "below_floor", bootstrapped: true, reverified: 3,
		},
		{
			says: "one stolen expired key gets nothing: nor where it agrees with a clock that was turned back to it",
			now:  ymd(2026, 3, 1), voters: join(stolen(ymd(2026, 3, 1), "x"), honest("a", "b", "c")),
			verdicts: "UAAA", codes: "below_floor", bootstrapped: true, reverified: 3,
		},
		{
			says: "two of five",
			now:  in1970, voters: join(stolen(ymd(2026, 3, 1), "x", "y"), honest("a", "b", "c")),
			verdicts: "UUAAA", codes: "below_floor below_floor", bootstrapped: true, reverified: 3,
		},
		{
			says: "two of five, with keys that are good at the floor",
			now:  in1970, voters: join(with(honest("x", "y"), func(v *voter) { v.says = truth.AddDate(0, 0, -10) }), honest("a", "b", "c")),
			verdicts: "FFAAA", codes: "outside_agreement outside_agreement", bootstrapped: true, reverified: 3,
		},
		{
			says: "a majority is refused by the floor where the floor can tell",
			now:  in1970, voters: join(stolen(ymd(2026, 3, 1), "x", "y", "z"), honest("a", "b")),
			err: "2 operators agree, 3 are needed", verdicts: "UUUAA", codes: "below_floor below_floor below_floor",
		},
		{
			says: "an attacker needs keys good at the floor from as many operators as must agree",
			now:  in1970, voters: join(with(honest("x", "y", "z"), func(v *voter) { v.says = truth.AddDate(0, 0, -10) }), honest("a", "b")),
			at: truth.AddDate(0, 0, -10), verdicts: "AAAFF", codes: "outside_agreement outside_agreement", bootstrapped: true, reverified: 3,
		},
	} {
		t.Run(c.says, func(t *testing.T) {
			e := electorateOf(c.voters)
			if c.edit != nil {
				c.edit(&e)
			}
			var ballots []*ballot
			for _, v := range c.voters {
				ballots = append(ballots, v.ballot(c.now))
			}
			result := e.elect(ballots, c.now)

			var outcomes []Outcome
			var codes []string
			for _, b := range ballots {
				outcomes = append(outcomes, b.out)
				if b.out.Code != "" {
					codes = append(codes, b.out.Code)
				}
				if (b.out.Reason == "") != (b.out.Verdict == report.ServerAgreed) {
					t.Errorf("%s: reason %q", b.out.Verdict, b.out.Reason)
				}
			}
			if got := letters(outcomes); got != c.verdicts {
				t.Errorf("verdicts %s, want %s: %v", got, c.verdicts, outcomes)
			}
			if got := strings.Join(codes, " "); got != c.codes {
				t.Errorf("codes %q, want %q", got, c.codes)
			}
			if c.err != "" {
				if result.err == nil || !strings.Contains(result.err.Error(), c.err) {
					t.Errorf("error %q, want %q", result.err, c.err)
				}
				if result.bootstrapped || result.Offset != 0 {
					t.Errorf("an offset (%v) in spite of the error", result.Offset)
				}
				return
			}
			if result.err != nil {
				t.Fatal(result.err)
			}
			if c.at.IsZero() {
				c.at = truth
			}
			if got := c.now.Add(result.Offset); !got.Equal(c.at) {
				t.Errorf("agreed on %v, want %v", got, c.at)
			}
			if result.bootstrapped != c.bootstrapped || result.reverified != c.reverified {
				t.Errorf("bootstrapped %v with %d verified again, want %v with %d",
					result.bootstrapped, result.reverified, c.bootstrapped, c.reverified)
			}
			if b := result.bootstrap; (b != nil) != c.bootstrapped {
				t.Errorf("reported as %+v", b)
			} else if b != nil && (!b.Deferred || !b.Floor.Equal(e.floor.at) || b.FloorFrom != e.floor.from || b.Reverified != c.reverified) {
				t.Errorf("reported as %+v, with the floor %+v", b, e.floor)
			}
		})
	}
}

// The report of a second vote without agreement says how far it got.
func TestElectReportsSecondVote(t *testing.T) {
	voters := honest("a", "b")
	e := electorateOf(voters)
	e.operators = 3
	result := e.elect([]*ballot{voters[0].ballot(in1970), voters[1].ballot(in1970)}, in1970)
	b := result.bootstrap
	if result.err == nil || b == nil || !b.Deferred || b.FloorFrom != "certificates" || b.Reverified != 0 || result.bootstrapped {
		t.Errorf("%+v, %+v", result, b)
	}
}

// A chain that fails at the agreed time for another reason than its dates says so.
func TestElectSaysWhyChainsFail(t *testing.T) {
	var ballots []*ballot
	for _, v := range honest("a", "b", "c", "d") {
		ballots = append(ballots, v.ballot(truth))
	}
	ballots[3].verify = func(time.Time) error {
		return &nts.Error{Stage: nts.StageCertificate, Code: nts.CertificateInvalid, Err: errors.New("its authority may sign no such name")}
	}
	e := electorateOf(honest("a", "b", "c", "d"))
	result := e.elect(ballots, truth)
	if out := ballots[3].out; result.err != nil || out.Code != "outside_window" || !strings.Contains(out.Reason, "may sign no such name") {
		t.Errorf("%v, %+v", result.err, out)
	}
}

// One that may not vote does not, in neither vote.
func TestElectUnfit(t *testing.T) {
	voters := honest("a", "b", "c")
	e := electorateOf(voters)
	var ballots []*ballot
	for _, v := range voters {
		ballots = append(ballots, v.ballot(in1970))
	}
	ballots[1].fit, ballots[1].out = false, Outcome{report.Unusable, "too_distant", "far away"}
	result := e.elect(ballots, in1970)
	if result.err == nil || ballots[1].out.Code != "too_distant" {
		t.Errorf("%v, %+v", result.err, ballots[1].out)
	}
}

func TestFloor(t *testing.T) {
	c := New(Options{StateDir: "/state", Servers: []Server{{Name: "a:4460"}, {Name: "b:4460"}}, Policy: Policy{Built: built}})
	check := func(at time.Time, from, words, mend string) {
		t.Helper()
		if got, want := c.electorate().floor, (floor{at, from, words, mend}); got != want {
			t.Errorf("floor %+v, want %+v", got, want)
		}
	}
	check(built, "build", "the date of this program", "")
	agreed := ymd(2026, 5, 1)
	c.saved.Agreed = &AgreedTime{Time: agreed, Uncertainty: time.Hour}
	check(agreed.Add(-time.Hour), "state", "the last agreed time", "if that was wrong, delete /state/state.json")
	c.sources[1].leaf = ymd(2026, 4, 1)
	check(agreed.Add(-time.Hour), "state", "the last agreed time", "if that was wrong, delete /state/state.json")
	c.sources[1].leaf = ymd(2026, 6, 1)
	c.sources[0].leaf = ymd(2026, 5, 20)
	check(ymd(2026, 6, 1), "certificates", "the newest certificate, that of b:4460", "if that is dated wrong, leave that server out")
}

// fails is a measurement that fails there.
func fails(stage nts.Stage, code nts.Code) *measurement {
	return &measurement{err: &nts.Error{Stage: stage, Code: code, Err: errors.New("no")}}
}

func TestAllEarly(t *testing.T) {
	early := &measurement{verified: true, early: errors.New("not valid yet")}
	good := &measurement{verified: true, sample: new(nts.Sample)}
	warm := &measurement{sample: new(nts.Sample)}
	expired := fails(nts.StageCertificate, nts.CertificateExpired)
	resting := fails(nts.StageCertificate, nts.CertificateExpired)
	resting.waiting = true
	deadNTP := fails(nts.StageExchange, nts.ExchangeTimeout)
	deadNTP.verified = true
	for _, c := range []struct {
		name     string
		measured []*measurement
		want     bool
	}{
		{"nobody", nil, false},
		{"one", []*measurement{early}, true},
		{"all", []*measurement{early, early, early}, true},
		{"all that could be reached: no name", []*measurement{early, fails(nts.StageDNS, nts.DNSFailed)}, true},
		{"all that could be reached: no connection", []*measurement{early, fails(nts.StageConnect, nts.ConnectRefused)}, true},
		{"all that could be reached: cookies into nowhere", []*measurement{early, fails(nts.StageExchange, nts.ExchangeTimeout)}, true},
		{"all that could be reached: one rests", []*measurement{early, resting}, true},
		{"none reached", []*measurement{fails(nts.StageDNS, nts.DNSFailed)}, false},
		{"one is valid", []*measurement{early, good}, false},
		{"one is valid, but answers no requests", []*measurement{early, deadNTP}, false},
		{"one is dated", []*measurement{early, warm}, false},
		{"one is expired", []*measurement{early, expired}, false},
		{"expired is no doubt", []*measurement{expired, expired}, false},
		{"one fails otherwise", []*measurement{early, fails(nts.StageTLS, nts.TLSFailed)}, false},
	} {
		if got := allEarly(c.measured); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

// Where nobody answers, whatever else it may be is said only of what is known.
func TestNobody(t *testing.T) {
	noName, unroutable := fails(nts.StageDNS, nts.DNSFailed), fails(nts.StageConnect, nts.ConnectUnreachable)
	byProxy := fails(nts.StageProxy, nts.ProxyNoUDP)
	refused, expired := fails(nts.StageConnect, nts.ConnectRefused), fails(nts.StageCertificate, nts.CertificateExpired)
	for _, c := range []struct {
		name     string
		measured []*measurement
		want     string
	}{
		{"no name, no way", []*measurement{noName, unroutable}, "none could be reached; is the network up?"},
		{"refused", []*measurement{refused}, ""},
		{"one refused", []*measurement{noName, refused}, ""},
		{"expired", []*measurement{expired, noName}, "all certificates look expired"},
		{"expired, and one refused", []*measurement{expired, refused}, "all certificates look expired"},
		{"different", []*measurement{expired, fails(nts.StageTLS, nts.TLSFailed)}, ""},
		{"a proxy", []*measurement{byProxy, byProxy}, "no"},
		{"a proxy, and refused beyond it", []*measurement{byProxy, refused}, ""},
		{"one answers", []*measurement{noName, {sample: new(nts.Sample)}}, ""},
	} {
		if got := new(Client).nobody(c.measured); !strings.HasPrefix(got, c.want) || c.want == "" && got != "" {
			t.Errorf("%s: %q", c.name, got)
		}
	}
}
