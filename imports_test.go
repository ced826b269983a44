package main

import (
	"bytes"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// mayImport is, for each folder, what it may import besides the standard
// library, on whatever system. Nobody may import test/, and what is shipped
// not ntstest.
var mayImport = map[string][]string{
	".": {
		"ntsclient/config", "ntsclient/confine", "ntsclient/nts", "ntsclient/clock", "ntsclient/timesync", "ntsclient/timesync/report",
		"github.com/urfave/cli/v2", "github.com/coreos/go-systemd/v22",
	},
	"timesync":        {"ntsclient/nts", "ntsclient/timesync/report"},
	"timesync/report": {},
	"nts":             {"ntsclient/nts/siv", "golang.org/x/sys"},
	"nts/siv":         {},
	"nts/ntstest":     {"ntsclient/nts/siv"},
	"clock":           {"golang.org/x/sys"},
	"confine":         {"golang.org/x/sys"},
	"config":          {"github.com/pelletier/go-toml/v2", "golang.org/x/net/publicsuffix"},
}

const longest = 400 // lines that a file may have

func TestImports(t *testing.T) {
	seen := map[string]bool{}
	err := filepath.WalkDir(".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			_, module := os.Stat(filepath.Join(path, "go.mod"))
			if path != "." && (module == nil || path == "test" || strings.HasPrefix(entry.Name(), ".")) {
				return fs.SkipDir // a module of its own, or nothing that is shipped
			}
			return nil
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		dir := filepath.ToSlash(filepath.Dir(path))
		seen[dir] = true
		checkFile(t, path, dir)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for dir := range mayImport {
		if !seen[dir] {
			t.Errorf("%s is in the table, and has no Go file", dir)
		}
	}
}

func checkFile(t *testing.T, path, dir string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if n := bytes.Count(text, []byte("\n")); n > longest {
		t.Errorf("%s has %d lines, more than %d", path, n, longest)
	}
	file, err := parser.ParseFile(token.NewFileSet(), path, text, parser.ImportsOnly)
	if err != nil {
		t.Fatal(err)
	}
	may, ok := mayImport[dir]
	if !ok {
		t.Errorf("%s: a new folder: say in the table what it may import", path)
	}
	for _, spec := range file.Imports {
		name, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			t.Fatal(err)
		}
		own := name == "ntsclient" || strings.HasPrefix(name, "ntsclient/")
		if first, _, _ := strings.Cut(name, "/"); !own && !strings.Contains(first, ".") && name != "C" {
			continue // the standard library
		}
		if !slices.ContainsFunc(may, func(m string) bool { return name == m || !own && strings.HasPrefix(name, m+"/") }) {
			t.Errorf("%s may not import %s", path, name)
		}
	}
}
