package confine

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// order, as JSON in this variable, makes this test binary a process that
// confines itself and tells what it then can do.
const asChild = "CONFINE_TEST_CHILD"

type order struct {
	Needs Needs
	Write []string // files to make, in this order, after that
}

type account struct {
	Error       string
	Took        time.Duration
	Uid, Groups int
	Written     map[string]string // errors, empty: none
	Moved       string            // error of replacing a file
	Read        string            // error of reading a file of the system
	Threads     []map[string]string
}

func TestMain(m *testing.M) {
	if text := os.Getenv(asChild); text != "" {
		var o order
		if err := json.Unmarshal([]byte(text), &o); err != nil {
			panic(err)
		}
		json.NewEncoder(os.Stdout).Encode(o.do())
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func (o order) do() *account {
	stop, ready := make(chan bool), make(chan bool)
	defer close(stop)
	for range 4 { // threads that are there before
		go func() {
			runtime.LockOSThread()
			ready <- true
			<-stop
		}()
		<-ready
	}
	begin := time.Now()
	err := Apply(o.Needs)
	a := &account{Error: text(err), Took: time.Since(begin), Written: map[string]string{}}
	a.Uid = os.Getuid()
	groups, _ := os.Getgroups()
	a.Groups = len(groups)
	for _, path := range o.Write {
		a.Written[path] = text(os.WriteFile(path, []byte("text"), 0o600))
	}
	if dir := o.Needs.State; dir != "" {
		a.Moved = text(os.Rename(filepath.Join(dir, "file"), filepath.Join(dir, "moved")))
	}
	_, err = os.ReadFile("/etc/resolv.conf")
	if errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	a.Read = text(err)
	a.Threads = threads()
	return a
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// threads is what the kernel says of each thread.
func threads() (all []map[string]string) {
	paths, _ := filepath.Glob("/proc/self/task/*/status")
	for _, path := range paths {
		data, _ := os.ReadFile(path)
		fields := map[string]string{}
		for line := range strings.Lines(string(data)) {
			name, value, _ := strings.Cut(line, ":")
			fields[name] = strings.TrimSpace(value)
		}
		all = append(all, fields)
	}
	return all
}

// child is this test without cgo, as the program is built.
func child(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "child")
	cmd := exec.Command("go", "test", "-c", "-o", path, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return path
}

func run(t *testing.T, path string, uid uint32, o order) *account {
	t.Helper()
	input, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path)
	cmd.Env = append(os.Environ(), asChild+"="+string(input))
	cmd.Dir = "/"
	cmd.Stderr = os.Stderr
	if uid != 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	}
	out, err := cmd.Output()
	var a account
	if err == nil {
		err = json.NewDecoder(bytes.NewReader(out)).Decode(&a)
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, lack := range []error{unix.ENOSYS, unix.EOPNOTSUPP} {
		if strings.Contains(a.Error, "landlock: "+lack.Error()) {
			skip(t, "this kernel has no Landlock: "+a.Error)
		}
	}
	return &a
}

func skip(t *testing.T, reason string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(reason)
	}
	t.Skip(reason)
}

const stranger = 65533 // no such user is needed

func TestApply(t *testing.T) {
	root := os.Getuid() == 0
	if !root {
		t.Log("not root: that nothing is left of its rights is not shown")
	}
	dir := t.TempDir()
	for d := dir; d != filepath.Dir(os.TempDir()) && d != "/"; d = filepath.Dir(d) {
		if d != os.TempDir() {
			os.Chmod(d, 0o755)
		}
	}
	path := child(t)
	before, err := capabilities()
	if err != nil {
		t.Fatal(err)
	}
	bounding := threads()[0]["CapBnd"]
	for i, c := range []struct {
		name         string
		start, owner uint32 // who starts it, and whom the state belongs to
		clock, state bool
		bounding     bool
		uid          int // afterwards
	}{
		{"root with root's state", 0, 0, true, true, false, 0},
		{"root with another's state", 0, stranger, true, true, true, stranger},
		{"root that only asks", 0, 0, false, false, false, 0},
		{"root that only asks for long", 0, 0, false, false, true, 0},
		{"another", stranger, stranger, true, true, true, stranger},
		{"another that only asks", stranger, stranger, false, false, false, stranger},
	} {
		t.Run(c.name, func(t *testing.T) {
			if !root {
				c.start, c.owner, c.uid = 0, 0, os.Getuid()
			}
			at := filepath.Join(dir, strconv.Itoa(i))
			state, other, outside := filepath.Join(at, "state"), filepath.Join(at, "other"), filepath.Join(at, "outside")
			for _, d := range []string{at, state, other, outside} {
				if err := os.Mkdir(d, 0o755); err != nil {
					t.Fatal(err)
				}
				if root {
					if err := os.Chown(d, int(c.owner), -1); err != nil {
						t.Fatal(err)
					}
				}
			}
			in, also, out := filepath.Join(state, "file"), filepath.Join(other, "file"), filepath.Join(outside, "file")
			o := order{Write: []string{in, also, out, os.DevNull}, Needs: Needs{SetClock: c.clock, Bounding: c.bounding}}
			if c.state {
				o.Needs.State, o.Needs.Write = state, []string{other}
			}
			a := run(t, path, c.start, o)
			if a.Error != "" || a.Uid != c.uid || a.Read != "" {
				t.Errorf("%+v", a)
			}
			if root && c.start != uint32(c.uid) && a.Groups != 0 {
				t.Errorf("in %d groups still", a.Groups)
			}
			denied := func(path string) bool { return strings.Contains(a.Written[path], "permission denied") }
			if (a.Written[in] == "") != c.state || denied(in) == c.state || denied(also) == c.state ||
				!denied(out) || a.Written[os.DevNull] != "" || a.Moved != "" {
				t.Errorf("%+v", a)
			}
			caps, bounds := uint64(0), bounding
			if c.clock && c.start == 0 {
				caps = before & (1 << unix.CAP_SYS_TIME)
			}
			if root && c.start == 0 && c.bounding {
				bounds = fmt.Sprintf("%016x", boundingBits(t, bounding)&o.Needs.kept())
			}
			want := map[string]string{
				"NoNewPrivs": "1", "CapEff": fmt.Sprintf("%016x", caps), "CapPrm": fmt.Sprintf("%016x", caps),
				"CapInh": strings.Repeat("0", 16), "CapAmb": strings.Repeat("0", 16), "CapBnd": bounds,
			}
			if len(a.Threads) < 5 {
				t.Errorf("%d threads", len(a.Threads))
			}
			for _, thread := range a.Threads {
				for name, value := range want {
					if thread[name] != value {
						t.Errorf("thread %s: %s is %s, want %s", thread["Pid"], name, thread[name], value)
					}
				}
			}
			t.Logf("took %v", a.Took)
		})
	}
}

func boundingBits(t *testing.T, hex string) uint64 {
	t.Helper()
	bits, err := strconv.ParseUint(hex, 16, 64)
	if err != nil {
		t.Fatal(err)
	}
	return bits
}

// A directory that is not there is left out, and all else holds.
func TestMissing(t *testing.T) {
	dir := t.TempDir()
	in, away := filepath.Join(dir, "state", "file"), filepath.Join(dir, "away")
	state := filepath.Dir(in)
	if err := os.Mkdir(state, 0o700); err != nil {
		t.Fatal(err)
	}
	a := run(t, child(t), 0, order{
		Write: []string{in, filepath.Join(away, "file"), away},
		Needs: Needs{State: state, Write: []string{away}},
	})
	if !strings.Contains(a.Error, away+": no such file") || a.Written[in] != "" || !strings.Contains(a.Written[away], "permission denied") {
		t.Errorf("%+v", a)
	}
	for _, thread := range a.Threads {
		if thread["NoNewPrivs"] != "1" || os.Getuid() == 0 && strings.Trim(thread["CapEff"], "0") != "" {
			t.Errorf("%v", thread)
		}
	}
}
