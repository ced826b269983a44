package packaging

import (
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// Each shell loads its completion, and is asked what it offers.
func TestCompletions(t *testing.T) {
	for shell, ask := range map[string]func(command string) *exec.Cmd{
		"bash": func(command string) *exec.Cmd {
			return exec.Command("bash", "--norc", "-c", `
				source completions/ntsclient.bash || exit
				COMP_WORDS=(ntsclient $1 -) COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
				_ntsclient
				printf '%s\n' "${COMPREPLY[@]}"`, "bash", command)
		},
		"fish": func(command string) *exec.Cmd {
			return exec.Command("fish", "--no-config", "-c",
				"source completions/ntsclient.fish; complete -C 'ntsclient "+command+" -'")
		},
		// What it hands to zsh's own function: "(-q --quiet)--quiet[...]".
		"zsh": func(command string) *exec.Cmd {
			return exec.Command("zsh", "-f", "-c", `
				_arguments() { shift; print -rl -- $@ | sed 's/^([^)]*)//' }
				words=(ntsclient $1)
				source completions/_ntsclient`, "zsh", command)
		},
	} {
		t.Run(shell, func(t *testing.T) {
			if missing(t, shell) {
				return
			}
			all := commands(t)
			for command, own := range all {
				out, err := ask(command).CombinedOutput()
				if err != nil {
					t.Fatalf("%v\n%s", err, out)
				}
				got := regexp.MustCompile(`(?m)^-[-\w]*\w`).FindAllString(string(out), -1)
				slices.Sort(got)
				want := slices.Clone(all[""])
				if command != "" {
					want = append(want, own...)
				}
				slices.Sort(want)
				if !slices.Equal(got, want) {
					t.Errorf("%q: it offers\n%v; the program has\n%v", command, got, want)
				}
			}
		})
	}
}

// The first word is a command.
func TestCompletionOfCommands(t *testing.T) {
	var want []string
	for command := range commands(t) {
		if command != "" {
			want = append(want, command)
		}
	}
	slices.Sort(want)
	for shell, ask := range map[string]*exec.Cmd{
		"bash": exec.Command("bash", "--norc", "-c", `
			source completions/ntsclient.bash || exit
			COMP_WORDS=(ntsclient '') COMP_CWORD=1
			_ntsclient
			printf '%s\n' "${COMPREPLY[@]}"`),
		"fish": exec.Command("fish", "--no-config", "-c", "source completions/ntsclient.fish; complete -C 'ntsclient '"),
	} {
		t.Run(shell, func(t *testing.T) {
			if missing(t, shell) {
				return
			}
			out, err := ask.CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			var got []string
			for _, line := range strings.Split(strings.TrimSpace(string(out)), "\n") {
				got = append(got, strings.Fields(line)[0])
			}
			slices.Sort(got)
			if !slices.Equal(got, want) {
				t.Errorf("it offers %v; the program has %v", got, want)
			}
		})
	}
}
