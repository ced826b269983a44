//go:build linux

// Package vm boots a real Linux kernel with any clock, in qemu, and runs
// commands in it: the only place where the tests set a clock. What it is made
// of comes from test/vm/prepare.
package vm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"ntsclient/test/interop"
	"ntsclient/test/vm/oracle"
)

// HostIP is where the guest finds the host's loopback.
const HostIP = "10.0.2.2"

// Arch is what depends on the guest's processor.
type Arch struct {
	Name    string // Debian's
	kernel  string // whose kernel and busybox it has
	goarch  []string
	qemu    []string
	console string // the kernel's first serial port
	oracle  string // its second
	second  string // qemu's device for the second, if it is not a matter of course
}

// The processors.
var (
	AMD64 = Arch{
		"amd64", "amd64",
		[]string{"GOARCH=amd64"},
		[]string{"qemu-system-x86_64", "-machine", "q35,sata=off,smbus=off,usb=off,vmport=off,i8042=off", "-cpu", "max"},
		"ttyS0", "ttyS1", "isa-serial",
	}
	// I386 is 32-bit programs on a 64-bit kernel.
	I386  = Arch{"i386", "amd64", []string{"GOARCH=386"}, AMD64.qemu, AMD64.console, AMD64.oracle, AMD64.second}
	ARM64 = Arch{
		"arm64", "arm64",
		[]string{"GOARCH=arm64"},
		[]string{"qemu-system-aarch64", "-machine", "virt,highmem=off", "-cpu", "cortex-a53"},
		"ttyAMA0", "ttyS0", "pci-serial",
	}
	ARMHF = Arch{
		"armhf", "armhf",
		[]string{"GOARCH=arm", "GOARM=6"},
		[]string{"qemu-system-arm", "-machine", "virt,highmem=off", "-cpu", "cortex-a15"},
		"ttyAMA0", "ttyS0", "pci-serial",
	}
)

// Machine is a virtual machine before it is switched on.
type Machine struct {
	Arch   Arch
	RTC    time.Time     // what its hardware clock says when it boots
	Files  []File        // besides busybox, guest and ntsclient, which are in /bin
	Script string        // what it does: a shell script, run by root
	Limit  time.Duration // until it is switched off; default 2 minutes
}

// File is a file of the guest, which belongs to root.
type File struct {
	Path    string
	Mode    uint32 // as in inode(7), with the type
	Content []byte
}

// Kinds of File.
const (
	Dir     = 0o40755
	Plain   = 0o100644
	Program = 0o100755
)

// Cache is the folder with what a guest of that processor is made of.
func (a Arch) Cache() (string, error) {
	base, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(base, "ntsclient-vm", a.kernel)
	if _, err := os.Stat(filepath.Join(dir, "version")); err != nil {
		return "", fmt.Errorf("no kernel for %s here: run test/vm/prepare %[1]s", a.kernel)
	}
	if _, err := exec.LookPath(a.qemu[0]); err != nil {
		return "", fmt.Errorf("%w: run test/vm/prepare %s", err, a.kernel)
	}
	return dir, nil
}

// Run boots the machine, waits for the end of its script, and returns what
// "guest run" reported, by name. The test fails where the script does not end.
func (m Machine) Run(t *testing.T) map[string]oracle.Record {
	t.Helper()
	dir := t.TempDir()
	initrd, console := filepath.Join(dir, "initrd"), filepath.Join(dir, "console")
	cache, err := m.Arch.Cache()
	if err == nil {
		err = m.pack(t, cache, initrd)
	}
	if err != nil {
		t.Fatal(err)
	}
	limit := m.Limit
	if limit == 0 {
		limit = 2 * time.Minute
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	records, exit, err := attend(ctx, m.qemu(filepath.Join(cache, "kernel"), initrd, console))
	said, _ := os.ReadFile(console)
	if err != nil || exit != 0 {
		t.Fatalf("the guest's script: exit %d, %v (%v)\n%s", exit, err, ctx.Err(), said)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the guest's console:\n%s", said)
		}
	})
	named := map[string]oracle.Record{}
	for _, r := range records {
		named[r.Name] = r
	}
	return named
}

func (m Machine) qemu(kernel, initrd, console string) []string {
	return append(m.Arch.qemu,
		"-accel", "tcg", "-smp", "1", "-m", "256", "-no-user-config", "-nodefaults", "-display", "none", "-no-reboot",
		"-rtc", "base="+m.RTC.UTC().Format("2006-01-02T15:04:05"),
		"-serial", "file:"+console,
		"-chardev", "stdio,id=oracle,signal=off", "-device", m.Arch.second+",chardev=oracle",
		"-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net,romfile=",
		"-kernel", kernel, "-initrd", initrd,
		// The kernel hands what it does not know, ORACLE, to init as environment.
		"-append", "console="+m.Arch.console+" ORACLE="+m.Arch.oracle+
			" panic=-1 rdinit=/init random.trust_cpu=on mitigations=off nokaslr quiet loglevel=3")
}

// attend runs qemu and answers the guest until it ends the machine.
func attend(ctx context.Context, command []string) ([]oracle.Record, int, error) {
	c := exec.CommandContext(ctx, command[0], command[1:]...)
	// The signal at the parent's death is tied to the thread that started it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var stderr bytes.Buffer
	c.Stderr = &stderr
	in, err := c.StdinPipe()
	if err != nil {
		return nil, 0, err
	}
	out, err := c.StdoutPipe()
	if err != nil {
		return nil, 0, err
	}
	if err := c.Start(); err != nil {
		return nil, 0, err
	}
	records, exit, err := oracle.Serve(struct {
		io.Reader
		io.Writer
	}{out, in})
	killed := c.Process.Kill()
	c.Wait() // says that it was killed
	if err != nil {
		err = errors.Join(err, killed, errors.New(strings.TrimSpace(stderr.String())))
	}
	return records, exit, err
}

// build makes a static program of this module for the guest.
func (a Arch) build(t *testing.T, pkg string) ([]byte, error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "program")
	c := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", file, pkg)
	c.Env = append(append(os.Environ(), "CGO_ENABLED=0"), a.goarch...)
	if out, err := c.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("go build %s for %s: %w\n%s", pkg, a.Name, err, out)
	}
	return os.ReadFile(file)
}

// client is the ntsclient for the guest.
func (a Arch) client(t *testing.T) ([]byte, error) {
	t.Helper()
	if a.Name == runtime.GOARCH {
		return os.ReadFile(interop.Binary())
	}
	return a.build(t, "ntsclient")
}
