package report

import (
	"bytes"
	"encoding/json"
	"io"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"
)

// documented is the example that users are shown, in the order of its keys.
const documented = `{
  "schema": 1,
  "command": "query",
  "dry_run": false,
  "result": "agreed",
  "time": "2026-11-21T21:00:00.123456789Z",
  "clock": "2026-11-21T21:00:00.123333789Z",
  "offset_s": 0.000123,
  "uncertainty_s": 0.0113,
  "agreed_interval_s": [
    -0.0101,
    0.0114
  ],
  "action": "none",
  "reason_code": "",
  "reason": "",
  "bootstrap": {
    "deferred": true,
    "floor": "2026-11-01T00:00:00Z",
    "floor_from": "certificates",
    "reverified": 4
  },
  "servers": [
    {
      "name": "time.example.net:4460",
      "operator": "example.net",
      "address": "192.0.2.1:123",
      "verdict": "agreed",
      "offset_s": 0.0001,
      "delay_s": 0.0203,
      "uncertainty_s": 0.0113,
      "stratum": 1,
      "leap": "none",
      "root_delay_s": 0,
      "root_dispersion_s": 0.0001,
      "aead": "AES-SIV-CMAC-256",
      "cookies": 8,
      "samples": 1,
      "key_exchange": true,
      "timestamps": "kernel",
      "certificate": {
        "subject": "time.example.net",
        "issuer": "Example & Sons <CA>",
        "not_before": "2026-11-01T00:00:00Z",
        "not_after": "2027-01-30T00:00:00Z"
      }
    },
    {
      "name": "old.example.org:4460",
      "operator": "example.org",
      "verdict": "failed",
      "error": {
        "stage": "certificate",
        "code": "certificate_expired",
        "message": "…",
        "hint": "…"
      }
    }
  ]
}
`

func example() *Report {
	day := func(y int, m time.Month, d int) time.Time { return time.Date(y, m, d, 0, 0, 0, 0, time.UTC) }
	r := agreed(123000, 11300000, server("time.example.net:4460", "example.net", ServerAgreed, 100000, 11300000, 20300000),
		failed("old.example.org:4460", "example.org", "…", "…"))
	r.Time, r.Clock = evening.Add(123456789), evening.Add(123333789)
	r.Interval = [2]Seconds{-10100000, 11400000}
	r.Bootstrap = &Bootstrap{Deferred: true, Floor: day(2026, 11, 1), FloorFrom: "certificates", Reverified: 4}
	s := &r.Servers[0]
	s.Address, s.RootDispersion, s.KeyExchange = "192.0.2.1:123", 100000, true
	s.Certificate = &Certificate{"time.example.net", "Example & Sons <CA>", day(2026, 11, 1), day(2027, 1, 30)}
	return r
}

func TestJSONIsAsDocumented(t *testing.T) {
	var b bytes.Buffer
	if err := example().WriteJSON(&b); err != nil {
		t.Fatal(err)
	}
	if b.String() != documented {
		t.Errorf("got\n%s\nwant\n%s", b.String(), documented)
	}
	var back Report
	if err := json.Unmarshal(b.Bytes(), &back); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(&back, example()) {
		t.Errorf("a report read back is another one:\n%+v", back)
	}
}

// keys are the keys of an object with their values as they stand in the text.
func keys(t *testing.T, v any) map[string]string {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	raw := map[string]json.RawMessage{}
	if err := json.Unmarshal(text, &raw); err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for k, v := range raw {
		all[k] = string(v)
	}
	return all
}

func TestTimesAreUTC(t *testing.T) {
	r := agreed(0, 0)
	east := time.FixedZone("", 2*3600)
	r.Clock, r.Time = r.Clock.In(east), r.Time.In(east)
	if all := keys(t, r); all["clock"] != `"2026-11-21T21:00:00Z"` || all["time"] != all["clock"] {
		t.Error(all)
	}
}

func TestAbsentFactsAreAbsentKeys(t *testing.T) {
	r := keys(t, noAgreement("why", failed("a", "a", "m", "")))
	for _, key := range []string{"time", "offset_s", "uncertainty_s", "agreed_interval_s", "bootstrap"} {
		if v, ok := r[key]; ok {
			t.Errorf("without agreement there is %s: %s", key, v)
		}
	}
	if r["reason"] != `"why"` || r["reason_code"] != `"no_agreement"` || r["clock"] != `"2026-11-21T21:00:00Z"` {
		t.Error(r)
	}
	want := map[string]string{
		"name": `"a"`, "operator": `"a"`, "verdict": `"failed"`,
		"error": `{"stage":"certificate","code":"certificate_expired","message":"m"}`,
	}
	if s := keys(t, failed("a", "a", "m", "")); !reflect.DeepEqual(s, want) {
		t.Errorf("%v", s)
	}
	if got := keys(t, Report{})["servers"]; got != "[]" {
		t.Errorf("no servers are %s", got)
	}
}

func TestMeasuredZeroIsPresent(t *testing.T) {
	r := agreed(0, 0, Server{Name: "a", Verdict: ServerAgreed, Measured: &Measured{}})
	if all := keys(t, r); all["offset_s"] != "0" || all["uncertainty_s"] != "0" || all["agreed_interval_s"] != "[0,0]" {
		t.Error(all)
	}
	all := keys(t, r.Servers[0])
	for _, key := range []string{"offset_s", "delay_s", "uncertainty_s", "stratum", "root_delay_s", "root_dispersion_s", "cookies", "samples"} {
		if all[key] != "0" {
			t.Errorf("%s is %q", key, all[key])
		}
	}
}

func TestSeconds(t *testing.T) {
	for d, want := range map[Seconds]string{
		0: "0", 1: "0.000000001", -1: "-0.000000001", -300e6: "-0.3", 1e9: "1", 123456789: "0.123456789",
		1_795_000_000_123_456_789: "1795000000.123456789", // more digits than a float64 has
		math.MaxInt64:             "9223372036.854775807", math.MinInt64: "-9223372036.854775808",
	} {
		got, err := json.Marshal(d)
		if err != nil || string(got) != want {
			t.Errorf("%d ns: %s, want %s, %v", d, got, want, err)
		}
		var back Seconds
		if err := json.Unmarshal(got, &back); err != nil || back != d {
			t.Errorf("%s read back: %d ns, %v", got, back, err)
		}
	}
	for _, bad := range []string{`"1"`, `true`, `1e400`, `9223372037`} {
		var s Seconds
		if err := json.Unmarshal([]byte(bad), &s); err == nil {
			t.Errorf("%s is taken for %d ns", bad, s)
		}
	}
}

func TestJSONCannotSteerATerminal(t *testing.T) {
	message := "\x1b[2J\u009b2J \u202egnp.exe \x7f\x00 \U000e0041 µ…"
	r := noAgreement(message, failed("a", "a", message, ""))
	var b bytes.Buffer
	if err := r.WriteJSON(&b); err != nil {
		t.Fatal(err)
	}
	if s := Printable(strings.ReplaceAll(b.String(), "\n", " ")); s != strings.ReplaceAll(b.String(), "\n", " ") {
		t.Errorf("not printable: %q", b.String())
	}
	var back Report
	if err := json.Unmarshal(b.Bytes(), &back); err != nil || back.Reason != message || back.Servers[0].Error.Message != message {
		t.Errorf("read back as %q, %v", back.Reason, err)
	}
}

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

func TestWriteErrorsAreTold(t *testing.T) {
	if err := example().WriteJSON(broken{}); err != io.ErrClosedPipe {
		t.Error(err)
	}
	if err := example().WriteText(broken{}, Style{}); err != io.ErrClosedPipe {
		t.Error(err)
	}
}
