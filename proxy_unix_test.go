//go:build unix

package main

import (
	"strings"
	"syscall"
	"testing"

	"ntsclient/nts/ntstest"
)

// A loop whose proxy dies sends nothing another way, goes on when the proxy is
// back, and says all the time nothing of whom it asks.
func TestLoopProxy(t *testing.T) {
	s := serve(t, ntstest.Options{})
	p, url := proxy(t, ntstest.ProxyOptions{})
	file := proxiedFile(t, "proxy = \""+url+"\"\n"+hasty, s)
	l := startLoop(t, file)
	l.hear("STATUS=dry run: synchronized")
	write(t, file, "[[server]]\naddress = \"time.test:99999\"\n")
	l.Process.Signal(syscall.SIGHUP)
	l.hear("RELOADING=1")
	l.hear("READY=1")
	p.Close()
	if got := l.hear("STATUS=dry run: no agreed time"); strings.Contains(got, "time.test") {
		t.Errorf("the status names a server: %q", got)
	}
	again, _ := proxy(t, ntstest.ProxyOptions{Listen: p.Addr().String()})
	l.hear("STATUS=dry run: synchronized")
	l.Process.Signal(syscall.SIGTERM)
	if got := status(t, l.Cmd); got != exitOK {
		t.Errorf("status %d", got)
	}
	onlyVia(t, []*ntstest.Server{s}, p, again)
	log := l.log.String()
	if strings.Contains(log, "time.test") || strings.Contains(log, "99999") {
		t.Errorf("the log names a server:\n%s", log)
	}
	for _, want := range []string{
		"the configuration is refused, and the old one stays", "check --offline", `proxy="the proxy cannot be reached: connection refused"`,
	} {
		if !strings.Contains(log, want) {
			t.Errorf("%q is not in the log:\n%s", want, log)
		}
	}
}
