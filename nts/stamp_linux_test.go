package nts

import (
	"encoding/binary"
	"net"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"ntsclient/nts/ntstest"
)

// words writes numbers as the machine has them, of 32 or 64 bits each.
func words(size int, all ...int64) (b []byte) {
	for _, n := range all {
		if size == 64 {
			b = binary.NativeEndian.AppendUint64(b, uint64(n))
		} else {
			b = binary.NativeEndian.AppendUint32(b, uint32(n))
		}
	}
	return b
}

// control is a control message of this machine.
func control(level, kind int32, data []byte) []byte {
	b := make([]byte, unix.CmsgSpace(len(data)))
	h := (*unix.Cmsghdr)(unsafe.Pointer(&b[0]))
	h.Level, h.Type = level, kind
	h.SetLen(unix.CmsgLen(len(data)))
	copy(b[unix.CmsgLen(0):], data)
	return b
}

func TestStampOf(t *testing.T) {
	const after2038 = 1 << 32
	fresh := control(unix.SOL_SOCKET, unix.SO_TIMESTAMPING_NEW, words(64, after2038, 5, 0, 0, 0, 0))
	foreign := control(unix.SOL_IP, unix.SO_TIMESTAMPING_NEW, words(64, 1, 2, 0, 0, 0, 0))
	native := 8 * int(unsafe.Sizeof(uintptr(0)))
	for _, test := range []struct {
		name string
		oob  []byte
		want time.Time
	}{
		{"nothing", nil, time.Time{}},
		{"new kind", fresh, time.Unix(after2038, 5)},
		{"old kind", control(unix.SOL_SOCKET, unix.SO_TIMESTAMPING, words(native, 1700000000, 5, 0, 0, 0, 0)), time.Unix(1700000000, 5)},
		{"after others", append(foreign, fresh...), time.Unix(after2038, 5)},
		{"of another level", foreign, time.Time{}},
		{"of another type", control(unix.SOL_SOCKET, unix.SCM_RIGHTS, words(64, 1, 2)), time.Time{}},
		{"only of the hardware", control(unix.SOL_SOCKET, unix.SO_TIMESTAMPING_NEW, words(64, 0, 0, 0, 0, 1, 2)), time.Time{}},
		{"too short", control(unix.SOL_SOCKET, unix.SO_TIMESTAMPING_NEW, words(64, 1)), time.Time{}},
		{"cut", fresh[:len(fresh)-40], time.Time{}},
		{"octets", []byte{1, 2, 3}, time.Time{}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := stampOf(test.oob); !got.Equal(test.want) {
				t.Errorf("%v, want %v", got, test.want)
			}
		})
	}
}

func TestTimespec(t *testing.T) {
	for _, test := range []struct {
		data []byte
		size int
		want time.Time
	}{
		{words(64, 1<<33, 999999999, 0, 0), 64, time.Unix(1<<33, 999999999)},
		{words(32, 1700000000, 7, 0, 0), 32, time.Unix(1700000000, 7)},
		{words(32, -1, 7), 32, time.Unix(-1, 7)},
		{words(64, 0, 7), 64, time.Unix(0, 7)},
		{words(64, 0, 0, 1, 1), 64, time.Time{}},
		{words(32, 0, 0, 1, 1), 32, time.Time{}},
		{words(64, 1, 2)[:15], 64, time.Time{}},
		{words(32, 1, 2)[:7], 32, time.Time{}},
		{nil, 64, time.Time{}},
	} {
		if got := timespec(test.data, test.size); !got.Equal(test.want) || got.IsZero() != test.want.IsZero() {
			t.Errorf("%x of %d bits: %v, want %v", test.data, test.size, got, test.want)
		}
	}
}

// On loopback the kernel stamps both ways, whichever kind it has.
func TestKernelStamps(t *testing.T) {
	s := start(t, ntstest.Options{})
	session := establish(t, s)
	for range 5 {
		sample, err := session.Exchange(enough(t), Route{})
		if err != nil {
			t.Fatal(err)
		}
		if !sample.Kernel {
			t.Error("the stamps are not the kernel's")
		}
		if sample.T1.After(sample.T2.Add(time.Microsecond)) || sample.T3.After(sample.T4.Add(time.Microsecond)) {
			t.Errorf("%v, %v, %v, %v are not one after the other", sample.T1, sample.T2, sample.T3, sample.T4)
		}
	}
}

// Both kinds of option lead to stamps of this socket's packets; none leads to
// those that we take ourselves.
func TestStampOptions(t *testing.T) {
	s := start(t, ntstest.Options{})
	session := establish(t, s)
	if err := session.ciphers(); err != nil {
		t.Fatal(err)
	}
	const flags = unix.SOF_TIMESTAMPING_SOFTWARE | unix.SOF_TIMESTAMPING_RX_SOFTWARE |
		unix.SOF_TIMESTAMPING_TX_SOFTWARE | unix.SOF_TIMESTAMPING_OPT_TSONLY
	for _, test := range []struct {
		name   string
		option int // 0: refused
		flags  int
		kernel bool
	}{
		{"new", unix.SO_TIMESTAMPING_NEW, flags, true},
		{"old", unix.SO_TIMESTAMPING, flags, true},
		{"only received", unix.SO_TIMESTAMPING_NEW, flags &^ unix.SOF_TIMESTAMPING_TX_SOFTWARE, false},
		{"refused", 0, 0, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(s.NTP()))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			x := &exchange{conn: conn}
			if x.raw, err = conn.SyscallConn(); err != nil {
				t.Fatal(err)
			}
			x.raw.Control(func(fd uintptr) {
				if test.option != 0 {
					err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, test.option, test.flags)
				}
			})
			if err != nil {
				t.Fatal(err)
			}
			req := newRequest(session.seal, session.AEAD.nonceLen(), session.take(), 0)
			before := time.Now()
			if _, err := conn.Write(req.raw); err != nil {
				t.Fatal(err)
			}
			conn.SetReadDeadline(before.Add(10 * time.Second))
			a, err := x.await(session, req)
			if err != nil {
				t.Fatal(err)
			}
			sample, err := x.sample(before, a, s.NTP())
			if err != nil || sample.Kernel != test.kernel {
				t.Fatalf("%+v, %v; want kernel %v", sample, err, test.kernel)
			}
			received, sent := !sample.T4.Equal(sample.At), !sample.T1.Equal(before)
			wantR, wantS := test.flags&unix.SOF_TIMESTAMPING_RX_SOFTWARE != 0, test.flags&unix.SOF_TIMESTAMPING_TX_SOFTWARE != 0
			if received != wantR || sent != wantS || sample.T4.Before(sample.T1) {
				t.Errorf("kernel stamps: received %v, sent %v; want %v, %v", received, sent, wantR, wantS)
			}
		})
	}
	t.Run("no socket below", func(t *testing.T) {
		if x := new(exchange); !x.sent().IsZero() {
			t.Error("a stamp from nowhere")
		}
	})
}
