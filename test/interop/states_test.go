//go:build linux

package interop

import (
	"errors"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"ntsclient/timesync/report"
)

// Servers that do not know the time say so, and are not believed; whatever else
// they say of themselves is told.
func TestStates(t *testing.T) {
	l := newLab(t)
	for _, c := range []struct {
		title   string
		server  Server
		reason  string // empty: it is believed
		stratum uint8
	}{
		{"not synchronized", Server{Kind: Chrony12, Lost: true}, "unsynchronized", 0},
		{"not synchronized", Server{Kind: Chrony13, Lost: true}, "unsynchronized", 0},
		{"not synchronized", Server{Kind: NTPsec, Lost: true}, "unsynchronized", 0},
		{"not synchronized", Server{Kind: NTPdRS, Lost: true}, "unsynchronized", 0},
		{"last stratum", Server{Kind: Chrony12, Extra: "local stratum 15"}, "", 15},
		{"last stratum", Server{Kind: Chrony13, Extra: "local stratum 15"}, "", 15},
		{"last stratum", Server{Kind: NTPsec, Extra: "tos orphan 15"}, "", 15},
		{"first stratum", Server{Kind: Chrony12}, "", 1},
		{"no helpers", Server{Kind: Chrony12, Extra: "ntsprocesses 0"}, "", 1},
		{"several helpers", Server{Kind: Chrony13, Extra: "ntsprocesses 3"}, "", 1},
	} {
		t.Run(c.title+"/"+string(c.server.Kind), func(t *testing.T) {
			needPort123(t, c.server.Kind)
			s := &c.server
			s.Identity = l.issuing.Issue(t, name, -1, 10)
			s.Start(t)
			defer s.Stop()
			exit := 0
			if c.reason != "" {
				exit = 3
			}
			got := run(t, configure(t, l.entries([]*Server{s}, "127.0.0.1"), ""), exit, "query", "--json").Servers[0]
			if c.reason != "" {
				if got.Verdict != report.Unusable || got.ReasonCode != c.reason || got.Error != nil {
					t.Errorf("verdict %s, %s, error %+v", got.Verdict, got.ReasonCode, got.Error)
				}
				return
			}
			if got.Verdict != report.ServerAgreed || got.Stratum != c.stratum {
				t.Errorf("verdict %s, stratum %d, want %d", got.Verdict, got.Stratum, c.stratum)
			}
		})
	}
}

// Servers that refuse, by what they can be configured to refuse.
func TestRefusals(t *testing.T) {
	const tlsStage, connect, exchange = "tls", "connect", "exchange"
	l := newLab(t)
	signal := func(sig syscall.Signal) func(*testing.T, *Server) {
		return func(t *testing.T, s *Server) { check(t, s.process.Process.Signal(sig)) }
	}
	for _, c := range []struct {
		title       string
		server      Server
		before      func(*testing.T, *Server)
		stage, code string
		tries       int // more than one, where the server lets some through
	}{
		{"not allowed", Server{Kind: Chrony12, Extra: "deny 127.0.0.1"}, nil, tlsStage, "tls_failed", 0},
		{"not allowed", Server{Kind: Chrony13, Extra: "deny 127.0.0.1"}, nil, tlsStage, "tls_failed", 0},
		{"ignored", Server{Kind: NTPsec, Extra: "restrict 127.0.0.1 ignore"}, nil, exchange, "exchange_timeout", 0},
		{"denied", Server{Kind: NTPsec, Extra: "restrict 127.0.0.1 noserve kod"}, nil, exchange, "exchange_timeout", 0}, // no kiss, though
		{"ignored", Server{Kind: NTPdRS, Serving: `denylist = { filter = ["127.0.0.1/32"], action = "ignore" }`}, nil, exchange, "exchange_timeout", 0},
		{"denied", Server{Kind: NTPdRS, Serving: `denylist = { filter = ["127.0.0.1/32"], action = "deny" }`}, nil, exchange, "exchange_kiss", 0},
		{"none of our algorithms", Server{Kind: Chrony13, Extra: "ntsaeads 17"}, nil, "key_exchange", "ke_no_aead", 0},
		{"stopped", Server{Kind: Chrony12, Extra: "ntsprocesses 0"}, signal(syscall.SIGSTOP), tlsStage, "tls_timeout", 0},
		{"stopped", Server{Kind: NTPsec}, signal(syscall.SIGSTOP), tlsStage, "tls_timeout", 0},
		{"stopped", Server{Kind: NTPdRS}, signal(syscall.SIGSTOP), tlsStage, "tls_timeout", 0},
		{"ended", Server{Kind: Chrony13}, func(_ *testing.T, s *Server) { s.Stop() }, connect, "connect_refused", 0},
		{"busy", Server{Kind: Chrony12, Extra: "ntsprocesses 0\nmaxntsconnections 1"}, occupy, tlsStage, "tls_failed", 0},
		{"busy", Server{Kind: Chrony13, Extra: "ntsprocesses 0\nmaxntsconnections 1"}, occupy, tlsStage, "tls_failed", 0},
		{"asked too often", Server{Kind: Chrony12, Extra: "ntsratelimit interval 6 burst 1 leak 4"}, askOnce, tlsStage, "tls_failed", 5},
		{"asked too often", Server{Kind: Chrony13, Extra: "ntsratelimit interval 6 burst 1 leak 4"}, askOnce, tlsStage, "tls_failed", 5},
	} {
		t.Run(c.title+"/"+string(c.server.Kind), func(t *testing.T) {
			needPort123(t, c.server.Kind)
			s := &c.server
			s.Identity = l.issuing.Issue(t, name, -1, 10)
			s.Start(t)
			defer s.Stop()
			if c.before != nil {
				c.before(t, s)
				defer s.process.Process.Signal(syscall.SIGCONT)
			}
			// chrony lets 1 of 16 through that come too often.
			var r report.Report
			var config string
			for tries := c.tries; tries >= 0 && r.Result != report.NoAgreement; tries-- {
				begin := time.Now()
				config = configure(t, l.entries([]*Server{s}, "127.0.0.1"), fast+"\ndeadline = \"1500ms\"")
				r = run(t, config, anyExit, "sync", "--dry-run", "--json")
				if took := time.Since(begin); took > 20*time.Second {
					t.Errorf("took %v", took)
				}
			}
			checkFailed(t, r.Servers[0], c.stage, c.code)
			if c.stage != exchange { // under the back-off it is not even asked
				again := run(t, config, 3, "sync", "--dry-run", "--json")
				checkFailed(t, again.Servers[0], c.stage, c.code)
			}
		})
	}
}

// occupy takes the server's only connection, until it has patience no more:
// after 2 seconds.
func occupy(t *testing.T, s *Server) {
	t.Helper()
	for range 20 { // the one that tried whether it is ready may not have ended yet
		conn, err := net.Dial("tcp", join("127.0.0.1", s.KE))
		check(t, err)
		check(t, conn.SetReadDeadline(time.Now().Add(100*time.Millisecond)))
		_, err = conn.Read(make([]byte, 1))
		if errors.Is(err, os.ErrDeadlineExceeded) { // not turned away
			t.Cleanup(func() { conn.Close() })
			return
		}
		conn.Close()
	}
	t.Fatal("the server takes no connection")
}

// askOnce makes a connection that the next one comes too soon after.
func askOnce(t *testing.T, s *Server) {
	t.Helper()
	conn, err := net.Dial("tcp", join("127.0.0.1", s.KE))
	check(t, err)
	conn.Close()
}
