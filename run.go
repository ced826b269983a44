package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/urfave/cli/v2"

	"ntsclient/clock"
	"ntsclient/config"
	"ntsclient/timesync"
	"ntsclient/timesync/report"
)

// thrifty is for a process that lives for months and does little: what it needs
// of memory is the same all the time and collected often, and one processor at a
// time does, without others being woken for a millisecond.
func thrifty() {
	debug.SetGCPercent(25)
	runtime.GOMAXPROCS(1)
}

func runAction(c *cli.Context) error {
	if !c.IsSet("log-level") {
		if err := c.Set("log-level", "info"); err != nil {
			return err
		}
	}
	thrifty()
	g := distrust()
	cfg, o, err := loopOptions(c, g)
	if err != nil {
		return err
	}
	keepState(&o, cfg, g)
	var kept timesync.KeptClock = clock.New()
	if c.Bool("dry-run") {
		kept = clock.DryRun{Kernel: clock.New()}
	}
	if err := kept.Permitted(); err != nil { // before anything is done
		return err
	}
	client := timesync.New(o)
	n := needs(cfg, o.StateDir, !c.Bool("dry-run"))
	if socket := listen(o.Log, cfg, client); socket != nil {
		defer socket.Close()
		n.Write = append(n.Write, filepath.Dir(cfg.ControlSocket))
	}
	if o.StateDir != "" {
		if err := timesync.MakeStateDir(o.StateDir); err != nil {
			o.Log.Debug("no state directory", "error", err)
		}
	}
	if !c.Bool("dry-run") {
		warnOfRivals(o.Log, here.root)
	}
	n.Bounding = true // once in a long life
	confined(o.Log, n)
	ctx, stop := untilStopped(c.Context)
	defer stop()
	err = client.Run(ctx, timesync.RunOptions{
		DryRun: c.Bool("dry-run"), Clock: kept, Supervisor: manager{o.Log}, Watchdog: watchdog(o.Log),
		Published: textfile(o.Log, cfg),
		Remeasure: onSignal(ctx, remeasureSignals...),
		Reload:    reloads(ctx, o.Log, cfg, func() (*config.Config, timesync.Options, error) { return loopOptions(c, g) }),
	})
	if errors.Is(err, timesync.ErrLoopRunning) {
		err = fmt.Errorf("%w: `ntsclient status` tells what it does", err)
	}
	return err
}

// loopOptions are what the configuration says, as it is now, of a loop.
func loopOptions(c *cli.Context, g *guard) (*config.Config, timesync.Options, error) {
	cfg, err := loadConfig(c, g)
	if err != nil {
		return nil, timesync.Options{}, err
	}
	o, err := options(c, cfg)
	o.Policy.Deadline = cfg.Measure.Deadline // of a round with one sample
	o.Policy.MinPoll, o.Policy.MaxPoll = cfg.Run.MinPoll, cfg.Run.MaxPoll
	return cfg, o, err
}

// listen opens the control socket, which is a help and no need.
func listen(log *slog.Logger, cfg *config.Config, client *timesync.Client) *report.Socket {
	if cfg.ControlSocket == "" {
		return nil
	}
	socket, err := report.Listen(cfg.ControlSocket, client.Latest)
	if err != nil {
		log.Warn("`ntsclient status` will not reach this loop", "error", err)
		return nil
	}
	return socket
}

// untilStopped ends with the first signal that asks for it. A second one does
// nothing before stop: the loop ends in order.
func untilStopped(parent context.Context) (ctx context.Context, stop func()) {
	return signal.NotifyContext(parent, os.Interrupt, syscall.SIGTERM)
}

// onSignal tells of signals, until ctx ends.
func onSignal(ctx context.Context, signals ...os.Signal) <-chan struct{} {
	told := make(chan struct{})
	got := make(chan os.Signal, 1)
	for _, s := range signals {
		if !signal.Ignored(s) { // as nohup does
			signal.Notify(got, s)
		}
	}
	go func() {
		defer signal.Stop(got)
		for {
			select {
			case <-got:
			case <-ctx.Done():
				return
			}
			select {
			case told <- struct{}{}:
			case <-ctx.Done():
				return
			}
		}
	}()
	return told
}

// reloads reads the configuration again with each SIGHUP. A bad one is refused
// and the old one stays. Settings that the loop was started with, and keeps, are
// warned of.
func reloads(ctx context.Context, log *slog.Logger, started *config.Config, load func() (*config.Config, timesync.Options, error)) <-chan timesync.Config {
	changed, current := make(chan timesync.Config), started
	hangup := onSignal(ctx, syscall.SIGHUP)
	go func() {
		for {
			select {
			case <-hangup:
			case <-ctx.Done():
				return
			}
			tellManager(log, daemon.SdNotifyReloading, daemon.SdNotifyMonotonicUsec())
			cfg, o, err := load()
			if err != nil {
				why := report.Printable(withHint(err))
				if current.Proxy != nil { // it may name a server
					log.Debug("the configuration is refused", "error", why)
					why = "`ntsclient check --offline` says what is wrong with it"
				}
				log.Error("the configuration is refused, and the old one stays", "error", why)
				tellManager(log, daemon.SdNotifyReady)
				continue
			}
			current = cfg
			if names := takeRestart(started, cfg); names != "" {
				log.Warn("takes a restart: " + names)
			}
			select {
			case changed <- timesync.Config{Servers: o.Servers, Policy: o.Policy}:
			case <-ctx.Done():
				return
			}
			tellManager(log, daemon.SdNotifyReady)
		}
	}()
	return changed
}

// takeRestart names the settings that a running loop does not change.
func takeRestart(old, changed *config.Config) string {
	var names []string
	if old.ControlSocket != changed.ControlSocket {
		names = append(names, "`control_socket`")
	}
	if old.StateDir != changed.StateDir || old.StateDirSet != changed.StateDirSet {
		names = append(names, "`state_dir`")
	}
	if old.Metrics != changed.Metrics {
		names = append(names, "`[metrics] textfile`")
	}
	return strings.Join(names, ", ")
}

// withHint is an error with its mend, where there is one.
func withHint(err error) string {
	var bad *config.Error
	if errors.As(err, &bad) && bad.Hint != "" {
		return err.Error() + "; " + bad.Hint
	}
	return err.Error()
}

// manager is systemd, or whoever else gave us a socket to tell how we are.
type manager struct{ log *slog.Logger }

func (m manager) Ready()    { tellManager(m.log, daemon.SdNotifyReady) }
func (m manager) Alive()    { tellManager(m.log, daemon.SdNotifyWatchdog) }
func (m manager) Stopping() { tellManager(m.log, daemon.SdNotifyStopping, "STATUS=stopping") }

func (m manager) Status(sentence string) {
	// Lines are what states are separated by.
	tellManager(m.log, "STATUS="+strings.ReplaceAll(report.Printable(sentence), "\n", " "))
}

func tellManager(log *slog.Logger, states ...string) {
	if _, err := daemon.SdNotify(false, strings.Join(states, "\n")); err != nil {
		log.Debug("the service manager cannot be told", "error", err)
	}
}

// watchdog is how often the service manager wants to hear that we are alive,
// and twice as often.
func watchdog(log *slog.Logger) time.Duration {
	interval, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		log.Warn("no watchdog", "error", err)
	}
	return interval / 2
}
