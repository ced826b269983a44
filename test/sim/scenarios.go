package main

import (
	"math"
	"time"

	"ntsclient/timesync"
)

// world is what a loop is put into.
type world struct {
	net     network
	servers int
	wander  float64 // of the crystal, s/s per √s
	crystal float64 // its frequency error, s/s
	swing   func(t float64) float64
	start   float64 // the clock's error, s
	length  float64 // s
	maxPoll time.Duration
	known   timesync.Frequency
	loss    float64   // of packets, each way
	lie     []float64 // error of each server, s
	runaway float64   // how fast the first server's time runs away, s/s
	oneShot bool      // hourly runs of a program that ends, and no loop
}

// The classes of crystals.
const (
	classA = 1e-9
	classB = 1e-8
)

const minPoll = 64 * time.Second

// figures are what a run comes to, and what it should come to at most (0: not
// asked for).
type figures struct {
	time      float64 // RMS of the clock's error in the second half, s
	frequency float64 // RMS of its frequency error there, s/s
	packets   float64 // sent to each server there
	settled   float64 // when the clock came within 1 ms, for good, s
	worst     float64 // largest offset found by the fifth one-shot run or later, s
}

// scenario is one row of the table.
type scenario struct {
	group, name string
	world
	chrony, target figures
}

const us, ppb = 1e-6, 1e-9

// keep is a row of the main table: poll 64 s.
func keep(name string, net network, servers int, class, chronyTime, chronyFrequency, target float64) scenario {
	return scenario{
		group: "keep", name: name, world: world{net: net, servers: servers, wander: class},
		chrony: figures{time: chronyTime * us, frequency: chronyFrequency * ppb},
		target: figures{time: target * us, frequency: chronyFrequency * ppb},
	}
}

// adapt has polls of 64 to 1024 s.
func adapt(name string, net network, servers int, class, chronyTime, chronyPackets float64) scenario {
	return scenario{
		group: "adapt", name: name,
		world:  world{net: net, servers: servers, wander: class, length: 40000, maxPoll: 1024 * time.Second},
		chrony: figures{time: chronyTime * us, packets: chronyPackets},
		target: figures{time: 0.8 * chronyTime * us, packets: 1.35 * chronyPackets},
	}
}

func stress(name string, chronyTime float64, w world) scenario {
	w.wander = classA
	return scenario{
		group: "stress", name: name, world: w,
		chrony: figures{time: chronyTime * us}, target: figures{time: 1.1 * chronyTime * us},
	}
}

// stressOurs is one that there is no figure of chrony's for.
func stressOurs(name string, target float64, w world) scenario {
	s := stress(name, 0, w)
	s.target.time = target * us
	return s
}

// converge starts 1 s off with a crystal of 100 ppm.
func converge(name string, net network, known timesync.Frequency, chronySettled, target float64) scenario {
	return scenario{
		group: "converge", name: name,
		world:  world{net: net, servers: 1, wander: classA, crystal: 100e-6, start: 1, length: 2000, known: known},
		chrony: figures{settled: chronySettled}, target: figures{settled: target},
	}
}

// oneShot runs hourly for three days.
func oneShot(name string, target float64, swing func(t float64) float64) scenario {
	return scenario{
		group: "one-shot", name: name, target: figures{worst: target},
		world: world{net: uniform, servers: 1, wander: classA, length: 3 * 86400, swing: swing, oneShot: true},
	}
}

var saved = timesync.Frequency{Rate: -100e-6 + 0.5e-6, Uncertainty: 1e-6}

// scenarios are all rows. chrony's figures were measured in clknetsim, with its
// defaults and iburst; the targets of keep are what a first prototype reached,
// and more.
var scenarios = withDefaults([]scenario{
	//   name, network, servers, class; chrony's time (µs) and frequency (ppb); target of time
	keep("LAN1-A", lan, 1, classA, 23.0, 117, 17.1),
	keep("LAN4-A", lan, 4, classA, 21.8, 41, 10.2),
	keep("LAN1-B", lan, 1, classB, 56.5, 684, 41.5),
	keep("LAN4-B", lan, 4, classB, 60.8, 340, 22.3),
	keep("WAN1-A", wan, 1, classA, 102, 224, 83.3),
	keep("WAN4-A", wan, 4, classA, 63.1, 109, 48.8),
	keep("WAN1-B", wan, 1, classB, 229, 1150, 171),
	keep("WAN4-B", wan, 4, classB, 216, 418, 102),
	keep("BAD1-A", bad, 1, classA, 2430, 11868, 539),
	keep("BAD4-A", bad, 4, classA, 1539, 1945, 280),
	keep("BAD1-B", bad, 1, classB, 3015, 22099, 1006),
	keep("BAD4-B", bad, 4, classB, 1504, 2109, 542),

	//    name, network, servers, class; chrony's time (µs) and packets
	adapt("LAN1-A", lan, 1, classA, 92, 28),
	adapt("LAN1-B", lan, 1, classB, 126, 128),
	adapt("WAN1-A", wan, 1, classA, 476, 19),
	adapt("WAN4-B", wan, 4, classB, 1305, 78),
	adapt("BAD1-A", bad, 1, classA, 4102, 19),

	//     name, chrony's time (µs)
	stress("route change, 4 servers", 946, world{net: rerouted, servers: 4}),
	stress("route change, 1 server", 982, world{net: rerouted, servers: 1}),
	stress("gaussian jitter", 22, world{net: gaussian, servers: 1}),
	stress("heavy tail", 54, world{net: heavy, servers: 1}),
	stress("asymmetric jitter", 126, world{net: asymmetric, servers: 1}),
	stress("20 % loss each way", 98, world{net: wan, servers: 1, loss: 0.2}),
	stress("one of four 50 ms off", 72, world{net: wan, servers: 4, lie: []float64{0, 0, 0, 50e-3}}),
	stress("four with constant errors", 95, world{net: wan, servers: 4, lie: []float64{1e-3, -0.75e-3, 0.5e-3, -0.5e-3}}),
	stressOurs("one of four runs away", 63.1, world{net: wan, servers: 4, runaway: 1e-6}),
	stress("frequency swings 0.3 ppm", 53, world{net: lan, servers: 1, swing: sine(0.3e-6, 7200)}),
	stress("frequency jumps 0.5 ppm", 55, world{net: lan, servers: 1, swing: square(0.5e-6, 7200)}),

	//       name, network, saved frequency; chrony's time until right within 1 ms, and ours at most
	converge("lan", lan, timesync.Frequency{}, 17, 1),
	converge("wan", wan, timesync.Frequency{}, 79, 79),
	converge("lan, frequency saved", lan, saved, 0, 1),
	converge("wan, frequency saved", wan, saved, 0, 1),

	oneShot("30 ppm", 5e-3, nil),
	oneShot("30 ± 2 ppm in a day", 10e-3, sine(2e-6, 86400)),
})

func withDefaults(all []scenario) []scenario {
	for i := range all {
		w := &all[i].world
		if w.crystal == 0 {
			w.crystal, w.start = 30e-6, 10e-3
		}
		if w.length == 0 {
			w.length = 20000
		}
		w.maxPoll = max(w.maxPoll, minPoll)
	}
	return all
}

func sine(amplitude, period float64) func(float64) float64 {
	return func(t float64) float64 { return amplitude * math.Sin(2*math.Pi*t/period) }
}

func square(amplitude, period float64) func(float64) float64 {
	return func(t float64) float64 { return math.Copysign(amplitude, math.Sin(2*math.Pi*t/period)) }
}
