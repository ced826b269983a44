package report

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// WriteTextfile writes the report as metrics into a file for the textfile
// collector of node_exporter: whole or not at all, and readable by everybody.
// The report of a `sync` counts on from what the file has; a loop counts itself.
func WriteTextfile(path, version string, r *Report) error {
	before, err := readTextfile(path)
	if err != nil {
		return fmt.Errorf("metrics: %w", err)
	}
	t := r.totals()
	if r.Keeping == nil {
		t.count(r, before)
	}
	t.remember(before)
	temporary := path + ".new" // which the collector does not read
	if err := fill(temporary, r.metrics(version, t)); err != nil {
		return fmt.Errorf("metrics: %w", err)
	}
	if err := os.Rename(temporary, path); err != nil {
		os.Remove(temporary)
		return fmt.Errorf("metrics: %w", err)
	}
	return nil
}

// readTextfile reads what was written before; nothing where there is none.
func readTextfile(path string) ([]byte, error) {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file: remove it, or set `[metrics] textfile`", path)
	}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrPermission) {
		return nil, nil // it will be ours
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, MaxText))
}

// fill makes a new file.
func fill(path string, text []byte) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err == nil {
		err = f.Chmod(0o644) // whatever the umask
	}
	if err = errors.Join(err, f.Close()); err != nil {
		os.Remove(path)
	}
	return err
}
