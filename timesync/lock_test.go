//go:build unix

package timesync

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

func TestLockIsWaitedFor(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		first, _ := openState(t, dir, "")
		var second *Store
		go func() {
			var err error
			if second, err = OpenStore(t.Context(), dir, StoreOptions{}); err != nil {
				t.Error(err)
			}
		}()
		time.Sleep(time.Minute) // of the bubble
		synctest.Wait()
		if second != nil {
			t.Fatal("two have the store open")
		}
		first.Saved().Servers["a"] = &ServerState{Session: sessionWith("c")}
		if err := errors.Join(first.Save(), first.Close()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if second == nil {
			t.Fatal("still waiting for a lock that is free")
		}
		defer second.Close()
		if second.Saved().Servers["a"] == nil {
			t.Error("it was read before the first had written it")
		}
	})
}

func TestLockWaitEnds(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		first, _ := openState(t, dir, "")
		defer first.Close()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		began := time.Now()
		_, err := OpenStore(ctx, dir, StoreOptions{Loop: true}) // which waits for a one-shot process, too
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != time.Minute {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
	})
}

func TestLockOfRemovedFile(t *testing.T) {
	dir := t.TempDir()
	first, _ := openState(t, dir, "")
	if err := os.Remove(filepath.Join(dir, lockName)); err != nil {
		t.Fatal(err)
	}
	second, _ := openState(t, dir, "")
	first.Close()
	done, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := OpenStore(done, dir, StoreOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("the second lock keeps nobody out: %v", err)
	}
	second.Close()
	if _, err := OpenStore(done, dir, StoreOptions{}); err != nil {
		t.Errorf("a lock that is free: %v", err)
	}
}

func TestLockThatIsNone(t *testing.T) {
	for _, name := range []string{lockName, loopName} {
		for what, put := range map[string]func(path string) error{
			"link":      func(path string) error { return os.Symlink("elsewhere", path) },
			"fifo":      func(path string) error { return syscall.Mkfifo(path, 0o600) },
			"directory": func(path string) error { return os.Mkdir(path, 0o700) },
		} {
			dir := t.TempDir()
			if err := put(filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
			if _, err := OpenStore(t.Context(), dir, StoreOptions{Loop: true}); err == nil || !strings.Contains(err.Error(), name) {
				t.Errorf("%s that is a %s: %v", name, what, err)
			}
			if _, err := os.Stat(filepath.Join(dir, "elsewhere")); err == nil {
				t.Errorf("%s: the link was followed", name)
			}
		}
	}
}

// TestLockOfLoop has a loop in a process of its own.
func TestLockOfLoop(t *testing.T) {
	dir := t.TempDir()
	loop := startHelper(t, "loop", dir, nil)
	if said := loop.line(); said != "open, 0 cookies" {
		t.Fatal(said)
	}
	for _, asLoop := range []bool{false, true} {
		_, err := OpenStore(t.Context(), dir, StoreOptions{Loop: asLoop}) // does not wait: the context never ends
		if !errors.Is(err, ErrLoopRunning) {
			t.Errorf("loop %v: %v", asLoop, err)
		}
	}
	if err := loop.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	loop.cmd.Wait()
	done, cancel := context.WithCancel(t.Context())
	cancel()
	for _, asLoop := range []bool{false, true} {
		s, err := OpenStore(done, dir, StoreOptions{Loop: asLoop})
		if err != nil {
			t.Fatalf("a killed loop holds the lock: %v", err)
		}
		s.Close()
	}
}

// TestLockOfOneShot has another one-shot process that holds the store until it
// is killed, which is not a loop even where there was one before.
func TestLockOfOneShot(t *testing.T) {
	dir := t.TempDir()
	was, err := OpenStore(t.Context(), dir, StoreOptions{Loop: true})
	if err != nil {
		t.Fatal(err)
	}
	was.Close()
	other := startHelper(t, "one-shot", dir, nil)
	if said := other.line(); said != "open, 0 cookies" {
		t.Fatal(said)
	}
	done, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := OpenStore(done, dir, StoreOptions{}); !errors.Is(err, context.Canceled) || errors.Is(err, ErrLoopRunning) {
		t.Errorf("held by a one-shot process: %v", err)
	}
	opened := make(chan error, 1)
	go func() {
		s, err := OpenStore(t.Context(), dir, StoreOptions{})
		if err == nil {
			err = s.Close()
		}
		opened <- err
	}()
	if err := other.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	other.cmd.Wait()
	if err := <-opened; err != nil {
		t.Error(err)
	}
}

// TestDirectoryNotWritable is an error at once, with the mend; as a user whom
// modes stop, also where the tests run as root.
func TestDirectoryNotWritable(t *testing.T) {
	dir := publicDir(t)
	chmod(t, dir, 0o555)
	for _, path := range []string{dir, filepath.Join(dir, "new")} {
		h := startHelper(t, "one-shot", path, nobody(t, ""))
		if said := h.line(); !strings.Contains(said, "permission denied") {
			t.Errorf("%s: %s", path, said)
		}
	}
	if _, err := OpenStore(t.Context(), "/dev/null/state", StoreOptions{}); !errors.Is(err, syscall.ENOTDIR) {
		t.Error(err)
	}
	open := t.TempDir()
	chmod(t, open, 0o777)
	if _, err := OpenStore(t.Context(), open, StoreOptions{}); err == nil || !strings.Contains(err.Error(), "chmod o-w") {
		t.Errorf("where everybody may write: %v", err)
	}
}

// TestRootInUsersDirectory lets root write in a user's directory: the user can
// go on, and gets no file that was root's before.
func TestRootInUsersDirectory(t *testing.T) {
	if os.Geteuid() != 0 {
		skipUnlessCI(t, "only root can write as root")
	}
	dir := publicDir(t)
	precious := filepath.Join(publicDir(t), "precious")
	writeFile(t, precious, nil)
	user := nobody(t, dir)
	if err := os.Link(precious, filepath.Join(dir, loopName)); err != nil {
		t.Fatal(err)
	}
	s, err := OpenStore(t.Context(), dir, StoreOptions{Loop: true})
	if err != nil {
		t.Fatal(err)
	}
	s.saved = fullState()
	if err := errors.Join(s.Save(), s.SaveReport(nil), s.Close()); err != nil {
		t.Fatal(err)
	}
	if info := must(os.Stat(precious)); ownerOf(info).uid != 0 {
		t.Error("root's file was given away by another name")
	}
	for _, name := range []string{stateName, reportName, lockName} {
		if of := ownerOf(must(os.Stat(filepath.Join(dir, name)))); of != (owner{nobodyID, nobodyID}) {
			t.Errorf("%s belongs to %v", name, of)
		}
	}
	if said := startHelper(t, "one-shot", dir, user).end(); said != "open, 4 cookies" {
		t.Errorf("the user finds: %s", said)
	}

	if err := os.Chown(filepath.Join(dir, stateName), nobodyID-1, 0); err != nil {
		t.Fatal(err)
	}
	again, warnings := openState(t, dir, "")
	if len(again.Saved().Servers) > 0 || len(warnings) != 1 || !strings.Contains(warnings[0], "belongs to user") {
		t.Errorf("another user's file: %q", warnings)
	}
}

const nobodyID = 65534

// nobody is a user whom file modes stop: this one, unless it is root. dir is
// made his.
func nobody(t *testing.T, dir string) *syscall.SysProcAttr {
	t.Helper()
	if os.Geteuid() != 0 {
		return nil
	}
	if dir != "" {
		if err := os.Chown(dir, nobodyID, nobodyID); err != nil {
			skipUnlessCI(t, err.Error())
		}
	}
	return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobodyID, Gid: nobodyID}}
}

// publicDir is a temporary directory that other users reach.
func publicDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "ntsclient-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		os.Chmod(dir, 0o700)
		os.RemoveAll(dir)
	})
	chmod(t, dir, 0o755)
	return dir
}

// skipUnlessCI skips a test for a reason, but not where all must be shown.
func skipUnlessCI(t *testing.T, reason string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(reason)
	}
	t.Skip(reason)
}

// A helper is this test binary once more, as another process.
type helper struct {
	t   *testing.T
	cmd *exec.Cmd
	in  io.Closer
	out *bufio.Scanner
}

const helperVar = "NTSCLIENT_TEST_STORE"

// startHelper starts a process that opens the store in dir, says so, and keeps
// it open until it is ended.
func startHelper(t *testing.T, kind, dir string, attr *syscall.SysProcAttr) *helper {
	t.Helper()
	exe := must(os.Executable())
	if _, err := os.Stat("/proc/self/exe"); err == nil {
		exe = "/proc/self/exe" // which another user can run, too
	}
	cmd := exec.Command(exe, "-test.run=^TestHelperStore$")
	cmd.Env = append(os.Environ(), helperVar+"="+kind+":"+dir)
	cmd.Dir, cmd.SysProcAttr, cmd.Stderr = "/", attr, os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	return &helper{t, cmd, in, bufio.NewScanner(out)}
}

// line is what the helper says.
func (h *helper) line() string {
	h.t.Helper()
	if !h.out.Scan() {
		h.t.Fatal("the helper says nothing: ", h.out.Err())
	}
	return h.out.Text()
}

// end lets the helper end, and is what it said.
func (h *helper) end() string {
	h.t.Helper()
	said := h.line()
	h.in.Close()
	if err := h.cmd.Wait(); err != nil {
		h.t.Error(err)
	}
	return said
}

// TestHelperStore is no test but what such a process does.
func TestHelperStore(t *testing.T) {
	kind, dir, ok := strings.Cut(os.Getenv(helperVar), ":")
	if !ok {
		return
	}
	s, err := OpenStore(t.Context(), dir, StoreOptions{Loop: kind == "loop"})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("open, %d cookies\n", len(cookiesOf(s.Saved())))
	io.Copy(io.Discard, os.Stdin)
	s.Close()
}
