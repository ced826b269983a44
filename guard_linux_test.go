package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"ntsclient/nts/ntstest"
	"ntsclient/timesync/report"
)

// vouched is a directory on a way that only root and this user can change.
func vouched(t *testing.T) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{dir, filepath.Dir(dir)} { // which others may look into
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	if st.Flags&unix.ST_NOSUID != 0 {
		skip(t, dir+" is on a file system mounted nosuid: set TMPDIR")
	}
	return dir
}

func TestGuard(t *testing.T) {
	dir := vouched(t)
	g := &guard{owner: uint32(os.Getuid())}
	if _, err := g.read(write(t, filepath.Join(dir, "plain"), "text")); err != nil {
		skip(t, "temporary files cannot be trusted: "+err.Error())
	}
	make := func(name string, mode, dirMode os.FileMode) string {
		at := filepath.Join(dir, name)
		if err := os.Mkdir(at, 0o755); err != nil {
			t.Fatal(err)
		}
		path := write(t, filepath.Join(at, "file"), "text")
		if err := errors.Join(os.Chmod(path, mode), os.Chmod(at, dirMode)); err != nil {
			t.Fatal(err)
		}
		return path
	}
	link := func(name, to string) string {
		path := filepath.Join(dir, name)
		if err := os.Symlink(to, path); err != nil {
			t.Fatal(err)
		}
		return path
	}
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	open := make("open", 0o600, 0o777)
	for _, c := range []struct{ name, path, want string }{
		{"plain", make("a", 0o644, 0o755), ""},
		{"readable by a group", make("b", 0o640, 0o750), ""},
		{"writable by a group", make("c", 0o664, 0o755), "others may write: it has mode 0664"},
		{"writable by others", make("d", 0o602, 0o755), "others may write: it has mode 0602"},
		{"in a directory of all", open, "others may write: directory " + filepath.Dir(open)},
		{"in a directory of a group", make("e", 0o600, 0o775), "others may write: directory"},
		{"in a sticky directory", make("f", 0o600, 0o777|os.ModeSticky), ""},
		{"linked", link("g", filepath.Join(dir, "plain")), ""},
		{"linked there", link("h", open), "others may write: directory"},
		{"FIFO", fifo, "no regular file"},
		{"directory", dir, "no regular file"},
		{"device", "/dev/null", "no regular file"},
		{"command line", "/proc/self/cmdline", "in /proc"},
		{"not there", filepath.Join(dir, "none"), "no such file"},
	} {
		data, err := g.read(c.path)
		if (err == nil) != (c.want == "") || (err != nil && !strings.Contains(err.Error(), c.want)) || (err == nil && string(data) != "text") {
			t.Errorf("%s: %q, %v, want %q", c.name, data, err, c.want)
		}
	}
	for path, want := range map[string]string{
		filepath.Join(dir, "f", "made"): "directory " + filepath.Join(dir, "f"), // which is sticky
		filepath.Join(dir, "none"):      "no such file",
		filepath.Dir(open):              "others may write", // or already above
		"/usr":                          "",
	} {
		if filepath.Base(path) == "made" {
			if err := os.Mkdir(path, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		real, err := g.trustState(path)
		if (err == nil) != (want == "") || (err != nil && (real != "" || !strings.Contains(err.Error(), want))) {
			t.Errorf("state in %s: %q, %v, want %q", path, real, err, want)
		}
	}
	// A link may be anybody's, and is not what is used.
	if real, err := g.trustState(link("i", "/usr")); real != "/usr" || err != nil {
		t.Errorf("state behind a link: %q, %v", real, err)
	}
	// Of somebody else: then not even the way there is trusted.
	if os.Getuid() == 0 {
		if err := os.Chown(filepath.Dir(open), 65533, -1); err != nil {
			t.Fatal(err)
		}
	} else {
		g.owner++
	}
	if _, err := g.read(open); err == nil || !strings.Contains(err.Error(), "belongs to user") {
		t.Errorf("of another user: %v", err)
	}
}

// Ordinary users can mount what they like, but only nosuid.
func TestGuardMount(t *testing.T) {
	dir := vouched(t)
	failed := make(chan string)
	go func() {
		runtime.LockOSThread() // and never again: the thread ends, with its mounts
		err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS)
		if err == nil {
			err = unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, "")
		}
		for _, flags := range []uintptr{0, unix.MS_NOSUID} {
			if err == nil {
				err = unix.Mount("tmpfs", dir, "tmpfs", flags, "mode=0755")
			}
			if err != nil {
				failed <- "skip: a mount of its own: " + err.Error()
				return
			}
			path := filepath.Join(dir, "file")
			if err := os.WriteFile(path, nil, 0o600); err != nil {
				failed <- err.Error()
				return
			}
			_, err := new(guard).read(path)
			if got := err != nil && strings.Contains(err.Error(), "nosuid"); got != (flags != 0) {
				failed <- fmt.Sprintf("flags %#x: %v", flags, err)
				return
			}
		}
		failed <- ""
	}()
	switch text := <-failed; {
	case strings.HasPrefix(text, "skip"):
		skip(t, text)
	case text != "":
		t.Error(text)
	}
}

const stranger = 65533 // no such user is needed

// capableProgram is this program with a file capability, ready to be started by a
// stranger. It is not CAP_SYS_TIME, so that nothing here can set the clock: the
// kernel says AT_SECURE for any.
func capableProgram(t *testing.T, dir string) func(args ...string) *exec.Cmd {
	t.Helper()
	if os.Getuid() != 0 {
		skip(t, "only root can give a program a capability and start it as another user")
	}
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "ntsclient")
	if err := os.WriteFile(path, self, 0o755); err != nil {
		t.Fatal(err)
	}
	// struct vfs_cap_data: revision 2 and effective; permitted, inheritable, and their upper halves.
	attr := binary.LittleEndian.AppendUint32(nil, 0x02000001)
	for _, word := range []uint32{1 << unix.CAP_NET_BIND_SERVICE, 0, 0, 0} {
		attr = binary.LittleEndian.AppendUint32(attr, word)
	}
	if err := unix.Setxattr(path, "security.capability", attr, 0); err != nil {
		skip(t, "giving a file a capability: "+err.Error())
	}
	return func(args ...string) *exec.Cmd { // variables first, as in a shell
		var env []string
		for len(args) > 0 && strings.Contains(args[0], "=") {
			env, args = append(env, args[0]), args[1:]
		}
		cmd := hung(t, path, args...)
		cmd.Env, cmd.Dir = append(cmd.Env, env...), "/"
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: stranger, Gid: stranger}}
		return cmd
	}
}

// capable is the same, run to its end.
func capable(t *testing.T, dir string) func(args ...string) result {
	t.Helper()
	program := capableProgram(t, dir)
	return func(args ...string) result {
		t.Helper()
		cmd := program(args...)
		var stdout, stderr bytes.Buffer
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		code := status(t, cmd)
		return result{code, stdout.String(), stderr.String()}
	}
}

// A program with a file capability is started by a stranger, who has prepared
// files and the environment: nothing of that decides what time it is.
func TestFileCapability(t *testing.T) {
	dir := vouched(t)
	start := capable(t, dir)
	s, theirs := serve(t, ntstest.Options{}), serve(t, ntstest.Options{})
	evil := filepath.Join(dir, "evil")
	ours, err := os.ReadFile(configure(t, "", s))
	if err != nil {
		t.Fatal(err)
	}
	pem := fmt.Sprintf("%d.pem", s.KE().Port())
	file := write(t, filepath.Join(dir, "ours.toml"), string(ours))
	write(t, filepath.Join(dir, pem), string(s.CA().PEM()))
	foreignCA := write(t, filepath.Join(dir, "foreign.toml"), strings.Replace(string(ours), pem, "evil/"+pem, 1))
	system := write(t, filepath.Join(dir, "system.toml"), fmt.Sprintf("[[server]]\naddress = \"127.0.0.1:%d\"\n", theirs.KE().Port()))
	kept := filepath.Join(evil, "state")
	keeping := write(t, filepath.Join(dir, "keeping.toml"), strings.Replace(string(ours), `""`, `"evil/state"`, 1))
	if err := os.MkdirAll(kept, 0o755); err != nil {
		t.Fatal(err)
	}
	own := write(t, filepath.Join(evil, "own.toml"), string(ours))
	write(t, filepath.Join(evil, pem), string(theirs.CA().PEM()))
	roots := "SSL_CERT_FILE=" + write(t, filepath.Join(evil, "roots.pem"), string(theirs.CA().PEM()))
	link := filepath.Join(evil, "link.toml")
	if err := errors.Join(os.Symlink(file, link),
		os.Chmod(keeping, 0o644), os.Chown(kept, stranger, stranger),
		os.Chown(evil, stranger, stranger), os.Chown(own, stranger, stranger), os.Chown(filepath.Join(evil, pem), stranger, stranger),
		os.Chown(filepath.Join(evil, "roots.pem"), stranger, stranger),
		os.Chmod(file, 0o644), os.Chmod(foreignCA, 0o644), os.Chmod(system, 0o644), os.Chmod(filepath.Join(dir, pem), 0o644)); err != nil {
		t.Fatal(err)
	}
	const refused = "file capability"
	for _, c := range []struct {
		name, args string
		code       int
		want       string // on standard error
	}{
		{"root's configuration", "sync --dry-run -c " + file, exitOK, ""},
		{"a link to it, beside an authority of theirs", "sync --dry-run -c " + link, exitOK, ""},
		{"their configuration", "sync --dry-run -c " + own, exitUsage, own + ": cannot be read: directory " + evil + " belongs to user 65533: anyone can start this program"},
		{"their state", "sync --dry-run -c " + keeping, exitOK, "nothing is kept"},
		{"by no command", "-c " + own, exitUsage, refused},
		{"their authority", "sync --dry-run -c " + foreignCA, exitUsage, refused},
		{"not their environment's, and not by their way", "NTSCLIENT_CONFIG=" + own + " sync --dry-run --proxy socks5h://127.0.0.1:9", exitUsage, "--proxy is not taken"},
		{"their way", "sync --dry-run --proxy socks5h://127.0.0.1:9 -c " + file, exitUsage, "--proxy is not taken"},
		{"their roots", roots + " sync --dry-run -c " + system, exitNoAgreement, ""},
		{"the same, only asked", roots + " query -c " + system, exitOK, ""},
		{"theirs, only asked", "NTSCLIENT_CONFIG=" + own + " query", exitNoAgreement, ""},
		{"a larger step", "sync --dry-run --max-step 16m -c " + file, exitUsage, "--max-step may only lower max_step, which is 15m0s"},
		{"a smaller step", "sync --dry-run --max-step 1m -c " + file, exitOK, ""},
		{"a capability that is not enough", "sync -c " + file, exitNotPermitted, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := start(strings.Fields(c.args)...)
			if r.code != c.code || !strings.Contains(r.stderr, c.want) || (c.want == "" && strings.Contains(r.stderr, "ntsclient:")) {
				t.Errorf("%+v", r)
			}
		})
	}
	// State that they prepare is not read, and none is left with them.
	state := []string{"STATE_DIRECTORY=" + evil, "XDG_STATE_HOME=" + evil, "HOME=" + evil, "sync", "--dry-run", "-c", system, "--json"}
	r := start(state...)
	var out report.Report
	if err := json.Unmarshal([]byte(r.stdout), &out); err != nil || len(out.Servers) != 1 || out.Servers[0].Error == nil ||
		out.Servers[0].Error.Code != "certificate_unknown_authority" {
		t.Errorf("%v: %+v", err, r)
	}
	for _, name := range []string{"lock", "ntsclient", ".local", "state/lock"} {
		if _, err := os.Lstat(filepath.Join(evil, name)); err == nil {
			t.Errorf("%s was made", name)
		}
	}
}

// The service manager hears from a program with a file capability, too.
func TestFileCapabilityNotifies(t *testing.T) {
	dir := vouched(t)
	program := capableProgram(t, dir)
	s := serve(t, ntstest.Options{})
	text, err := os.ReadFile(configure(t, hasty, s))
	if err != nil {
		t.Fatal(err)
	}
	file := write(t, filepath.Join(dir, "ntsclient.toml"), string(text))
	pem := write(t, filepath.Join(dir, fmt.Sprintf("%d.pem", s.KE().Port())), string(s.CA().PEM()))
	path := fmt.Sprintf("@ntsclient-test-%d", os.Getpid())
	socket, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err := errors.Join(err, os.Chmod(file, 0o644), os.Chmod(pem, 0o644)); err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	l := &loop{t: t, socket: socket, Cmd: program("NOTIFY_SOCKET="+path, "WATCHDOG_USEC=200000", "run", "--dry-run", "-c", file)}
	l.Stderr = &l.log
	if err := l.Start(); err != nil {
		t.Fatal(err)
	}
	l.hear("READY=1")
	l.hear("WATCHDOG=1")
	l.Process.Signal(syscall.SIGTERM)
	if got := status(t, l.Cmd); got != exitOK {
		t.Errorf("status %d\n%s", got, &l.log)
	}
}
