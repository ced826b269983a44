package report

import (
	"fmt"
	"math"
	"strings"
	"time"
)

// closing is what the report comes to, in sentences.
func (r *Report) closing() []string {
	var sentences []string
	if b := r.Bootstrap; b != nil && b.Deferred {
		sentences = append(sentences, r.datedLater())
	}
	if r.Agreement == nil {
		reason := r.Reason
		if reason == "" {
			reason = fmt.Sprintf("%s answered", ofServers(r.answered(), len(r.Servers)))
		}
		if r.Result == NotPermitted { // nobody was asked
			return append(sentences, reason)
		}
		join := "; "
		if strings.HasSuffix(reason, "?") {
			join = " "
		}
		return append(sentences, "no agreed time: "+reason+join+"the clock was not touched")
	}
	if math.Abs(float64(r.Offset)) >= float64(time.Minute) {
		const layout = "2006-01-02 15:04:05 UTC"
		sentences = append(sentences, fmt.Sprintf("this clock says %s; it is %s",
			r.Clock.UTC().Format(layout), r.Time.UTC().Format(layout)))
	}
	return append(sentences, strings.Join([]string{r.slowOrFast(), r.whoAgrees(), r.done()}, "; "))
}

// datedLater says how the time was found on a machine that had none.
func (r *Report) datedLater() string {
	b := r.Bootstrap
	s := "certificates could not be dated by this clock"
	if !b.Floor.IsZero() {
		s += "; no time before " + b.Floor.UTC().Format("2006-01-02 15:04 UTC") + " was believed"
		if from := map[string]string{
			"build": "the date of this program", "state": "the last agreed time",
			"certificates": "the newest certificate",
		}[b.FloorFrom]; from != "" {
			s += " (" + from + ")"
		}
	}
	if r.Agreement != nil {
		s += fmt.Sprintf("; %d verified again at the agreed time", b.Reverified)
	}
	return s
}

func (r *Report) slowOrFast() string {
	offset, uncertainty := time.Duration(r.Offset), Duration(time.Duration(r.Uncertainty))
	switch {
	case offset > 0:
		return "the clock is slow by " + Duration(offset) + " ± " + uncertainty
	case offset < 0:
		return "the clock is fast by " + Duration(offset) + " ± " + uncertainty
	}
	return "the clock is right within ± " + uncertainty
}

// whoAgrees counts servers, and operators most of whose servers with a vote are
// inside the agreement.
func (r *Report) whoAgrees() string {
	servers, ahead := 0, map[string]int{}
	for _, s := range r.Servers {
		ahead[s.Operator] += 0 // one that failed is an operator, too
		switch s.Verdict {
		case ServerAgreed:
			servers++
			ahead[s.Operator]++
		case Falseticker:
			ahead[s.Operator]--
		}
	}
	operators := 0
	for _, n := range ahead {
		if n > 0 {
			operators++
		}
	}
	verb := "agree"
	if servers == 1 {
		verb = "agrees"
	}
	return fmt.Sprintf("%s (%s) %s", ofServers(servers, len(r.Servers)), of(operators, len(ahead), "operator"), verb)
}

func (r *Report) answered() (n int) {
	for _, s := range r.Servers {
		if s.Measured != nil {
			n++
		}
	}
	return n
}

func ofServers(n, all int) string { return of(n, all, "server") }

func of(n, all int, what string) string {
	if all != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d of %d %s", n, all, what)
}

// done says what was done to the clock, and why, or why not.
func (r *Report) done() string {
	because := ""
	if r.Reason != "" {
		because = ": " + r.Reason
	}
	switch {
	case r.Result == Refused:
		return "refused" + because + "; the clock was not touched"
	case r.Result == NotPermitted:
		return "not permitted to set the clock" + because
	case r.DryRun && r.Action == Step:
		return "dry run: would step" + because
	case r.DryRun && r.Action == Slew:
		return "dry run: would slew" + because
	case r.Action == Step:
		return "stepped" + because
	case r.Action == Slew:
		return "slewing" + because
	case r.Command == "query":
		return "not touched (query)" + because
	}
	return "not touched" + because
}
