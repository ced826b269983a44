package main

import (
	"cmp"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"ntsclient/clock"
	"ntsclient/config"
	"ntsclient/timesync"
	"ntsclient/timesync/report"
)

// here is this machine; tests have others.
var here = struct {
	root  fs.FS
	clock interface {
		Permitted() error
		MaxError() (time.Duration, error)
	}
}{os.DirFS("/"), clock.New()}

// checkAction says what would stop a sync, link by link.
func checkAction(c *cli.Context) error {
	if _, err := logLevel(c); err != nil {
		return err
	}
	f := &report.Findings{Offline: c.Bool("offline")}
	g := distrust() // so that what sync refuses is refused
	cfg, err := loadConfig(c, g)
	var o timesync.Options
	if err == nil {
		o, err = options(c, cfg)
	}
	if err != nil {
		blocks(f, "configuration", "configuration", "configuration_error", err)
	} else {
		configured(c, cfg, f)
		if g == nil && hasFileCapability() { // it would be refused to others
			g = newGuard()
			if _, err := loadConfig(c, g); err != nil {
				note(f, "configuration", "not_trusted", "for who is not root: "+err.Error(), "")
			}
		}
		state(stateDir(cfg), g, time.Now(), f)
	}
	kernel(time.Now(), f)
	surroundings(here.root, f)
	if err == nil && !f.Offline {
		if err := online(c, o, f); err != nil {
			return err
		}
	}
	out := c.App.Writer
	write := func() error { return f.WriteText(out, style(out)) }
	if c.Bool("json") {
		write = func() error { return f.WriteJSON(out) }
	}
	if err := write(); err != nil {
		return err
	}
	if first := f.First(); first != nil {
		return exitStatus(statusAt(first.Stage))
	}
	return nil
}

// statusAt is the exit status of a sync that is stopped there.
func statusAt(stage string) int {
	switch stage {
	case "configuration":
		return exitUsage
	case "permission":
		return exitNotPermitted
	case "decision":
		return exitRefused
	}
	return exitNoAgreement
}

func note(f *report.Findings, subject, code, message, hint string) {
	f.Add(report.Note, subject, subject, code, message, hint)
}

// blocks adds an error. What it says after a semicolon is the mend.
func blocks(f *report.Findings, subject, stage, code string, err error) {
	message, hint, _ := strings.Cut(err.Error(), "; ")
	if e := (*config.Error)(nil); errors.As(err, &e) {
		message, hint = err.Error(), e.Hint
	}
	f.Add(report.Blocks, subject, stage, code, message, hint)
}

// configured looks at a configuration that can be used.
func configured(c *cli.Context, cfg *config.Config, f *report.Findings) {
	operators := map[string]bool{}
	system := false
	for _, s := range cfg.Servers {
		operators[s.Operator] = true
		system = system || s.CA == nil
	}
	n := len(operators)
	f.OK("configuration", "configuration", fmt.Sprintf("%d servers of %d operators (%s)", len(cfg.Servers), n, source(c)))
	if need := cfg.Bootstrap.MinOperators; n < need && !cfg.Bootstrap.Strict {
		note(f, "configuration", "too_few_operators",
			fmt.Sprintf("without the right time %d operators have to agree, and there are %d: enough for a clock that is about right", need, n),
			fmt.Sprintf("add servers of other operators, or accept fewer: in [bootstrap] write `min_operators = %d`", n))
	}
	if info, err := os.Stat(cmp.Or(named(c), defaultConfig)); err == nil && cfg.Proxy != nil && cfg.Proxy.Password != "" && info.Mode()&0o004 != 0 {
		note(f, "configuration", "password_readable", "everybody on this machine can read the proxy's password in "+source(c),
			"chgrp it to the group that ntsclient runs as, and chmod 0640")
	}
	if !system {
		f.OK("authorities", "authorities", "each server has its `ca_file`")
		return
	}
	pool, err := x509.SystemCertPool()
	if err == nil && pool.Equal(x509.NewCertPool()) {
		err = errors.New("the system has none; install ca-certificates, or set `ca_file`")
	}
	if err != nil {
		blocks(f, "authorities", "authorities", "no_authorities", err)
		return
	}
	f.OK("authorities", "authorities", "the system's can be read")
}

// source is where the configuration comes from.
func source(c *cli.Context) string {
	if path := named(c); path != "" {
		return path
	}
	if _, err := os.Lstat(defaultConfig); err != nil {
		return "built in, as there is no " + defaultConfig
	}
	return defaultConfig
}

// state looks at what is kept, and at the floor in it. It is a help, never a
// need: nothing here stops a sync.
func state(dir string, g *guard, now time.Time, f *report.Findings) {
	const off = "nothing is kept, and each start takes a key exchange: "
	if dir == "" {
		note(f, "state", "state_off", off+"no `state_dir`", "")
		return
	}
	p, err := timesync.Peek(dir, identity("/etc/machine-id"))
	missing := errors.Is(err, fs.ErrNotExist)
	if g != nil && (err == nil || missing) {
		_, err = g.trustState(dir)
	} else if missing {
		err = nil
	}
	if err == nil && !writable(nearest(dir)) {
		err = fmt.Errorf("this user cannot write to %s", dir)
	}
	switch {
	case err != nil:
		note(f, "state", "state_unusable", off+err.Error(), "make it a directory that only its user can write, or set `state_dir`")
		return
	case missing:
		f.OK("state", "state", dir+" will be made")
		return
	}
	for _, reason := range p.Unusable {
		note(f, "state", "state_damaged", "of "+p.Path+" not all can be used: "+reason, "")
	}
	if !p.SetAside.IsZero() {
		note(f, "state", "state_set_aside", "state that could not be used was set aside on "+p.SetAside.UTC().Format(time.DateOnly), "")
	}
	if a := p.Agreed; a != nil && a.Time.Add(-a.Uncertainty).After(now.Add(time.Minute)) {
		note(f, "state", "floor_in_future", fmt.Sprintf("the last agreed time, %s, is later than this clock: nothing earlier is believed", a.Time.UTC().Format(time.RFC3339)),
			"if that was wrong, delete "+p.Path)
	}
	f.OK("state", "state", fmt.Sprintf("%s, with cookies of %d servers", dir, p.Servers))
}

// nearest is dir, or what is there of the way to it.
func nearest(dir string) string {
	for dir != filepath.Dir(dir) {
		if _, err := os.Stat(dir); err == nil {
			break
		}
		dir = filepath.Dir(dir)
	}
	return dir
}

// kernel looks at the kernel's clock, and at whether it may be set.
func kernel(now time.Time, f *report.Findings) {
	if err := here.clock.Permitted(); err != nil {
		blocks(f, "clock", "permission", "not_permitted", err)
	} else {
		f.OK("clock", "permission", "may be set")
	}
	maxError, err := here.clock.MaxError()
	switch {
	case err != nil:
		note(f, "clock", "clock_unknown", err.Error(), "")
	case maxError >= clock.Unsynchronized:
		note(f, "clock", "unsynchronized", "nothing has set it since boot, or for too long: the kernel calls it unsynchronized", "")
	default:
		f.OK("clock", "clock", "synchronized within "+report.Duration(maxError)+" by the kernel's account")
	}
	if b := built(); now.Before(b) {
		note(f, "clock", "before_build", "it is earlier than the date of this program, "+b.UTC().Format(time.DateOnly)+", so it is wrong", "")
	}
}
