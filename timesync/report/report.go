// Package report holds what ntsclient tells the world about one round of
// measurements: as JSON for machines, as a table and a drawing for people.
//
// A Report is made once, by timesync, and not changed afterwards.
package report

import "time"

// Schema is the version of the JSON. It grows only when a key changes its
// meaning or goes away.
const Schema = 1

// Result is what a round came to.
type Result string

// The results of a round.
const (
	Agreed       Result = "agreed"
	NoAgreement  Result = "no_agreement"
	Refused      Result = "refused"
	NotPermitted Result = "not_permitted"
	Held         Result = "held" // of the loop: agreed, and too far off to be corrected
)

// Action is what was done to the clock, or in a dry run would have been.
type Action string

// The actions.
const (
	None Action = "none"
	Slew Action = "slew"
	Step Action = "step"
)

// Verdict is what was made of one server.
type Verdict string

// The verdicts.
const (
	ServerAgreed Verdict = "agreed"      // inside the agreement
	Falseticker  Verdict = "falseticker" // authenticated, and disagrees
	Unusable     Verdict = "unusable"    // authenticated, and not fit to vote
	Failed       Verdict = "failed"      // no authenticated answer
)

// Seconds is a duration that JSON shows as a number of seconds, exact to the
// nanosecond.
type Seconds time.Duration

// Report is one round: what each server said, what they agree on, and what
// was done about it.
type Report struct {
	Schema  int    `json:"schema"`
	Command string `json:"command"`
	DryRun  bool   `json:"dry_run"`
	Result  Result `json:"result"`

	Clock time.Time `json:"clock"` // what the local clock says, UTC
	// Agreement is nil where no time was agreed on.
	*Agreement

	Action     Action `json:"action"`
	ReasonCode string `json:"reason_code"` // why not, or why so; for scripts
	Reason     string `json:"reason"`      // the same in words

	// Keeping is nil but where a loop keeps the clock.
	*Keeping
	// Standing is nil but in the report of `status`.
	Standing *Standing `json:"-"` // its keys stand in front

	Bootstrap *Bootstrap `json:"bootstrap,omitempty"`
	Servers   []Server   `json:"servers"`
}

// Agreement is the agreed time at the moment of Report.Clock.
type Agreement struct {
	Time        time.Time  `json:"time"`              // UTC
	Offset      Seconds    `json:"offset_s"`          // to be added to the local clock
	Uncertainty Seconds    `json:"uncertainty_s"`     // the truth is within ± this of Offset
	Interval    [2]Seconds `json:"agreed_interval_s"` // what a majority of operators covers
}

// Keeping is what a running loop knows besides.
type Keeping struct {
	Loop                 bool    `json:"loop"`
	Synchronized         bool    `json:"synchronized"`              // by the kernel's own account
	Frequency            float64 `json:"frequency_ppm"`             // of the clock, as steered
	FrequencyUncertainty float64 `json:"frequency_uncertainty_ppm"` // its standard deviation
	NextPoll             Seconds `json:"next_poll_s"`               // from Clock on
	Poll                 Seconds `json:"poll_s"`
	Steps                int     `json:"steps"` // since the loop began

	LastAgreement time.Time `json:"last_agreement,omitzero"` // UTC, by the agreed time
	Offsets       []Seconds `json:"offsets_s,omitempty"`     // of the last rounds that agreed, at most MaxOffsets, the newest last
}

// MaxOffsets is how many offsets a loop tells.
const MaxOffsets = 64

// Standing is what `status` finds out when it is asked.
type Standing struct {
	Loop         bool     `json:"loop"`            // one is running
	Synchronized bool     `json:"synchronized"`    // by the kernel's own account
	Age          *Seconds `json:"age_s,omitempty"` // of what else is told; nil: nothing is known, or the clock was set back since
	Of           string   `json:"-"`               // the command that made the report; empty: nothing is known
}

// Bootstrap says how the time was found where certificates could not be dated
// by the local clock.
type Bootstrap struct {
	Deferred   bool      `json:"deferred"`   // dates were looked at only after the agreement
	Floor      time.Time `json:"floor"`      // the earliest time that was believed, UTC
	FloorFrom  string    `json:"floor_from"` // "build", "state" or "certificates"
	Reverified int       `json:"reverified"` // chains that were valid at the agreed time
}

// Server is one configured server.
type Server struct {
	Name       string  `json:"name"` // host:port of the key exchange
	Operator   string  `json:"operator"`
	Address    string  `json:"address,omitempty"` // address:port that answered
	Verdict    Verdict `json:"verdict"`
	ReasonCode string  `json:"reason_code,omitempty"`
	Reason     string  `json:"reason,omitempty"` // why it is out, in words with numbers

	// Measured is nil where there was no authenticated answer.
	*Measured
	// Watched is nil but where a loop keeps the clock.
	*Watched
	// Probed is nil but in a check.
	Probed *Probed `json:"-"`

	Certificate *Certificate `json:"certificate,omitempty"`
	Error       *Error       `json:"error,omitempty"` // only where Failed
}

// Measured is what an authenticated answer said.
type Measured struct {
	Offset         Seconds `json:"offset_s"`
	Delay          Seconds `json:"delay_s"`
	Uncertainty    Seconds `json:"uncertainty_s"`
	Stratum        uint8   `json:"stratum"`
	Leap           string  `json:"leap"` // "none", "insert", "delete" or "unknown"
	RootDelay      Seconds `json:"root_delay_s"`
	RootDispersion Seconds `json:"root_dispersion_s"`
	AEAD           string  `json:"aead"`
	Cookies        int     `json:"cookies"`      // left in the jar
	Samples        int     `json:"samples"`      // authenticated answers of this round
	KeyExchange    bool    `json:"key_exchange"` // one was made in this round
	Timestamps     string  `json:"timestamps"`   // "kernel" or "user"
}

// Watched is what a running loop knows of a server besides.
type Watched struct {
	Reach      string  `json:"reach"`              // the last eight rounds, the newest last: 1 where it answered
	KeyBits    int     `json:"key_bits,omitempty"` // of its session; absent: there is none
	KeyAge     Seconds `json:"key_age_s,omitempty"`
	NAKs       int     `json:"naks"`
	LastAnswer Seconds `json:"last_answer_s,omitempty"` // before Report.Clock
	Poll       Seconds `json:"poll_s"`                  // at most so often

	Failures map[string]int `json:"failures,omitempty"` // rounds without an answer since the loop began, by the error's code
}

// Certificate is the leaf of the chain that the server's keys hang on. Its
// texts come from the server and are printable.
type Certificate struct {
	Subject   string    `json:"subject"`
	Issuer    string    `json:"issuer"`
	NotBefore time.Time `json:"not_before"`
	NotAfter  time.Time `json:"not_after"`
}

// Error is why a server gave no authenticated answer.
type Error struct {
	Stage   string `json:"stage"`
	Code    string `json:"code"`
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"`
}
