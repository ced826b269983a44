// Command ntsclient sets the clock from authenticated network time (NTS).
package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/urfave/cli/v2"

	"ntsclient/config"
	"ntsclient/timesync/report"
)

//go:embed ntsclient.toml
var shipped []byte

// The exit codes. Scripts depend on them.
const (
	exitOK           = 0
	exitInternal     = 1
	exitUsage        = 2
	exitNoAgreement  = 3
	exitRefused      = 4
	exitNotPermitted = 5
	exitSignal       = 128 // and the signal's number
)

func main() {
	// One round makes little garbage and is over soon: with 50 servers,
	// collecting it as often as usual costs a quarter of the time.
	debug.SetGCPercent(400)
	os.Exit(run(os.Args, os.Stdout, os.Stderr))
}

// usageError is a mistake of who called us, or of the configuration.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// bySignal is what ends the context.
type bySignal struct{ syscall.Signal }

func (s bySignal) Error() string { return "ended by signal " + s.Signal.String() }

// exitResult carries what a report came to out of a command.
type exitResult report.Result

func (r exitResult) Error() string { return string(r) }

func run(args []string, stdout, stderr io.Writer) int {
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer signal.Stop(signals)
	go func() {
		if s, ok := (<-signals).(syscall.Signal); ok {
			cancel(bySignal{s})
		}
	}()
	app := newApp(stdout, stderr)
	args, err := arrange(app, args)
	if err == nil {
		err = app.RunContext(ctx, args)
	}
	return exitCode(err, stderr)
}

// exitCode is the exit status for err, which is printed unless that has been
// done.
func exitCode(err error, stderr io.Writer) int {
	var result exitResult
	var usage usageError
	var configuration *config.Error
	var s bySignal
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &s):
		return exitSignal + int(s.Signal)
	case errors.As(err, &result):
		switch report.Result(result) {
		case report.Refused:
			return exitRefused
		case report.NotPermitted:
			return exitNotPermitted
		}
		return exitNoAgreement
	}
	fmt.Fprintf(stderr, "ntsclient: %s\n", report.Printable(err.Error()))
	if errors.As(err, &usage) || errors.As(err, &configuration) {
		return exitUsage
	}
	return exitInternal
}

// newApp is the command line.
func newApp(stdout, stderr io.Writer) *cli.App {
	cli.VersionFlag = &cli.BoolFlag{Name: "version", Aliases: []string{"V"}, Usage: "print the version"}
	cli.HelpFlag = &cli.BoolFlag{Name: "help", Aliases: []string{"h"}, Usage: "show help"}
	cli.VersionPrinter = func(*cli.Context) { fmt.Fprintln(stdout, versionLine()) }
	later := func(name, usage string) *cli.Command {
		return &cli.Command{Name: name, Usage: usage + " (not there yet)", Action: func(*cli.Context) error {
			return usageError{fmt.Errorf("%s is not there yet in this version; there are query and sync", name)}
		}}
	}
	usage := func(_ *cli.Context, err error, _ bool) error { return usageError{err} }
	app := &cli.App{
		Name:            "ntsclient",
		Usage:           "set the clock from authenticated network time (NTS, RFC 8915)",
		UsageText:       "ntsclient [--config FILE] COMMAND [flags] [HOST[:PORT] …]\nntsclient --config FILE       (the same as sync)",
		Version:         version,
		Writer:          stdout,
		ErrWriter:       stderr,
		HideHelpCommand: true,
		OnUsageError:    usage,
		ExitErrHandler:  func(*cli.Context, error) {}, // run does that
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "config", Aliases: []string{"c"}, Usage: "configuration `FILE` (default: " + defaultConfig + ", else the one built in)"},
			&cli.StringFlag{Name: "log-level", Value: "warn", Usage: "`LEVEL`: debug, info, warn or error"},
		},
		Commands: []*cli.Command{
			queryCommand(), syncCommand(),
			later("run", "keep the clock right until stopped"),
			later("status", "say what the running loop, or the last sync, knows"),
			later("check", "say what would stop the above from working, and the mend"),
		},
		Action: func(c *cli.Context) error {
			if c.IsSet("config") {
				return syncAction(c)
			}
			return cli.ShowAppHelp(c)
		},
	}
	for _, c := range app.Commands {
		c.OnUsageError, c.HideHelpCommand = usage, true
	}
	return app
}

func queryCommand() *cli.Command {
	return &cli.Command{
		Name: "query", Usage: "measure and print; the clock is never touched", ArgsUsage: "[HOST[:PORT] …]",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "json", Usage: "print the report as JSON"},
			&cli.IntFlag{Name: "samples", Usage: "take `N` samples from each server"},
			&cli.DurationFlag{Name: "timeout", Usage: "end the whole round after `D`"},
			&cli.StringFlag{Name: "ca", Usage: "trust only the authorities in `FILE` (PEM)"},
			&cli.StringFlag{Name: "proxy", Usage: "`URL` of a SOCKS5 proxy (not there yet)"},
			&cli.BoolFlag{Name: "4", Usage: "IPv4 only"},
			&cli.BoolFlag{Name: "6", Usage: "IPv6 only"},
		},
		Action: queryAction,
	}
}

func syncCommand() *cli.Command {
	return &cli.Command{
		Name: "sync", Usage: "measure, decide, correct the clock once, exit (needs CAP_SYS_TIME)",
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "json", Usage: "print the report as JSON"},
			&cli.BoolFlag{Name: "dry-run", Usage: "leave the clock alone, and say what would be done"},
			&cli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Usage: "print nothing unless it fails (cron)"},
			&cli.DurationFlag{Name: "wait", Usage: "keep trying until `D` has passed"},
			&cli.DurationFlag{Name: "random-delay", Usage: "start after a random delay up to `D`"},
			&cli.DurationFlag{Name: "max-step", Usage: "allow corrections up to `D`"},
			&cli.StringFlag{Name: "proxy", Usage: "`URL` of a SOCKS5 proxy (not there yet)"},
		},
		Action: syncAction,
	}
}
