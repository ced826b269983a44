//go:build linux

package interop

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Party is a machine of its own: a thread with a network and with files that
// nobody else has. It ends with the test, and with it what it started.
type Party struct {
	tid  int
	own  string // its folder in /proc, where processes may have other numbers
	work chan func()
}

// init keeps the process's first thread for main: no party may get that one,
// which stands for the process.
func init() { runtime.LockOSThread() }

// NewParty makes one whose files, by path, have these texts. Its network has
// only a loopback.
func NewParty(t T, files map[string]string) *Party {
	t.Helper()
	p := &Party{work: make(chan func())}
	dir := t.TempDir()
	made := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: no other goroutine may get there
		p.tid = unix.Gettid()
		own, err := os.Readlink("/proc/thread-self")
		if p.own = filepath.Join("/proc", own); err == nil {
			err = leave(dir, files)
		}
		made <- err
		for f := range p.work {
			f()
		}
	}()
	check(t, <-made)
	t.Cleanup(func() { close(p.work) })
	return p
}

func leave(dir string, files map[string]string) error {
	if err := unix.Unshare(unix.CLONE_NEWNET | unix.CLONE_NEWNS); err != nil {
		return os.NewSyscallError("unshare", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return os.NewSyscallError("mount", err)
	}
	for path, text := range files {
		own := filepath.Join(dir, filepath.Base(path))
		if err := os.WriteFile(own, []byte(text), 0o644); err != nil {
			return err
		}
		if err := unix.Mount(own, path, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("mount over %s: %w", path, err)
		}
	}
	return loopbackUp()
}

// Do runs f as the party. What f starts belongs to it. f must not end the test.
func (p *Party) Do(f func()) {
	done := make(chan struct{})
	p.work <- func() {
		defer close(done)
		f()
	}
	<-done
}

// Inside is the beginning of a command that runs its rest as the party.
func (p *Party) Inside() []string {
	return []string{"nsenter", "--net=" + p.own + "/ns/net", "--mount=" + p.own + "/ns/mnt", "--"}
}

// Link gives both parties a device and connects the two; nil is this process
// itself. Each end has a name and addresses with prefix lengths.
func Link(t T, a, b *Party, nameA, nameB string, addrsA, addrsB []string) {
	t.Helper()
	// made where a is, so that b's end is moved out of there
	ip(t, a, fmt.Sprintf("link add %s type veth peer name %s netns %d", nameA, nameB, b.thread()))
	for _, end := range []struct {
		party *Party
		name  string
		addrs []string
	}{{a, nameA, addrsA}, {b, nameB, addrsB}} {
		var lines []string
		for _, addr := range end.addrs {
			line := "address add " + addr + " dev " + end.name
			if strings.Contains(addr, ":") {
				line += " nodad" // usable at once
			}
			lines = append(lines, line)
		}
		ip(t, end.party, append(lines, "link set "+end.name+" up")...)
	}
}

func (p *Party) thread() int {
	if p == nil {
		return unix.Getpid()
	}
	return p.tid
}

// ip has a party's ip(8) do these lines.
func ip(t T, p *Party, lines ...string) {
	t.Helper()
	cache, err := Cache()
	check(t, err)
	c := exec.Command(filepath.Join(cache, "ip"), "-batch", "-")
	c.Stdin = strings.NewReader(strings.Join(lines, "\n") + "\n")
	var out []byte
	do := func() { out, err = c.CombinedOutput() }
	if p == nil {
		do()
	} else {
		p.Do(do)
	}
	if err != nil {
		t.Fatalf("ip: %v\n%s%s", err, strings.Join(lines, "\n"), out)
	}
}

// Packet is one that left a party.
type Packet struct {
	Device   int    // the number of it
	Protocol string // "TCP", "UDP", "ICMP", "ARP", or a number
	From, To netip.AddrPort
}

func (p Packet) String() string {
	return fmt.Sprintf("%s %v → %v (device %d)", p.Protocol, p.From, p.To, p.Device)
}

// Capture holds what leaves a party, by whatever device.
type Capture struct {
	fd int

	mu   sync.Mutex
	seen []Packet
	err  error // why it is not whole
}

// Capture begins one.
func (p *Party) Capture(t T) *Capture {
	t.Helper()
	c := new(Capture)
	var err error
	p.Do(func() {
		c.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, int(htons(unix.ETH_P_ALL)))
	})
	check(t, err)
	end, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-end:
				unix.Close(c.fd)
				return
			default: // before the kernel's buffer is full
				unix.Poll([]unix.PollFd{{Fd: int32(c.fd), Events: unix.POLLIN}}, 100)
				c.read()
			}
		}
	}()
	t.Cleanup(func() { close(end); <-ended })
	return c
}

// Packets is what has left so far.
func (c *Capture) Packets(t T) []Packet {
	t.Helper()
	c.read()
	c.mu.Lock()
	defer c.mu.Unlock()
	check(t, c.err)
	return slices.Clone(c.seen)
}

func (c *Capture) read() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for data := make([]byte, 65536); c.err == nil; {
		n, from, err := unix.Recvfrom(c.fd, data, unix.MSG_DONTWAIT)
		if err == unix.EAGAIN || err == unix.EINTR {
			break
		}
		if c.err = err; err != nil {
			return
		}
		if link := from.(*unix.SockaddrLinklayer); link.Pkttype == unix.PACKET_OUTGOING {
			p := parsePacket(data[:n], htons(link.Protocol))
			p.Device = link.Ifindex
			c.seen = append(c.seen, p)
		}
	}
	stats, err := unix.GetsockoptTpacketStats(c.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
	if err == nil && stats.Drops > 0 {
		err = fmt.Errorf("the capture has lost %d packets", stats.Drops)
	}
	if c.err == nil {
		c.err = err
	}
}

func htons(n uint16) uint16 { return n<<8 | n>>8 }

// Await waits until what has left is as wanted.
func (c *Capture) Await(t T, want func([]Packet) bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond / 4) {
		if want(c.Packets(t)) {
			return
		}
	}
	t.Fatalf("only these packets have left: %v", c.Packets(t))
}

// parsePacket reads an ARP, IPv4 or IPv6 packet; protocol is its
// Ethertype.
func parsePacket(data []byte, protocol uint16) Packet {
	var next byte
	var from, to netip.Addr
	switch {
	case protocol == unix.ETH_P_ARP:
		return Packet{Protocol: "ARP"}
	case len(data) >= 20 && data[0]>>4 == 4:
		next = data[9]
		from, to = netip.AddrFrom4([4]byte(data[12:])), netip.AddrFrom4([4]byte(data[16:]))
		data = data[min(len(data), int(data[0]&15)*4):]
	case len(data) >= 40 && data[0]>>4 == 6:
		next = data[6]
		from, to = netip.AddrFrom16([16]byte(data[8:])), netip.AddrFrom16([16]byte(data[24:]))
		data = data[40:]
		if next == 0 && len(data) >= 8 { // hop-by-hop options: MLD
			next, data = data[0], data[min(len(data), 8+int(data[1])*8):]
		}
	default:
		return Packet{Protocol: fmt.Sprintf("type %#04x", protocol)}
	}
	p := Packet{From: netip.AddrPortFrom(from, 0), To: netip.AddrPortFrom(to, 0)}
	switch next {
	case unix.IPPROTO_TCP, unix.IPPROTO_UDP:
		p.Protocol = map[byte]string{unix.IPPROTO_TCP: "TCP", unix.IPPROTO_UDP: "UDP"}[next]
		if len(data) >= 4 {
			p.From = netip.AddrPortFrom(from, binary.BigEndian.Uint16(data))
			p.To = netip.AddrPortFrom(to, binary.BigEndian.Uint16(data[2:]))
		}
	case unix.IPPROTO_ICMP, unix.IPPROTO_ICMPV6:
		p.Protocol = "ICMP"
		if next == unix.IPPROTO_ICMPV6 && len(data) > 0 && data[0] >= 130 && data[0] <= 143 {
			p.Protocol = "ND" // neighbours, and who listens to which multicast
		}
	default:
		p.Protocol = fmt.Sprintf("protocol %d", next)
	}
	return p
}
