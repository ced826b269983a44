package main

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"ntsclient/clock"
	"ntsclient/config"
	"ntsclient/confine"
)

var defaultConfig = "/etc/ntsclient.toml" // elsewhere in tests only

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

// named is the configuration that the user names, or nothing.
func named(c *cli.Context) string {
	if c.IsSet("config") {
		return c.String("config")
	}
	return os.Getenv("NTSCLIENT_CONFIG")
}

// loadConfig reads the configuration named, or the usual one, or where there
// is none the one built in. A guard, if there is one, reads it.
func loadConfig(c *cli.Context, g *guard) (*config.Config, error) {
	path := named(c)
	if path == "" {
		if _, err := os.Lstat(defaultConfig); errors.Is(err, fs.ErrNotExist) {
			return config.Parse("(built in)", shipped, nil)
		}
		path = defaultConfig
	}
	read := config.ReadFile
	if g != nil {
		read = g.read
		// Relative paths in it are relative to where it really is.
		if real, err := realPath(path); err == nil {
			path = real
		}
	}
	cfg, err := config.Load(path, read)
	if err != nil && !c.IsSet("config") && path != defaultConfig {
		err = fmt.Errorf("NTSCLIENT_CONFIG: %w", err)
	}
	return cfg, err
}

// distrust is for commands that set the clock. A program with a file capability
// can be started by anyone, with any configuration and any environment: then
// the environment goes, but for what is harmless, and a guard reads the files.
// It is nil where there is nothing to fear.
func distrust() *guard {
	if !clock.Secure() {
		return nil
	}
	for _, entry := range os.Environ() {
		if name, _, _ := strings.Cut(entry, "="); !slices.Contains(harmless, name) {
			os.Unsetenv(name)
		}
	}
	return newGuard()
}

// harmless are the variables that the terminal needs, and those by which a
// service manager hears that we are well: whoever sets them learns that, and
// could end us anyhow.
var harmless = []string{
	"LC_ALL", "LC_CTYPE", "LANG", "TERM", "NO_COLOR",
	"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID",
}

// confineProcess is not done in tests, which are one process.
var confineProcess = confine.Apply

// confined gives up what is not needed from here on. Nothing depends on it: what
// cannot be given up is kept, and said at debug level.
func confined(log *slog.Logger, n confine.Needs) {
	if err := confineProcess(n); err != nil {
		log.Debug("not all rights could be given up", "error", err)
	}
}

// needs are those of a command that keeps state in dir, if that is not empty.
func needs(cfg *config.Config, dir string, setClock bool) confine.Needs {
	n := confine.Needs{SetClock: setClock, State: dir}
	if cfg.Metrics.Textfile != "" {
		n.Write = append(n.Write, filepath.Dir(cfg.Metrics.Textfile))
	}
	return n
}

func realPath(path string) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	return filepath.EvalSymlinks(path)
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
