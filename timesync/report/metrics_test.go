package report

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// A line of the text format, as far as it is used here.
var metricLine = regexp.MustCompile(`^(ntsclient_[a-z_]+)(\{([a-z]+="([^"\\\n]|\\["\\n])*",?)*\})? (-?[0-9]+(\.[0-9]+)?)$`)

// checkMetrics holds what is true of all metrics: each has its help and its type
// before it, and no series is there twice.
func checkMetrics(t *testing.T, r *Report) string {
	t.Helper()
	var b bytes.Buffer
	if err := r.WriteMetrics(&b, "1.2.3"); err != nil {
		t.Fatal(err)
	}
	checkMetricsText(t, b.String())
	return b.String()
}

func checkMetricsText(t *testing.T, text string) {
	t.Helper()
	family, seen := "", map[string]bool{}
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if name, ok := strings.CutPrefix(line, "# HELP "); ok {
			name, help, _ := strings.Cut(name, " ")
			if family = name; seen[name] || !strings.HasSuffix(help, ".") {
				t.Errorf("twice, or no sentence: %q", line)
			}
			continue
		}
		if kind, ok := strings.CutPrefix(line, "# TYPE "+family+" "); ok {
			if (kind == "counter") != strings.HasSuffix(family, "_total") || kind != "counter" && kind != "gauge" {
				t.Errorf("%q", line)
			}
			continue
		}
		m := metricLine.FindStringSubmatch(line)
		if m == nil || m[1] != family {
			t.Fatalf("%q in %s", line, family)
		}
		if seen[m[1]+m[2]] {
			t.Errorf("twice: %q", line)
		}
		seen[m[1]+m[2]] = true
	}
}

const keptMetrics = `# HELP ntsclient_build_info 1, with the version of ntsclient.
# TYPE ntsclient_build_info gauge
ntsclient_build_info{version="1.2.3"} 1
# HELP ntsclient_synchronized Whether the kernel calls its clock synchronized.
# TYPE ntsclient_synchronized gauge
ntsclient_synchronized 1
# HELP ntsclient_holding Whether the clock is left alone because it is too far off.
# TYPE ntsclient_holding gauge
ntsclient_holding 0
# HELP ntsclient_last_agreement_timestamp_seconds When a time was last agreed on, by that time.
# TYPE ntsclient_last_agreement_timestamp_seconds gauge
ntsclient_last_agreement_timestamp_seconds 1795294800.000
# HELP ntsclient_offset_seconds What had to be added to the clock to make it right.
# TYPE ntsclient_offset_seconds gauge
ntsclient_offset_seconds -0.000012
# HELP ntsclient_uncertainty_seconds The truth is within plus or minus this of the offset.
# TYPE ntsclient_uncertainty_seconds gauge
ntsclient_uncertainty_seconds 0.003
# HELP ntsclient_frequency_ppm By how much the clock is made to run faster, in parts per million.
# TYPE ntsclient_frequency_ppm gauge
ntsclient_frequency_ppm -12.3456
# HELP ntsclient_steps_total Steps of the clock.
# TYPE ntsclient_steps_total counter
ntsclient_steps_total 1
# HELP ntsclient_server_agreed Whether the server agrees with the majority of operators.
# TYPE ntsclient_server_agreed gauge
ntsclient_server_agreed{server="time.cloudflare.com:4460",operator="cloudflare.com"} 1
ntsclient_server_agreed{server="virginia.time.system76.com:4460",operator="system76.com"} 0
# HELP ntsclient_server_offset_seconds What had to be added to the clock by the server's account.
# TYPE ntsclient_server_offset_seconds gauge
ntsclient_server_offset_seconds{server="time.cloudflare.com:4460",operator="cloudflare.com"} -0.00004
# HELP ntsclient_server_delay_seconds The round trip to the server, without the time it took there.
# TYPE ntsclient_server_delay_seconds gauge
ntsclient_server_delay_seconds{server="time.cloudflare.com:4460",operator="cloudflare.com"} 0.006
# HELP ntsclient_server_uncertainty_seconds The truth is within plus or minus this of the server's offset.
# TYPE ntsclient_server_uncertainty_seconds gauge
ntsclient_server_uncertainty_seconds{server="time.cloudflare.com:4460",operator="cloudflare.com"} 0.0031
# HELP ntsclient_server_cookies Cookies of the server that are left.
# TYPE ntsclient_server_cookies gauge
ntsclient_server_cookies{server="time.cloudflare.com:4460",operator="cloudflare.com"} 8
# HELP ntsclient_server_failures_total Rounds in which the server gave no authenticated answer, by reason.
# TYPE ntsclient_server_failures_total counter
ntsclient_server_failures_total{server="virginia.time.system76.com:4460",code="dns_failed"} 1
ntsclient_server_failures_total{server="virginia.time.system76.com:4460",code="exchange_timeout"} 4
`

func TestMetrics(t *testing.T) {
	r := kept()
	r.Servers = append(r.Servers[:1], r.Servers[4])
	if got := checkMetrics(t, r); got != keptMetrics {
		t.Errorf("got\n%s\nwant\n%s", got, keptMetrics)
	}
	// What is not known is not there: not even as 0.
	once := goldens()["all_failed"]
	got := checkMetrics(t, once)
	for _, name := range []string{"synchronized", "offset", "frequency", "steps", "last_agreement", "cookies", "failures"} {
		if strings.Contains(got, "ntsclient_"+name) || strings.Contains(got, "ntsclient_server_"+name) {
			t.Errorf("%s is in\n%s", name, got)
		}
	}
	if !strings.Contains(got, `ntsclient_server_agreed{server="nts.netnod.se:4460",operator="netnod.se"} 0`) {
		t.Error(got)
	}
	held := statuses()["status_held"]
	if got := checkMetrics(t, held); !strings.Contains(got, "ntsclient_holding 1\n") {
		t.Error(got)
	}
	lost := statuses()["status_lost"]
	if got := checkMetrics(t, lost); !strings.Contains(got, "\n"+nameAgreed+" 1795294800.000\n") || !strings.Contains(got, "ntsclient_synchronized 0\n") {
		t.Error(got)
	}
}

func TestHostileMetrics(t *testing.T) {
	r := kept()
	for _, s := range hostile {
		r.Servers = append(r.Servers, server(s, s, ServerAgreed, 1, 2, 3), failed("failed "+s, s, s, s))
		r.Servers[0].Failures = map[string]int{s: 1, `a"} 1`: 2, `back\slash`: 3}
		checkMetrics(t, r)
	}
}

// textfile writes r's metrics and returns them as they are in the file.
func textfile(t *testing.T, path string, r *Report) string {
	t.Helper()
	if err := WriteTextfile(path, "1.2.3", r); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode() != 0o644 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if left, _ := filepath.Glob(path + "?*"); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	checkMetricsText(t, string(text))
	return string(text)
}

// Each run of `sync` counts on, and remembers the last agreement.
func TestTextfileCounts(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ntsclient.prom")
	want := func(text string, lines ...string) {
		t.Helper()
		for _, line := range lines {
			if !strings.Contains(text, "\n"+line+"\n") {
				t.Errorf("no %q in\n%s", line, text)
			}
		}
	}
	const failure = `ntsclient_server_failures_total{server="nts.netnod.se:4460",code="certificate_expired"} `
	lost := goldens()["all_failed"]
	want(textfile(t, path, lost), failure+"1", "ntsclient_steps_total 0")
	stepped := goldens()["one_liar"]
	stepped.DryRun = false
	want(textfile(t, path, stepped), failure+"1", "ntsclient_steps_total 1", "ntsclient_last_agreement_timestamp_seconds 1795294800.000")
	want(textfile(t, path, lost), failure+"2", "ntsclient_steps_total 1", "ntsclient_last_agreement_timestamp_seconds 1795294800.000")
	slewed := goldens()["near_liar"]
	want(textfile(t, path, slewed), failure+"2", "ntsclient_steps_total 1")
	// Servers that are no longer configured are forgotten.
	slewed.Servers = slewed.Servers[:1]
	if text := textfile(t, path, slewed); strings.Contains(text, "nts.netnod.se") {
		t.Error(text)
	}
	// A loop counts by itself, but may not know of the last agreement.
	loop := kept()
	loop.Agreement, loop.Result, loop.Steps = nil, NoAgreement, 7
	loop.LastAgreement = time.Time{}
	want(textfile(t, path, loop), "ntsclient_steps_total 7", "ntsclient_last_agreement_timestamp_seconds 1795294800.000")
}

func TestTextfileTrouble(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "ntsclient.prom")
	// Whatever was there before.
	for _, before := range []string{
		"", "\x00\xff", "ntsclient_steps_total -1\n", "ntsclient_steps_total 1e9\n ntsclient_steps_total 3\n",
		nameAgreed + " NaN\n" + nameAgreed + " 5\n", nameAgreed + " 1e300\n", strings.Repeat("a", 1<<17),
		"ntsclient_server_failures_total{server=\"nts.netnod.se:4460\",code=\"\x1b\n",
	} {
		if err := os.WriteFile(path, []byte(before), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := textfile(t, path, goldens()["all_failed"]); strings.Contains(got, nameAgreed) || !strings.Contains(got, nameSteps+" 0\n") {
			t.Errorf("%.40q: %s", before, got)
		}
	}
	before := textfile(t, path, kept())
	if err := os.Mkdir(path+".new", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path+".new/x", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := WriteTextfile(path, "1.2.3", example()); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("something is in the way: %v", err)
	}
	if after, err := os.ReadFile(path); err != nil || string(after) != before {
		t.Errorf("%v\n%s", err, after)
	}
	if err := WriteTextfile(dir, "1.2.3", example()); err == nil || !strings.Contains(err.Error(), "regular") {
		t.Errorf("a directory: %v", err)
	}
	if err := WriteTextfile(filepath.Join(dir, "none", "x.prom"), "1.2.3", example()); err == nil {
		t.Error("written to nowhere")
	}
}
