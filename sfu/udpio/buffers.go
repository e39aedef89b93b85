package udpio

import (
	"fmt"
	"log/slog"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A bufferSize is what was asked of the kernel for a socket buffer and what it
// gave, in bytes of payload and the kernel's own.
type bufferSize struct {
	name        string // "receive" or "send"
	asked, have int
	sysctl      string
}

// remedy says how to get what was asked, empty where it was given.
func (b bufferSize) remedy() string {
	if b.have >= b.asked {
		return ""
	}
	return fmt.Sprintf("sysctl -w %s=%d on the host, or CAP_NET_ADMIN", b.sysctl, b.asked)
}

// setBuffers asks for bytes in each direction, by force where that is allowed.
func (s *socket) setBuffers(bytes int) []bufferSize {
	return []bufferSize{
		{"receive", bytes, setBuffer(s.fd, unix.SO_RCVBUF, unix.SO_RCVBUFFORCE, bytes), "net.core.rmem_max"},
		{"send", bytes, setBuffer(s.fd, unix.SO_SNDBUF, unix.SO_SNDBUFFORCE, bytes), "net.core.wmem_max"},
	}
}

// setBuffer returns what the buffer has afterwards. The kernel doubles what it
// is asked for, to have room for its own, and reports the double (socket(7)).
func setBuffer(fd, option, force, bytes int) int {
	for _, o := range []int{option, force} {
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, o, bytes) // judged by what is read back
		if n, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, option); err == nil && n/2 >= bytes {
			return n / 2
		}
	}
	n, _ := unix.GetsockoptInt(fd, unix.SOL_SOCKET, option)
	return n / 2
}

// receiveDrops is how many datagrams the kernel dropped because the receive
// buffer was full, 0 where it does not tell.
func receiveDrops(fd int) uint64 {
	var info [unix.SK_MEMINFO_VARS]uint32
	length := uint32(unsafe.Sizeof(info))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_MEMINFO,
		uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&length)), 0)
	if errno != 0 {
		return 0
	}
	return uint64(info[unix.SK_MEMINFO_DROPS])
}

// receiveDrops is that of the socket, or what it was when it was closed.
func (s *socket) receiveDrops() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return s.drops
	}
	return receiveDrops(s.fd)
}

func logStart(log *slog.Logger, local netip.AddrPort, rung, why, receives string, buffers []bufferSize) {
	attrs := []any{"address", local, "send", rung, "receive", receives}
	if why != "" {
		attrs = append(attrs, "why", why)
	}
	log.Info("UDP socket open", attrs...)
	for _, b := range buffers {
		if remedy := b.remedy(); remedy != "" {
			log.Warn("UDP socket buffer is small", "buffer", b.name, "bytes", b.have, "asked", b.asked, "remedy", remedy)
		}
	}
}
