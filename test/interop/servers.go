//go:build linux

package interop

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Kind is a program in the cache that prepare filled.
type Kind string

// The servers.
const (
	Chrony12 Kind = "chronyd-12"          // chrony 4.3: AEAD 15
	Liar     Kind = "chronyd-12-faketime" // the same, with another idea of the time
	Chrony13 Kind = "chronyd-13"          // chrony 4.6: AEAD 30 and 15, record 1024
	NTPsec   Kind = "ntpd-12"             // NTPsec 1.2: ports 123 and 4460, nothing else
	NTPdRS   Kind = "ntp-daemon-13"       // ntpd-rs 1.4: AEAD 15 and 17, cookies of 104 octets
)

// Server is one real server. All of them serve this machine's time, so the
// true offset is 0, or what Lie says.
type Server struct {
	Kind     Kind
	Identity Identity
	Listen   []string // addresses; default: the loopback's
	Lie      string   // libfaketime's offset, e.g. "+0.5s"
	Extra    string   // more lines of its configuration; of ntpd-rs for key exchange, and what follows it
	Serving  string   // more lines of ntpd-rs for NTP
	Lost     bool     // it does not know the time, and says so
	KE, NTP  int      // ports; where 0, chosen by the first Start and kept by the next

	dir     string
	process *exec.Cmd
}

// Cache is the folder that prepare fills, and what is wrong with it.
func Cache() (string, error) {
	base, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(base, "ntsclient-interop")
	if _, err := os.Stat(filepath.Join(dir, "version")); err != nil {
		return "", errors.New("no real servers here: run make interop")
	}
	return dir, nil
}

// Loopback is the loopback's addresses on this machine.
func Loopback() []string {
	if c, err := net.ListenPacket("udp", "[::1]:0"); err == nil {
		c.Close()
		return []string{"127.0.0.1", "::1"}
	}
	return []string{"127.0.0.1"}
}

// Start starts the server and returns once it serves time. It ends with the
// test, or earlier by Stop. What it says goes to the file Log.
func (s *Server) Start(t T) {
	t.Helper()
	if s.dir == "" {
		s.dir = t.TempDir()
		if len(s.Listen) == 0 {
			s.Listen = Loopback()
		}
		s.choosePorts(t)
	}
	file := filepath.Join(s.dir, "server.conf")
	check(t, os.WriteFile(file, []byte(s.configuration()), 0o600))
	cache, err := Cache()
	check(t, err)
	program := filepath.Join(cache, string(s.Kind))
	s.process = map[Kind]*exec.Cmd{
		Chrony12: exec.Command(program, "-x", "-d", "-U", "-f", file),
		Chrony13: exec.Command(program, "-x", "-d", "-U", "-f", file),
		Liar:     exec.Command("/proc/self/exe", noStamps, program, "-x", "-d", "-U", "-f", file),
		NTPsec:   exec.Command(program, "-n", "-N", "-c", file, "-p", filepath.Join(s.dir, "pid")),
		NTPdRS:   exec.Command(program, "-c", file),
	}[s.Kind]
	s.process.Env = append(os.Environ(), "FAKETIME="+s.Lie, "FAKETIME_DONT_FAKE_MONOTONIC=1")
	s.process.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	log, err := os.OpenFile(s.Log(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	check(t, err)
	defer log.Close()
	s.process.Stdout, s.process.Stderr = log, log
	check(t, s.process.Start())
	process := s.process
	t.Cleanup(func() { end(process) })
	if err := s.ready(20 * time.Second); err != nil {
		said, _ := os.ReadFile(s.Log())
		t.Fatalf("%s: %v\n%s", s.Kind, err, said)
	}
}

// Stop ends the server; Start starts it again, with new keys for its cookies.
func (s *Server) Stop() { end(s.process) }

// CookieKeys is the file in which NTPsec keeps the keys of its cookies.
func (s *Server) CookieKeys() string { return filepath.Join(s.dir, "nts-keys") }

// Log is the file with what the server says.
func (s *Server) Log() string { return filepath.Join(s.dir, "log") }

// end lets chronyd end the process that it keeps for key exchanges, too.
func end(c *exec.Cmd) {
	if c.ProcessState != nil {
		return
	}
	kill := time.AfterFunc(3*time.Second, func() { c.Process.Kill() })
	defer kill.Stop()
	c.Process.Signal(syscall.SIGTERM)
	c.Wait()
}

func (s *Server) choosePorts(t T) {
	t.Helper()
	if s.Kind == NTPsec {
		s.KE, s.NTP = 4460, 123
		return
	}
	tcp, err := net.Listen("tcp", join(s.Listen[0], 0))
	check(t, err)
	defer tcp.Close()
	udp, err := net.ListenPacket("udp", join(s.Listen[0], 0))
	check(t, err)
	defer udp.Close()
	s.KE = tcp.Addr().(*net.TCPAddr).Port
	if s.NTP == 0 {
		s.NTP = udp.LocalAddr().(*net.UDPAddr).Port
	}
}

func (s *Server) configuration() string {
	switch s.Kind {
	case NTPsec:
		orphan := "tos orphan 1 orphanwait 0" // serves the time without setting it
		if s.Lost {
			orphan = ""
		}
		return fmt.Sprintf(`disable ntp kernel
%s
nts enable
nts cert %s
nts key %s
nts cookie %s
%s
`, orphan, s.Identity.Chain, s.Identity.Key, s.CookieKeys(), s.Extra)
	case NTPdRS:
		stratum := 1
		if s.Lost {
			stratum = 16
		}
		text := fmt.Sprintf("[synchronization]\nlocal-stratum = %d\n", stratum)
		for _, ip := range s.Listen {
			text += fmt.Sprintf(`[[server]]
listen = %q
%s
[[nts-ke-server]]
listen = %q
certificate-chain-path = %q
private-key-path = %q
ntp-port = %d
%s
`, join(ip, s.NTP), s.Serving, join(ip, s.KE), s.Identity.Chain, s.Identity.Key, s.NTP, s.Extra)
		}
		return text
	}
	me, err := user.Current()
	if err != nil {
		me = &user.User{Username: "root"}
	}
	local := "local stratum 1"
	if s.Lost {
		local = ""
	}
	return fmt.Sprintf(`%s
allow all
bindaddress %s
port %d
ntsport %d
ntsservercert %s
ntsserverkey %s
cmdport 0
bindcmdaddress %s
pidfile %s
user %s
clientloglimit 16777216
%s
`, local, strings.Join(s.Listen, "\nbindaddress "), s.NTP, s.KE, s.Identity.Chain, s.Identity.Key,
		filepath.Join(s.dir, "cmd", "sock"), filepath.Join(s.dir, "pid"), me.Username, s.Extra)
}

func join(ip string, port int) string { return net.JoinHostPort(ip, strconv.Itoa(port)) }

// ready waits until the server takes key exchanges and says that its time is
// good, or that it has none. It asks from another address each time, so that
// nothing is counted against the client where a server limits the rate.
func (s *Server) ready(limit time.Duration) error {
	var err error
	var try uint16
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		try++
		var from net.IP
		if strings.HasPrefix(s.Listen[0], "127.") {
			from = net.IPv4(127, 9, byte(try>>8), byte(try))
		}
		var tcp net.Conn
		dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: from}}
		if tcp, err = dialer.Dial("tcp", join(s.Listen[0], s.KE)); err != nil {
			continue
		}
		tcp.Close()
		if err = s.synchronized(from); err == nil {
			return nil
		}
	}
	return fmt.Errorf("not ready after %v: %w", limit, err)
}

// synchronized asks with plain NTP.
func (s *Server) synchronized(from net.IP) error {
	udp, err := net.DialUDP("udp", &net.UDPAddr{IP: from}, &net.UDPAddr{IP: net.ParseIP(s.Listen[0]), Port: s.NTP})
	if err != nil {
		return err
	}
	defer udp.Close()
	if err := udp.SetDeadline(time.Now().Add(200 * time.Millisecond)); err != nil {
		return err
	}
	packet := make([]byte, 48)
	packet[0] = 4<<3 | 3 // version 4, client
	if _, err := udp.Write(packet); err != nil {
		return err
	}
	if _, err := udp.Read(packet); err != nil {
		return err
	}
	if leap, stratum := packet[0]>>6, packet[1]; s.Lost != (leap == 3 || stratum < 1 || stratum > 15) {
		return fmt.Errorf("leap %d, stratum %d", leap, stratum)
	}
	return nil
}

// KeyExchanges is how many of them the server has served since its start.
func (s *Server) KeyExchanges(t T) int {
	t.Helper()
	return s.Count(t, "NTS-KE connections accepted")
}

// Count is a number of chrony's serverstats, as its own tool tells it.
func (s *Server) Count(t T, name string) int {
	t.Helper()
	cache, err := Cache()
	check(t, err)
	tool := strings.Replace(string(s.Kind), "chronyd", "chronyc", 1)
	out, err := exec.Command(filepath.Join(cache, tool), "-h", filepath.Join(s.dir, "cmd", "sock"), "serverstats").CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", tool, err, out)
	}
	for line := range strings.Lines(string(out)) {
		if key, value, _ := strings.Cut(line, ":"); strings.TrimSpace(key) == name {
			n, err := strconv.Atoi(strings.TrimSpace(value))
			check(t, err)
			return n
		}
	}
	t.Fatalf("%s: no %s in\n%s", tool, name, out)
	return 0
}
