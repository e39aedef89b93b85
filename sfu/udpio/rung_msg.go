package udpio

import (
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// msg sends one message with one sendmsg(2).
type msg struct {
	socket *socket
	header unix.Msghdr
	frame  frame
}

func openMsg(s *socket) (engine, error) { return &msg{socket: s}, nil }

func (e *msg) send(messages []message) (int, error) {
	e.frame.fill(&e.header, messages[0])
	for {
		_, _, errno := unix.Syscall(unix.SYS_SENDMSG, uintptr(e.socket.fd),
			uintptr(unsafe.Pointer(&e.header)), unix.MSG_DONTWAIT)
		runtime.KeepAlive(messages)
		if done, err := e.socket.settle(errno); err != nil {
			return 0, err
		} else if done {
			return 1, nil
		}
	}
}
