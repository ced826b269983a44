package timesync

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"ntsclient/nts"
	"ntsclient/timesync/report"
)

// identities fails a test where the keys that were got by one route are used by
// another.
type identities struct {
	*machine
	mu       sync.Mutex
	of       map[*nts.Session]*nts.Proxy
	known    map[string]bool // servers that were reached since the last change
	requests map[*nts.Proxy]int
	fails    error                // of each key exchange through a proxy
	tried    map[string]time.Time // a key exchange with the server last
}

func watchIdentities(m *machine) *identities {
	i := &identities{machine: m, of: map[*nts.Session]*nts.Proxy{}, known: map[string]bool{}, requests: map[*nts.Proxy]int{}, tried: map[string]time.Time{}}
	m.options.network = i
	return i
}

func (i *identities) KeyExchange(ctx context.Context, o *nts.Options) (*nts.Session, error) {
	i.mu.Lock()
	err := i.fails
	if since := time.Since(i.tried[o.Host]); since < minRetry/2 {
		i.t.Errorf("two key exchanges with %v within %v", o.Host, since)
	}
	i.tried[o.Host] = time.Now()
	if !i.known[o.Host] && len(o.Fallback) > 0 {
		i.t.Errorf("%v: addresses that were learned by another route: %v", o.Host, o.Fallback)
	}
	i.mu.Unlock()
	if o.Proxy != nil && err != nil {
		return nil, err
	}
	s, err := i.machine.KeyExchange(ctx, o)
	if err == nil {
		i.mu.Lock()
		i.of[s], i.known[o.Host] = o.Proxy, true
		i.mu.Unlock()
	}
	return s, err
}

func (i *identities) Exchange(ctx context.Context, s *nts.Session, r nts.Route) (*nts.Sample, error) {
	i.mu.Lock()
	if got, known := i.of[s]; !known || got != r.Proxy {
		i.t.Errorf("keys that were got through %v are used through %v", got, r.Proxy)
	}
	i.requests[r.Proxy]++
	i.mu.Unlock()
	return i.machine.Exchange(ctx, s, r)
}

// via is the same servers through a proxy; nil: directly.
func (m *machine) via(p *nts.Proxy) (all []Server) {
	for _, s := range m.options.Servers {
		s.Binding = Binding(s.NTS.Host, s.NTS.Port, nil, nil, p)
		s.NTS.Proxy = p
		all = append(all, s)
	}
	return all
}

// A loop that is told of another proxy, or of none, gets new keys for it, and
// says nothing of servers while there is one.
func TestReloadProxy(t *testing.T) {
	simulate(t, 3, func(m *machine) {
		i := watchIdentities(m)
		a, b := &nts.Proxy{Host: "a.example", Port: 1080}, &nts.Proxy{Host: "b.example", Port: 1080}
		for n, p := range []*nts.Proxy{nil, a, b, nil, a} {
			servers, before := m.via(p), m.exchanges("a")
			i.mu.Lock()
			clear(i.known)
			i.mu.Unlock()
			if n == 0 {
				m.options.Servers = servers
				m.start()
			} else {
				m.hup <- Config{servers, m.options.Policy}
			}
			wait(5 * time.Second)
			if got := m.exchanges("a") - before; got != 1 {
				t.Errorf("change %d: %d key exchanges", n, got)
			}
			said := m.said("a:4460")
			wait(time.Hour)
			m.servers["a"].set(func(s *loopServer) { s.down = true })
			wait(time.Hour)
			m.servers["a"].set(func(s *loopServer) { s.down = false })
			wait(time.Hour)
			if said = m.said("a:4460") - said; (said == 0) != (p != nil) {
				t.Errorf("change %d: the log names the server %d times", n, said)
			}
		}
		if i.requests[nil] < 20 || i.requests[a] < 20 || i.requests[b] < 20 {
			t.Errorf("%v", i.requests)
		}
		m.end()
	})
}

// A proxy that fails is told as what it is, and keeps no server from being asked
// when it works again.
func TestProxyTrouble(t *testing.T) {
	simulate(t, 3, func(m *machine) {
		i := watchIdentities(m)
		m.options.Servers = m.via(&nts.Proxy{Host: "p.example", Port: 1080})
		i.fails = &nts.Error{
			Stage: nts.StageProxy, Code: nts.ProxyFailed, Err: fmt.Errorf("%w: connection refused", nts.ErrNoProxy),
		}
		m.start()
		wait(time.Hour)
		if r := m.client.Latest(); r.Result != report.NoAgreement || !strings.HasSuffix(r.Reason, ": the proxy cannot be reached: connection refused") {
			t.Errorf("%+v", r)
		}
		if got := m.boss.sentence(); got != "not synchronized yet" { // without the reason, which may name a server
			t.Errorf("the status is %q", got)
		}
		if n := m.said("no agreed time", "proxy=\"the proxy cannot be reached: connection refused\""); n != 1 {
			t.Errorf("it is said %d times", n)
		}
		i.mu.Lock()
		i.fails = &nts.Error{Stage: nts.StageProxy, Code: nts.ProxyNoUDP, Err: errors.New("no UDP")}
		i.mu.Unlock()
		wait(time.Hour)
		if r := m.client.Latest(); !strings.HasSuffix(r.Reason, ": no UDP") {
			t.Errorf("%+v", r)
		}
		i.mu.Lock()
		i.fails = nil
		i.mu.Unlock()
		wait(2 * m.options.Policy.MinPoll)
		if r := m.client.Latest(); r.Result != report.Agreed {
			t.Errorf("%+v", r)
		}
		for _, s := range m.servers { // as getting associations takes its time
			s.set(func(s *loopServer) { s.delay = m.options.Policy.AnswerTimeout * 3 / 2 })
		}
		wait(time.Hour)
		if r := m.client.Latest(); r.Servers[0].ReasonCode != "too_distant" {
			t.Errorf("%+v", r.Servers[0])
		}
		for _, s := range m.servers { // an exchange that is under way is not broken off here
			s.set(func(s *loopServer) { s.delay = 20 * ms })
		}
		wait(10 * time.Second)
		m.end()
		if m.said("a:4460") != 0 {
			t.Error("the log names a server")
		}
	})
}

func TestDiscreet(t *testing.T) {
	for _, test := range []struct {
		level slog.Level
		proxy bool
		want  string
	}{
		{slog.LevelInfo, false, `level=INFO msg=one server=s.test offset=1|level=WARN msg=two reason="of s.test" error=e|level=INFO msg=three offset=2|`},
		{slog.LevelInfo, true, `level=WARN msg=two error=e|level=INFO msg=three offset=2|`},
		{slog.LevelDebug, true, `level=DEBUG msg=one server=s.test offset=1|level=DEBUG msg=two reason="of s.test" error=e|level=WARN msg=two error=e|level=INFO msg=three offset=2|level=DEBUG msg=four server=s.test|`},
		{slog.LevelError, true, ``},
	} {
		var said strings.Builder
		o := Options{Log: slog.New(slog.NewTextHandler(&said, &slog.HandlerOptions{
			Level: test.level,
			ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
				if a.Key == slog.TimeKey {
					return slog.Attr{}
				}
				return a
			},
		})), Servers: []Server{{Name: "s.test"}}}
		if test.proxy {
			o.Servers[0].NTS.Proxy = &nts.Proxy{}
		}
		log := New(o).Log
		log.Info("one", "server", "s.test", "offset", 1)
		log.Warn("two", "reason", "of s.test", "error", "e")
		log.Info("three", "offset", 2)
		log.Debug("four", "server", "s.test")
		if got := strings.ReplaceAll(said.String(), "\n", "|"); got != test.want {
			t.Errorf("%v, %v:\n%s", test.level, test.proxy, got)
		}
	}
	var said strings.Builder
	o := Options{Log: slog.New(slog.NewTextHandler(&said, nil)), Servers: []Server{{NTS: nts.Options{Route: nts.Route{Proxy: &nts.Proxy{}}}}}}
	New(o).Log.With("server", "s.test").WithGroup("g").Warn("x", "reason", "s.test")
	if strings.Contains(said.String(), "reason") {
		t.Errorf("%s", &said)
	}
}
