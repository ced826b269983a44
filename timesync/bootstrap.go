package timesync

import (
	"errors"
	"fmt"
	"time"

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
}

// electorate is how many must agree, and how early it can be.
type electorate struct {
	operators int // configured
	minimum   int // that must agree
	bootstrap int // that must agree on a time by which certificates are dated
	maxStep   time.Duration
	doubt     bool // the local clock may be too wrong to date certificates
	floor     time.Time
	floorFrom string
}

// election is the agreement, or why there is none.
type election struct {
	Consensus
	err          error
	bootstrapped bool // agreed on with dates deferred
	bootstrap    *report.Bootstrap
}

// elect votes. Where dates are in doubt, those that are valid at the local
// clock vote first, as on any other day; only if they do not agree, all do, and
// then nothing below the floor counts. The ballots' outcomes are filled in.
func (e *electorate) elect(ballots []*ballot, now time.Time) *election {
	if !e.doubt {
		return e.vote(ballots, now, e.minimum)
	}
	var deferred []*ballot
	for _, b := range ballots {
		if b.fit && !b.valid {
			deferred = append(deferred, b)
			b.fit = false
			b.out = Outcome{report.Unusable, "outside_window", fmt.Sprintf(
				"its certificate is not valid by this clock (%s to %s), and the others agree without it",
				day(b.notBefore), day(b.notAfter))}
		}
	}
	first := e.vote(ballots, now, e.minimum)
	agreed := first.err == nil && (first.Offset.Abs() <= e.maxStep || first.Operators >= e.bootstrap)
	if agreed || len(deferred) == 0 {
		return first
	}
	for _, b := range deferred {
		b.fit = true
	}
	if e.operators < e.bootstrap {
		e.vote(ballots, now, e.minimum) // for what it says of each
		return &election{err: e.tooFewConfigured()}
	}
	return e.second(ballots, now)
}

// second is the vote by which certificates are dated.
func (e *electorate) second(ballots []*ballot, now time.Time) *election {
	below := 0
	for _, b := range ballots {
		switch {
		case !b.fit:
			continue
		case b.notAfter.Before(e.floor) && !b.dated:
			b.out.Reason = fmt.Sprintf("its certificate ended on %s, before the earliest time believed (%s, from %s)",
				day(b.notAfter), day(e.floor), e.floorFrom)
		case b.answer.Before(e.floor):
			b.out.Reason = fmt.Sprintf("says %s, before the earliest time believed (%s, from %s)",
				day(b.answer), day(e.floor), e.floorFrom)
		default:
			continue
		}
		b.fit = false
		b.out.Verdict, b.out.Code = report.Unusable, "below_floor"
		below++
	}
	result := e.vote(ballots, now, e.bootstrap)
	if result.err != nil {
		if below > 0 {
			result.err = fmt.Errorf("%w; %d were left out as earlier than %s (from %s)",
				result.err, below, day(e.floor), e.floorFrom)
		}
		return result
	}
	result.bootstrapped = true
	*result.bootstrap = report.Bootstrap{
		Deferred: true, Floor: e.floor.UTC(), FloorFrom: e.floorFrom, Reverified: result.bootstrap.Reverified,
	}
	return result
}

// vote selects among those that are fit, and dates their chains by what they
// agreed on: those that were not valid then drop out, and the rest must agree
// without them.
func (e *electorate) vote(ballots []*ballot, now time.Time, minimum int) *election {
	for {
		var votes []Vote
		var voters []*ballot
		for _, b := range ballots {
			if b.fit {
				votes, voters = append(votes, b.vote), append(voters, b)
			}
		}
		consensus, outcomes, err := Select(votes, minimum)
		for i, b := range voters {
			b.out = outcomes[i]
		}
		result := &election{Consensus: consensus, err: err, bootstrap: new(report.Bootstrap)}
		if err != nil || date(voters, now.Add(consensus.Offset), result.bootstrap) {
			return result
		}
	}
}

// date verifies the chains of those that agree at the agreed time. It tells
// whether all passed.
func date(voters []*ballot, at time.Time, r *report.Bootstrap) bool {
	all := true
	for _, b := range voters {
		if b.dated || b.out.Verdict != report.ServerAgreed {
			continue
		}
		if err := b.verify(at); err != nil {
			b.fit, all = false, false
			b.out = Outcome{report.Unusable, "outside_window", fmt.Sprintf("at the agreed time: %v", err)}
			continue
		}
		r.Reverified++
	}
	return all
}

// errTooFewConfigured asks for a decision that only the owner can take.
var errTooFewConfigured = errors.New("too few operators to date certificates by")

func (e *electorate) tooFewConfigured() error {
	return fmt.Errorf("this clock cannot date certificates, and %w: %d of the %d needed are configured; "+
		"add servers of other operators, or accept fewer with `[bootstrap] min_operators = %d`",
		errTooFewConfigured, e.operators, e.bootstrap, e.operators)
}

func day(t time.Time) string { return t.UTC().Format("2006-01-02") }
