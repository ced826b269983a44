//go:build linux

// Command bench measures a cold `ntsclient query` of real chronyd servers
// against a bare program that does the same (folder bare), by turns in one run,
// and the memory that ntsclient takes. It judges nothing.
//
// usage: bench [-rtt 20ms] [-rounds 15] [-n 1,4,50] [-memory 4,200]
package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"ntsclient/test/interop"
	"ntsclient/timesync/report"
)

const (
	name = "time.nts.test"
	// peakArg as the first argument runs the rest and prints its peak memory.
	peakArg = "peak-memory"
)

// bench is what interop's servers need of a test.
type bench struct {
	dir     string
	dirs    int
	cleanup []func()
}

func (b *bench) Helper()          {}
func (b *bench) Cleanup(f func()) { b.cleanup = append(b.cleanup, f) }

func (b *bench) TempDir() string {
	b.dirs++
	dir := filepath.Join(b.dir, strconv.Itoa(b.dirs))
	b.check(os.Mkdir(dir, 0o700))
	return dir
}

func (b *bench) Fatalf(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "bench: "+format+"\n", args...)
	b.end()
	os.Exit(1)
}

func (b *bench) check(err error) {
	if err != nil {
		b.Fatalf("%v", err)
	}
}

func (b *bench) end() {
	for _, f := range slices.Backward(b.cleanup) {
		f()
	}
	os.RemoveAll(b.dir)
}

func main() {
	if len(os.Args) > 2 && os.Args[1] == peakArg {
		printPeak(os.Args[2:])
		return
	}
	roundTrip := flag.Duration("rtt", 0, "round trip of the network to the servers (0: loopback)")
	rounds := flag.Int("rounds", 15, "runs of each program")
	timed := flag.String("n", "1,4,50", "numbers of servers to measure the time with")
	weighed := flag.String("memory", "4,200", "numbers of servers to measure the memory with")
	flag.Parse()
	interop.Enter()

	dir, err := os.MkdirTemp("", "ntsclient-bench")
	b := &bench{dir: dir}
	b.check(err)
	defer b.end()
	listen, reach := "127.0.0.1", "127.0.0.1"
	if *roundTrip > 0 {
		if !interop.Isolated() {
			b.Fatalf("-rtt needs a network of its own, and namespaces are not allowed here")
		}
		b.check(openWire(*roundTrip))
		listen, reach = near, far
	}
	bare := filepath.Join(dir, "bare")
	b.check(interop.Build(bare, "ntsclient/test/bench/bare"))

	counts, weights := numbers(b, *timed), numbers(b, *weighed)
	f := newFleet(b, listen, reach, max(slices.Max(counts), slices.Max(weights)))
	fmt.Printf("cold query, round trip %v, median of %d runs each\n", *roundTrip, *rounds)
	fmt.Printf("%4s %12s %12s %7s %9s\n", "n", "bare", "ntsclient", "ratio", "extra ms")
	for _, n := range counts {
		f.verify(n)
		theirs, ours := f.race(*rounds, f.bare(bare, n), f.query(n))
		fmt.Printf("%4d %12v %12v %7.2f %9.1f\n", n, theirs.Round(10*time.Microsecond), ours.Round(10*time.Microsecond),
			float64(ours)/float64(theirs), float64(ours-theirs)/1e6)
	}
	info, err := os.Stat(interop.Binary())
	b.check(err)
	fmt.Printf("\nbinary: %.2f MiB\n", float64(info.Size())/(1<<20))
	for _, n := range weights {
		fmt.Printf("peak memory with %d servers: %.1f MiB\n", n, f.peak(f.query(n)))
	}
	fmt.Printf("(least that can be measured: %.1f MiB)\n", f.peak([]string{"/bin/true"}))
}

func numbers(b *bench, list string) []int {
	var all []int
	for word := range strings.SplitSeq(list, ",") {
		n, err := strconv.Atoi(word)
		b.check(err)
		all = append(all, n)
	}
	return all
}

// fleet is many chronyd servers of one authority.
type fleet struct {
	*bench
	ca      *interop.Authority
	reach   string
	servers []*interop.Server
	configs map[int]string
}

func newFleet(b *bench, listen, reach string, n int) *fleet {
	f := &fleet{bench: b, ca: interop.NewAuthority(b, "Bench CA", nil), reach: reach, configs: map[int]string{}}
	identity := f.ca.Issue(b, name, -1, 10)
	for range n {
		s := &interop.Server{Kind: interop.Chrony12, Identity: identity, Listen: []string{listen}}
		s.Start(b)
		f.servers = append(f.servers, s)
	}
	return f
}

// bare is the command line of the bare program for the first n servers.
func (f *fleet) bare(program string, n int) []string {
	args := []string{program, f.ca.File, name}
	for _, s := range f.servers[:n] {
		args = append(args, fmt.Sprintf("%s:%d", f.reach, s.KE))
	}
	return args
}

// query is the command line of ntsclient for the first n servers.
func (f *fleet) query(n int) []string {
	if f.configs[n] == "" {
		text := "state_dir = \"\"\ncontrol_socket = \"\"\n"
		for i, s := range f.servers[:n] {
			text += fmt.Sprintf("[[server]]\naddress = \"%s:%d\"\noperator = \"operator-%d.test\"\nips = [%q]\nca_file = %q\n",
				name, s.KE, i, f.reach, f.ca.File)
		}
		f.configs[n] = filepath.Join(f.TempDir(), "ntsclient.toml")
		f.check(os.WriteFile(f.configs[n], []byte(text), 0o600))
	}
	return []string{interop.Binary(), "--config", f.configs[n], "query", "--json"}
}

// verify sees to it that ntsclient does the whole work before it is measured.
func (f *fleet) verify(n int) {
	args := f.query(n)
	c := exec.Command(args[0], args[1:]...)
	c.Stderr = os.Stderr
	out, err := c.Output()
	f.check(err)
	var r report.Report
	f.check(json.Unmarshal(out, &r))
	for _, s := range r.Servers {
		if s.Verdict != report.ServerAgreed || !s.KeyExchange {
			f.Fatalf("%s: %s: not a full round\n%s", s.Name, s.Verdict, out)
		}
	}
	if len(r.Servers) != n {
		f.Fatalf("%d servers answered of %d", len(r.Servers), n)
	}
}

// race runs two commands by turns and returns the median time of each.
func (f *fleet) race(rounds int, commands ...[]string) (time.Duration, time.Duration) {
	times := make([][]time.Duration, 2)
	for range rounds {
		for i, args := range commands {
			c := exec.Command(args[0], args[1:]...)
			var stderr bytes.Buffer
			c.Stderr = &stderr
			start := time.Now()
			err := c.Run()
			times[i] = append(times[i], time.Since(start))
			if err != nil {
				f.Fatalf("%s: %v\n%s", args[0], err, stderr.Bytes())
			}
		}
	}
	for i := range times {
		slices.Sort(times[i])
	}
	return times[0][rounds/2], times[1][rounds/2]
}

// peak is the largest resident memory of a command, in MiB. The kernel counts
// what a process was before exec, too, so a small process of this program, not
// the one that holds the servers, starts the command.
func (f *fleet) peak(args []string) float64 {
	out, err := exec.Command("/proc/self/exe", append([]string{peakArg}, args...)...).Output()
	f.check(err)
	kib, err := strconv.Atoi(strings.TrimSpace(string(out)))
	f.check(err)
	return float64(kib) / 1024
}

func printPeak(args []string) {
	c := exec.Command(args[0], args[1:]...)
	if err := c.Run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(c.ProcessState.SysUsage().(*syscall.Rusage).Maxrss)
}
