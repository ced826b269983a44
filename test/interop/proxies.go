//go:build linux

package interop

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// Proxy is a real SOCKS5 proxy.
type Proxy struct {
	Program string // "danted-12" or "tor-12", in the cache
	Config  string // its configuration
	Listen  netip.AddrPort
	At      *Party

	dir     string
	process *exec.Cmd
}

// Dante is danted 1.4, which listens on one address of its machine and sends
// from the other. The way that clients prove who they are is "none" or
// "username" (of /etc/passwd and /etc/shadow); commands are those allowed.
func Dante(at *Party, listen netip.AddrPort, external, method, commands string) *Proxy {
	return &Proxy{Program: "danted-12", Listen: listen, At: at, Config: fmt.Sprintf(`logoutput: stderr
internal: %s port = %d
external: %s
clientmethod: none
socksmethod: %s
user.privileged: root
user.unprivileged: root
client pass { from: 0/0 to: 0/0 }
socks pass { from: 0/0 to: 0/0 command: %s }
socks pass { from: 0/0 to: 0/0 command: udpreply }
`, listen.Addr(), listen.Port(), external, method, commands)}
}

// Tor is tor, which can reach no other relay.
func Tor(at *Party, listen netip.AddrPort, dir string) *Proxy {
	return &Proxy{Program: "tor-12", Listen: listen, At: at, Config: fmt.Sprintf(
		"SocksPort %v\nDataDirectory %s\nLog notice stdout\n", listen, filepath.Join(dir, "tor"))}
}

// Start starts the proxy and returns once it listens. It ends with the test,
// or earlier by Kill.
func (p *Proxy) Start(t T) {
	t.Helper()
	p.dir = t.TempDir()
	file := filepath.Join(p.dir, "proxy.conf")
	check(t, os.WriteFile(file, []byte(p.Config), 0o600))
	cache, err := Cache()
	check(t, err)
	log, err := os.Create(p.log())
	check(t, err)
	defer log.Close()
	p.process = exec.Command(filepath.Join(cache, p.Program), "-f", file)
	if p.Program == "danted-12" {
		p.process.Args = append(p.process.Args, "-p", filepath.Join(p.dir, "pid"))
	}
	p.process.Env = append(os.Environ(), "HOME="+p.dir)
	p.process.Stdout, p.process.Stderr = log, log
	p.process.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	p.At.Do(func() { err = p.process.Start() })
	check(t, err)
	t.Cleanup(p.Kill)
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		var c net.Conn
		p.At.Do(func() { c, err = net.Dial("tcp", p.Listen.String()) })
		if err == nil {
			c.Close()
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s: %v\n%s", p.Program, err, p.Said())
		}
	}
}

// Kill ends the proxy at once, all its processes.
func (p *Proxy) Kill() {
	if p.process.ProcessState == nil {
		p.signal(syscall.SIGKILL)
		p.process.Wait()
	}
}

// Pause stops all its processes where they are.
func (p *Proxy) Pause() { p.signal(syscall.SIGSTOP) }

func (p *Proxy) signal(s syscall.Signal) {
	if err := syscall.Kill(-p.process.Process.Pid, s); err != nil && !errors.Is(err, syscall.ESRCH) {
		panic(err)
	}
}

func (p *Proxy) log() string { return filepath.Join(p.dir, "log") }

// Said is what the proxy has said.
func (p *Proxy) Said() string {
	text, err := os.ReadFile(p.log())
	if err != nil {
		return err.Error()
	}
	return string(text)
}
