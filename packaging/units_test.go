package packaging

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// units are those in the folder, and the lines of the list of what is shipped.
func units(t *testing.T) (all []string, listed map[string]string) {
	t.Helper()
	for _, pattern := range []string{"systemd/*.service", "systemd/*.timer"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, files...)
	}
	listed = map[string]string{}
	for _, line := range strings.Split(read(t, "systemd/shipped"), "\n") {
		if words := strings.Fields(line); len(words) > 0 && words[0] != "#" {
			listed[words[0]] = strings.Join(words[1:], " ")
		}
	}
	if len(all) < 4 || len(listed) < 2 {
		t.Fatalf("too few units: %v, %v", all, listed)
	}
	return all, listed
}

// What is shipped is there, and so are the commands that it runs.
func TestShipped(t *testing.T) {
	all, listed := units(t)
	enabled := 0
	for unit, mark := range listed {
		if !slices.Contains(all, "systemd/"+unit) || !slices.Contains([]string{"", "boot", "enabled"}, mark) {
			t.Errorf("systemd/shipped: %s %s: no such unit, or no such mark", unit, mark)
			continue
		}
		text := read(t, "systemd/"+unit)
		if mark == "enabled" {
			enabled++
		}
		if mark != "" && !strings.Contains(text, "\n[Install]\n") {
			t.Errorf("%s is to be enabled, and has no [Install]", unit)
		}
		for _, start := range regexp.MustCompile(`(?m)^ExecStart=(.*)$`).FindAllStringSubmatch(text, -1) {
			words := strings.Fields(start[1])
			if words[0] != "/usr/bin/ntsclient" {
				t.Errorf("%s starts %s", unit, words[0])
			}
			said := help(t, words[1])
			if notYet(said) {
				t.Errorf("%s is shipped, and %s is not there yet", unit, words[1])
			}
			for _, word := range words[2:] {
				if strings.HasPrefix(word, "-") && !slices.Contains(flags(said, false), word) {
					t.Errorf("%s: %s has no %s", unit, words[1], word)
				}
			}
		}
	}
	if enabled == 0 {
		t.Error("no unit is enabled: nothing would set the clock")
	}
}

// The commands of the cron example are understood.
func TestCron(t *testing.T) {
	said := help(t, "sync")
	lines := regexp.MustCompile(`(?m)^[^#\n].* ntsclient sync (.*)$`).FindAllStringSubmatch(read(t, "cron"), -1)
	if len(lines) != 2 {
		t.Fatalf("%d commands", len(lines))
	}
	for _, line := range lines {
		for _, word := range strings.Fields(line[1]) {
			if strings.HasPrefix(word, "-") && !slices.Contains(flags(said, false), word) {
				t.Errorf("sync has no %s", word)
			}
		}
		if !strings.Contains(line[1], "--quiet") {
			t.Errorf("%q prints something when all is well", line[1])
		}
	}
}

func TestUnits(t *testing.T) {
	if missing(t, "systemd-analyze") {
		return
	}
	all, _ := units(t)
	file, err := program()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	var copies []string
	for _, unit := range all { // the program is where systemd can see it
		text := strings.ReplaceAll(read(t, unit), "/usr/bin/ntsclient", file)
		name := filepath.Join(dir, filepath.Base(unit))
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		copies = append(copies, name)
		if !strings.HasSuffix(unit, ".service") {
			continue
		}
		out, err := exec.Command("systemd-analyze", "security", "--offline=yes", "--threshold=20", "--no-pager", name).CombinedOutput()
		lines := strings.Split(strings.TrimSpace(string(out)), "\n")
		t.Log(lines[len(lines)-1])
		if err != nil {
			t.Errorf("%s: exposure above 2.0: %v\n%s", unit, err, out)
		}
	}
	// Manual pages are looked for on this machine, where they are not installed.
	c := exec.Command("systemd-analyze", append([]string{"verify", "--man=no"}, copies...)...)
	out, err := c.CombinedOutput()
	for _, line := range strings.Split(string(out), "\n") {
		if strings.Contains(line, dir) || strings.Contains(line, "ntsclient") {
			t.Error(line) // what it has against others' units is not ours to mend
		}
	}
	if err != nil && !t.Failed() {
		t.Errorf("%v\n%s", err, out)
	}
}

// The units of one account are kept in step.
func TestSandboxes(t *testing.T) {
	_, sandbox, ok := strings.Cut(read(t, "systemd/ntsclient-sync.service"), "\nUser=ntsclient\n")
	if !ok {
		t.Fatal("ntsclient-sync.service runs as another user")
	}
	loop := read(t, "systemd/ntsclient.service")
	for _, line := range strings.Split(sandbox, "\n") {
		if !strings.Contains(loop, line+"\n") {
			t.Errorf("ntsclient.service has no line %q, and ntsclient-sync.service has", line)
		}
	}
}
