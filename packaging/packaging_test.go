// Package packaging holds what is installed beside the program against the
// program: manual pages and completions have its flags, keys, defaults and exit
// codes, and no others; units are sound, and run commands that are there.
package packaging

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"ntsclient/config"
)

// program is the path of the program, built from this tree.
var program = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "ntsclient")
	if err != nil {
		return "", err
	}
	file := filepath.Join(dir, "ntsclient")
	out, err := exec.Command("go", "build", "-tags", "urfave_cli_no_docs", "-o", file, "ntsclient").CombinedOutput()
	if err != nil {
		err = fmt.Errorf("go build: %w\n%s", err, out)
	}
	return file, err
})

func TestMain(m *testing.M) {
	code := m.Run()
	if file, err := program(); err == nil {
		os.RemoveAll(filepath.Dir(file))
	}
	os.Exit(code)
}

// help is what the program says about a command, or "" about itself.
func help(t *testing.T, command string) string {
	t.Helper()
	file, err := program()
	if err != nil {
		t.Fatal(err)
	}
	args := []string{"--help"}
	if command != "" {
		args = []string{command, "--help"}
	}
	out, err := exec.Command(file, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("ntsclient %s: %v\n%s", args, err, out)
	}
	return string(out)
}

// flags are the flags in a help text, each form of them, but for those of all
// commands where it is a command's.
func flags(text string, whole bool) []string {
	var all []string
	for _, line := range regexp.MustCompile(`(?m)^  (-.*?)(?:  .*)?$`).FindAllStringSubmatch(text, -1) {
		for _, form := range strings.Split(line[1], ", ") {
			form, _, _ = strings.Cut(form, " ")
			if whole || form != "-h" && form != "--help" {
				all = append(all, form)
			}
		}
	}
	slices.Sort(all)
	return all
}

// notYet tells whether a help text is of a command that is not there yet.
func notYet(text string) bool {
	title, _, _ := strings.Cut(text, "\n")
	return strings.HasSuffix(title, "(not there yet)")
}

// commands are the program's commands with their flags; "" has those of all.
func commands(t *testing.T) map[string][]string {
	t.Helper()
	text := help(t, "")
	all := map[string][]string{"": flags(text, true)}
	_, list, _ := strings.Cut(text, "Commands:\n")
	list, _, _ = strings.Cut(list, "\n\n")
	for _, line := range strings.Split(list, "\n") {
		name := strings.Fields(line)[0]
		all[name] = flags(help(t, name), false)
	}
	if len(all) < 3 || len(all["sync"]) < 3 {
		t.Fatalf("the help texts are not understood: %v", all)
	}
	return all
}

// missing skips the test for want of a tool, or fails it where nothing may be
// skipped.
func missing(t *testing.T, tool string) bool {
	t.Helper()
	_, err := exec.LookPath(tool)
	switch {
	case err == nil:
		return false
	case os.Getenv("CI") == "true":
		t.Fatalf("%v: run packaging/prepare", err)
	default:
		t.Skipf("%v: packaging/prepare installs it", err)
	}
	return true
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// sections are the parts of a manual page that begin with a heading, by its
// text; what comes before the first is "".
func sections(page, macro string) map[string]string {
	parts := strings.Split("\n"+page, "\n."+macro+" ")
	all := map[string]string{"": parts[0]}
	for _, part := range parts[1:] {
		name, text, _ := strings.Cut(part, "\n")
		all[name] = text
	}
	return all
}

// later is how a page says that something is not there yet.
const later = "(Not in this version yet"

func TestManualFlags(t *testing.T) {
	description := sections(read(t, "man/ntsclient.8"), "Sh")["DESCRIPTION"]
	pages := sections(description, "Ss")
	all := commands(t)
	if len(pages) != len(all) {
		t.Errorf("the page has sections for other commands than there are: %d and %d", len(pages), len(all))
	}
	for command, want := range all {
		var got []string
		for _, item := range regexp.MustCompile(`(?m)^\.It (Fl .*)$`).FindAllStringSubmatch(pages[command], -1) {
			for _, form := range regexp.MustCompile(`Fl (\S+)`).FindAllStringSubmatch(item[1], -1) {
				got = append(got, "-"+form[1])
			}
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("flags of %q in ntsclient.8:\n%v; the program has\n%v", command, got, want)
		}
		if command != "" && strings.Contains(pages[command], later) != notYet(help(t, command)) {
			t.Errorf("ntsclient.8 and the program disagree on whether %q is there yet: see %q in the page", command, later)
		}
	}
}

func TestManualExitCodes(t *testing.T) {
	sources, err := filepath.Glob("../*.go")
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, file := range sources {
		for _, code := range regexp.MustCompile(`(?m)^\texit[A-Z]\w*\s+= (\d+)`).FindAllStringSubmatch(read(t, file), -1) {
			want = append(want, code[1])
		}
	}
	var got []string
	page := sections(read(t, "man/ntsclient.8"), "Sh")["EXIT STATUS"]
	for _, item := range regexp.MustCompile(`(?m)^\.It (\d+)`).FindAllStringSubmatch(page, -1) {
		got = append(got, item[1])
	}
	if notYet(help(t, "status")) {
		want = append(want, "6") // of status
	}
	slices.Sort(got)
	slices.Sort(want)
	if want = slices.Compact(want); len(want) < 6 || !slices.Equal(got, want) {
		t.Errorf("exit codes in ntsclient.8: %v; in the program: %v", got, want)
	}
}

// setting is a key of the configuration with its default as it is written, or
// "" where it has none.
var setting = regexp.MustCompile(`(?m)^\.It Ic (\w+)(?: = (.*))?$`)

// The page has the keys of the shipped configuration in the same order, and its
// defaults are the program's.
func TestManualKeys(t *testing.T) {
	page := sections(read(t, "man/ntsclient.toml.5"), "Sh")["DESCRIPTION"]
	var keys, soon []string
	var file strings.Builder
	for _, part := range strings.Split(page, "\n.Ss ")[1:] {
		name, text, _ := strings.Cut(part, "\n")
		if name = strings.TrimSpace(name); name != "General" {
			file.WriteString(name + "\n")
		}
		table := strings.TrimPrefix(strings.Trim(name, "[]")+".", "General.")
		items := setting.FindAllStringSubmatchIndex(text, -1)
		for i, at := range items {
			end := len(text)
			if i+1 < len(items) {
				end = items[i+1][0]
			}
			key := table + text[at[2]:at[3]]
			keys = append(keys, key)
			if strings.Contains(text[at[0]:end], later) {
				soon = append(soon, key)
			}
			if value := ""; at[4] >= 0 {
				value = strings.ReplaceAll(text[at[4]:at[5]], `\(dq`, `"`)
				file.WriteString(text[at[2]:at[3]] + " = " + value + "\n")
			} else if key == "server.address" {
				file.WriteString("address = \"time.example.net\"\n[[server]]\naddress = \"time.example.org\"\n")
			}
		}
	}
	known, unfinished := shipped(t)
	if !slices.Equal(keys, known) {
		t.Errorf("keys in ntsclient.toml.5:\n%v\nin ntsclient.toml:\n%v", keys, known)
	}
	if !slices.Equal(soon, unfinished) {
		t.Errorf("ntsclient.toml.5 says of %v that this version does not have them yet, ntsclient.toml of %v", soon, unfinished)
	}
	for _, key := range regexp.MustCompile(`(?m)^\t\{"([a-z_.]+)", `).FindAllStringSubmatch(read(t, "../config/keys.go"), -1) {
		if !slices.Contains(keys, key[1]) {
			t.Errorf("%s is not in ntsclient.toml.5", key[1])
		}
	}
	got, err := config.Parse("page.toml", []byte(file.String()), nil)
	if err != nil {
		t.Fatalf("the defaults in ntsclient.toml.5 are not accepted: %v\n%s", err, file.String())
	}
	want := config.Default()
	want.Servers, want.StateDirSet = got.Servers, true
	if !reflect.DeepEqual(got, want) {
		t.Errorf("defaults in ntsclient.toml.5:\n%+v; of the program\n%+v", got, want)
	}
}

// shipped are the keys of the shipped configuration, and those of them that it
// says this version does not have yet.
func shipped(t *testing.T) (keys, unfinished []string) {
	t.Helper()
	table, comment := "", ""
	for _, line := range strings.Split(read(t, "../ntsclient.toml"), "\n") {
		key := regexp.MustCompile(`^#?(\w+) += `).FindStringSubmatch(line)
		switch {
		case strings.HasPrefix(line, "["):
			table, comment = strings.Trim(line, "[]")+".", ""
		case key != nil:
			if !slices.Contains(keys, table+key[1]) {
				keys = append(keys, table+key[1])
				if strings.Contains(strings.ReplaceAll(comment, "\n# ", " "), "(This version") {
					unfinished = append(unfinished, table+key[1])
				}
			}
			comment = ""
		case strings.HasPrefix(line, "#"):
			comment += "\n" + line
		default:
			comment = ""
		}
	}
	return keys, unfinished
}

func TestManualSyntax(t *testing.T) {
	for name, check := range map[string][]string{
		"mandoc": {"mandoc", "-T", "lint", "-W", "warning"},
		"man":    {"man", "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z"},
	} {
		t.Run(name, func(t *testing.T) {
			if missing(t, name) {
				return
			}
			for _, page := range []string{"./man/ntsclient.8", "./man/ntsclient.toml.5"} {
				c := exec.Command(check[0], append(check[1:], page)...)
				c.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "MANWIDTH=80")
				var said bytes.Buffer
				c.Stderr = &said
				out, err := c.Output()
				if name == "mandoc" {
					said.Write(out)
				}
				if err != nil || said.Len() > 0 {
					t.Errorf("%s: %v\n%s", page, err, said.Bytes())
				}
			}
		})
	}
}
