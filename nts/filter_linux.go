package nts

import (
	"encoding/binary"
	"net"

	"golang.org/x/sys/unix"
)

// heed makes the kernel drop all packets that are no answer to a request that
// left with this transmit timestamp. Who floods the socket without having seen
// the request then fills no buffer, in which the answer would find no room, and
// costs no turn of ours. Where the kernel does not do that, each packet is read,
// and dropped as well. Who has seen the request has a large buffer to fill.
func heed(conn *net.UDPConn, transmit [8]byte) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return
	}
	const header = 8 // of UDP, which is where a filter begins to count
	load := func(size uint16, at uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | size | unix.BPF_ABS, K: header + at}
	}
	// otherwise skips to the last instruction, which drops.
	otherwise := func(value uint32, skip uint8) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: value, Jf: skip}
	}
	program := []unix.SockFilter{
		load(unix.BPF_B, 0), // beyond the end of a packet a load drops it
		{Code: unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, K: versionAndMode},
		otherwise(answerByte, 5),
		load(unix.BPF_W, 24),
		otherwise(binary.BigEndian.Uint32(transmit[:]), 3),
		load(unix.BPF_W, 28),
		otherwise(binary.BigEndian.Uint32(transmit[4:]), 1),
		{Code: unix.BPF_RET | unix.BPF_K, K: 1 << 16}, // the whole packet
		{Code: unix.BPF_RET | unix.BPF_K},
	}
	raw.Control(func(fd uintptr) {
		unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{
			Len: uint16(len(program)), Filter: &program[0],
		})
	})
}
