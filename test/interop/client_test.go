//go:build linux

package interop

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"ntsclient/timesync/report"
)

func TestMain(m *testing.M) {
	if _, err := Cache(); err == nil {
		Enter()
	}
	flag.Parse()
	flag.Set("test.parallel", "8") // these tests wait more than they compute
	os.Exit(m.Run())
}

// needServers skips a test where the real servers were never fetched; in CI
// that is a failure.
func needServers(t *testing.T) {
	t.Helper()
	if _, err := Cache(); err != nil {
		skip(t, err.Error())
	}
}

func skip(t *testing.T, reason string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(reason)
	}
	t.Skip(reason)
}

// needPort123 skips a test of NTPsec where that port is the machine's.
func needPort123(t *testing.T, kind Kind) {
	t.Helper()
	if kind == NTPsec && !Isolated() {
		skip(t, "NTPsec listens on port 123 only, and namespaces are not allowed here")
	}
}

const name = "time.nts.test" // of every server; names resolve through ips

// lab is a root CA with one below it.
type lab struct{ root, issuing *Authority }

func newLab(t *testing.T) lab {
	t.Helper()
	needServers(t)
	root := NewAuthority(t, "Interop Root CA", nil)
	return lab{root, NewAuthority(t, "Interop Issuing CA", root)}
}

// start starts a server of each kind, with certificates of the issuing CA.
func (l lab) start(t *testing.T, kinds ...Kind) []*Server {
	t.Helper()
	var servers []*Server
	for _, kind := range kinds {
		s := &Server{Kind: kind, Identity: l.issuing.Issue(t, name, -30, 90)}
		switch kind {
		case Liar:
			s.Lie = "+0.5s"
		case NTPsec: // no limit of the rate
			needPort123(t, kind)
			s.Extra = "unrestrict default limited"
		}
		s.Start(t)
		servers = append(servers, s)
	}
	return servers
}

// entry is one [[server]] of a configuration.
type entry struct{ address, operator, ip, caFile string }

// entries makes one for each server, each of an operator of its own.
func (l lab) entries(servers []*Server, ip string) []entry {
	var all []entry
	for i, s := range servers {
		all = append(all, entry{
			address:  fmt.Sprintf("%s:%d", name, s.KE),
			operator: fmt.Sprintf("operator-%d.test", i+1), ip: ip, caFile: l.root.File,
		})
	}
	return all
}

// configure writes a configuration with a state directory of its own; more is
// put in front of the servers.
func configure(t *testing.T, entries []entry, more string) string {
	t.Helper()
	dir := t.TempDir()
	text := fmt.Sprintf("state_dir = %q\ncontrol_socket = \"\"\n%s\n", filepath.Join(dir, "state"), more)
	check(t, os.Mkdir(filepath.Join(dir, "state"), 0o711))
	for _, e := range entries {
		text += fmt.Sprintf("[[server]]\naddress = %q\noperator = %q\nips = [\"%s\"]\nca_file = %q\n",
			e.address, e.operator, e.ip, e.caFile)
	}
	file := filepath.Join(dir, "ntsclient.toml")
	check(t, os.WriteFile(file, []byte(text), 0o600))
	return file
}

// also puts more lines at the end of a configuration, where the last [[server]]
// is, and returns its path.
func also(t *testing.T, config, lines string) string {
	t.Helper()
	text, err := os.ReadFile(config)
	check(t, err)
	check(t, os.WriteFile(config, append(text, lines+"\n"...), 0o600))
	return config
}

// checkFailed checks that a server failed, and why.
func checkFailed(t *testing.T, got report.Server, stage, code string) {
	t.Helper()
	if got.Verdict != report.Failed || got.Error == nil || got.Error.Stage != stage || got.Error.Code != code {
		t.Fatalf("verdict %s, error %+v, want %s, %s", got.Verdict, got.Error, stage, code)
	}
}

// anyExit is for what can end in more than one way.
const anyExit = -1

// run runs ntsclient and returns its report; the exit code must be as given.
func run(t *testing.T, config string, wantExit int, args ...string) report.Report {
	t.Helper()
	return runUnder(t, nil, config, wantExit, args...)
}

// runUnder runs ntsclient as the last arguments of another command.
func runUnder(t *testing.T, prefix []string, config string, wantExit int, args ...string) report.Report {
	t.Helper()
	command := append(append(prefix, Binary(), "--config", config), args...)
	c := exec.Command(command[0], command[1:]...)
	var stdout, stderr bytes.Buffer
	c.Stdout, c.Stderr = &stdout, &stderr
	err := c.Run()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	t.Logf("ntsclient %s: exit %d\n%s%s", strings.Join(args, " "), c.ProcessState.ExitCode(), stdout.Bytes(), stderr.Bytes())
	if got := c.ProcessState.ExitCode(); got != wantExit && wantExit != anyExit {
		t.Fatalf("exit code %d, want %d", got, wantExit)
	}
	var r report.Report
	decoder := json.NewDecoder(&stdout)
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&r); err != nil {
		t.Fatalf("report: %v", err)
	}
	if decoder.More() {
		t.Fatal("more than one report on standard output")
	}
	return r
}

func seconds(s float64) report.Seconds { return report.Seconds(s * 1e9) }

func abs(s report.Seconds) report.Seconds { return max(s, -s) }
