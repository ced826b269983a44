package main

import (
	"bytes"
	"cmp"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"ntsclient/nts/ntstest"
	"ntsclient/timesync/report"
)

// process runs a process to its end.
func process(t *testing.T, cmd *exec.Cmd) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	code := status(t, cmd)
	return result{code, stdout.String(), stderr.String()}
}

func TestCheckAuthorities(t *testing.T) {
	roots := write(t, filepath.Join(t.TempDir(), "roots.pem"), string(serve(t, ntstest.Options{}).CA().PEM()))
	file := write(t, filepath.Join(t.TempDir(), "x.toml"), "state_dir = \"\"\n[[server]]\naddress = \"a.test\"\n")
	for path, want := range map[string]int{roots: exitNotPermitted, roots + ".none": exitNoAgreement} {
		cmd := program(t, "check", "--offline", "--json", "-c", file)
		cmd.Env = append(cmd.Env, "SSL_CERT_FILE="+path, "SSL_CERT_DIR="+t.TempDir())
		all := process(t, cmd).findings(t, want)
		if got := with(all, "no_authorities"); (len(got) == 1 && strings.Contains(got[0].Hint, "ca-certificates")) != (want == exitNoAgreement) {
			t.Errorf("%s: %+v", path, all)
		}
	}
}

// What a program with a file capability would refuse to strangers is told to
// them, and to root.
func TestCheckFileCapability(t *testing.T) {
	dir := vouched(t)
	start := capable(t, dir)
	s := serve(t, ntstest.Options{})
	text, err := os.ReadFile(configure(t, "", s))
	if err != nil {
		t.Fatal(err)
	}
	ca := write(t, filepath.Join(dir, fmt.Sprintf("%d.pem", s.KE().Port())), string(s.CA().PEM()))
	good := write(t, filepath.Join(dir, "good.toml"), string(text))
	open := write(t, filepath.Join(dir, "open.toml"), string(text))
	state := filepath.Join(dir, "state")
	keeping := write(t, filepath.Join(dir, "keeping.toml"), strings.Replace(string(text), `""`, `"state"`, 1))
	for path, mode := range map[string]os.FileMode{ca: 0o644, good: 0o644, open: 0o666, keeping: 0o644} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(state, 0o777); err != nil {
		t.Fatal(err)
	}
	os.Chmod(state, 0o777)
	const why = "anyone can start this program"
	for _, c := range []struct {
		file string
		code int // for a stranger; CAP_SYS_TIME is lacking whoever it is
		said string
		root string // the code of the finding
	}{
		{good, exitNotPermitted, "", ""},
		{open, exitUsage, "configuration_error", "not_trusted"},
		{keeping, exitNotPermitted, "state_unusable", "state_unusable"},
	} {
		said := func(all []report.Finding, code string) bool {
			got := with(all, code)
			return len(got) == 1 && (strings.Contains(got[0].Message, why) || strings.Contains(got[0].Message, "everybody may write"))
		}
		all := start("check", "--offline", "--json", "-c", c.file).findings(t, c.code)
		if c.said != "" && !said(all, c.said) {
			t.Errorf("to a stranger, %s: %+v", c.file, all)
		}
		if c.said == "" && (len(with(all, "configuration_error")) > 0 || len(with(all, "not_trusted")) > 0) {
			t.Errorf("to a stranger, %s: %+v", c.file, all)
		}
		all = process(t, hung(t, filepath.Join(dir, "ntsclient"), "check", "--offline", "--json", "-c", c.file)).findings(t, exitNotPermitted)
		if (c.root != "") != said(all, cmp.Or(c.root, "not_trusted")) {
			t.Errorf("to root, %s: %+v", c.file, all)
		}
	}
	untouched(t, s)
}

// only is a file system on which one process is to be seen.
type only struct {
	fs.FS
	pid string
}

func (o only) ReadDir(name string) ([]fs.DirEntry, error) {
	entries, err := fs.ReadDir(o.FS, name)
	if name != "proc" {
		return nil, err // no units
	}
	for _, e := range entries {
		if e.Name() == o.pid {
			return []fs.DirEntry{e}, nil
		}
	}
	return nil, err
}

// A program that is called chronyd is named, with the command that ends it.
func TestCheckNamesRival(t *testing.T) {
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		skip(t, err.Error())
	}
	program, err := os.ReadFile(sleep)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "chronyd")
	if err := os.WriteFile(path, program, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := hung(t, path, "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		cmd.Process.Kill()
		cmd.Wait()
	}()
	machineOf(t, nil, nil)
	here.root = only{os.DirFS("/"), strconv.Itoa(cmd.Process.Pid)}
	all := try("check", "--offline", "--json", "-c", configure(t, "", serve(t, ntstest.Options{}))).findings(t, exitOK)
	got := with(all, "other_time_daemon")
	if len(got) != 1 || got[0].Level != report.Note || got[0].Hint != "kill "+here.root.(only).pid ||
		!strings.HasPrefix(got[0].Message, "chronyd is running (process "+here.root.(only).pid+")") {
		t.Errorf("%+v", all)
	}
}
