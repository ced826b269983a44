package timesync

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

func TestPeek(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("modes mean nothing there")
	}
	saved := fullState()
	for _, c := range []struct {
		name     string
		prepare  func(t *testing.T, dir string) // dir holds good state
		machine  string
		servers  int
		agreed   bool
		unusable string
		err      string
	}{
		{"good", func(*testing.T, string) {}, "one", len(saved.Servers), true, "", ""},
		{"of another machine", func(*testing.T, string) {}, "two", 0, true, "another machine", ""},
		{"none", func(t *testing.T, dir string) { os.Remove(filepath.Join(dir, stateName)) }, "one", 0, false, "", ""},
		{"damaged", func(t *testing.T, dir string) { writeFile(t, filepath.Join(dir, stateName), []byte("{")) }, "one", 0, false, "damaged", ""},
		{"that others may write", func(t *testing.T, dir string) { chmod(t, filepath.Join(dir, stateName), 0o666) }, "one", 0, false, "others may write it", ""},
		{"where everybody may write", func(t *testing.T, dir string) { chmod(t, dir, 0o777) }, "one", 0, false, "", "everybody may write there"},
		{"not there", func(t *testing.T, dir string) { os.RemoveAll(dir) }, "one", 0, false, "", "no such file"},
		{"a file", func(t *testing.T, dir string) { os.RemoveAll(dir); writeFile(t, dir, nil) }, "one", 0, false, "", "is no directory"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "state")
			saveState(t, dir, "one", saved)
			c.prepare(t, dir)
			before, _ := os.ReadDir(dir)
			p, err := Peek(dir, c.machine)
			if after, _ := os.ReadDir(dir); len(after) != len(before) {
				t.Errorf("it changed the directory: %v, %v", before, after)
			}
			if (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
				t.Fatalf("%v, want %q", err, c.err)
			}
			if err != nil {
				if errors.Is(err, fs.ErrNotExist) != (c.name == "not there") {
					t.Errorf("%v", err)
				}
				return
			}
			unusable := strings.Join(p.Unusable, "; ")
			if p.Servers != c.servers || (p.Agreed != nil) != c.agreed || (unusable == "") != (c.unusable == "") ||
				!strings.Contains(unusable, c.unusable) || p.Path != filepath.Join(dir, stateName) || !p.SetAside.IsZero() {
				t.Errorf("%+v", p)
			}
		})
	}
}

// What a run has set aside is seen afterwards.
func TestPeekSetAside(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	saveState(t, dir, "one", fullState())
	writeFile(t, filepath.Join(dir, stateName), []byte("{"))
	store, _ := openState(t, dir, "one")
	store.Close()
	if p, err := Peek(dir, "one"); err != nil || p.SetAside.IsZero() || p.Agreed != nil || len(p.Unusable) != 0 {
		t.Errorf("%+v, %v", p, err)
	}
}
