package report

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// MaxText is the most octets that a report may have when it is read back, and
// maxServers the most servers.
const (
	MaxText    = 1 << 20
	maxServers = 1000
)

// Parse reads a report that WriteJSON wrote. It comes from elsewhere, and only
// what can be shown and written again is taken: any text in it may be hostile,
// as those of a report always may.
func Parse(text []byte) (*Report, error) {
	if len(text) > MaxText {
		return nil, fmt.Errorf("a report of more than %d octets", MaxText)
	}
	var head struct {
		Schema int `json:"schema"`
	}
	if err := json.Unmarshal(text, &head); err != nil {
		return nil, fmt.Errorf("not a report: %w", err)
	}
	if head.Schema != Schema {
		return nil, fmt.Errorf("a report of schema %d, and this version knows only %d", head.Schema, Schema)
	}
	r := new(Report)
	if err := json.Unmarshal(text, r); err != nil {
		return nil, fmt.Errorf("not a report: %w", err)
	}
	if err := r.check(); err != nil {
		return nil, fmt.Errorf("not a report: %w", err)
	}
	return r, nil
}

// check says why a report that was read cannot be one.
func (r *Report) check() error {
	times := []time.Time{r.Clock}
	if r.Agreement != nil {
		times = append(times, r.Time)
		if r.Uncertainty < 0 || r.Interval[0] > r.Interval[1] {
			return errors.New("its agreed interval ends before it begins")
		}
	}
	if r.Result == Agreed && r.Agreement == nil {
		return errors.New("agreed, on nothing")
	}
	if r.Bootstrap != nil {
		times = append(times, r.Bootstrap.Floor)
	}
	if k := r.Keeping; k != nil && len(k.Offsets) > MaxOffsets {
		return fmt.Errorf("%d offsets", len(k.Offsets))
	}
	if len(r.Servers) > maxServers {
		return fmt.Errorf("%d servers", len(r.Servers))
	}
	names := map[string]bool{}
	for i := range r.Servers {
		s := &r.Servers[i]
		if names[s.Name] {
			return errors.New("a server twice")
		}
		names[s.Name] = true
		if c := s.Certificate; c != nil {
			times = append(times, c.NotBefore, c.NotAfter)
		}
		if m := s.Measured; m != nil && m.Uncertainty < 0 {
			return errors.New("an uncertainty below zero")
		}
		if w := s.Watched; w != nil && len(w.Failures) > maxServers {
			return fmt.Errorf("%d codes of failures", len(w.Failures))
		}
	}
	for _, t := range times {
		if y := t.UTC().Year(); y < 0 || y > 9999 { // could not be written again
			return fmt.Errorf("the year %d", y)
		}
	}
	return nil
}
