package udpio

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// tryTimeout bounds the wait for a datagram over loopback.
const tryTimeout = 200 * time.Millisecond

// unsupported is a conclusive no.
func unsupported(what string, cause error) error {
	return fmt.Errorf("%s: %w: %w", what, errors.ErrUnsupported, cause)
}

func trySendmmsg() error { return trySyscall("sendmmsg", unix.SYS_SENDMMSG) }
func trySendmsg() error  { return trySyscall("sendmsg", unix.SYS_SENDMSG) }
func tryRecvmmsg() error { return trySyscall("recvmmsg", unix.SYS_RECVMMSG) }

// trySyscall calls a system call on no socket: EBADF says it is there.
func trySyscall(name string, number uintptr) error {
	const none = ^uintptr(0)
	_, _, errno := unix.Syscall6(number, none, 0, 0, 0, 0, 0)
	switch errno {
	case unix.EBADF:
		return nil
	case unix.ENOSYS, unix.EPERM, unix.EACCES:
		return unsupported(name, errno)
	}
	return fmt.Errorf("%s: unexpected answer: %w", name, errno)
}

// tryOption tells what an error from a UDP socket option means.
func tryOption(name string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.ENOPROTOOPT), errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EPERM):
		return unsupported(name, err)
	}
	return fmt.Errorf("%s: %w", name, err)
}

func trySegment() error {
	const name = "UDP_SEGMENT"
	from, to, err := loopback()
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	defer from.close()
	defer to.close()
	if _, err := unix.GetsockoptInt(from.fd, unix.SOL_UDP, unix.UDP_SEGMENT); err != nil {
		return tryOption(name, err)
	}
	parts, err := sendTrain(from, to)
	if refusesTrain(err) {
		return unsupported(name, err)
	} else if err != nil {
		return fmt.Errorf("%s: send a train: %w", name, err)
	}
	if err := receiveParts(to, parts); errors.Is(err, errChanged) {
		return unsupported(name, err)
	} else if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

func tryGRO() error {
	const name = "UDP_GRO"
	from, to, err := loopback()
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	defer from.close()
	defer to.close()
	if err := to.setGRO(); err != nil {
		return tryOption(name, err)
	}
	parts, err := sendTrain(from, to)
	if err != nil {
		return nil // without trains nothing more can be tried
	}
	buf := make([]byte, receiveBytes)
	n, segment, err := receiveOne(to, buf)
	switch {
	case err != nil:
		return fmt.Errorf("%s: receive a train: %w", name, err)
	case segment == 0 && n == len(parts[0]): // taken apart on the way, which is fine
		return nil
	case segment != len(parts[0]) || !bytes.Equal(buf[:n], bytes.Join(parts, nil)):
		return unsupported(name, fmt.Errorf("a train of %d arrived as %d bytes of %d", len(parts[0]), n, segment))
	}
	return nil
}

// refusesTrain reports whether an error from a send says that trains cannot be.
func refusesTrain(err error) bool {
	return errors.Is(err, unix.EIO) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EMSGSIZE) || errors.Is(err, unix.EOPNOTSUPP)
}

// loopback returns two sockets that reach each other.
func loopback() (from, to *socket, err error) {
	for _, ip := range []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()} {
		if from, err = openSocket(netip.AddrPortFrom(ip, 0)); err != nil {
			continue
		}
		if to, err = openSocket(netip.AddrPortFrom(ip, 0)); err == nil {
			return from, to, nil
		}
		from.close()
	}
	return nil, nil, err
}

// sendTrain sends trainParts as one.
func sendTrain(from, to *socket) (parts [][]byte, err error) {
	e, err := openMsg(from)
	if err != nil {
		return nil, err
	}
	parts = trainParts()
	return parts, sendParts(e, from, to, parts)
}

// trainParts returns three datagrams, the last one shorter.
func trainParts() (parts [][]byte) {
	for i, n := range []int{1200, 1200, 700} {
		parts = append(parts, bytes.Repeat([]byte{byte('a' + i)}, n))
	}
	return parts
}

// sendParts sends datagrams as one message.
func sendParts(e engine, from, to *socket, parts [][]byte) error {
	sa, err := encode(to.local, from.family)
	if err != nil {
		return err
	}
	_, err = e.send([]message{{dest: &destination{addr: to.local, to: sa}, parts: parts}})
	return err
}

// errChanged is of a datagram that arrived not as it left.
var errChanged = errors.New("arrived changed")

// receiveParts waits for the datagrams of a message and compares them.
func receiveParts(to *socket, parts [][]byte) error {
	buf := make([]byte, receiveBytes)
	for i, want := range parts {
		n, _, err := receiveOne(to, buf)
		if err != nil {
			return fmt.Errorf("receive datagram %d of a train: %w", i, err)
		}
		if !bytes.Equal(buf[:n], want) {
			return fmt.Errorf("datagram %d of a train %w", i, errChanged)
		}
	}
	return nil
}

// receiveOne waits for one message, and returns its length and what UDP_GRO
// says of its datagrams.
func receiveOne(s *socket, buf []byte) (n, segment int, err error) {
	ready, err := unix.Poll([]unix.PollFd{{Fd: int32(s.fd), Events: unix.POLLIN}}, int(tryTimeout.Milliseconds()))
	if err != nil {
		return 0, 0, os.NewSyscallError("poll", err)
	}
	if ready == 0 {
		return 0, 0, os.ErrDeadlineExceeded
	}
	control := make([]byte, receiveControl)
	n, m, _, _, err := unix.Recvmsg(s.fd, buf, control, 0)
	if err != nil {
		return 0, 0, os.NewSyscallError("recvmsg", err)
	}
	return n, segmentSize(control[:m]), nil
}
