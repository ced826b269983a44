package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"time"

	"github.com/urfave/cli/v2"

	"ntsclient/clock"
	"ntsclient/config"
	"ntsclient/confine"
	"ntsclient/nts"
	"ntsclient/timesync"
	"ntsclient/timesync/report"
)

func queryAction(c *cli.Context) error {
	cfg, err := queryConfig(c)
	if err != nil {
		return err
	}
	o, err := options(c, cfg)
	if err != nil {
		return err
	}
	if c.IsSet("samples") {
		if n := c.Int("samples"); n < 1 || n > config.MaxSamples {
			return usageError{fmt.Errorf("--samples must be 1 to %d, not %d", config.MaxSamples, n)}
		}
		o.Policy.Samples = c.Int("samples")
	}
	o.Policy.Deadline = cfg.Measure.Deadline + time.Duration(o.Policy.Samples-1)*cfg.Measure.Interval
	if c.IsSet("timeout") {
		if o.Policy.Deadline = c.Duration("timeout"); o.Policy.Deadline == 0 {
			return usageError{errors.New("--timeout must be more than 0")}
		}
	}
	network, err := family(c.Bool("4"), c.Bool("6"))
	if err != nil {
		return err
	}
	for i := range o.Servers {
		if network != "" && o.Servers[i].NTS.Proxy != nil {
			return usageError{errors.New("-4 and -6 say how this machine connects; beyond a proxy, that is up to the proxy")}
		}
		o.Servers[i].NTS.Network = network
	}
	o.Clock = clock.DryRun{Kernel: clock.New()} // even if it has the right to more
	confined(o.Log, confine.Needs{})
	r, err := measure(c, o, (*timesync.Client).Query)
	if err != nil {
		return err
	}
	return tell(c, r)
}

func syncAction(c *cli.Context) error {
	g := distrust()
	cfg, err := loadConfig(c, g)
	if err != nil {
		return err
	}
	if g != nil && c.IsSet("proxy") { // who delays answers moves the clock, within bounds
		return usageError{errors.New("--proxy is not taken by a program with a file capability, which anyone can start: write `proxy` in the configuration")}
	}
	o, err := options(c, cfg)
	if err != nil {
		return err
	}
	if c.IsSet("max-step") {
		if g != nil && c.Duration("max-step") > cfg.Clock.MaxStep {
			return usageError{fmt.Errorf("--max-step may only lower max_step, which is %v: this program has a file capability, and anyone can start it", cfg.Clock.MaxStep)}
		}
		o.Policy.MaxStep = c.Duration("max-step")
	}
	keepState(&o, cfg, g)
	o.Clock = clock.New()
	if c.Bool("dry-run") {
		o.Clock = clock.DryRun{Kernel: clock.New()}
	}
	if o.StateDir != "" && o.Clock.Permitted() == nil {
		if err := timesync.MakeStateDir(o.StateDir); err != nil { // which is said once more when it is opened
			o.Log.Debug("no state directory", "error", err)
		}
	}
	confined(o.Log, needs(cfg, o.StateDir, !c.Bool("dry-run")))
	r, err := measure(c, o, func(client *timesync.Client, ctx context.Context) (*report.Report, error) {
		return client.Sync(ctx, timesync.SyncOptions{
			DryRun: c.Bool("dry-run"), Wait: c.Duration("wait"), Delay: c.Duration("random-delay"),
		})
	})
	if errors.Is(err, clock.ErrNotPermitted) && r != nil { // found out only by trying
		r.Result, r.ReasonCode, r.Reason, err = report.NotPermitted, "not_permitted", err.Error(), nil
	}
	if err != nil {
		return err
	}
	textfile(o.Log, cfg)(r)
	if !r.DryRun && r.Result != report.NotPermitted {
		warnOfRivals(o.Log, here.root) // now that the clock is right, there is time
	}
	if c.Bool("quiet") && r.Result == report.Agreed {
		return nil
	}
	return tell(c, r)
}

// family is the network that -4 and -6 ask for.
func family(four, six bool) (string, error) {
	switch {
	case four && six:
		return "", usageError{errors.New("-4 and -6 exclude each other: without them both families are tried")}
	case four:
		return "ip4", nil
	case six:
		return "ip6", nil
	}
	return "", nil
}

// queryConfig is the configuration of a query: its hosts' own, or the file's.
func queryConfig(c *cli.Context) (*config.Config, error) {
	if c.NArg() == 0 {
		if c.IsSet("ca") {
			return nil, usageError{errors.New("--ca goes with hosts on the command line; in a configuration it is `ca_file`")}
		}
		return loadConfig(c, nil)
	}
	cfg, err := config.ForHosts(c.Args().Slice(), c.String("ca"), config.ReadFile)
	if err != nil {
		return nil, err
	}
	// No file is needed. But one that says which way packets go is heeded: what
	// is to go through a proxy must not go out directly.
	general, err := loadConfig(c, nil)
	var unread *config.Error
	if errors.Is(err, fs.ErrPermission) && errors.As(err, &unread) && unread.Line == 0 {
		unread.Hint = "it may say that everything goes through a proxy: give another with --config FILE"
	}
	if err != nil {
		return nil, err
	}
	cfg.Proxy, cfg.Bind, cfg.Measure = general.Proxy, general.Bind, general.Measure
	return cfg, nil
}

// options turn the configuration into what timesync wants.
func options(c *cli.Context, cfg *config.Config) (timesync.Options, error) {
	o := timesync.Options{Policy: policy(cfg)}
	route, err := routeOf(c, cfg)
	if err != nil {
		return o, err
	}
	level, err := logLevel(c)
	if err != nil {
		return o, err
	}
	o.Log = logger(c.App.ErrWriter, level)
	system := false
	for _, s := range cfg.Servers {
		server := timesync.Server{
			Name: s.Name(), Operator: s.Operator, Binding: timesync.Binding(s.Host, s.Port, s.CA, s.Pins, route.Proxy),
			NTS: nts.Options{Host: s.Host, Port: s.Port, IPs: s.IPs, Pins: s.Pins, Route: route},
		}
		if s.CA != nil {
			server.NTS.Trust(s.CA)
		}
		system = system || s.CA == nil
		o.Servers = append(o.Servers, server)
	}
	if system { // read while names are looked up, and not after
		go x509.SystemCertPool()
	}
	return o, nil
}

// routeOf is the way that all packets take: the one that the configuration
// names, or through the proxy that the command line does.
func routeOf(c *cli.Context, cfg *config.Config) (route nts.Route, err error) {
	proxy := cfg.Proxy
	if c.IsSet("proxy") {
		if proxy, err = config.ParseProxy(c.String("proxy")); err != nil {
			return route, err
		}
	}
	route.Proxy = (*nts.Proxy)(proxy)
	if addr, err := netip.ParseAddr(cfg.Bind); err == nil {
		route.Bind.Addr = addr
	} else {
		route.Bind.Interface = cfg.Bind
	}
	return route, nil
}

func policy(cfg *config.Config) timesync.Policy {
	m := cfg.Measure
	return timesync.Policy{
		Samples: m.Samples, Interval: m.Interval, AnswerTimeout: m.AnswerTimeout,
		Deadline:    m.Deadline + time.Duration(m.Samples-1)*m.Interval,
		MaxDistance: m.MaxDistance, MinOperators: cfg.Agreement.MinOperators,
		Strict: cfg.Bootstrap.Strict, Built: built(),
		Limits: timesync.Limits{
			StepAbove: cfg.Clock.StepAbove, MaxStep: cfg.Clock.MaxStep,
			Step: timesync.StepPolicy(cfg.Clock.Step), Bootstrap: cfg.Bootstrap.MinOperators,
		},
	}
}

// measure runs a client until a signal, with its progress shown on a terminal
// where that takes longer than people like to wait for nothing.
func measure(c *cli.Context, o timesync.Options, do func(*timesync.Client, context.Context) (*report.Report, error)) (*report.Report, error) {
	ctx, stop := untilSignal(c.Context)
	defer stop()
	if !c.Bool("quiet") {
		p := newProgress(c.App.ErrWriter, len(o.Servers))
		defer p.stop()
		o.Progress = p.show
	}
	return do(timesync.New(o), ctx)
}

// tell prints a report and hands on what it came to.
func tell(c *cli.Context, r *report.Report) error {
	out := c.App.Writer
	write := func() error { return r.WriteText(out, style(out)) }
	if c.Bool("json") {
		write = func() error { return r.WriteJSON(out) }
	}
	if err := write(); err != nil {
		return err
	}
	if r.Result != report.Agreed {
		return exitResult(r.Result)
	}
	return nil
}

func logLevel(c *cli.Context) (level slog.Level, err error) {
	if c.Bool("quiet") && !c.IsSet("log-level") {
		return slog.LevelError, nil // a warning is no failure
	}
	if err := level.UnmarshalText([]byte(c.String("log-level"))); err != nil {
		return level, usageError{fmt.Errorf("--log-level must be debug, info, warn or error, not %q", c.String("log-level"))}
	}
	return level, nil
}

// logger writes lines for people and journals, which have the time themselves.
func logger(w io.Writer, level slog.Level) *slog.Logger {
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{
		Level: level,
		ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey && len(groups) == 0 {
				return slog.Attr{}
			}
			return a
		},
	}))
}

// keepState says where what is learned is kept, if that can be trusted, and of
// which machine and boot it is.
func keepState(o *timesync.Options, cfg *config.Config, g *guard) {
	o.StateDir = stateDir(cfg)
	if g != nil && o.StateDir != "" {
		dir, err := g.trustState(o.StateDir)
		if err != nil {
			o.Log.Warn("nothing is kept", "state_dir", o.StateDir, "error", err)
		}
		o.StateDir = dir
	}
	o.MachineID, o.BootID = identity("/etc/machine-id"), identity("/proc/sys/kernel/random/boot_id")
}

// identity is the content of a small file of the system, or nothing.
func identity(path string) string {
	data, err := os.ReadFile(path)
	if err != nil || len(data) > 128 {
		return ""
	}
	return string(data)
}
