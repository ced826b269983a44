//go:build linux

// Command guest is what a test's virtual machine runs beside busybox: it runs
// commands, watches the clock against the host's while they run, and reports.
//
//	guest run NAME [-uid N] COMMAND…   runs it, as root or with no capability as another user
//	guest set SECONDS                  sets the clock to so many seconds after 1970
//	guest shift MILLISECONDS           moves a synchronized clock, which it stays
//	guest setcap FILE                  gives the file cap_sys_time=ep
//	guest exit N                       ends the machine
package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"ntsclient/test/vm/oracle"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "guest:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) < 2 {
		return errors.New("usage: guest run|set|shift|setcap|exit …")
	}
	switch args[0] {
	case "set":
		seconds, err := strconv.ParseInt(args[1], 10, 64)
		if err != nil {
			return err
		}
		return setTime(seconds)
	case "shift":
		ms, err := strconv.ParseInt(args[1], 10, 32)
		if err != nil {
			return err
		}
		state := unix.Timex{Modes: unix.ADJ_SETOFFSET | unix.ADJ_STATUS | unix.ADJ_MAXERROR}
		state.Time = unix.NsecToTimeval(ms * 1e6)
		_, err = unix.Adjtimex(&state)
		return err
	case "setcap": // struct vfs_cap_data: revision 2 and effective; permitted and inheritable, twice 32 bits
		attr := binary.LittleEndian.AppendUint32(nil, 0x02000000|1)
		attr = binary.LittleEndian.AppendUint32(attr, 1<<unix.CAP_SYS_TIME)
		return unix.Setxattr(args[1], "security.capability", append(attr, make([]byte, 12)...), 0)
	}
	host, err := open("/dev/" + os.Getenv("ORACLE"))
	if err != nil {
		return err
	}
	switch args[0] {
	case "run":
		return watch(host, args[1], args[2:])
	case "exit":
		code, err := strconv.Atoi(args[1])
		if err != nil {
			return err
		}
		if err := host.Exit(code); err != nil {
			return err
		}
		select {} // the host ends the machine
	}
	return fmt.Errorf("unknown command %s", args[0])
}

// open opens a serial port for plain octets.
func open(port string) (*oracle.Host, error) {
	fd, err := unix.Open(port, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", port, err)
	}
	raw := unix.Termios{Cflag: unix.CS8 | unix.CREAD | unix.CLOCAL | unix.B115200}
	raw.Cc[unix.VMIN] = 1
	if err := unix.IoctlSetTermios(fd, unix.TCSETS, &raw); err != nil {
		return nil, fmt.Errorf("set up %s: %w", port, err)
	}
	return oracle.NewHost(os.NewFile(uintptr(fd), port)), nil
}

// watch runs a command, follows the clock's error meanwhile, and reports.
func watch(host *oracle.Host, name string, args []string) error {
	c, err := command(args)
	if err != nil {
		return err
	}
	var stdout, stderr bytes.Buffer
	c.Stdout, c.Stderr = &stdout, &stderr
	anchor, err := host.Ask(raw)
	if err != nil {
		return err
	}
	record := oracle.Record{Name: name, Before: clockError(anchor)}
	began := raw()
	if err := c.Start(); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- c.Wait() }()
	poll := time.NewTicker(2 * time.Millisecond)
	for running := true; running; {
		select {
		case err = <-ended:
			running = false
		case <-poll.C:
		}
		if record.Right == 0 && clockError(anchor).Abs() < oracle.Near {
			record.Right = time.Duration(raw() - began)
		}
	}
	record.Took = time.Duration(raw() - began)
	if c.ProcessState == nil {
		return err
	}
	record.Exit = c.ProcessState.ExitCode()
	record.Stdout, record.Stderr = stdout.String(), stderr.String()
	fmt.Printf("%s: exit %d\n%s%s", name, record.Exit, record.Stdout, record.Stderr)
	if anchor, err = host.Ask(raw); err != nil {
		return err
	}
	record.After, record.Trip = clockError(anchor), anchor.Trip
	var state unix.Timex
	if _, err := unix.Adjtimex(&state); err != nil {
		return err
	}
	record.MaxError, record.Status = time.Duration(state.Maxerror)*time.Microsecond, state.Status
	record.Frequency, record.Tick = int64(state.Freq), int64(state.Tick)
	slew := unix.Timex{Modes: unix.ADJ_OFFSET_SS_READ}
	if _, err := unix.Adjtimex(&slew); err != nil {
		return err
	}
	record.Pending = time.Duration(slew.Offset) * time.Microsecond
	return host.Report(record)
}

func command(args []string) (*exec.Cmd, error) {
	attr := &syscall.SysProcAttr{}
	if len(args) > 1 && args[0] == "-uid" {
		uid, err := strconv.ParseUint(args[1], 10, 32)
		if err != nil {
			return nil, err
		}
		attr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}
		args = args[2:]
	}
	if len(args) == 0 {
		return nil, errors.New("run: no command")
	}
	c := exec.Command(args[0], args[1:]...)
	c.SysProcAttr = attr
	return c, nil
}

// clockError is by how much the guest's clock is ahead of the true time.
func clockError(a oracle.Anchor) time.Duration {
	now, at := pair()
	return time.Duration(now - a.True - (at - a.Raw))
}

// pair reads the clock and the raw clock at the same time: the closest of a few
// tries, since the process may be put aside between the two.
func pair() (now, at int64) {
	best := int64(-1)
	for range 5 {
		before := raw()
		middle := time.Now().UnixNano() // on 32-bit processors good until 2106
		after := raw()
		if took := after - before; best < 0 || took < best {
			best, now, at = took, middle, before+took/2
		}
	}
	return now, at
}

func raw() int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC_RAW, &ts); err != nil {
		panic(err)
	}
	return ts.Nano()
}
