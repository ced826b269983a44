//go:build linux && vm

package vm

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ntsclient/test/vm/oracle"
)

// A loop on a real kernel: from 1970 to the right time; kept there; set an hour
// off by somebody else, which it notices within seconds; set back; and ended, with
// the clock at its base frequency. LONG=1 gives it five minutes, and then the
// clock has to be right within a millisecond.
func TestRun(t *testing.T) {
	need(t, AMD64)
	settle, within := 30, 10*time.Millisecond
	if os.Getenv("LONG") != "" {
		settle, within = 300, time.Millisecond
	}
	n := serve(t, "[run]\nmin_poll = \"4s\"\nmax_poll = \"4s\"\n", "", "", "", "")
	r := Machine{Arch: AMD64, RTC: epoch, Files: n.files, Limit: 10 * time.Minute, Script: n.warmUp + fmt.Sprintf(`
ntsclient run >/tmp/log 2>&1 &
loop=$!
guest run synchronized ntsclient status --wait 60s
sleep %d
guest run kept true
guest run second ntsclient run
guest shift 3600000
sleep 6
guest run held cat /tmp/log
guest shift -3600000
sleep 20
guest run back ntsclient status --json
kill -TERM $loop
wait $loop
echo "exit $?" >>/tmp/log
guest run ended cat /tmp/log
sleep 5
guest run later true
`, settle)}.Run(t)

	log := r["ended"].Stdout
	if s := r["synchronized"]; s.Exit != 0 || s.After.Abs() > oracle.Near {
		t.Errorf("status %d, off by %v: %s%s", s.Exit, s.After, s.Stdout, s.Stderr)
	}
	for name, within := range map[string]time.Duration{"kept": within, "back": oracle.Near, "later": oracle.Near} {
		s := r[name]
		if s.After.Abs() > within+s.Trip/2 {
			t.Errorf("%s: off by %v ± %v", name, s.After, s.Trip/2)
		}
		if s.MaxError >= 16*time.Second || s.Status&(unix.STA_UNSYNC|unix.STA_PLL) != 0 || s.Tick != 10000 || s.Pending != 0 {
			t.Errorf("%s: maxerror %v, status %#x, tick %d, %v still to slew", name, s.MaxError, s.Status, s.Tick, s.Pending)
		}
		t.Logf("%s: off by %v ± %v, frequency %.3f ppm, maxerror %v", name, s.After, s.Trip/2, float64(s.Frequency)/65536, s.MaxError)
	}
	if s := r["second"]; s.Exit != 1 || !strings.Contains(s.Stderr, "a loop is running") {
		t.Errorf("a second loop: exit %d, %s", s.Exit, s.Stderr)
	}
	held := r["held"].Stdout
	for _, want := range []string{"the clock was stepped", "the clock was set by another program", "the clock is left alone"} {
		if !strings.Contains(held, want) {
			t.Errorf("%q was not said:\n%s", want, held)
		}
	}
	if d := r["held"].After - time.Hour; d.Abs() > oracle.Near {
		t.Errorf("held at %v", r["held"].After)
	}
	if !strings.HasSuffix(log, "exit 0\n") || strings.Contains(log, "another program is steering") {
		t.Errorf("ended with\n%s", log)
	}
	// What it was left at is what the crystal was found to need.
	var base float64
	if i := strings.LastIndex(log, `msg=stopped frequency="`); i < 0 {
		t.Error("no frequency was learned")
	} else if _, err := fmt.Sscanf(log[i:], `msg=stopped frequency="%g`, &base); err != nil {
		t.Error(err)
	}
	if f := float64(r["later"].Frequency) / 65536; f-base > 1 || base-f > 1 {
		t.Errorf("left at %v ppm, not %v", f, base)
	}
	n.exchanged(t, 1)
}
