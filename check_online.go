package main

import (
	"time"

	"github.com/urfave/cli/v2"

	"ntsclient/clock"
	"ntsclient/confine"
	"ntsclient/timesync"
	"ntsclient/timesync/report"
)

// online asks the servers as a query does, and looks closer where they do not
// answer.
func online(c *cli.Context, o timesync.Options, f *report.Findings) error {
	o.Clock = clock.DryRun{Kernel: clock.New()}
	confined(o.Log, confine.Needs{})
	r, err := measure(c, o, (*timesync.Client).Check)
	if err != nil {
		return err
	}
	f.List = append(f.List, r.Findings(inDoubt(time.Now()))...)
	return nil
}

// inDoubt tells whether the clock may be far off, so that what depends on the
// time may fail.
func inDoubt(now time.Time) bool {
	maxError, err := here.clock.MaxError()
	return err == nil && maxError >= clock.Unsynchronized || now.Before(built())
}
