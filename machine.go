package main

import (
	"fmt"
	"io/fs"
	"log/slog"
	"path"
	"strconv"
	"strings"

	"ntsclient/timesync/report"
)

// rival is another program that keeps the clock.
type rival struct {
	name    string
	pid     string // "": it does not run
	unit    string // that starts it; "": unknown
	enabled bool   // at boot
	may     bool   // it runs, and has the right to set the clock
}

// The names of such programs, by what the kernel calls them (15 octets) and by
// the units that start them.
var (
	rivalProcesses = map[string]string{
		"systemd-timesyn": "systemd-timesyncd", "chronyd": "chronyd", "ntpd": "ntpd", "ntp-daemon": "ntpd-rs",
	}
	rivalUnits = map[string]string{
		"systemd-timesyncd.service": "systemd-timesyncd", "chrony.service": "chronyd", "chronyd.service": "chronyd",
		"ntp.service": "ntpd", "ntpd.service": "ntpd", "ntpsec.service": "ntpd", "openntpd.service": "ntpd",
		"ntpd-rs.service": "ntpd-rs",
	}
)

// rivals are those that run or that systemd will start, each once.
func rivals(root fs.FS) []*rival {
	var all []*rival
	named := func(name string) *rival {
		for _, r := range all {
			if r.name == name {
				return r
			}
		}
		all = append(all, &rival{name: name})
		return all[len(all)-1]
	}
	processes, _ := fs.ReadDir(root, "proc")
	for _, entry := range processes {
		if _, err := strconv.Atoi(entry.Name()); err != nil {
			continue
		}
		dir := "proc/" + entry.Name()
		name, ok := rivalProcesses[strings.TrimSpace(text(root, dir+"/comm"))]
		if !ok {
			continue
		}
		r := named(name)
		if r.pid == "" {
			r.pid = entry.Name()
		}
		if unit := path.Base(strings.TrimSpace(text(root, dir+"/cgroup"))); rivalUnits[unit] == name {
			r.unit = unit
		}
		r.may = r.may || maySetClock(text(root, dir+"/status"))
	}
	for _, unit := range enabledUnits(root) {
		if name, ok := rivalUnits[unit]; ok {
			r := named(name)
			r.unit, r.enabled = unit, true
		}
	}
	return all
}

// enabledUnits are those that systemd has been told to start (systemctl(1)), not
// kept from starting by masking them, and there: a package that is gone may leave
// its links behind.
func enabledUnits(root fs.FS) (units []string) {
	const dir = "etc/systemd/system"
	targets, _ := fs.ReadDir(root, dir)
	for _, target := range targets {
		if !strings.HasSuffix(target.Name(), ".wants") {
			continue
		}
		wanted, _ := fs.ReadDir(root, dir+"/"+target.Name())
		for _, unit := range wanted {
			if unitExists(root, unit.Name()) {
				units = append(units, unit.Name())
			}
		}
	}
	return units
}

// unitExists looks where units are, in the order of systemd.unit(5). Links are
// not followed, since one that leads out of root could not be.
func unitExists(root fs.FS, unit string) bool {
	for _, dir := range []string{"etc/systemd/system", "run/systemd/system", "lib/systemd/system", "usr/lib/systemd/system"} {
		if _, err := fs.Lstat(root, dir+"/"+unit); err == nil {
			to, _ := fs.ReadLink(root, dir+"/"+unit)
			return to != "/dev/null"
		}
	}
	return false
}

// maySetClock looks for CAP_SYS_TIME in what proc(5) says of a process.
func maySetClock(status string) bool {
	const sysTime = 25
	_, after, _ := strings.Cut(status, "\nCapEff:")
	line, _, _ := strings.Cut(after, "\n")
	caps, err := strconv.ParseUint(strings.TrimSpace(line), 16, 64)
	return err == nil && caps>>sysTime&1 != 0
}

func (r *rival) String() string {
	switch {
	case r.pid == "":
		return r.name + " is enabled (" + r.unit + ")"
	case r.enabled:
		return fmt.Sprintf("%s is running (process %s) and enabled (%s)", r.name, r.pid, r.unit)
	}
	return fmt.Sprintf("%s is running (process %s)", r.name, r.pid)
}

// mend is the command that stops it.
func (r *rival) mend() string {
	if r.unit != "" {
		return "systemctl disable --now " + r.unit
	}
	return "kill " + r.pid
}

// warnOfRivals names them in the log.
func warnOfRivals(log *slog.Logger, root fs.FS) {
	for _, r := range rivals(root) {
		if r.may || r.enabled {
			log.Warn("another program may steer the clock, too", "program", r.String(), "mend", r.mend())
		}
	}
}

// text is the content of a small file; nothing if it cannot be read.
func text(root fs.FS, name string) string {
	data, err := fs.ReadFile(root, name)
	if err != nil {
		return ""
	}
	return string(data)
}

// surroundings finds what around this program keeps the clock from being right.
func surroundings(root fs.FS, f *report.Findings) {
	note := func(code, message, hint string) {
		f.Add(report.Note, "machine", "machine", code, message, hint)
	}
	before := len(f.List)
	if m := strings.Fields(text(root, "proc/self/uid_map")); len(m) > 0 && strings.Join(m, " ") != "0 0 4294967295" {
		note("user_namespace", "this is a user namespace (a rootless container), where no capability suffices to set the clock",
			"run ntsclient on the host: all containers have its clock")
	} else if kind := container(root); kind != "" {
		note("container", "this is a container ("+kind+"), whose clock is that of the host",
			"run ntsclient on the host, or give the container CAP_SYS_TIME")
	}
	if lines := strings.Split(text(root, "etc/adjtime"), "\n"); len(lines) > 2 && strings.TrimSpace(lines[2]) == "LOCAL" {
		note("rtc_local", "the RTC keeps local time (/etc/adjtime), so that the kernel's clock never counts as synchronized: systemd-time-wait-sync does not end",
			"timedatectl set-local-rtc 0")
	}
	for _, r := range rivals(root) {
		note("other_time_daemon", r.String()+", and may steer the clock, too", r.mend())
	}
	if len(f.List) == before {
		f.OK("machine", "machine", "no container, no other time daemon, RTC in UTC")
	}
}

// container is what kind of container this is; nothing if it is none that says so.
func container(root fs.FS) string {
	if kind := strings.TrimSpace(text(root, "run/systemd/container")); kind != "" {
		return kind
	}
	for name, kind := range map[string]string{".dockerenv": "docker", "run/.containerenv": "podman"} {
		if _, err := fs.Stat(root, name); err == nil {
			return kind
		}
	}
	return ""
}
