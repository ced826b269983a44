package timesync

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"ntsclient/nts"
	"ntsclient/timesync/report"
)

// A simulated machine, its network and its servers, for loops that run for
// days: in a synctest bubble, whose time is the true time.
type machine struct {
	*loopClock
	t       *testing.T
	options Options
	run     RunOptions
	servers map[string]*loopServer
	log     lockedBuffer
	boss    *boss
	usr1    chan struct{}
	hup     chan Config
	client  *Client
	stop    context.CancelFunc
	ended   <-chan error
}

// lockedBuffer is a log that is read while it is written.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// newMachine has n servers of as many operators, 20 ms away, and a crystal that
// is 30 ppm fast.
func newMachine(t *testing.T, n int) *machine {
	m := &machine{
		t: t, loopClock: newLoopClock(30e-6, 10*ms), servers: map[string]*loopServer{}, boss: &boss{},
		usr1: make(chan struct{}), hup: make(chan Config),
	}
	m.options = Options{
		Policy: Policy{
			Interval: 2 * time.Second, AnswerTimeout: 2 * time.Second, Deadline: 10 * time.Second, MaxDistance: time.Second,
			MinOperators: min(n, 2), MinPoll: 64 * time.Second, MaxPoll: 1024 * time.Second,
			Limits: Limits{StepAbove: 100 * ms, MaxStep: 15 * time.Minute, Step: StepAlways, Bootstrap: 3},
		},
		Log: slog.New(slog.NewTextHandler(&m.log, nil)),
	}
	m.options.network = m
	for i := range n {
		m.add(string(rune('a'+i)), &loopServer{clock: m.loopClock, delay: 20 * ms, rng: rand.New(rand.NewPCG(uint64(i), 1))})
	}
	m.run = RunOptions{Clock: m.loopClock, Supervisor: m.boss, Remeasure: m.usr1, Reload: m.hup}
	return m
}

func (m *machine) add(name string, s *loopServer) {
	m.servers[name] = s
	m.options.Servers = append(m.options.Servers, Server{
		Name: name + ":4460", Operator: name, Binding: name, NTS: nts.Options{Host: name, Port: 4460},
	})
}

func (m *machine) KeyExchange(ctx context.Context, o *nts.Options) (*nts.Session, error) {
	return m.servers[o.Host].exchangeKeys(ctx, o.Host)
}

func (m *machine) Exchange(ctx context.Context, s *nts.Session, _ nts.Route) (*nts.Sample, error) {
	return m.servers[strings.TrimRight(string(s.Keys.C2S), "\x00")].exchange(ctx, s)
}

// start starts the loop, and end ends it.
func (m *machine) start() *machine {
	m.t.Helper()
	ctx, stop := context.WithCancel(m.t.Context())
	m.stop, m.client = stop, New(m.options)
	client, ended := m.client, make(chan error, 1)
	m.ended = ended
	go func() {
		ended <- client.Run(ctx, m.run)
		close(ended)
	}()
	m.t.Cleanup(func() {
		stop()
		<-ended
	})
	return m
}

func (m *machine) end() {
	m.t.Helper()
	begun := time.Now()
	m.stop()
	if err := <-m.ended; err != nil {
		m.t.Errorf("ended with %v", err)
	}
	if took := time.Since(begun); took >= time.Second {
		m.t.Errorf("took %v to end", took)
	}
}

// simulate runs a test in a bubble, with the loop's log where it fails.
func simulate(t *testing.T, n int, test func(m *machine)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		m := newMachine(t, n)
		t.Cleanup(func() {
			if t.Failed() {
				t.Log(m.log.String())
			}
		})
		test(m)
	})
}

// wait lets d pass, and whatever was to happen by then.
func wait(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// right fails the test unless the clock is, within d.
func (m *machine) right(d time.Duration) {
	m.t.Helper()
	if e := m.error(); e.Abs() > d {
		m.t.Errorf("after %v the clock is off by %v, more than %v", m.age(), e, d)
	}
}

// said counts the lines of the log that hold all these words.
func (m *machine) said(words ...string) (n int) {
	for line := range strings.Lines(m.log.String()) {
		all := true
		for _, w := range words {
			all = all && strings.Contains(line, w)
		}
		if all {
			n++
		}
	}
	return n
}

func (m *machine) wantSaid(n int, words ...string) {
	m.t.Helper()
	if got := m.said(words...); got != n {
		m.t.Errorf("after %v: said %d times and not %d: %v", m.age(), got, n, words)
	}
}

func (m *machine) latest() *report.Report {
	m.t.Helper()
	r := m.client.Latest()
	if r == nil {
		m.t.Fatalf("no report after %v\n%s", m.age(), m.log.String())
	}
	return r
}

func (m *machine) wantResult(want report.Result) {
	m.t.Helper()
	if r := m.latest(); r.Result != want {
		m.t.Errorf("after %v: %s (%s), not %s", m.age(), r.Result, r.Reason, want)
	}
}

// requests are all that were sent, and exchanges all key exchanges tried.
func (m *machine) requests(name string) int  { return m.servers[name].count(false) }
func (m *machine) exchanges(name string) int { return m.servers[name].count(true) }

// boss is a Supervisor that notes what it is told.
type boss struct {
	mu     sync.Mutex
	heard  []string
	status string
	alive  int
}

func (b *boss) note(s string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.heard = append(b.heard, s)
}

func (b *boss) Ready()    { b.note("ready") }
func (b *boss) Stopping() { b.note("stopping") }

func (b *boss) Alive() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.alive++
}

func (b *boss) Status(s string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.status = s
}

func (b *boss) lives() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.alive
}

func (b *boss) sentence() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.status
}

// loopClock is a kernel's clock over a raw clock with an error of its own.
type loopClock struct {
	mu        sync.Mutex
	begun     time.Time
	crystal   float64       // error of the raw clock's rate
	gone      time.Duration // in suspend, while this bubble's time stood still
	at        time.Duration // raw clock, of correction
	correct   float64       // clock − raw − begun, s
	rate      float64
	dry       bool
	leap      int
	steps     int
	declared  int
	maxError  time.Duration // when it was set
	setAt     time.Duration
	changes   chan struct{}
	meddled   string
	hangs     chan struct{} // until it is closed
	denied    error
	broken    error
	beginning int
}

func newLoopClock(crystal float64, ahead time.Duration) *loopClock {
	return &loopClock{
		begun: time.Now(), crystal: crystal, correct: ahead.Seconds(), maxError: syncedFor, changes: make(chan struct{}, 1),
	}
}

// age is how long the machine has been there.
func (c *loopClock) age() time.Duration { return time.Since(c.begun) }

func (c *loopClock) truth() time.Duration {
	gone, _ := c.Suspended()
	return time.Duration(time.Now().UnixNano()) + gone
}

func (c *loopClock) advance() (raw time.Duration) {
	raw = time.Since(c.begun)
	raw += time.Duration(c.crystal * float64(raw))
	c.correct += c.rate * (raw - c.at).Seconds()
	c.at = raw
	return raw
}

func (c *loopClock) Now() (raw, correction time.Duration, err error) {
	c.mu.Lock()
	hangs := c.hangs
	c.mu.Unlock()
	if hangs != nil {
		<-hangs
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	raw = c.advance()
	return raw, time.Duration(c.begun.UnixNano()) + nanoseconds(c.correct*1e9), nil
}

// read is the clock, and the true time.
func (c *loopClock) read() (clock, truth time.Time) {
	raw, correction, _ := c.Now()
	return time.Unix(0, int64(raw+correction)), time.Unix(0, int64(c.truth()))
}

func (c *loopClock) error() time.Duration {
	clock, truth := c.read()
	return clock.Sub(truth)
}

func (c *loopClock) Permitted() error { return c.denied }

func (c *loopClock) MaxError() (time.Duration, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return min(c.maxError+time.Duration(500e-6*float64(c.advance()-c.setAt)), unsynchronized), nil
}

func (c *loopClock) Suspended() (time.Duration, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.gone, nil
}

func (c *loopClock) Rate() (float64, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.rate, nil
}

func (c *loopClock) Begin() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.beginning++
	return c.broken
}

func (c *loopClock) Slew(_, _, _ time.Duration) error { return errors.New("a loop uses Steer") }

func (c *loopClock) Step(offset, maxError, estError time.Duration) error {
	if maxError <= 0 || estError < 0 || estError > maxError {
		return fmt.Errorf("errors of %v and %v", maxError, estError)
	}
	if c.dry {
		return nil
	}
	c.jump(offset)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.steps++
	return c.broken
}

func (c *loopClock) Steer(rate float64) error {
	if c.dry {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.advance()
	c.rate = rate
	return c.broken
}

func (c *loopClock) Declare(maxError, estError time.Duration, leap int) error {
	if maxError <= 0 || estError < 0 || estError > maxError {
		return fmt.Errorf("errors of %v and %v", maxError, estError)
	}
	if c.dry {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.maxError, c.setAt, c.leap = maxError, c.advance(), leap
	c.declared++
	return c.broken
}

func (c *loopClock) Interference() (string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.meddled, nil
}

func (c *loopClock) Changes(context.Context) (<-chan struct{}, error) { return c.changes, nil }

// done is what was done to the clock.
type done struct {
	rate                             float64
	steps, declared, leap, beginning int
}

func (c *loopClock) see() done {
	c.mu.Lock()
	defer c.mu.Unlock()
	return done{c.rate, c.steps, c.declared, c.leap, c.beginning}
}

func (c *loopClock) set(change func(*loopClock)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	change(c)
}

// jump sets the clock, which the kernel then tells.
func (c *loopClock) jump(d time.Duration) {
	c.mu.Lock()
	c.advance()
	c.correct += d.Seconds()
	c.mu.Unlock()
	select {
	case c.changes <- struct{}{}:
	default:
	}
}

// suspend lets d go by in no time. The clock follows, by an RTC that is off by
// as much as is said.
func (c *loopClock) suspend(d, off time.Duration) {
	c.mu.Lock()
	c.gone += d
	c.mu.Unlock()
	c.jump(d + off)
}

// loopServer is a server 20 ms away.
type loopServer struct {
	mu    sync.Mutex
	clock *loopClock
	rng   *rand.Rand

	delay    time.Duration // of the whole round trip, at least
	upMore   time.Duration // one way
	downMore time.Duration
	sway     func() (upMore, downMore time.Duration)
	lie      func() time.Duration
	leap     uint8
	loss     float64
	down     bool // nothing comes back
	deaf     bool // nothing but key exchanges
	mean     bool // one cookie, and none with answers
	keError  *nts.Error
	kiss     string
	bare     bool // the kiss is not authenticated
	forgot   int  // cookies given before then are answered with a NAK
	ke, sent int
	cookies  int
	seen     map[string]bool
	when     []time.Time // of requests
	replayed bool
}

func (s *loopServer) set(change func(*loopServer)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(s)
}

func (s *loopServer) count(ke bool) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if ke {
		return s.ke
	}
	return s.sent
}

func (s *loopServer) cookie() []byte {
	s.cookies++
	return []byte(fmt.Sprint(s.cookies))
}

func ntsError(stage nts.Stage, code nts.Code) *nts.Error {
	return &nts.Error{Stage: stage, Code: code, Err: errors.New(string(code))}
}

// connRefused is what a port says that nobody listens on.
var connRefused = ntsError(nts.StageConnect, nts.ConnectRefused)

func (s *loopServer) exchangeKeys(ctx context.Context, name string) (*nts.Session, error) {
	s.mu.Lock()
	s.ke++
	down, keError, cookies := s.down, s.keError, 8
	if s.mean {
		cookies = 1
	}
	s.mu.Unlock()
	if down {
		<-ctx.Done()
		return nil, ntsError(nts.StageConnect, nts.ConnectTimeout)
	}
	if !sleep(ctx, 2*s.delay) {
		return nil, ntsError(nts.StageTLS, nts.TLSTimeout)
	}
	if keError != nil {
		return nil, keError
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	session := &nts.Session{
		AEAD: nts.SIVCMAC, Keys: nts.Keys{C2S: make([]byte, 32), S2C: make([]byte, 32)},
		Servers: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:123")}, KEAddr: netip.MustParseAddr("192.0.2.1"),
		Chain: nts.Chain{
			Raw:       [][]byte{nil},
			NotBefore: time.Now().AddDate(-1, 0, 0), NotAfter: time.Now().AddDate(1, 0, 0),
		},
		Placeholders: 7,
	}
	copy(session.Keys.C2S, name) // whose it is
	for range cookies {
		session.Cookies = append(session.Cookies, s.cookie())
	}
	return session, nil
}

func (s *loopServer) exchange(ctx context.Context, session *nts.Session) (*nts.Sample, error) {
	s.mu.Lock()
	cookie := string(session.Cookies[0])
	session.Cookies = session.Cookies[1:]
	if s.seen == nil {
		s.seen = map[string]bool{}
	}
	s.replayed = s.replayed || s.seen[cookie]
	s.seen[cookie] = true
	s.sent++
	s.when = append(s.when, time.Now())
	lost := s.down || s.deaf || s.rng.Float64() < s.loss
	up, down := s.delay/2+time.Duration(s.rng.ExpFloat64()*1e5), s.delay/2+time.Duration(s.rng.ExpFloat64()*1e5)
	up, down = up+s.upMore, down+s.downMore
	if s.sway != nil {
		upMore, downMore := s.sway()
		up, down = up+upMore, down+downMore
	}
	kiss, lie, leap := s.kiss, time.Duration(0), s.leap
	if s.lie != nil {
		lie = s.lie()
	}
	var number int
	fmt.Sscan(cookie, &number)
	if number <= s.forgot {
		kiss = "NTSN"
	}
	s.mu.Unlock()
	if lost {
		<-ctx.Done()
		session.Placeholders = 0
		return nil, ntsError(nts.StageExchange, nts.ExchangeTimeout)
	}
	sample := &nts.Sample{Stratum: 1, Leap: leap, Precision: time.Microsecond, Server: session.Servers[0], Kernel: true}
	sample.T1, _ = s.clock.read()
	time.Sleep(up)
	_, truth := s.clock.read()
	sample.T2, sample.T3 = truth.Add(lie), truth.Add(lie)
	time.Sleep(down)
	sample.T4, _ = s.clock.read()
	sample.At = time.Now()
	if kiss == "NTSN" {
		return nil, ntsError(nts.StageExchange, nts.ExchangeNAK)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for range 1 + min(session.Placeholders, 7-len(session.Cookies)) {
		if !s.mean {
			session.Cookies = append(session.Cookies, s.cookie())
		}
	}
	session.Placeholders = min(session.Placeholders+1, 7)
	if kiss != "" {
		e := ntsError(nts.StageExchange, nts.ExchangeKiss)
		e.Kiss, e.Sure = kiss, !s.bare
		return nil, e
	}
	return sample, nil
}
