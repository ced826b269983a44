package report

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// WriteMetrics writes the report in the text format of Prometheus, for the given
// version of the program. What is not known is left out.
func (r *Report) WriteMetrics(w io.Writer, version string) error {
	_, err := w.Write(r.metrics(version, r.totals()))
	return err
}

// totals are what metrics tell of more than one round.
type totals struct {
	agreed   time.Time      // the last time that was agreed on; zero: unknown
	counted  bool           // what follows is known
	steps    int            // of the clock
	failures map[string]int // by series
}

const (
	nameAgreed   = "ntsclient_last_agreement_timestamp_seconds"
	nameSteps    = "ntsclient_steps_total"
	nameFailures = "ntsclient_server_failures_total"
)

// failure is the series that counts a server's failures for one reason.
func failure(server, code string) string {
	return nameFailures + labels("server", server, "code", code)
}

// totals are those that the report has: only a loop counts.
func (r *Report) totals() totals {
	t := totals{failures: map[string]int{}}
	if r.Agreement != nil {
		t.agreed = r.Time
	}
	if r.Keeping == nil {
		return t
	}
	if t.agreed.IsZero() {
		t.agreed = r.LastAgreement
	}
	t.counted, t.steps = true, r.Steps
	for i := range r.Servers {
		if w := r.Servers[i].Watched; w != nil {
			for code, n := range w.Failures {
				t.failures[failure(r.Servers[i].Name, code)] = n
			}
		}
	}
	return t
}

// family is a metric with all its series.
type family struct {
	name, kind, help string
	series           []string // labels and value
}

func (f *family) add(labels, value string) { f.series = append(f.series, labels+" "+value) }

func (r *Report) metrics(version string, t totals) []byte {
	var b bytes.Buffer
	for _, f := range slices.Concat(r.clockFamilies(version, t), r.serverFamilies(t)) {
		if len(f.series) == 0 {
			continue
		}
		fmt.Fprintf(&b, "# HELP %s %s\n# TYPE %s %s\n", f.name, f.help, f.name, f.kind)
		for _, s := range f.series {
			b.WriteString(f.name + s + "\n")
		}
	}
	return b.Bytes()
}

func (r *Report) clockFamilies(version string, t totals) []family {
	gauge := func(name, help string, known bool, value func() string) family {
		f := family{name: name, kind: "gauge", help: help}
		if known {
			f.add("", value())
		}
		return f
	}
	agreed, kept := r.Agreement != nil, r.Keeping != nil
	steps := family{name: nameSteps, kind: "counter", help: "Steps of the clock."}
	if t.counted {
		steps.add("", strconv.Itoa(t.steps))
	}
	build := family{name: "ntsclient_build_info", kind: "gauge", help: "1, with the version of ntsclient."}
	build.add(labels("version", version), "1")
	return []family{
		build,
		gauge("ntsclient_synchronized", "Whether the kernel calls its clock synchronized.",
			r.Standing != nil || kept, func() string {
				if r.Standing != nil {
					return truth(r.Standing.Synchronized)
				}
				return truth(r.Synchronized)
			}),
		gauge("ntsclient_holding", "Whether the clock is left alone because it is too far off.",
			r.Result != "" && r.Servers != nil, func() string { return truth(r.Result == Held || r.Result == Refused) }),
		gauge(nameAgreed, "When a time was last agreed on, by that time.",
			!t.agreed.IsZero(), func() string { return fmt.Sprintf("%.3f", float64(t.agreed.UnixMilli())/1000) }),
		gauge("ntsclient_offset_seconds", "What had to be added to the clock to make it right.",
			agreed, func() string { return decimal(r.Offset) }),
		gauge("ntsclient_uncertainty_seconds", "The truth is within plus or minus this of the offset.",
			agreed, func() string { return decimal(r.Uncertainty) }),
		gauge("ntsclient_frequency_ppm", "By how much the clock is made to run faster, in parts per million.",
			kept, func() string { return strconv.FormatFloat(r.Frequency, 'f', -1, 64) }),
		steps,
	}
}

func (r *Report) serverFamilies(t totals) []family {
	all := []family{
		{name: "ntsclient_server_agreed", help: "Whether the server agrees with the majority of operators."},
		{name: "ntsclient_server_offset_seconds", help: "What had to be added to the clock by the server's account."},
		{name: "ntsclient_server_delay_seconds", help: "The round trip to the server, without the time it took there."},
		{name: "ntsclient_server_uncertainty_seconds", help: "The truth is within plus or minus this of the server's offset."},
		{name: "ntsclient_server_cookies", help: "Cookies of the server that are left."},
	}
	for i := range r.Servers {
		s := &r.Servers[i]
		who := labels("server", s.Name, "operator", s.Operator)
		all[0].add(who, truth(s.Verdict == ServerAgreed))
		if m := s.Measured; m != nil {
			for j, value := range []string{
				decimal(m.Offset), decimal(m.Delay), decimal(m.Uncertainty), strconv.Itoa(m.Cookies),
			} {
				all[j+1].add(who, value)
			}
		}
	}
	for i := range all {
		all[i].kind = "gauge"
	}
	failures := family{name: nameFailures, kind: "counter", help: "Rounds in which the server gave no authenticated answer, by reason."}
	if t.counted {
		for _, series := range slices.Sorted(maps.Keys(t.failures)) {
			failures.add(strings.TrimPrefix(series, nameFailures), strconv.Itoa(t.failures[series]))
		}
	}
	return append(all, failures)
}

// count adds this round to totals that an earlier round left as metrics: a
// `sync` counts on in the file.
func (t *totals) count(r *Report, before []byte) {
	t.counted = true
	if r.Action == Step && !r.DryRun {
		t.steps++
	}
	var still []string // the beginnings of the series of servers that are there
	for i := range r.Servers {
		s := &r.Servers[i]
		still = append(still, strings.TrimSuffix(failure(s.Name, ""), `"}`))
		if s.Error != nil {
			t.failures[failure(s.Name, s.Error.Code)]++
		}
	}
	lines := bufio.NewScanner(bytes.NewReader(before))
	for lines.Scan() {
		line := lines.Text()
		end := strings.LastIndexByte(line, ' ')
		if end < 0 {
			continue
		}
		name := line[:end]
		n, err := strconv.ParseUint(line[end+1:], 10, 31)
		switch {
		case err != nil:
		case name == nameSteps:
			t.steps += int(n)
		case slices.ContainsFunc(still, func(begin string) bool { return strings.HasPrefix(name, begin) }):
			t.failures[name] += int(n)
		}
	}
	t.remember(before)
}

// remember takes the last agreement from earlier metrics, if there is no later.
func (t *totals) remember(before []byte) {
	if !t.agreed.IsZero() {
		return
	}
	_, rest, _ := strings.Cut("\n"+string(before), "\n"+nameAgreed+" ")
	line, _, _ := strings.Cut(rest, "\n")
	if seconds, err := strconv.ParseFloat(line, 64); err == nil && seconds > 0 && seconds < 1<<37 {
		t.agreed = time.UnixMilli(int64(seconds * 1000)).UTC()
	}
}

// labels are names and values in turn. Texts of any content are fit to be
// shown, and are told apart.
func labels(pairs ...string) string {
	var b strings.Builder
	for i := 0; i < len(pairs); i += 2 {
		b.WriteByte("{,"[min(i, 1)])
		b.WriteString(pairs[i] + `="` + escaped.Replace(Printable(pairs[i+1])) + `"`)
	}
	return b.String() + "}"
}

var escaped = strings.NewReplacer(`\`, `\\`, `"`, `\"`)

func truth(is bool) string {
	if is {
		return "1"
	}
	return "0"
}

func decimal(s Seconds) string {
	text, _ := s.MarshalJSON() // of a number, which cannot fail
	return string(text)
}
