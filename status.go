package main

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"ntsclient/clock"
	"ntsclient/config"
	"ntsclient/confine"
	"ntsclient/timesync"
	"ntsclient/timesync/report"
)

// statusPause is between two looks while `status --wait` waits.
var statusPause = time.Second // shorter in tests

// kernelSynchronized is another one in tests.
var kernelSynchronized = func() (bool, error) { return clock.New().Synchronized() }

func statusAction(c *cli.Context) error {
	if c.Bool("json") && c.Bool("prometheus") {
		return usageError{errors.New("--json and --prometheus exclude each other")}
	}
	level, err := logLevel(c)
	if err != nil {
		return err
	}
	cfg, err := loadConfig(c, nil)
	if err != nil && named(c) == "" && errors.Is(err, fs.ErrPermission) {
		// Its secrets are not ours to read, and the usual places are enough.
		cfg, err = config.Default(), nil
	}
	if err != nil {
		return err
	}
	log := logger(c.App.ErrWriter, level)
	confined(log, confine.Needs{})
	ctx, stop := untilSignal(c.Context)
	defer stop()
	r, err := awaitStatus(ctx, cfg, c.Duration("wait"), log)
	if err != nil {
		return err
	}
	out := c.App.Writer
	switch {
	case c.Bool("json"):
		err = r.WriteJSON(out)
	case c.Bool("prometheus"):
		err = r.WriteMetrics(out, metricsVersion())
	default:
		err = r.WriteStatus(out, style(out))
	}
	if code := statusCode(r); err == nil && code != exitOK {
		return exitStatus(code)
	}
	return err
}

// awaitStatus looks until all is well, or until wait is over.
func awaitStatus(ctx context.Context, cfg *config.Config, wait time.Duration, log *slog.Logger) (*report.Report, error) {
	for end := time.Now().Add(wait); ; {
		r, problems := look(ctx, cfg)
		left := time.Until(end)
		if ctx.Err() == nil && (left <= 0 || statusCode(r) == exitOK) {
			for _, p := range problems {
				log.Warn("not everything could be looked at", "error", p)
			}
			return r, nil
		}
		select {
		case <-time.After(min(left, statusPause)):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// statusCode is the exit status for the report of `status`.
func statusCode(r *report.Report) int {
	s := r.Standing
	switch {
	case r.Result == report.Held, r.Result == report.Refused:
		return exitRefused
	case s.Of == "" && !s.Loop:
		return exitUnknown
	case s.Synchronized && (s.Loop || r.Result == report.Agreed):
		return exitOK
	}
	return exitNoAgreement
}

// look finds out how things stand: what a loop knows, else the last report that
// was kept, else what the kernel says. Problems are what should not be.
func look(ctx context.Context, cfg *config.Config) (r *report.Report, problems []error) {
	r, loop, err := askLoop(ctx, cfg)
	if err != nil && !nobody(err) {
		problems = append(problems, err)
	}
	for _, dir := range stateDirs(cfg) {
		if r != nil || loop {
			break
		}
		if r, err = timesync.LastReport(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
			problems = append(problems, err)
		}
	}
	synchronized, err := kernelSynchronized()
	if err != nil && loop && r != nil && r.Keeping != nil { // as in containers, and in our own unit; the loop knows
		synchronized, err = r.Synchronized, nil
	}
	if err != nil && !errors.Is(err, errors.ErrUnsupported) {
		problems = append(problems, err)
	}
	if r != nil {
		r.StandAt(time.Now(), loop, synchronized)
		return r, problems
	}
	r = nothingKnown(cfg)
	if loop {
		r.ReasonCode, r.Reason = "no_round_yet", report.ErrNothingYet.Error()
	}
	r.StandAt(r.Clock, loop, synchronized)
	r.Standing.Age = nil
	return r, problems
}

// nothingKnown is the report where there is none.
func nothingKnown(cfg *config.Config) *report.Report {
	loop, sync := "no loop answers at "+cfg.ControlSocket, "no `sync` left a report in "+strings.Join(stateDirs(cfg), " or ")
	if cfg.ControlSocket == "" {
		loop = "no `control_socket` is configured"
	}
	if len(stateDirs(cfg)) == 0 {
		sync = "no `state_dir` is, where a `sync` could leave its report"
	}
	return &report.Report{
		Schema: report.Schema, Result: report.NoAgreement, Clock: time.Now().Round(0).UTC(), Action: report.None,
		ReasonCode: "nothing_known", Reason: loop + ", and " + sync,
	}
}

// askLoop is the report of the running loop; nil, if it has none yet. Loop tells
// whether one is running.
func askLoop(ctx context.Context, cfg *config.Config) (r *report.Report, loop bool, err error) {
	if cfg.ControlSocket == "" {
		return nil, false, nil
	}
	r, err = report.Fetch(ctx, cfg.ControlSocket)
	if errors.Is(err, report.ErrNothingYet) {
		return nil, true, nil
	}
	return r, err == nil, err
}

// nobody tells whether err says that no process listens at the socket.
func nobody(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED)
}

// stateDirs are where a report may be kept: by the services of this machine, and
// by who asks.
func stateDirs(cfg *config.Config) []string {
	dirs := []string{cfg.StateDir, stateDir(cfg)}
	if cfg.StateDirSet {
		dirs = dirs[:1]
	}
	return slices.Compact(slices.DeleteFunc(dirs, func(dir string) bool { return dir == "" }))
}

// metricsVersion is the version as metrics name it.
func metricsVersion() string { return strings.TrimPrefix(versionLine(), "ntsclient ") }

// textfile writes the metrics of each round, if that is configured, and says
// once what goes wrong, which is no reason to do anything else. A dry run writes
// none, as the clock is not as it says; and a sync none beside a loop.
func textfile(log *slog.Logger, cfg *config.Config) func(*report.Report) {
	told := ""
	return func(r *report.Report) {
		path := cfg.Metrics.Textfile
		if path == "" || r.DryRun || r.Result == report.NotPermitted || r.ReasonCode == "loop_running" {
			return
		}
		with := *r
		if with.Keeping == nil {
			if synchronized, err := kernelSynchronized(); err == nil {
				with.Standing = &report.Standing{Synchronized: synchronized}
			}
		}
		problem := ""
		if err := report.WriteTextfile(path, metricsVersion(), &with); err != nil {
			problem = err.Error()
		}
		switch {
		case problem == told:
		case problem == "":
			log.Info("metrics are written again")
		default:
			log.Warn("metrics not written: see `[metrics] textfile`", "error", problem)
		}
		told = problem
	}
}
