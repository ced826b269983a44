//go:build unix

package timesync

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"syscall"
	"testing"
)

var errCrashed = errors.New("the process is dead")

// crashing is a disk whose process dies before or after the n-th step, or at
// which that step fails.
type crashing struct {
	disk
	left  int   // steps until then
	after bool  // dies after the step and not before it
	fails error // instead of dying: what the step says
	dead  bool
	did   []string
}

func (d *crashing) step(what string, do func() error) error {
	if d.dead {
		return errCrashed
	}
	d.did = append(d.did, what)
	d.left--
	if d.left == 0 && !d.after {
		d.dead = d.fails == nil
		return orCrashed(d.fails)
	}
	err := do()
	if d.left == 0 {
		d.dead = d.fails == nil
		return orCrashed(d.fails)
	}
	return err
}

func orCrashed(err error) error {
	if err == nil {
		return errCrashed
	}
	return err
}

func (d *crashing) create(name string) (f diskFile, err error) {
	var real diskFile
	err = d.step("create", func() (err error) { real, err = d.disk.create(name); return })
	return &crashingFile{real, d}, err
}

func (d *crashing) rename(from, to string) error {
	return d.step("rename", func() error { return d.disk.rename(from, to) })
}

func (d *crashing) remove(name string) error {
	return d.step("remove", func() error { return d.disk.remove(name) })
}

func (d *crashing) sync() error { return d.step("sync directory", d.disk.sync) }

type crashingFile struct {
	diskFile
	d *crashing
}

// Write is two steps: half of what there is, and the rest.
func (f *crashingFile) Write(b []byte) (n int, err error) {
	for _, part := range [][]byte{b[:len(b)/2], b[len(b)/2:]} {
		err := f.d.step("write", func() error { _, err := f.diskFile.Write(part); return err })
		if err != nil {
			return n, err
		}
		n += len(part)
	}
	return n, nil
}

func (f *crashingFile) Chmod(mode fs.FileMode) error {
	return f.d.step("chmod", func() error { return f.diskFile.Chmod(mode) })
}

func (f *crashingFile) Chown(uid, gid int) error {
	return f.d.step("chown", func() error { return f.diskFile.Chown(uid, gid) })
}

func (f *crashingFile) Sync() error { return f.d.step("sync", f.diskFile.Sync) }

func (f *crashingFile) Close() error {
	if f.diskFile == nil {
		return nil
	}
	return f.d.step("close", f.diskFile.Close)
}

// TestCrashAtEveryStep kills the process, or fills the disk, before and after
// every step of a write: a reader sees the old state or the new one, and the
// next process can write.
func TestCrashAtEveryStep(t *testing.T) {
	for _, failure := range []error{nil, syscall.ENOSPC} {
		for _, after := range []bool{false, true} {
			for n := 1; ; n++ {
				d := &crashing{left: n, after: after, fails: failure}
				name := fmt.Sprintf("%v, step %d, after %v", orCrashed(failure), n, after)
				if crashOnce(t, name, d) {
					break
				}
				if n > 50 {
					t.Fatal("there is no end to the steps")
				}
			}
		}
	}
}

// crashOnce withdraws cookies on d; done says that it got through.
func crashOnce(t *testing.T, name string, d *crashing) (done bool) {
	dir := t.TempDir()
	saveState(t, dir, "", fullState())
	s, _ := openState(t, dir, "")
	self := ownerOf(must(os.Stat(dir)))
	s.owner = &self // so that chown is a step
	d.disk, s.disk = s.disk, d
	err := s.Withdraw(1)
	d.dead = true
	s.Close()

	again, warnings := openState(t, dir, "")
	got := cookiesOf(again.Saved())
	isOld := slices.Equal(got, []string{"a1", "a2", "a3", "x1"})
	isNew := slices.Equal(got, []string{"a2", "a3"})
	switch {
	case len(warnings) > 0 || !isOld && !isNew:
		t.Errorf("%s (%q): cookies %q, warnings %q", name, d.did, got, warnings)
	case err == nil && !isNew:
		t.Errorf("%s (%q): no error, but the old state", name, d.did)
	}
	if again.Saved().Agreed == nil || !reflect.DeepEqual(again.Saved().Agreed, fullState().Agreed) {
		t.Errorf("%s: floor %+v", name, again.Saved().Agreed)
	}
	if err := again.Save(); err != nil {
		t.Errorf("%s: the next write: %v", name, err)
	}
	again.Close()
	if left, _ := filepath.Glob(filepath.Join(dir, "*"+newSuffix)); len(left) > 0 {
		t.Errorf("%s: %q stays", name, left)
	}
	if err == nil && d.left > 0 {
		want := []string{"create", "write", "write", "chmod", "chown", "sync", "close", "rename", "sync directory"}
		if !slices.Equal(d.did, want) {
			t.Errorf("steps %q, not %q", d.did, want)
		}
		return true
	}
	return false
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// A fragileDisk is in memory, and loses at a power cut what was not synced:
// the last of what was done in the directory, and the data of files.
type fragileDisk struct {
	rng     *rand.Rand
	now     map[string]*inode // as processes see it
	synced  map[string]*inode // as it is at least after a power cut
	pending []func(map[string]*inode)
	fuse    int // steps until the process dies
	failing float64
}

type inode struct {
	data, synced []byte
	clean        bool
}

// step says whether something fails before it happens, and whether after.
func (d *fragileDisk) step() (before, after error) {
	d.fuse--
	switch {
	case d.fuse < 0:
		return errCrashed, nil
	case d.fuse == 0:
		return nil, errCrashed
	case d.rng.Float64() < d.failing:
		if d.rng.IntN(2) == 0 {
			return syscall.ENOSPC, nil
		}
		return nil, syscall.EIO
	}
	return nil, nil
}

func (d *fragileDisk) change(do func(map[string]*inode)) error {
	before, after := d.step()
	if before == nil {
		do(d.now)
		d.pending = append(d.pending, do)
	}
	return errors.Join(before, after)
}

func (d *fragileDisk) create(name string) (diskFile, error) {
	file := new(inode)
	if err := d.change(func(m map[string]*inode) { m[name] = file }); err != nil {
		return nil, err
	}
	return &fragileFile{d, file}, nil
}

func (d *fragileDisk) rename(from, to string) error {
	return d.change(func(m map[string]*inode) {
		m[to] = m[from]
		delete(m, from)
	})
}

func (d *fragileDisk) remove(name string) error {
	return d.change(func(m map[string]*inode) { delete(m, name) })
}

func (d *fragileDisk) sync() error {
	before, after := d.step()
	if before == nil {
		d.synced, d.pending = maps.Clone(d.now), nil
	}
	return errors.Join(before, after)
}

// powerCut leaves what was synced, and some of what came after.
func (d *fragileDisk) powerCut() {
	for _, do := range d.pending[:d.rng.IntN(len(d.pending)+1)] {
		do(d.synced)
	}
	d.now, d.pending = maps.Clone(d.synced), nil
	for _, file := range d.now {
		if file.clean {
			continue
		}
		switch d.rng.IntN(3) {
		case 0:
			file.data = bytes.Clone(file.synced)
		case 1:
			file.data = file.data[:d.rng.IntN(len(file.data)+1)]
		case 2: // the length came through, and the blocks did not
			file.data = make([]byte, len(file.data))
		}
		file.synced, file.clean = bytes.Clone(file.data), true
	}
}

type fragileFile struct {
	d    *fragileDisk
	file *inode
}

func (f *fragileFile) Write(b []byte) (int, error) {
	before, after := f.d.step()
	f.file.clean = false
	if before != nil {
		b = b[:f.d.rng.IntN(len(b)+1)]
	}
	f.file.data = append(f.file.data, b...)
	return len(b), errors.Join(before, after)
}

func (f *fragileFile) Sync() error {
	before, after := f.d.step()
	if before == nil {
		f.file.synced, f.file.clean = bytes.Clone(f.file.data), true
	}
	return errors.Join(before, after)
}

func (f *fragileFile) Chmod(fs.FileMode) error { return errors.Join(f.d.step()) }
func (f *fragileFile) Chown(int, int) error    { return errors.Join(f.d.step()) }
func (f *fragileFile) Close() error            { return nil }

// TestNoCookieTwice plays random lives of a client: processes that withdraw,
// send, get new cookies and save, or leave a few, on a disk that fails, until they are killed
// or the power fails at any step. The servers have seen no cookie twice.
func TestNoCookieTwice(t *testing.T) {
	sent, warm, crashes := 0, 0, 0
	for seed := range uint64(2000) {
		life := newLife(seed)
		for range 8 {
			if err := life.process(); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
		}
		sent += len(life.sent)
		warm += life.warm
		crashes += life.crashes
	}
	// Lives in which nothing happens would prove nothing.
	if sent < 50_000 || warm < 10_000 || crashes < 5_000 {
		t.Errorf("only %d cookies sent, %d of them read from the disk, %d crashes", sent, warm, crashes)
	}
}

type life struct {
	disk    *fragileDisk
	rng     *rand.Rand
	sent    map[string]bool // what the servers have seen
	baked   int             // cookies that the servers have made
	loaded  map[string]bool // cookies that the process found on the disk
	loop    bool            // the process withdraws all at its start, and then leaves a few
	warm    int             // those of them that were sent
	crashes int
}

func newLife(seed uint64) *life {
	rng := rand.New(rand.NewPCG(seed, 8915))
	return &life{
		rng: rng,
		disk: &fragileDisk{
			rng: rng, now: map[string]*inode{}, synced: map[string]*inode{},
			failing: []float64{0, 0, 0.05, 0.3}[rng.IntN(4)],
		},
		sent: map[string]bool{},
	}
}

func (l *life) cookies(n int) (all []string) {
	for range n {
		l.baked++
		all = append(all, fmt.Sprintf("cookie %d", l.baked))
	}
	return all
}

// process is one process, from its start to its end or its death.
func (l *life) process() error {
	s := &Store{disk: l.disk, owner: &owner{}, saved: &Saved{Servers: map[string]*ServerState{}}}
	if file := l.disk.now[stateName]; file != nil {
		saved, notes, err := decodeState(file.data, "")
		if err != nil || len(notes) > 0 {
			return fmt.Errorf("the state cannot be read: %q, %w", notes, err)
		}
		s.saved = saved
	}
	l.loaded = map[string]bool{}
	for _, c := range cookiesOf(s.saved) {
		l.loaded[c] = true
	}
	l.disk.fuse = 1 + l.rng.IntN(80)
	l.loop = l.rng.IntN(2) == 0
	for n := range 1 + l.rng.IntN(4) {
		err := l.round(s, n == 0)
		if errors.Is(err, errCrashed) {
			l.crashes++
			break
		}
		if err != nil {
			return err
		}
	}
	if l.rng.IntN(3) == 0 {
		l.disk.powerCut()
	}
	return nil
}

// round is one round of measuring. Its error is errCrashed, or of the test.
func (l *life) round(s *Store, first bool) error {
	n := []int{1, 2, 3, -1}[l.rng.IntN(4)]
	var err error
	if l.loop {
		n = -1
	}
	if !l.loop || first {
		err = s.Withdraw(n)
	}
	if errors.Is(err, errCrashed) {
		return err
	}
	if err != nil { // what was read must not be sent
		for _, server := range s.saved.Servers {
			server.Session = nil
		}
	}
	for _, name := range []string{"a", "b", "c"} {
		server := s.saved.Servers[name]
		if server == nil {
			server = new(ServerState)
			s.saved.Servers[name] = server
		}
		if server.Session == nil || len(server.Session.Cookies) == 0 {
			server.Session = sessionWith(l.cookies(1 + l.rng.IntN(8))...)
		}
		if err := l.send(server, n); err != nil {
			return err
		}
	}
	save := s.Save
	if l.loop {
		save = func() error { return s.Leave(1 + l.rng.IntN(2)) }
	}
	for _, write := range []func() error{save, func() error { return s.SaveReport([]byte("{}")) }} {
		if l.rng.IntN(4) > 0 {
			if err := write(); errors.Is(err, errCrashed) {
				return err
			}
		}
	}
	return nil
}

// send sends up to n cookies to a server, some of whose answers come.
func (l *life) send(server *ServerState, n int) error {
	jar := &server.Session.Cookies
	if n < 0 {
		n = len(*jar)
	}
	for range l.rng.IntN(min(n, len(*jar)) + 1) {
		cookie := string((*jar)[0])
		*jar = (*jar)[1:]
		if l.sent[cookie] {
			return fmt.Errorf("%s is sent twice", cookie)
		}
		l.sent[cookie] = true
		if l.loaded[cookie] {
			l.warm++
		}
		if l.disk.fuse--; l.disk.fuse <= 0 {
			return errCrashed
		}
		if l.rng.IntN(4) > 0 {
			for _, c := range l.cookies(min(1+l.rng.IntN(3), maxCookies-len(*jar))) {
				*jar = append(*jar, []byte(c))
			}
		}
	}
	return nil
}
