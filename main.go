// Command ntsclient sets the clock from authenticated network time (NTS).
package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"strconv"
	"syscall"

	"ntsclient/clock"
	"ntsclient/config"
	"ntsclient/timesync/report"
)

//go:embed ntsclient.toml
var shipped []byte

// The exit codes. Scripts depend on them.
const (
	exitOK           = 0
	exitInternal     = 1
	exitUsage        = 2
	exitNoAgreement  = 3
	exitRefused      = 4
	exitNotPermitted = 5
	exitUnknown      = 6   // of status
	exitSignal       = 128 // and the signal's number
)

func main() {
	// One round makes little garbage and is over soon: with 50 servers,
	// collecting it as often as usual costs a quarter of the time.
	debug.SetGCPercent(400)
	// A defect ends by a signal. Go would give it exit 2, which is for a wrong
	// configuration, and after which the loop is not started again.
	debug.SetTraceback("crash")
	os.Exit(run(os.Args, os.Stdout, os.Stderr))
}

// usageError is a mistake of who called us, or of the configuration.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// bySignal is what ends the context.
type bySignal struct{ syscall.Signal }

func (s bySignal) Error() string { return "ended by signal " + s.Signal.String() }

// exitResult carries what a report came to out of a command.
type exitResult report.Result

func (r exitResult) Error() string { return string(r) }

// exitStatus is one whose reason has been printed.
type exitStatus int

func (s exitStatus) Error() string { return "exit status " + strconv.Itoa(int(s)) }

func run(args []string, stdout, stderr io.Writer) int {
	app := newApp(stdout, stderr)
	args, err := arrange(app, args)
	if err == nil {
		err = app.Run(args)
	}
	return exitCode(err, stderr)
}

// untilSignal ends with the first signal, so that a measurement ends in order:
// what was learned is kept. Before and after it, where a program may wait for a
// file or a pipe, signals end the process by themselves. One that whoever
// started us had ignored (nohup) stays so.
func untilSignal(parent context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(parent)
	signals := make(chan os.Signal, 1)
	for _, s := range []os.Signal{os.Interrupt, syscall.SIGTERM, syscall.SIGHUP} {
		if !signal.Ignored(s) {
			signal.Notify(signals, s)
		}
	}
	go func() {
		select {
		case s := <-signals:
			cancel(bySignal{s.(syscall.Signal)})
		case <-ctx.Done():
		}
	}()
	return ctx, func() {
		signal.Stop(signals)
		cancel(nil)
	}
}

// exitCode is the exit status for err, which is printed unless that has been
// done.
func exitCode(err error, stderr io.Writer) int {
	var result exitResult
	var status exitStatus
	var usage usageError
	var configuration *config.Error
	var s bySignal
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &s):
		return exitSignal + int(s.Signal)
	case errors.As(err, &status):
		return int(status)
	case errors.As(err, &result):
		switch report.Result(result) {
		case report.Refused:
			return exitRefused
		case report.NotPermitted:
			return exitNotPermitted
		}
		return exitNoAgreement
	}
	message, code := err.Error(), exitInternal
	if errors.Is(err, clock.ErrNotPermitted) {
		code = exitNotPermitted
	}
	if errors.As(err, &usage) {
		code = exitUsage
	}
	if errors.As(err, &configuration) {
		code = exitUsage
		if configuration.Hint != "" {
			message += "; " + configuration.Hint
		}
	}
	fmt.Fprintf(stderr, "ntsclient: %s\n", report.Printable(message))
	return code
}
