package main

import (
	"math"
	"math/rand/v2"
	"time"

	"ntsclient/timesync"
)

// As it ships; a test holds them against the files.
const (
	minPoll     = 64 * time.Second
	maxPoll     = 1024 * time.Second
	timerEvery  = time.Hour
	timerRandom = 10 * time.Minute
	cronEvery   = 6 * time.Hour
	cronMinute  = 17 * time.Minute
	cronRandom  = 5 * time.Minute
	syncWait    = 5 * time.Minute // at boot, and by the timer
	syncPause   = 15 * time.Second
)

// What the world is like.
const (
	bootLeast = 20 * time.Second
	bootMost  = 40 * time.Second
	loss      = 0.01  // of packets
	stateless = 0.001 // of machines
	calm      = 24 * time.Hour
	hasty     = time.Second // who has no back-off tries again
)

// capacity is how many key exchanges a second the server of so many machines
// makes: 10,000 for a million.
func capacity(machines int) int { return machines / 100 }

// day is what happens.
type day int

const (
	powerCut day = iota
	keysLost
)

func (d day) String() string {
	return [...]string{"all lose power and come back at once", "a server forgets its keys"}[d]
}

// measures are what there is against all asking at once.
type measures struct{ cookies, random, backoff bool }

// kind is how a machine runs the program.
type kind uint8

const (
	loop kind = iota
	timer
	cron
)

// share of the machines, in percent; the cookies that each finds on its disk.
var (
	share   = [...]int{loop: 80, timer: 15, cron: 5}
	onDisk  = [...]int{loop: 2, timer: 8, cron: 8}
	percent = func() (kinds []kind) {
		for k, n := range share {
			for range n {
				kinds = append(kinds, kind(k))
			}
		}
		return kinds
	}()
)

// machine is one that has no keys.
type machine struct {
	at, began time.Duration // next key exchange; start of its process
	rounds    int           // of that process, so far
	backoff   *timesync.Backoff
	kind      kind
}

// fleet is all of them. Time counts from when the power came back, midnight.
type fleet struct {
	day      day
	has      measures
	rng      *rand.Rand
	capacity int
	early    [][]time.Duration // per round of a loop that nobody answers: waits
	steady   []time.Duration   // the same for one that is answered
	machines []machine
	due      [][]int32 // per second: who asks
}

func newFleet(n int, d day, has measures) *fleet {
	f := &fleet{day: d, has: has, rng: rand.New(rand.NewPCG(8915, uint64(d))), capacity: capacity(n)}
	f.early = f.waits(minPoll, 8)
	f.steady = f.waits(maxPoll, 12)[11]
	for i := range n {
		m := machine{kind: percent[i%100]}
		m.began = bootLeast + time.Duration(f.rng.Float64()*float64(bootMost-bootLeast))
		m.at = m.began
		if d == keysLost {
			f.age(&m)
		} else if f.knows(&m) {
			continue
		}
		f.machines = append(f.machines, m)
		f.ask(int32(len(f.machines) - 1))
	}
	return f
}

// waits samples what the loop itself waits after each of its first rounds, as
// long as it hears nobody: up to poll, and from then on that.
func (f *fleet) waits(poll time.Duration, rounds int) [][]time.Duration {
	const samples = 4096
	random := f.rng.Float64
	if !f.has.random {
		random = func() float64 { return 0.5 }
	}
	waits := make([][]time.Duration, rounds)
	for range samples {
		l := timesync.NewLoop(timesync.LoopConfig{MinOperators: 1, MinPoll: poll, MaxPoll: maxPoll, Random: random}, timesync.Frequency{})
		for i := range waits {
			waits[i] = append(waits[i], l.Round(timesync.Situation{}, nil).Wait)
		}
	}
	return waits
}

// knows tells whether a machine that has booted gets its answer by the cookies
// on its disk.
func (f *fleet) knows(m *machine) bool {
	lost := math.Pow(loss, float64(onDisk[m.kind]))
	return f.has.cookies && f.rng.Float64() >= stateless+lost
}

// age lets a machine live until it asks a server that has forgotten its keys.
func (f *fleet) age(m *machine) {
	for m.at < calm {
		f.next(m)
	}
}

// next is the machine's next round, by its own kind of clockwork.
func (f *fleet) next(m *machine) {
	m.rounds++
	switch waited := m.at - m.began; {
	case m.kind == loop && f.day == keysLost:
		m.at += f.steady[f.rng.IntN(len(f.steady))]
	case m.kind == loop:
		waits := f.early[min(m.rounds, len(f.early))-1]
		m.at += waits[f.rng.IntN(len(waits))]
	case f.day == powerCut && waited < syncWait && (m.kind == timer || m.began < bootMost): // as `sync --wait` does
		m.at += min(time.Second<<min(m.rounds-1, 10), syncPause)
	case m.kind == timer:
		f.begin(m, m.began+timerEvery+f.random(timerRandom))
	default:
		f.begin(m, (m.at-cronMinute+cronEvery).Truncate(cronEvery)+cronMinute+f.random(cronRandom))
	}
}

func (f *fleet) begin(m *machine, at time.Duration) { m.began, m.at, m.rounds = at, at, 0 }

func (f *fleet) random(d time.Duration) time.Duration {
	if !f.has.random {
		return 0
	}
	return time.Duration(f.rng.Float64() * float64(d))
}

// ask notes when a machine makes its key exchange.
func (f *fleet) ask(i int32) {
	second := int(f.machines[i].at / time.Second)
	for len(f.due) <= second {
		f.due = append(f.due, nil)
	}
	f.due[second] = append(f.due[second], i)
}

// live is what the server sees until all have keys.
func (f *fleet) live() (peak, total int) {
	for second := 0; second < len(f.due); second++ {
		asking := f.due[second]
		f.due[second] = nil
		if len(asking) == 0 {
			continue
		}
		peak, total = max(peak, len(asking)), total+len(asking)
		first := f.rng.IntN(len(asking)) // nobody is always the first
		for n := f.capacity; n < len(asking); n++ {
			i := asking[(first+n)%len(asking)]
			f.refused(&f.machines[i])
			f.ask(i)
		}
	}
	return peak, total
}

// refused is when a machine tries again: in the first round after its back-off.
func (f *fleet) refused(m *machine) {
	if !f.has.backoff {
		m.at += hasty
		return
	}
	m.backoff = m.backoff.Failed(clock(m.at), "connect", "connect_refused", "")
	for f.next(m); m.backoff.Remaining(clock(m.at)) > 0; f.next(m) {
	}
}

func clock(at time.Duration) time.Time { return time.Unix(0, 0).Add(at) }
