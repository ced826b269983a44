package main

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// newApp is the command line.
func newApp(stdout, stderr io.Writer) *cli.App {
	cli.VersionFlag = &cli.BoolFlag{Name: "version", Aliases: []string{"V"}, Usage: "print the version"}
	cli.HelpFlag = &cli.BoolFlag{Name: "help", Aliases: []string{"h"}, Usage: "print this help"}
	cli.VersionPrinter = func(*cli.Context) { fmt.Fprintln(stdout, versionLine()) }
	cli.FlagStringer = describe
	cli.SuggestDidYouMeanTemplate = "%s" // the bare word: the sentence is ours
	usage := func(_ *cli.Context, err error, _ bool) error { return usageError{err} }
	app := &cli.App{
		Name:                  "ntsclient",
		Version:               versionLine(), // the library has no --version without one
		Writer:                stdout,
		ErrWriter:             stderr,
		HideHelpCommand:       true,
		CustomAppHelpTemplate: appHelp,
		OnUsageError:          usage,
		ExitErrHandler:        func(*cli.Context, error) {}, // run does that
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "config", Aliases: []string{"c"}, Usage: "read `FILE` (default: " + defaultConfig + ", else built in)"},
			&cli.StringFlag{Name: "log-level", Value: "warn", Usage: "least `LEVEL` of messages: debug, info, warn, error"},
		},
		Commands: []*cli.Command{queryCommand(), syncCommand(), runCommand(), statusCommand(), checkCommand()},
		Action: func(c *cli.Context) error {
			if c.IsSet("config") {
				return syncAction(c)
			}
			return cli.ShowAppHelp(c)
		},
	}
	for _, c := range app.Commands {
		c.OnUsageError, c.HideHelpCommand = usage, true
		c.CustomHelpTemplate = commandHelp
	}
	return app
}

func queryCommand() *cli.Command {
	return &cli.Command{
		Name: "query", Usage: "measure and print; the clock is never touched", ArgsUsage: "[HOST[:PORT] ...]",
		Description: `Without hosts, the servers of the configuration are asked. It needs no root.

Examples:
  ntsclient query time.cloudflare.com nts.netnod.se
  ntsclient query time.example.net:4460 --ca ca.pem --samples 4
  ntsclient query --json | jq .offset_s`,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "json", Usage: "print the report as JSON"},
			&cli.IntFlag{Name: "samples", Usage: "ask each server `N` times, 1 to 8"},
			&cli.DurationFlag{Name: "timeout", Usage: "end the whole round after `D`, as in 5s"},
			&cli.StringFlag{Name: "ca", Usage: "trust only the authorities in `FILE` (PEM) for these hosts"},
			proxyFlag(),
			&cli.BoolFlag{Name: "4", Usage: "IPv4 only"},
			&cli.BoolFlag{Name: "6", Usage: "IPv6 only"},
		},
		Action: queryAction,
	}
}

func syncCommand() *cli.Command {
	return &cli.Command{
		Name: "sync", Usage: "measure, decide, correct the clock once, exit",
		Description: `It needs CAP_SYS_TIME, unless it is a dry run.

Examples:
  ntsclient sync --dry-run
  ntsclient sync --wait 2m                    at boot, before the network is up
  ntsclient sync --quiet --random-delay 10m   in cron`,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "json", Usage: "print the report as JSON"},
			&cli.BoolFlag{Name: "dry-run", Usage: "leave the clock alone, and say what would be done"},
			&cli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Usage: "print nothing unless it fails"},
			&cli.DurationFlag{Name: "wait", Usage: "keep trying until `D` has passed, as in 2m"},
			&cli.DurationFlag{Name: "random-delay", Usage: "start after a random delay up to `D`"},
			&cli.DurationFlag{Name: "max-step", Usage: "allow corrections up to `D`"},
			proxyFlag(),
		},
		Action: syncAction,
	}
}

func runCommand() *cli.Command {
	return &cli.Command{
		Name: "run", Usage: "keep the clock right until stopped",
		Description: `It needs CAP_SYS_TIME, unless it is a dry run. Signals: TERM and INT end it, HUP
reads the configuration again, USR1 says that this may be another network.

Examples:
  ntsclient run --dry-run
  ntsclient run --log-level debug`,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "dry-run", Usage: "leave the clock alone, and say what would be done"},
		},
		Action: runAction,
	}
}

func statusCommand() *cli.Command {
	return &cli.Command{
		Name: "status", Usage: "say what the loop, or the last sync, knows",
		Description: `It asks the running loop, or reads what the last sync left, and the kernel.
Exit status: 0 synchronized, 3 not, 4 holding (the clock is further off than may
be corrected), 6 nothing known. It needs no root.

Examples:
  ntsclient status
  ntsclient status --wait 5m                  before what needs the right time
  ntsclient status --json | jq .synchronized`,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "json", Usage: "print the report as JSON"},
			&cli.BoolFlag{Name: "prometheus", Usage: "print the report as metrics"},
			&cli.DurationFlag{Name: "wait", Usage: "return when synchronized, or fail after `D`"},
		},
		Action: statusAction,
	}
}

func checkCommand() *cli.Command {
	return &cli.Command{
		Name: "check", Usage: "say what would stop the above, and the mend",
		Description: `It looks at the configuration, the machine and each server, in the order in
which a sync needs them, and ends with the exit code of the first that stops it:
2 configuration, 3 no agreement, 4 refused, 5 not permitted. Nothing is touched.

Examples:
  ntsclient check
  ntsclient check --offline -c new.toml       before it is installed`,
		Flags: []cli.Flag{
			&cli.BoolFlag{Name: "json", Usage: "print the findings as JSON"},
			&cli.BoolFlag{Name: "offline", Usage: "look at configuration and machine only; send nothing"},
		},
		Action: checkAction,
	}
}

func proxyFlag() cli.Flag {
	return &cli.StringFlag{Name: "proxy", Usage: "go through the SOCKS5 proxy at `URL`, or not at all"}
}

const appHelp = `ntsclient sets the clock from authenticated network time (NTS, RFC 8915).

Usage:
  ntsclient [FLAGS] COMMAND [FLAGS] [HOST[:PORT] ...]
  ntsclient --config FILE         the same as: ntsclient --config FILE sync

Commands:{{range .VisibleCommands}}
  {{.Name}}{{"\t"}}{{.Usage}}{{end}}

Flags of all commands:{{range .VisibleFlags}}
  {{.}}{{end}}

Examples:
  ntsclient query time.cloudflare.com nts.netnod.se
  ntsclient sync --dry-run

"ntsclient COMMAND --help" tells more. Flags may stand anywhere.
`

const commandHelp = `{{.HelpName}}: {{.Usage}}

Usage:
  {{.HelpName}} [FLAGS]{{if .ArgsUsage}} {{.ArgsUsage}}{{end}}

{{if .Description}}{{.Description}}

{{end}}Flags:{{range .VisibleFlags}}
  {{.}}{{end}}

"ntsclient --help" has the flags of all commands.
`

// describe is a flag's line in a help text.
func describe(f cli.Flag) string {
	var names []string
	for _, name := range f.Names() {
		names = append(names, dashed(name))
	}
	slices.Reverse(names) // the short one first
	usage, placeholder := f.(cli.DocGenerationFlag).GetUsage(), ""
	if before, rest, ok := strings.Cut(usage, "`"); ok { // the library's way to mark the value
		name, after, _ := strings.Cut(rest, "`")
		usage, placeholder = before+name+after, " "+name
	}
	return strings.Join(names, ", ") + placeholder + "\t" + usage
}
