package timesync

import (
	"bufio"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"ntsclient/nts/ntstest"
	"ntsclient/timesync/report"
)

const killVar = "NTSCLIENT_TEST_SYNC"

// killOrder is what the process to be killed is told: a world, as far as it
// can be handed on.
type killOrder struct {
	Dir     string
	CA      []byte // PEM
	Servers []Server
}

// TestKilled kills processes at random moments of a sync, against servers that
// remember every cookie: none is seen twice, and the state can be read always.
func TestKilled(t *testing.T) {
	const lanes = 2
	runs := 250 // of each
	if testing.Short() {
		runs = 40
	}
	for lane := range lanes {
		t.Run(fmt.Sprint(lane), func(t *testing.T) {
			t.Parallel()
			killLane(t, runs, rand.New(rand.NewPCG(uint64(lane), 8915)))
		})
	}
}

func killLane(t *testing.T, runs int, random *rand.Rand) {
	w := newWorld(t, 2, func(i int, o *ntstest.Options) { o.Delay = ms }).keep() // the world's end looks for cookies seen twice
	order := killOrder{w.options.StateDir, w.ca.PEM(), slices.Clone(w.options.Servers)}
	for i := range order.Servers {
		order.Servers[i].NTS.Roots = nil
	}
	text, err := json.Marshal(order)
	if err != nil {
		t.Fatal(err)
	}
	const unharmed = 5
	var took []time.Duration
	killed, ended := 0, 0
	for run := range runs {
		after := time.Duration(-1)
		if run >= unharmed {
			slices.Sort(took[:unharmed])
			after = time.Duration(random.Int64N(int64(took[unharmed/2] * 3 / 2)))
		}
		d, done := runKilled(t, string(text), after)
		if took = append(took, d); done {
			ended++
		} else {
			killed++
		}
		checkReadable(t, w, run < unharmed || ended > unharmed)
	}
	ke, asked := w.total(keyExchanges), w.total(requests)
	t.Logf("%d killed, %d not; %d key exchanges, %d requests", killed, ended, ke, asked)
	if killed < runs/10 || ended < unharmed {
		t.Errorf("%d of %d were killed: that shows nothing", killed, runs)
	}
	if ke >= asked {
		t.Errorf("%d key exchanges and %d requests: no cookie was ever kept", ke, asked)
	}
}

// checkReadable opens the state as the next process would.
func checkReadable(t *testing.T, w *world, report bool) {
	t.Helper()
	s, err := OpenStore(t.Context(), w.options.StateDir, StoreOptions{Warn: func(msg string, args ...any) {
		t.Errorf("%s %v", msg, args)
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	text, err := os.ReadFile(filepath.Join(w.options.StateDir, reportName))
	if err == nil && !json.Valid(text) || err != nil && report {
		t.Errorf("the last report cannot be read: %v, %s", err, text)
	}
}

// runKilled starts a process and kills it after that long (negative: never).
// It tells how long the process took for its sync if it came to the end.
func runKilled(t *testing.T, order string, after time.Duration) (took time.Duration, done bool) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestKilledProcess$", "-test.count=1")
	cmd.Env = append(os.Environ(), killVar+"="+order)
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	if !lines.Scan() || lines.Text() != "begin" {
		t.Fatalf("the process says %q: %v", lines.Text(), cmd.Wait())
	}
	begin := time.Now()
	if after >= 0 {
		time.AfterFunc(after, func() { cmd.Process.Kill() })
	}
	done = lines.Scan()
	took = time.Since(begin)
	if done && lines.Text() != "end" {
		t.Errorf("the process says %q", lines.Text())
	}
	io.Copy(io.Discard, out)
	if err := cmd.Wait(); err != nil && after < 0 {
		t.Error(err)
	}
	return took, done
}

// TestKilledProcess is no test but what such a process does.
func TestKilledProcess(t *testing.T) {
	var order killOrder
	if json.Unmarshal([]byte(os.Getenv(killVar)), &order) != nil {
		return
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(order.CA)
	for i := range order.Servers {
		order.Servers[i].NTS.Roots = roots
	}
	w := newWorld(t, 0, nil)
	w.options.StateDir, w.options.Servers, w.options.Log = order.Dir, order.Servers, nil
	w.options.Policy.Samples = 2
	fmt.Println("begin")
	r, err := New(w.options).Sync(t.Context(), SyncOptions{})
	if err != nil || r.Result != report.Agreed {
		fmt.Println(err, r)
	}
	fmt.Println("end")
}
