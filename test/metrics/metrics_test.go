// Package metrics holds metrics, alerts and what is written about them against
// each other, and against promtool.
package metrics

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"ntsclient/timesync/report"
)

// promtool is its path, as prepare left it.
func promtool(t *testing.T) string {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(cache, "ntsclient-prometheus", "promtool")
	if _, err := os.Stat(path); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("no promtool: run test/metrics/prepare: %v", err)
		}
		t.Skipf("no promtool: test/metrics/prepare fetches it: %v", err)
	}
	return path
}

// example is a loop's report in which everything is known.
func example() *report.Report {
	const second = report.Seconds(time.Second)
	now := time.Date(2026, 11, 21, 21, 0, 0, 0, time.UTC)
	return &report.Report{
		Schema: report.Schema, Command: "run", Result: report.Agreed, Clock: now, Action: report.Slew,
		Agreement: &report.Agreement{Time: now, Offset: 12345, Uncertainty: second / 100},
		Keeping:   &report.Keeping{Loop: true, Synchronized: true, Frequency: -12.3, Steps: 2, Poll: 64 * second},
		Servers: []report.Server{
			{
				Name: "time.example.net:4460", Operator: "example.net", Verdict: report.ServerAgreed,
				Measured: &report.Measured{Offset: -3, Delay: second / 50, Uncertainty: second / 100, Cookies: 8},
				Watched:  &report.Watched{Failures: map[string]int{"dns_failed": 3}},
			},
			{
				Name: "[2001:db8::1]:4460", Operator: `"\` + "\n", Verdict: report.Failed,
				Error: &report.Error{Code: "certificate_expired"}, Watched: &report.Watched{Failures: map[string]int{"certificate_expired": 1}},
			},
		},
	}
}

// metrics are r's, and as `sync` writes them.
func metrics(t *testing.T, r *report.Report) (loop, sync []byte) {
	t.Helper()
	var b bytes.Buffer
	if err := r.WriteMetrics(&b, "1.2.3"); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "ntsclient.prom")
	once := *r
	once.Keeping, once.Standing = nil, &report.Standing{Synchronized: true}
	for range 2 { // the second counts on
		if err := report.WriteTextfile(path, "1.2.3", &once); err != nil {
			t.Fatal(err)
		}
	}
	sync, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes(), sync
}

func TestCheckMetrics(t *testing.T) {
	tool := promtool(t)
	loop, sync := metrics(t, example())
	for name, text := range map[string][]byte{"run": loop, "sync": sync} {
		c := exec.Command(tool, "check", "metrics")
		c.Stdin = bytes.NewReader(text)
		if out, err := c.CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("%s: %v\n%s\n%s", name, err, out, text)
		}
	}
}

func TestAlerts(t *testing.T) {
	tool := promtool(t)
	for _, args := range [][]string{{"check", "rules", "../../docs/alerts.yml"}, {"test", "rules", "alerts_test.yml"}} {
		if out, err := exec.Command(tool, args...).CombinedOutput(); err != nil {
			t.Errorf("promtool %v: %v\n%s", args, err, out)
		}
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// each calls do with what pattern finds in text, which must be something.
func each(t *testing.T, pattern, text string, do func(string)) {
	t.Helper()
	found := regexp.MustCompile(pattern).FindAllStringSubmatch(text, -1)
	if len(found) < 10 {
		t.Fatalf("%s: only %d found", pattern, len(found))
	}
	for _, f := range found {
		do(f[1])
	}
}

// Each alert is tested, is made of metrics that there are, and is explained; and
// each metric is.
func TestAlertsAndGuide(t *testing.T) {
	loop, _ := metrics(t, example())
	rules, tests, guide := read(t, "../../docs/alerts.yml"), read(t, "alerts_test.yml"), read(t, "../../docs/monitoring.md")
	each(t, `- alert: (\w+)`, rules, func(name string) {
		if !strings.Contains(tests, "alertname: "+name+"\n        exp_alerts:") || !strings.Contains(tests, "alertname: "+name+"}") {
			t.Errorf("%s is not tested, to fire and not to", name)
		}
		if !strings.Contains(guide, "\n| `"+name+"` |") {
			t.Errorf("%s is not in docs/monitoring.md", name)
		}
	})
	each(t, `\b(ntsclient_\w+)`, rules, func(name string) {
		if !bytes.Contains(loop, []byte("\n# TYPE "+name+" ")) {
			t.Errorf("there is no metric %s", name)
		}
	})
	each(t, `# TYPE (\w+) `, string(loop), func(name string) {
		if !strings.Contains(guide, "\n| `"+name+"` |") && !strings.Contains(guide, "\n| `"+name+"{") {
			t.Errorf("%s is not in docs/monitoring.md", name)
		}
	})
	each(t, "(?m)^\\| `(\\w+)", guide, func(name string) {
		if !strings.Contains(rules, "alert: "+name+"\n") && !bytes.Contains(loop, []byte("TYPE "+name+" ")) {
			t.Errorf("docs/monitoring.md has %s, which is not there", name)
		}
	})
}
