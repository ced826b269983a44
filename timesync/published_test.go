package timesync

import (
	"testing"
	"time"

	"ntsclient/timesync/report"
)

// Each round's report is told, and does not change when later ones are made.
func TestPublished(t *testing.T) {
	simulate(t, 4, func(m *machine) {
		var all []*report.Report
		m.run.Published = func(r *report.Report) {
			if r != m.client.Latest() {
				t.Error("it is not the latest")
			}
			all = append(all, r)
		}
		m.start()
		wait(30 * time.Minute)
		m.servers["a"].set(func(s *loopServer) { s.down = true })
		wait(24 * time.Hour)
		m.end()
		if len(all) < report.MaxOffsets+10 {
			t.Errorf("only %d reports", len(all))
			return
		}
		for i, r := range all {
			if n := len(r.Offsets); n != min(i+1, report.MaxOffsets) || r.Offsets[n-1] != r.Offset || r.LastAgreement != r.Time {
				t.Errorf("report %d: %d offsets, the last one %v of %v; agreed %v, last %v",
					i, n, r.Offsets[n-1], r.Offset, r.Time, r.LastAgreement)
			}
		}
		last := all[len(all)-1].Servers[0]
		if n := last.Failures["exchange_timeout"]; n == 0 || all[10].Servers[0].Failures != nil {
			t.Errorf("%v; at first %v", last.Failures, all[10].Servers[0].Failures)
		}
	})
}
