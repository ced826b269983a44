package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"ntsclient/nts/ntstest"
)

// shippedProgram is the program as it is shipped: without cgo, with which no
// process can confine itself.
func shippedProgram(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ntsclient")
	cmd := exec.Command("go", "build", "-o", path, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return path
}

// statusOf is what the kernel says of each thread of a process: the values of
// one field.
func statusOf(pid int, field string) (values []string) {
	paths, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	for _, path := range paths {
		data, _ := os.ReadFile(path)
		_, after, _ := strings.Cut(string(data), "\n"+field+":")
		value, _, _ := strings.Cut(after, "\n")
		values = append(values, strings.TrimSpace(value))
	}
	return values
}

// all tells whether there is a value, and each is that one.
func all(values []string, want string) bool {
	for _, v := range values {
		if v != want {
			return false
		}
	}
	return len(values) > 0
}

// While hostile octets can arrive, no thread of the program has any right that
// it does not need.
func TestConfined(t *testing.T) {
	path := shippedProgram(t)
	for _, command := range []string{"query", "sync --dry-run"} {
		hole := newBlackHole(t)
		cmd := hung(t, path, append(strings.Fields(command), "-c", hole.file)...)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		<-hole.took
		if pid := cmd.Process.Pid; !all(statusOf(pid, "NoNewPrivs"), "1") {
			t.Errorf("%s: no_new_privs %q", command, statusOf(pid, "NoNewPrivs"))
		}
		nothing := strings.Repeat("0", 16)
		for _, field := range []string{"CapEff", "CapPrm", "CapInh", "CapAmb"} {
			if values := statusOf(cmd.Process.Pid, field); !all(values, nothing) {
				t.Errorf("%s: %s %q", command, field, values)
			}
		}
		cmd.Process.Signal(syscall.SIGTERM)
		status(t, cmd)
	}
}

// What is to be kept can be kept all the same, whomever the directory belongs to.
func TestConfinedState(t *testing.T) {
	path := shippedProgram(t)
	file := configure(t, "", serve(t, ntstest.Options{}))
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, theirs := range []bool{false, true} {
		dir := filepath.Join(vouched(t), "made", "state") // the program makes both
		if theirs {
			if os.Getuid() != 0 {
				skip(t, "only root can give a directory to another user")
			}
			if err := os.MkdirAll(dir, 0o711); err != nil {
				t.Fatal(err)
			}
			if err := os.Chown(dir, stranger, stranger); err != nil {
				t.Fatal(err)
			}
		}
		write(t, file, strings.Replace(string(text), `state_dir = ""`, fmt.Sprintf("state_dir = %q", dir), 1))
		for _, warm := range []bool{false, true} {
			cmd := hung(t, path, "sync", "--dry-run", "--json", "-c", file, "--log-level", "debug")
			var stdout, stderr bytes.Buffer
			cmd.Stdout, cmd.Stderr = &stdout, &stderr
			code := status(t, cmd)
			r := result{code, stdout.String(), stderr.String()}
			out := r.report(t, exitOK)
			if strings.Contains(r.stderr, "level=WARN") || out.Servers[0].Measured == nil || out.Servers[0].KeyExchange == warm {
				t.Errorf("theirs %v, warm %v: %+v", theirs, warm, r)
			}
		}
		info, err := os.Stat(filepath.Join(dir, "state.json"))
		if err != nil {
			t.Fatal(err)
		}
		if uid := info.Sys().(*syscall.Stat_t).Uid; theirs != (uid == stranger) {
			t.Errorf("theirs %v: the file belongs to %d", theirs, uid)
		}
	}
}
