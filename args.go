package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// arrange brings args into the order that the library knows (global flags,
// command, its flags, the rest), so that flags may stand anywhere: it would
// take `query HOST --json` for two hosts.
func arrange(app *cli.App, args []string) ([]string, error) {
	var flags, words []string // each flag with its value, as --name=value
	for i := 1; i < len(args); i++ {
		arg := args[i]
		if arg == "--" {
			words = append(words, args[i+1:]...)
			break
		}
		if len(arg) < 2 || arg[0] != '-' {
			words = append(words, arg)
			continue
		}
		name, value, hasValue := strings.Cut(strings.TrimLeft(arg, "-"), "=")
		flag, err := findFlag(app, arg, name)
		if err != nil {
			return nil, err
		}
		name = flag.Names()[0]
		if takesValue(flag) && !hasValue {
			if i++; i == len(args) {
				return nil, usageError{fmt.Errorf("--%s needs a value", name)}
			}
			value, hasValue = args[i], true
		}
		if hasValue {
			name += "=" + value
		}
		flags = append(flags, "--"+name)
	}
	return order(app, args[0], flags, words)
}

// order puts flags where they belong, now that the command is known.
func order(app *cli.App, program string, flags, words []string) ([]string, error) {
	own := app.Flags
	var command *cli.Command
	if len(words) > 0 {
		if command = app.Command(words[0]); command == nil {
			return nil, usageError{fmt.Errorf("there is no command %q; did you mean %q?", words[0], cli.SuggestCommand(app.Commands, words[0]))}
		}
		own = command.Flags
		if command.ArgsUsage == "" && len(words) > 1 {
			return nil, usageError{fmt.Errorf("%s takes no arguments, and %q is one", words[0], words[1])}
		}
	}
	out := []string{program}
	var after []string
	for _, f := range flags {
		name, _, _ := strings.Cut(f[2:], "=")
		switch {
		case hasFlag(own, name) && command != nil, command != nil && name == "help":
			after = append(after, f)
		case hasFlag(app.Flags, name), name == "help", name == "version":
			out = append(out, f)
		case command == nil:
			return nil, usageError{fmt.Errorf("--%s needs a command: %s", name, strings.Join(having(app, name), " or "))}
		default:
			return nil, usageError{fmt.Errorf("%s has no flag --%s; %s has", words[0], name, strings.Join(having(app, name), " and "))}
		}
	}
	if command == nil {
		return out, nil
	}
	out = append(append(out, words[0]), after...)
	return append(append(out, "--"), words[1:]...), nil
}

// findFlag is the flag of that name, of whatever command.
func findFlag(app *cli.App, arg, name string) (cli.Flag, error) {
	all := append([]cli.Flag{cli.HelpFlag, cli.VersionFlag}, app.Flags...)
	for _, c := range app.Commands {
		all = append(all, c.Flags...)
	}
	i := slices.IndexFunc(all, func(f cli.Flag) bool { return slices.Contains(f.Names(), name) })
	if i < 0 {
		return nil, usageError{fmt.Errorf("there is no flag %s; did you mean %s?", arg, cli.SuggestFlag(all, name, false))}
	}
	return all[i], nil
}

func hasFlag(flags []cli.Flag, name string) bool {
	return slices.ContainsFunc(flags, func(f cli.Flag) bool { return slices.Contains(f.Names(), name) })
}

// having lists the commands that have a flag.
func having(app *cli.App, name string) []string {
	var out []string
	for _, c := range app.Commands {
		if hasFlag(c.Flags, name) {
			out = append(out, c.Name)
		}
	}
	return out
}

func takesValue(f cli.Flag) bool {
	d, ok := f.(cli.DocGenerationFlag)
	return ok && d.TakesValue()
}
