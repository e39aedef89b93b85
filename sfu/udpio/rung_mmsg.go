package udpio

import (
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// mmsghdr is struct mmsghdr of recvmmsg(2) and sendmmsg(2).
type mmsghdr struct {
	hdr unix.Msghdr
	n   uint32 // bytes sent or received
}

// mmsg sends up to maxMessages with one sendmmsg(2); a message of several parts
// is a train (udp(7), UDP_SEGMENT).
type mmsg struct {
	socket  *socket
	headers [maxMessages]mmsghdr
	frames  [maxMessages]frame
}

func openMmsg(s *socket) (engine, error) { return &mmsg{socket: s}, nil }

func (e *mmsg) send(messages []message) (int, error) {
	count := min(len(messages), maxMessages)
	for i, m := range messages[:count] {
		e.frames[i].fill(&e.headers[i].hdr, m)
	}
	for {
		n, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(e.socket.fd),
			uintptr(unsafe.Pointer(&e.headers)), uintptr(count), unix.MSG_DONTWAIT, 0, 0)
		runtime.KeepAlive(messages)
		if done, err := e.socket.settle(errno); err != nil {
			return 0, err
		} else if done {
			return int(n), nil
		}
	}
}
