//go:build linux

// Package interop starts real NTS servers on loopback, for tests and
// benchmarks: the packages that test/interop/prepare has fetched.
//
// They run in user, network and process namespaces of their own, where that is
// allowed: nothing there can set this machine's clock, port 123 is free for
// NTPsec (which listens on nothing else), nothing is left running, and no root
// is needed.
package interop

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// stageVar tells a process that it is already where it should be.
	stageVar = "NTSCLIENT_INTEROP"
	// binaryVar is the ntsclient to test; built from this module when unset.
	binaryVar = "NTSCLIENT_BINARY"

	// noStamps as the first argument runs the rest without kernel timestamps.
	noStamps = "without-kernel-timestamps"
)

// T is what servers need of a test; a benchmark has its own.
type T interface {
	Helper()
	Fatalf(format string, args ...any)
	TempDir() string
	Cleanup(func())
}

func check(t T, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%v", err)
	}
}

// Binary is the path of the ntsclient under test.
func Binary() string { return os.Getenv(binaryVar) }

// Isolated reports whether this process has a network of its own.
func Isolated() bool { return os.Getenv(stageVar) == "namespace" }

// Enter is to be called first thing in main or TestMain. It builds ntsclient
// and starts this program once more, in namespaces of its own; only there it
// returns. Where namespaces are not allowed, it at least gives up the right to
// set the clock.
func Enter() {
	if len(os.Args) > 2 && os.Args[1] == noStamps {
		fail(execWithoutStamps(os.Args[2:]))
	}
	switch os.Getenv(stageVar) {
	case "namespace":
		fail(loopbackUp())
	case "plain":
	default:
		code, err := reenter()
		fail(err)
		os.Exit(code)
	}
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "interop:", err)
		os.Exit(1)
	}
}

// reenter runs this program again and returns its exit code.
func reenter() (int, error) {
	if Binary() == "" {
		dir, err := os.MkdirTemp("", "ntsclient-interop")
		if err != nil {
			return 0, err
		}
		defer os.RemoveAll(dir)
		if err := Build(filepath.Join(dir, "ntsclient"), "ntsclient"); err != nil {
			return 0, err
		}
		os.Setenv(binaryVar, filepath.Join(dir, "ntsclient"))
	}
	// the signal at the parent's death is tied to the thread that started it
	runtime.LockOSThread()
	self := command("namespace", "/proc/self/exe", os.Args[1:]...)
	self.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET | syscall.CLONE_NEWPID,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
		Pdeathsig:   syscall.SIGKILL,
	}
	err := self.Start()
	if err != nil {
		fmt.Fprintf(os.Stderr, "interop: no namespaces (%v): servers share this machine's loopback\n", err)
		self = command("plain", "/proc/self/exe", os.Args[1:]...)
		if os.Getuid() == 0 {
			self = command("plain", "setpriv", append([]string{
				"--inh-caps=-sys_time", "--bounding-set=-sys_time", "--", self.Path,
			}, os.Args[1:]...)...)
		}
		self.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		err = self.Start()
	}
	if err != nil {
		return 0, err
	}
	err = self.Wait()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && exit.Exited() {
		return exit.ExitCode(), nil
	}
	return 0, err
}

func command(stage, name string, args ...string) *exec.Cmd {
	c := exec.Command(name, args...)
	c.Env = append(os.Environ(), stageVar+"="+stage)
	c.Stdin, c.Stdout, c.Stderr = os.Stdin, os.Stdout, os.Stderr
	return c
}

// Build makes a package of this module, static and stripped as by make, which
// stamps it, too, and makes it smaller by what it does not inline.
func Build(file, pkg string) error {
	c := exec.Command("go", "build", "-trimpath", "-buildvcs=false",
		"-tags=urfave_cli_no_docs", "-ldflags=-s -w -buildid=", "-o", file, pkg)
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("go build %s: %w\n%s", pkg, err, out)
	}
	return nil
}

func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	lo.SetUint16(unix.IFF_UP)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo)
}

// execWithoutStamps becomes another program, one that the kernel refuses packet
// timestamps: these are not faked by libfaketime, and a server that mixes faked
// and true times lies by half of what it should.
func execWithoutStamps(args []string) error {
	runtime.LockOSThread()
	load := func(offset uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset}
	}
	jump := func(value uint32, yes, no uint8) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: value, Jt: yes, Jf: no}
	}
	// over struct seccomp_data: the call's number at 0, its second argument
	// (level) at 24, its third (option) at 32
	filter := []unix.SockFilter{
		load(0), jump(unix.SYS_SETSOCKOPT, 0, 9),
		load(24), jump(unix.SOL_SOCKET, 0, 7),
		load(32),
		jump(unix.SO_TIMESTAMP_OLD, 6, 0), jump(unix.SO_TIMESTAMPNS_OLD, 5, 0), jump(unix.SO_TIMESTAMPING_OLD, 4, 0),
		jump(unix.SO_TIMESTAMP_NEW, 3, 0), jump(unix.SO_TIMESTAMPNS_NEW, 2, 0), jump(unix.SO_TIMESTAMPING_NEW, 1, 0),
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(unix.ENOPROTOOPT)},
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&program)), 0, 0); err != nil {
		return err
	}
	return syscall.Exec(args[0], args, os.Environ())
}
