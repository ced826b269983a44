package main

import (
	"math"
	"math/rand/v2"
	"time"

	"ntsclient/timesync"
)

// What a kernel's frequency is a multiple of, and where it ends.
const (
	resolution = 1e-6 / 65536
	maxRate    = 500e-6
)

// machine is a computer in its world: true time t, a raw clock whose frequency
// walks at random, and a clock that is the raw one and a correction.
type machine struct {
	*world
	rng  *rand.Rand
	each func(t, clockError float64) // called at each whole second; may be nil

	t          float64 // true time, s
	rawError   float64 // raw clock − t: the clock itself would be rounded
	correction float64 // clock − raw clock
	frequency  float64 // dr/dt − 1
	walk       float64 // its random part
	rate, base float64 // of the correction by the raw clock: rate until that reads until
	until      float64

	names   []string
	answers []answer
}

// answer is an exchange that is on its way.
type answer struct {
	server   int
	up, down float64 // delays, s
	lost     bool
}

func newMachine(w *world, seed uint64) *machine {
	m := &machine{world: w, rng: rand.New(rand.NewPCG(seed, 1)), frequency: w.crystal, correction: w.start}
	for i := range w.servers {
		m.names = append(m.names, string(rune('A'+i)))
	}
	return m
}

func (m *machine) raw() float64        { return m.t + m.rawError }
func (m *machine) clockError() float64 { return m.rawError + m.correction }

// moment is what the machine reads from its clocks.
func (m *machine) moment() timesync.Moment {
	return timesync.Moment{Raw: seconds(m.raw()), Correction: seconds(m.correction)}
}

func seconds(s float64) time.Duration { return time.Duration(math.Round(s * 1e9)) }

// advance lets true time pass.
func (m *machine) advance(to float64) {
	for m.t < to {
		next := min(to, math.Floor(m.t)+1)
		if m.rate != m.base {
			end := m.t + (m.until-m.raw())/(1+m.frequency)
			if end <= math.Nextafter(m.t, to) {
				m.rate = m.base
			} else {
				next = min(next, end)
			}
		}
		d := next - m.t
		m.t = next
		m.rawError += m.frequency * d
		m.correction += m.rate * (1 + m.frequency) * d
		if next != math.Floor(next) {
			continue
		}
		m.walk += m.wander * m.rng.NormFloat64()
		m.frequency = m.crystal + m.walk
		if m.swing != nil {
			m.frequency += m.swing(m.t)
		}
		if m.each != nil {
			m.each(m.t, m.clockError())
		}
	}
}

// steer does what was ordered, as well as a kernel can.
func (m *machine) steer(o *timesync.Orders) {
	m.correction += o.Step.Seconds()
	m.rate, m.base, m.until = quantized(o.Rate), quantized(o.Base), o.Until.Seconds()
}

func quantized(rate float64) float64 {
	return min(max(math.Round(rate/resolution)*resolution, -maxRate), maxRate)
}

// ask asks all servers at once, and waits for those that answer. The answers
// are appended to measured.
func (m *machine) ask(measured []timesync.Measured) []timesync.Measured {
	m.answers = m.answers[:0]
	for i := range m.servers {
		a := answer{server: i, up: m.net(m.rng, m.t, up), down: m.net(m.rng, m.t, down)}
		if m.loss > 0 { // drawn for both ways
			there, back := m.rng.Float64() < m.loss, m.rng.Float64() < m.loss
			a.lost = there || back
		}
		at := len(m.answers) // in the order of arrival
		m.answers = append(m.answers, a)
		for ; at > 0 && m.answers[at-1].up+m.answers[at-1].down > a.up+a.down; at-- {
			m.answers[at], m.answers[at-1] = m.answers[at-1], a
		}
	}
	sent, raw, correction, off := m.t, m.raw(), m.correction, m.clockError()
	for _, a := range m.answers {
		if a.lost {
			continue
		}
		m.advance(sent + a.up + a.down)
		offset := (a.up - a.down - off - m.clockError()) / 2
		if m.lie != nil {
			offset += m.lie[a.server]
		}
		if a.server == 0 {
			offset += m.runaway * sent
		}
		delay := a.up + a.down + m.clockError() - off
		measured = append(measured, timesync.Measured{
			Server: m.names[a.server], Operator: m.names[a.server],
			Offset: seconds(offset), Delay: seconds(delay), Uncertainty: seconds(delay/2 + 1e-6),
			Moment: timesync.Moment{Raw: seconds((raw + m.raw()) / 2), Correction: seconds((correction + m.correction) / 2)},
		})
	}
	return measured
}
