package timesync

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"time"

	"ntsclient/timesync/report"
)

// KeptClock is what the loop needs of the clock that it keeps. The raw clock is
// one that nothing sets or steers.
type KeptClock interface {
	Clock
	Rate() (float64, error)                                   // of the correction, s/s
	Begin() error                                             // drops what others left to be slewed
	Declare(maxError, estError time.Duration, leap int) error // synchronized; leap: seconds more at the end of the day
	Interference() (string, error)                            // what others changed of what was written; empty: nothing
	Changes(context.Context) (<-chan struct{}, error)         // the clock was set, or the machine was suspended
}

// Supervisor is who started the loop and looks after it.
type Supervisor interface {
	Ready()                 // configured; the clock need not be right yet
	Status(sentence string) // for people
	Alive()
	Stopping()
}

// Config is what a running loop can be told anew.
type Config struct {
	Servers []Server
	Policy  Policy
}

// RunOptions are what a loop is made of besides.
type RunOptions struct {
	DryRun     bool // Clock changes nothing; only the reports say so
	Clock      KeptClock
	Supervisor Supervisor
	Watchdog   time.Duration   // between two calls of Alive; 0: none
	Remeasure  <-chan struct{} // this is another network, perhaps
	Reload     <-chan Config
	Published  func(*report.Report) // each report, as soon as it is the latest; nil: nobody is told
}

const (
	// saveEvery is between two writes of the state, for the sake of SD cards;
	// sayEvery between two lines of the log on a clock that is held.
	saveEvery = time.Hour
	sayEvery  = time.Hour
	// leaves is how many cookies of each session are on the disk meanwhile, for
	// a process that has to begin without this one's farewell: after a power cut
	// not all machines are to ask all servers for new keys at once.
	leaves = 2
	// minRetry and maxRetry are between rounds where no server can be reached.
	minRetry = time.Second
	maxRetry = 15 * time.Second
)

// keeper is a running loop. One goroutine uses it.
type keeper struct {
	*Client
	RunOptions
	clock  KeptClock
	loop   *Loop
	orders Orders // the last that were obeyed

	next    *time.Timer // round
	slewed  *time.Timer // the slew that was ordered ends
	retry   time.Duration
	steered bool // at least once
	steps   int
	leap    int // as declared

	mark      Moment // the clocks when the rate was last set
	rate      float64
	suspended time.Duration // as of the last round
	disturbed time.Time     // others set the clock, and it was measured at once
	calm      time.Duration // that has to pass before the next time

	said          time.Time // that the clock is held
	told, meddled string    // in the log, of the result and of interference
	lastAgreed    time.Time // on the monotonic clock
	agreedAt      time.Time // the same by the agreed time
	offsets       []report.Seconds
	wrote         time.Time // the state
	kept          bool      // since the first agreement
	unsaved       bool      // that failed
}

// Run keeps the clock right until ctx ends, which is no error. The latest
// report is at Latest.
func (c *Client) Run(ctx context.Context, o RunOptions) error {
	c.command, c.dryRun, c.Clock = "run", o.DryRun, o.Clock
	if err := o.Clock.Permitted(); err != nil {
		return err
	}
	if err := c.judge(); err != nil {
		return err
	}
	k := &keeper{Client: c, RunOptions: o, clock: o.Clock}
	o.Supervisor.Ready() // that is: configured
	if err := k.openLoop(ctx); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	defer c.close()
	if err := k.begin(); err != nil {
		return err
	}
	changes, err := o.Clock.Changes(ctx)
	if err != nil {
		c.Log.Warn("that others set the clock will be noticed only at the next poll", "error", err)
	}
	o.Supervisor.Status(k.prefix() + "asking the servers for the first time")
	err = k.keep(ctx, changes)
	o.Supervisor.Stopping()
	return errors.Join(err, k.end())
}

// peekState lets a dry run begin with the floor and the back-offs that are saved.
// It takes no cookies and keeps nothing: it goes on for long, and all that is
// there belongs to who keeps the clock meanwhile.
func (k *keeper) peekState(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, lockWait)
	defer cancel()
	store, err := OpenStore(ctx, k.StateDir, StoreOptions{MachineID: k.MachineID, Warn: k.Log.Warn})
	switch {
	case errors.Is(err, ErrLoopRunning):
		k.Log.Info("another loop keeps this clock: nothing of this dry run is kept")
		return nil
	case err != nil:
		k.Log.Info("this dry run begins without the saved state", "reason", err)
		return nil
	}
	k.adopt(store)
	k.close()
	for _, s := range k.sources {
		s.state.dropSession()
	}
	return nil
}

// openLoop takes the state for as long as the loop runs, and the cookies out of
// it.
func (k *keeper) openLoop(ctx context.Context) error {
	if k.StateDir == "" {
		return nil
	}
	if k.DryRun {
		return k.peekState(ctx)
	}
	store, err := k.waitStore(ctx)
	switch {
	case errors.Is(err, ErrLoopRunning), ctx.Err() != nil:
		return err
	case err != nil:
		k.Log.Warn("nothing is kept", "error", err)
		return nil
	}
	k.adopt(store)
	if err := store.Withdraw(-1); err != nil {
		k.Log.Warn("saved cookies cannot be used", "error", err)
		for _, s := range k.sources {
			s.state.dropSession()
		}
	}
	return nil
}

// waitStore opens the state once nobody else has it open, which a sync may for as
// long as it waits. Meanwhile this process is alive.
func (k *keeper) waitStore(ctx context.Context) (*Store, error) {
	for {
		turn, cancel := context.WithTimeout(ctx, lockWait)
		store, err := OpenStore(turn, k.StateDir, StoreOptions{MachineID: k.MachineID, Loop: true, Warn: k.Log.Warn})
		over := turn.Err() != nil && ctx.Err() == nil
		cancel()
		if err == nil || !over {
			return store, err
		}
		k.Supervisor.Alive()
		k.Supervisor.Status("waiting for another ntsclient that is at work with " + k.StateDir)
	}
}

// begin makes the loop, and lets the clock run as the last one had learned.
func (k *keeper) begin() (err error) {
	k.adapt()
	known := k.saved.Crystal.Frequency
	if known.Uncertainty <= 0 {
		// The kernel may have it from another program. What no crystal is off
		// by is a slew that a crash left behind.
		rate, err := k.clock.Rate()
		if err != nil {
			return err
		}
		if math.Abs(rate) <= unlearned {
			known = Frequency{Rate: rate, Uncertainty: unlearned}
		}
	}
	k.loop = NewLoop(k.config(), known)
	for _, s := range k.sources {
		s.moment = k.now
	}
	k.next, k.slewed = time.NewTimer(time.Hour), time.NewTimer(time.Hour)
	k.slewed.Stop()
	if k.suspended, err = k.clock.Suspended(); err != nil {
		return err
	}
	if err := k.clock.Begin(); err != nil {
		return err
	}
	if f := k.saved.Crystal.Frequency; f.Uncertainty > 0 {
		k.Log.Info("the clock's frequency is known from before", "frequency", f)
		k.orders.Base = f.Rate
		return k.steer(f.Rate)
	}
	k.orders.Base = known.Rate
	return k.steer(known.Rate)
}

// adapt makes the policy one for a loop: rounds end long before a watchdog of
// minutes takes the process for dead.
func (k *keeper) adapt() {
	k.Policy.Samples, k.Policy.Loop = 1, true
	k.Policy.Deadline = min(k.Policy.Deadline, time.Minute)
}

func (k *keeper) config() LoopConfig {
	p := &k.Policy
	return LoopConfig{
		Limits: p.Limits, MinOperators: p.MinOperators, MinPoll: p.MinPoll, MaxPoll: p.MaxPoll,
		Random: rand.Float64,
	}
}

// keep measures and corrects until ctx ends.
func (k *keeper) keep(ctx context.Context, changes <-chan struct{}) error {
	var alive <-chan time.Time
	if k.Watchdog > 0 {
		ticker := time.NewTicker(k.Watchdog)
		defer ticker.Stop()
		alive = ticker.C
	}
	for ctx.Err() == nil {
		k.Supervisor.Alive() // a round ends in time, whatever servers do
		if err := k.round(ctx); err != nil {
			return err
		}
		for again := false; !again && ctx.Err() == nil; {
			var err error
			select {
			case <-ctx.Done():
			case <-k.next.C:
				again = true
			case <-k.slewed.C:
				err = k.endSlew()
			case <-alive:
				k.Supervisor.Alive()
			case _, ok := <-changes:
				if !ok {
					changes = nil
					continue
				}
				again, err = k.changed()
			case <-k.Remeasure:
				k.Log.Info("told to measure at once: what was measured before is forgotten")
				k.loop.Forget()
				again = true
			case config := <-k.Reload:
				k.reload(config)
				again = true
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// end leaves the clock at its base frequency, and what was learned on the disk.
func (k *keeper) end() (err error) {
	if k.steered {
		err = k.clock.Steer(k.orders.Base)
	}
	k.learn()
	k.save()
	if r := k.Latest(); r != nil && k.store != nil {
		k.saveReport(r)
	}
	k.Log.Info("stopped", "frequency", k.loop.Frequency())
	return err
}

// reload goes on with another configuration. Servers that are the same keep
// what is known of them.
func (k *keeper) reload(config Config) {
	before := make(map[string]*source, len(k.sources))
	for _, s := range k.sources {
		before[s.Name] = s
	}
	k.sources = nil
	k.saved.Servers = make(map[string]*ServerState, len(config.Servers))
	for _, server := range config.Servers {
		s := before[server.Name]
		if s == nil || s.Binding != server.Binding {
			s = k.newSource(server)
			s.moment = k.now
		}
		s.Server = server
		k.sources = append(k.sources, s)
		k.saved.Servers[s.Name] = s.state
	}
	k.Servers, k.Policy = config.Servers, config.Policy
	k.proxied.Store(proxied(config.Servers))
	k.adapt()
	k.loop.cfg = k.config()
	k.told = "" // so that what comes of it is said
	k.Log.Info("goes on with the configuration as it is now", "servers", len(k.sources))
}

// write saves the state, and the report. But for a few, which the loop does
// without from then on, the cookies are not in it: they are in use.
func (k *keeper) write(r *report.Report) {
	if k.store == nil {
		return
	}
	k.wrote = time.Now()
	k.learn()
	err := k.store.Leave(leaves)
	switch {
	case err != nil && !k.unsaved:
		k.Log.Warn("state not saved", "error", err)
	case err == nil && k.unsaved:
		k.Log.Info("state saved again")
	}
	if k.unsaved = err != nil; !k.unsaved {
		k.saveReport(r)
	}
}

// learn puts into the state what the loop knows of the crystal. A dry run
// leaves that as it was: what it learned is of a clock that others steer.
func (k *keeper) learn() {
	f := k.loop.Frequency()
	if !k.DryRun && f.Uncertainty > 0 && f.Uncertainty <= usableWithin {
		k.saved.Crystal = Crystal{Frequency: f}
	}
}
