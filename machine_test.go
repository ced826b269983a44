package main

import (
	"bytes"
	"io/fs"
	"log/slog"
	"reflect"
	"strings"
	"testing"
	"testing/fstest"

	"ntsclient/timesync/report"
)

// files is a file system of these files; what begins with -> is a link.
func files(content map[string]string) fstest.MapFS {
	m := fstest.MapFS{}
	for name, text := range content {
		if to, ok := strings.CutPrefix(text, "->"); ok {
			m[name] = &fstest.MapFile{Data: []byte(to), Mode: 0o777 | fs.ModeSymlink}
			continue
		}
		m[name] = &fstest.MapFile{Data: []byte(text)}
	}
	return m
}

const (
	mayAll  = "Name:\tx\nCapEff:\t000001ffffffffff\nSeccomp:\t0\n"
	mayTime = "Name:\tx\nCapEff:\t0000000002000000\n"
	mayNot  = "Name:\tx\nCapEff:\t000001fffdffffff\n"
)

func TestRivals(t *testing.T) {
	const wants = "etc/systemd/system/multi-user.target.wants/"
	for _, c := range []struct {
		name  string
		files map[string]string
		want  []rival
		text  string // and its mend
	}{
		{"nobody", map[string]string{"proc/1/comm": "systemd\n", "proc/77/comm": "chronyc\n", "proc/self/comm": "chronyd\n"}, nil, ""},
		{
			"by hand",
			map[string]string{"proc/77/comm": "chronyd\n", "proc/77/cgroup": "0::/user.slice/session-1.scope\n", "proc/77/status": mayTime},
			[]rival{{name: "chronyd", pid: "77", may: true}},
			"chronyd is running (process 77): kill 77",
		},
		{
			"in a unit of another's",
			map[string]string{"proc/77/comm": "ntpd\n", "proc/77/cgroup": "0::/system.slice/runner.service\n", "proc/77/status": mayNot},
			[]rival{{name: "ntpd", pid: "77"}},
			"ntpd is running (process 77): kill 77",
		},
		{
			"twice, and enabled",
			map[string]string{
				"proc/501/comm": "chronyd\n", "proc/501/cgroup": "0::/system.slice/chrony.service\n", "proc/501/status": mayAll,
				"proc/502/comm": "chronyd\n", "proc/502/cgroup": "0::/system.slice/chrony.service\n",
				wants + "chrony.service":            "->/lib/systemd/system/chrony.service",
				"lib/systemd/system/chrony.service": "[Service]\n",
			},
			[]rival{{name: "chronyd", pid: "501", unit: "chrony.service", enabled: true, may: true}},
			"chronyd is running (process 501) and enabled (chrony.service): systemctl disable --now chrony.service",
		},
		{
			"its name is cut short",
			map[string]string{"proc/9/comm": "systemd-timesyn\n", "proc/9/cgroup": "0::/system.slice/systemd-timesyncd.service\n"},
			[]rival{{name: "systemd-timesyncd", pid: "9", unit: "systemd-timesyncd.service"}},
			"systemd-timesyncd is running (process 9): systemctl disable --now systemd-timesyncd.service",
		},
		{
			"enabled only",
			map[string]string{
				"etc/systemd/system/sysinit.target.wants/systemd-timesyncd.service": "->/usr/lib/systemd/system/systemd-timesyncd.service",
				"usr/lib/systemd/system/systemd-timesyncd.service":                  "[Service]\n",
				wants + "cron.service": "->/usr/lib/systemd/system/cron.service",
			},
			[]rival{{name: "systemd-timesyncd", unit: "systemd-timesyncd.service", enabled: true}},
			"systemd-timesyncd is enabled (systemd-timesyncd.service): systemctl disable --now systemd-timesyncd.service",
		},
		{
			"masked", map[string]string{
				wants + "ntpd-rs.service":                "->/usr/lib/systemd/system/ntpd-rs.service",
				"etc/systemd/system/ntpd-rs.service":     "->/dev/null",
				"usr/lib/systemd/system/ntpd-rs.service": "[Service]\n",
			}, nil, "",
		},
		{
			"replaced by another package, which leaves the link",
			map[string]string{
				"etc/systemd/system/sysinit.target.wants/systemd-timesyncd.service": "->/usr/lib/systemd/system/systemd-timesyncd.service",
			},
			nil, "",
		},
		{
			"of the administrator's own making",
			map[string]string{
				wants + "ntpd.service":            "->/etc/systemd/system/ntpd.service",
				"etc/systemd/system/ntpd.service": "[Service]\n",
			},
			[]rival{{name: "ntpd", unit: "ntpd.service", enabled: true}},
			"ntpd is enabled (ntpd.service): systemctl disable --now ntpd.service",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got []rival
			var text []string
			for _, r := range rivals(files(c.files)) {
				got, text = append(got, *r), append(text, r.String()+": "+r.mend())
			}
			if !reflect.DeepEqual(got, c.want) || strings.Join(text, "") != c.text {
				t.Errorf("%+v %q", got, text)
			}
		})
	}
}

// The log names who can do harm, and nobody else.
func TestWarnOfRivals(t *testing.T) {
	var out bytes.Buffer
	warnOfRivals(slog.New(slog.NewTextHandler(&out, nil)), files(map[string]string{
		"proc/1/comm": "chronyd\n", "proc/1/status": mayNot,
		"proc/2/comm": "ntp-daemon\n", "proc/2/status": mayAll,
	}))
	if got := out.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, `program="ntpd-rs is running (process 2)" mend="kill 2"`) {
		t.Errorf("%q", got)
	}
}

func TestSurroundings(t *testing.T) {
	const initial = "         0          0 4294967295\n"
	for _, c := range []struct {
		name  string
		files map[string]string
		codes string
		want  string
	}{
		{"a plain machine", map[string]string{"proc/self/uid_map": initial, "etc/adjtime": "0.0 0 0.0\n0\nUTC\n"}, "ok", "RTC in UTC"},
		{"nothing known", nil, "ok", ""},
		{"rootless", map[string]string{"proc/self/uid_map": "0 1000 1\n", ".dockerenv": ""}, "user_namespace", "run ntsclient on the host"},
		{"docker", map[string]string{"proc/self/uid_map": initial, ".dockerenv": ""}, "container", "a container (docker)"},
		{"podman", map[string]string{"run/.containerenv": "engine=podman"}, "container", "a container (podman)"},
		{"nspawn", map[string]string{"run/systemd/container": "systemd-nspawn\n"}, "container", "a container (systemd-nspawn)"},
		{"local time", map[string]string{"etc/adjtime": "0.0 0 0.0\n0\nLOCAL\n"}, "rtc_local", "timedatectl set-local-rtc 0"},
		{"damaged", map[string]string{"etc/adjtime": "LOCAL", "proc/self/uid_map": ""}, "ok", ""},
		{
			"two at once",
			map[string]string{"proc/5/comm": "ntpd", "etc/adjtime": "\n\n LOCAL"},
			"rtc_local other_time_daemon",
			"ntpd is running (process 5), and may steer the clock, too",
		},
	} {
		var f report.Findings
		surroundings(files(c.files), &f)
		var codes []string
		all := ""
		for _, g := range f.List {
			codes = append(codes, g.Code)
			all += g.Message + g.Hint
			if g.Level == report.Blocks || (g.Level == report.OK) != (g.Code == "ok") {
				t.Errorf("%s: %+v", c.name, g)
			}
		}
		if strings.Join(codes, " ") != c.codes || !strings.Contains(all, c.want) {
			t.Errorf("%s: %+v", c.name, f.List)
		}
	}
}
