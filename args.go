package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

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
		name, value, hasValue := strings.Cut(strings.TrimPrefix(arg[1:], "-"), "=")
		flag, err := findFlag(app, arg, name)
		if err != nil {
			return nil, err
		}
		name = flag.Names()[0]
		if takesValue(flag) && !hasValue {
			if i++; i == len(args) {
				return nil, usageError{fmt.Errorf("%s needs a value", dashed(name))}
			}
			value, hasValue = args[i], true
		}
		if hasValue {
			if err := checkValue(flag, dashed(name), value); err != nil {
				return nil, usageError{err}
			}
			name += "=" + value
		}
		flags = append(flags, "--"+name)
	}
	if len(words) > 0 && words[0] == "help" { // as others have it
		flags, words = append(flags, "--help"), words[1:min(2, len(words))]
	}
	return order(app, args[0], flags, words)
}

// checkValue says what is wrong with a flag's value, in better words than the
// library has.
func checkValue(flag cli.Flag, name, value string) error {
	switch flag.(type) {
	case *cli.BoolFlag:
		if value != "true" && value != "false" {
			return fmt.Errorf("%s takes no value, and %q is one", name, value)
		}
	case *cli.IntFlag:
		if _, err := strconv.Atoi(value); err != nil {
			return fmt.Errorf("%s must be a whole number, not %q", name, value)
		}
	case *cli.DurationFlag:
		d, err := time.ParseDuration(value)
		if _, numeric := strconv.ParseFloat(value, 64); numeric == nil && err != nil {
			return fmt.Errorf("%s needs a unit: %q could be %ss or %sm", name, value, value, value)
		}
		if err != nil {
			return fmt.Errorf("%s must be a duration as in 500ms, 5s or 1h30m, not %q", name, value)
		}
		if d < 0 {
			return fmt.Errorf("%s must not be negative, as %s is", name, value)
		}
	case *cli.StringFlag:
		if value == "" { // a script's variable that was not set
			return fmt.Errorf("%s needs a value, and has an empty one", name)
		}
	}
	return nil
}

// order puts flags where they belong, now that the command is known.
func order(app *cli.App, program string, flags, words []string) ([]string, error) {
	own := app.Flags
	var command *cli.Command
	if len(words) > 0 {
		if command = app.Command(words[0]); command == nil {
			near := cli.SuggestCommand(app.Commands, words[0])
			if strings.ContainsAny(words[0], ".:") { // a host
				near = "query " + words[0]
			}
			return nil, usageError{fmt.Errorf("there is no command %q%s", words[0], didYouMean(near))}
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
			return nil, usageError{fmt.Errorf("%s needs a command: %s", dashed(name), strings.Join(having(app, name), ", "))}
		default:
			return nil, usageError{fmt.Errorf("%s has no flag %s; that is one of %s", words[0], dashed(name), strings.Join(having(app, name), " and "))}
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
	all := append([]cli.Flag{cli.VersionFlag}, app.Flags...)
	for _, c := range app.Commands {
		all = append(all, c.Flags...)
	}
	all = append(all, cli.HelpFlag)
	i := slices.IndexFunc(all, func(f cli.Flag) bool { return slices.Contains(f.Names(), name) })
	if i < 0 {
		flag, _, _ := strings.Cut(arg, "=")
		return nil, usageError{fmt.Errorf("there is no flag %s%s", flag, didYouMean(cli.SuggestFlag(all, name, false)))}
	}
	return all[i], nil
}

func didYouMean(word string) string {
	if word == "" {
		return "; ntsclient --help lists what there is"
	}
	return "; did you mean " + word + "?"
}

// dashed is a flag's name as it is written.
func dashed(name string) string {
	if len(name) == 1 {
		return "-" + name
	}
	return "--" + name
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
