// Demo shows ntsclient at work, with nothing but Go: five NTS servers on
// loopback, one of which lies and one of which refuses, and the real program
// against them. The clock is not touched. It ends with 0 only if the program
// found the time and the liar.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"ntsclient/nts/ntstest"
)

// operators run one server each.
var operators = []struct {
	name, says, verdict string
	options             ntstest.Options
}{
	{"one.demo.test", "honest", "agreed", ntstest.Options{Delay: 3 * time.Millisecond}},
	{"two.demo.test", "honest, stratum 2", "agreed", ntstest.Options{Delay: 6 * time.Millisecond, Stratum: 2, RootDelay: 2 * time.Millisecond}},
	{"three.demo.test", "honest", "agreed", ntstest.Options{Delay: 12 * time.Millisecond}},
	{"four.demo.test", "lies by half a second", "falseticker", ntstest.Options{Delay: 5 * time.Millisecond, Offset: 500 * time.Millisecond}},
	{"five.demo.test", "refuses the key exchange", "failed", ntstest.Options{KE: refuse}},
}

// refuse answers a key exchange with the error "internal server error".
func refuse([]ntstest.Record) []ntstest.Record {
	return []ntstest.Record{{Type: 2, Critical: true, Body: []byte{0, 2}}, {Type: 0, Critical: true}}
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := demo(ctx)
	if ctx.Err() != nil {
		err = errors.New("interrupted")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func demo(ctx context.Context) (err error) {
	dir, err := os.MkdirTemp("", "ntsclient-demo-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()

	say("Building ntsclient.")
	program := filepath.Join(dir, "ntsclient")
	if err := build(ctx, program); err != nil {
		return err
	}
	say("Starting five NTS servers on loopback, each of another operator:")
	servers, config, err := start(dir)
	defer func() {
		for _, s := range servers {
			s.Close()
		}
	}()
	if err != nil {
		return err
	}
	for _, show := range []struct {
		says string
		args []string
	}{
		{"What time do they say it is? The liar must stand out, and move nothing.", []string{"query"}},
		{"What would be done to the clock? This is a dry run: it stays as it is.", []string{"sync", "--dry-run"}},
	} {
		say("%s\n$ ntsclient --config %s %s", show.says, config, strings.Join(show.args, " "))
		args := append([]string{"--config", config}, show.args...)
		if err := run(ctx, os.Stdout, program, args...); err != nil {
			return err
		}
		var report bytes.Buffer
		if err := run(ctx, &report, program, append(args, "--json")...); err != nil {
			return err
		}
		if err := check(report.Bytes()); err != nil {
			return fmt.Errorf("%s: %w", strings.Join(show.args, " "), err)
		}
	}
	say("Both times the honest agreed and the liar was found out.")
	return nil
}

// say prints what comes next, set off from the program's own words.
func say(format string, args ...any) {
	fmt.Printf("\n# "+strings.ReplaceAll(format, "\n", "\n\n")+"\n", args...)
}

// build builds the program of the module that the demo is part of.
func build(ctx context.Context, program string) error {
	mod, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	if err != nil {
		return fmt.Errorf("go env GOMOD: %w", err)
	}
	root := filepath.Dir(strings.TrimSpace(string(mod)))
	return run(ctx, os.Stdout, "go", "-C", root, "build", "-o", program, ".")
}

// start starts the servers and writes the configuration that names them. The
// servers that did start are returned with an error, too.
func start(dir string) (servers []*ntstest.Server, config string, err error) {
	ca, err := ntstest.NewCA("ntsclient demo")
	if err != nil {
		return nil, "", err
	}
	if err := os.WriteFile(filepath.Join(dir, "ca.pem"), ca.PEM(), 0o600); err != nil {
		return nil, "", err
	}
	text := "state_dir = \"\"\ncontrol_socket = \"\"\n"
	for _, operator := range operators {
		o := operator.options
		o.CA, o.Names = ca, []string{operator.name}
		s, err := ntstest.Start(o)
		if err != nil {
			return servers, "", err
		}
		servers = append(servers, s)
		fmt.Printf("  %-16s %s\n", operator.name, operator.says)
		text += fmt.Sprintf("\n[[server]]\naddress = \"%s:%d\"\noperator = %q\nips = [\"127.0.0.1\"]\nca_file = \"ca.pem\"\n",
			operator.name, s.KE().Port(), operator.name)
	}
	config = filepath.Join(dir, "demo.toml")
	return servers, config, os.WriteFile(config, []byte(text), 0o600)
}

// run runs a command to its end, or ends it with the context.
func run(ctx context.Context, stdout io.Writer, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdout, cmd.Stderr = stdout, os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 2 * time.Second
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s %s: %w", filepath.Base(name), strings.Join(args, " "), err)
	}
	return nil
}

// check holds a report against what is known of the servers.
func check(text []byte) error {
	var report struct {
		Result  string
		Servers []struct{ Operator, Verdict string }
	}
	if err := json.Unmarshal(text, &report); err != nil {
		return fmt.Errorf("the report is no JSON: %w", err)
	}
	if report.Result != "agreed" {
		return fmt.Errorf("the result is %q, not agreed", report.Result)
	}
	verdicts := map[string]string{}
	for _, server := range report.Servers {
		verdicts[server.Operator] = server.Verdict
	}
	for _, operator := range operators {
		if got := verdicts[operator.name]; got != operator.verdict {
			return fmt.Errorf("the verdict on %s is %q, not %s", operator.name, got, operator.verdict)
		}
	}
	return nil
}
