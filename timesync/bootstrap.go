package timesync

import (
	"errors"
	"fmt"
	"time"

	"ntsclient/nts"
	"ntsclient/timesync/report"
)

// ballot is what one measurement brings to the vote, at one moment of the
// local clock.
type ballot struct {
	vote Vote
	out  Outcome // set where it may not vote
	fit  bool    // it has a sample, and nothing speaks against it

	answer              time.Time // the server's time, as it said it
	notBefore, notAfter time.Time // the window of its chain
	dated               bool      // its chain was valid at an agreed time before
	valid               bool      // dated, or its chain is valid at the local clock
	verify              func(at time.Time) error
	passed              bool // it was, at the time that the last vote agreed on
}

// floor is the earliest time that is believed where dates are in doubt.
type floor struct {
	at    time.Time
	from  string // "build", "state" or "certificates"
	words string // the same for people
	mend  string // what to do should it be wrong; may be empty
}

func (f *floor) String() string { return day(f.at) + ", " + f.words }

// raise makes the later of the two the floor.
func (f *floor) raise(other floor) {
	if other.at.After(f.at) {
		*f = other
	}
}

// electorate is how many must agree, and how early it can be.
type electorate struct {
	operators int // configured
	minimum   int // that must agree
	bootstrap int // that must agree on a time by which certificates are dated
	maxStep   time.Duration
	doubt     bool // the local clock may be too wrong to date certificates
	floor     floor
}

// election is the agreement, or why there is none.
type election struct {
	Consensus
	err          error
	reverified   int               // chains that were valid at the agreed time
	bootstrapped bool              // agreed on with dates deferred
	bootstrap    *report.Bootstrap // nil: dates were not deferred
}

// elect votes. Those whose chains are valid at the local clock vote first, as
// on any other day. Only if dates are in doubt and these do not agree, all do,
// and then nothing below the floor counts. The ballots' outcomes are filled in.
func (e *electorate) elect(ballots []*ballot, now time.Time) *election {
	var fit, valid []*ballot
	for _, b := range ballots {
		switch {
		case !b.fit:
			continue
		case b.valid:
			valid = append(valid, b)
		default:
			b.out = Outcome{report.Unusable, "outside_window", fmt.Sprintf(
				"its certificate is good from %s to %s, and this clock says %s", day(b.notBefore), day(b.notAfter), day(now))}
		}
		fit = append(fit, b)
	}
	first := tally(valid, now, e.minimum)
	agreed := first.err == nil && (first.Offset.Abs() <= e.maxStep || first.Operators >= e.bootstrap)
	switch {
	case agreed, !e.doubt, len(valid) == len(fit):
		return first
	case e.operators < e.bootstrap:
		tally(fit, now, e.minimum) // for what it says of each
		return &election{err: e.tooFewConfigured()}
	}
	return e.second(fit, now)
}

// second is the vote by which certificates are dated.
func (e *electorate) second(fit []*ballot, now time.Time) *election {
	var above []*ballot
	for _, b := range fit {
		reason := ""
		switch {
		case !b.dated && b.notAfter.Before(e.floor.at):
			reason = fmt.Sprintf("its certificate ended on %s, before the earliest time believed (%v)", day(b.notAfter), &e.floor)
		case b.answer.Before(e.floor.at):
			reason = fmt.Sprintf("says %s, before the earliest time believed (%v)", day(b.answer), &e.floor)
		default:
			above = append(above, b)
			continue
		}
		b.out = Outcome{report.Unusable, "below_floor", reason}
	}
	result := tally(above, now, max(e.minimum, e.bootstrap))
	result.bootstrapped = result.err == nil
	result.bootstrap = &report.Bootstrap{
		Deferred: true, Floor: e.floor.at.UTC(), FloorFrom: e.floor.from, Reverified: result.reverified,
	}
	if below := len(fit) - len(above); result.err != nil && below > 0 {
		result.err = fmt.Errorf("%w; left out as earlier than any time believed (%v): %d", result.err, &e.floor, below)
		if e.floor.mend != "" {
			result.err = fmt.Errorf("%w; %s", result.err, e.floor.mend)
		}
	}
	return result
}

// tally selects, and dates the chains of those that agree by what they agreed
// on: those that were not valid then drop out, and the rest must agree without
// them.
func tally(voters []*ballot, now time.Time, minimum int) *election {
	all := len(voters)
	for {
		votes := make([]Vote, len(voters))
		for i, b := range voters {
			votes[i] = b.vote
		}
		consensus, outcomes, err := Select(votes, minimum)
		for i, b := range voters {
			b.out, b.passed = outcomes[i], false
		}
		if dropped := all - len(voters); err != nil && dropped > 0 {
			err = fmt.Errorf("%w; dropped out as their certificates are not good at the time agreed on with them: %d", err, dropped)
		}
		result := &election{Consensus: consensus, err: err}
		if err != nil {
			return result
		}
		rest := date(voters, now.Add(consensus.Offset), result)
		if len(rest) == len(voters) {
			return result
		}
		voters = rest
	}
}

// date verifies the chains of those that agree, at the agreed time, and
// returns the voters without those that fail.
func date(voters []*ballot, at time.Time, r *election) (rest []*ballot) {
	for _, b := range voters {
		if !b.dated && b.out.Verdict == report.ServerAgreed {
			if err := b.verify(at); err != nil {
				b.out = Outcome{report.Unusable, "outside_window", undatable(b, err, at)}
				continue
			}
			b.passed = true
			r.reverified++
		}
		rest = append(rest, b)
	}
	return rest
}

// undatable says why a chain is not good at the agreed time.
func undatable(b *ballot, err error, at time.Time) string {
	switch nts.CodeOf(err) {
	case nts.CertificateExpired, nts.CertificateNotYetValid:
		return fmt.Sprintf("its certificate is good from %s to %s, and the time agreed on with it is %s",
			day(b.notBefore), day(b.notAfter), day(at))
	}
	return fmt.Sprintf("at the agreed time: %v", err)
}

// errTooFewConfigured asks for a decision that only the owner can take.
var errTooFewConfigured = errors.New("too few operators to date certificates by")

func (e *electorate) tooFewConfigured() error {
	return fmt.Errorf("this clock cannot date certificates, and there are %w: %d of the %d needed are configured; "+
		"add servers of other operators, or accept fewer with `[bootstrap] min_operators = %d`",
		errTooFewConfigured, e.operators, e.bootstrap, e.operators)
}

func day(t time.Time) string { return t.UTC().Format("2006-01-02") }
