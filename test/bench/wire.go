//go:build linux

package main

import (
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// The wire's two ends. There is one network device: what is sent to far comes
// back, after the delay, as if far had sent it to near. A server that listens
// on near is thus reached at far, and its answers go the same way, so that
// every packet, a TCP SYN as well, takes the delay once each way.
const (
	near = "198.18.0.1" // benchmarking addresses (RFC 2544)
	far  = "198.18.0.2"
)

type packet struct {
	due  time.Time
	data []byte
}

// openWire makes the device, in this process's own network, and carries its
// packets with a delay of half the round trip.
func openWire(roundTrip time.Duration) error {
	tun, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("open /dev/net/tun", err)
	}
	dev, err := unix.NewIfreq("wire")
	if err != nil {
		return err
	}
	dev.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(tun, unix.TUNSETIFF, dev); err != nil {
		return os.NewSyscallError("make a tun device", err)
	}
	if err := address(dev); err != nil {
		return os.NewSyscallError("give the tun device an address", err)
	}
	queue := make(chan packet, 1<<16)
	go func() {
		for {
			data := make([]byte, 65536)
			n, err := unix.Read(tun, data)
			if err != nil || n < 20 || data[0]>>4 != 4 {
				continue
			}
			// swapping the addresses leaves every checksum as it was
			for i := 12; i < 16; i++ {
				data[i], data[i+4] = data[i+4], data[i]
			}
			queue <- packet{time.Now().Add(roundTrip / 2), data[:n]}
		}
	}()
	go func() {
		runtime.LockOSThread() // nanosleep is finer than the runtime's timers
		for p := range queue {
			if wait := time.Until(p.due); wait > 0 {
				ts := unix.NsecToTimespec(wait.Nanoseconds())
				unix.Nanosleep(&ts, nil)
			}
			unix.Write(tun, p.data)
		}
	}()
	return nil
}

func address(dev *unix.Ifreq) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := dev.SetInet4Addr([]byte{198, 18, 0, 1}); err != nil {
		return err
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFADDR, dev); err != nil {
		return err
	}
	if err := dev.SetInet4Addr([]byte{255, 255, 255, 0}); err != nil {
		return err
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFNETMASK, dev); err != nil {
		return err
	}
	dev.SetUint16(unix.IFF_UP)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, dev)
}
