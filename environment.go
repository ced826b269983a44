package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"github.com/urfave/cli/v2"

	"ntsclient/clock"
	"ntsclient/config"
)

const defaultConfig = "/etc/ntsclient.toml"

// Stamped by the Makefile; what go build knows is the fallback.
var version, commitDate string

// built is the date of the commit that this was built from: a floor for what
// time it can be. Zero if unknown.
func built() time.Time {
	date := commitDate
	if info, ok := debug.ReadBuildInfo(); ok && date == "" {
		for _, s := range info.Settings {
			if s.Key == "vcs.time" {
				date = s.Value
			}
		}
	}
	t, _ := time.Parse(time.RFC3339, date)
	return t
}

func versionLine() string {
	v := version
	if v == "" {
		v = "(unversioned build)"
	}
	if t := built(); !t.IsZero() {
		v += " of " + t.UTC().Format(time.DateOnly)
	}
	return "ntsclient " + v
}

// loadConfig reads the configuration named, or the usual one, or where there
// is none the one built in.
func loadConfig(c *cli.Context, read config.Reader) (*config.Config, error) {
	path := c.String("config")
	if path == "" && !clock.Secure() {
		path = os.Getenv("NTSCLIENT_CONFIG")
	}
	if path != "" {
		return config.Load(path, read)
	}
	if _, err := os.Lstat(defaultConfig); errors.Is(err, fs.ErrNotExist) {
		return config.Parse("(built in)", shipped, read)
	}
	return config.Load(defaultConfig, read)
}

// fileReader is how commands that set the clock read files. A program with a
// file capability can be started by anyone, with any configuration and any
// environment: then only what its owner or root wrote counts.
func fileReader() config.Reader {
	if !clock.Secure() {
		return config.ReadFile
	}
	for _, name := range []string{"SSL_CERT_FILE", "SSL_CERT_DIR", "GODEBUG", "STATE_DIRECTORY", "XDG_STATE_HOME", "HOME"} {
		os.Unsetenv(name)
	}
	owner := uint32(0)
	if info, err := os.Stat("/proc/self/exe"); err == nil {
		owner = ownerOf(info)
	}
	return func(path string) ([]byte, error) { return readTrusted(path, owner) }
}

// readTrusted reads a file of root or owner that nobody else may write.
func readTrusted(path string, owner uint32) ([]byte, error) {
	f, err := openQuietly(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if uid := ownerOf(info); uid != 0 && uid != owner || info.Mode().Perm()&0o022 != 0 || !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not trusted: this program has a file capability and sets the clock, "+
			"so the file must belong to root or to the program's owner and be writable by nobody else", path)
	}
	const most = 1 << 20
	return io.ReadAll(io.LimitReader(f, most+1))
}

// stateDir is where state is kept: as configured, else as systemd says, else
// the usual place if it can be written, else the user's own.
func stateDir(cfg *config.Config) string {
	if cfg.StateDirSet {
		return cfg.StateDir
	}
	if dir := os.Getenv("STATE_DIRECTORY"); dir != "" {
		return filepath.SplitList(dir)[0]
	}
	if writable(cfg.StateDir) {
		return cfg.StateDir
	}
	if dir := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "ntsclient")
	}
	if home := os.Getenv("HOME"); home != "" {
		return filepath.Join(home, ".local", "state", "ntsclient")
	}
	return ""
}
