package udpio

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// linger bounds how long a closing Conn waits for room in the socket's buffer.
const linger = 50 * time.Millisecond

// A socket is a bound UDP socket.
//
// It is not registered with Go's netpoller, which would ask for EPOLLOUT too:
// then every datagram the kernel frees wakes the thread in epoll_wait, at up to
// twice the cost of the send. See also mmsgReceiver.
type socket struct {
	fd     int
	family int
	local  netip.AddrPort
	sendBy atomic.Int64 // Unix nanoseconds; 0: whenever

	mu     sync.Mutex
	conn   *net.UDPConn // the same socket as Go's net knows it, if anyone asked
	closed bool
	drops  uint64 // of the closed socket
}

// openSocket binds a socket without SO_REUSEADDR or SO_REUSEPORT: a port that
// another process has is an error, and one that a dead process had is free.
func openSocket(addr netip.AddrPort) (*socket, error) {
	if !addr.Addr().IsValid() {
		return nil, &net.AddrError{Err: "no address", Addr: addr.String()}
	}
	s := &socket{family: unix.AF_INET6}
	if addr.Addr().Unmap().Is4() {
		s.family = unix.AF_INET
	}
	fd, err := unix.Socket(s.family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	s.fd = fd
	if err := s.bind(addr); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return s, nil
}

func (s *socket) bind(addr netip.AddrPort) error {
	if s.family == unix.AF_INET6 {
		only := 1
		if addr.Addr().IsUnspecified() {
			only = 0
		}
		if err := unix.SetsockoptInt(s.fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, only); err != nil {
			return os.NewSyscallError("setsockopt IPV6_V6ONLY", err)
		}
	}
	sa, err := toUnix(addr)
	if err != nil {
		return err
	}
	if err := unix.Bind(s.fd, sa); err != nil {
		return os.NewSyscallError("bind", err)
	}
	bound, err := unix.Getsockname(s.fd)
	if err != nil {
		return os.NewSyscallError("getsockname", err)
	}
	s.local = netip.AddrPortFrom(addr.Addr().Unmap(), port(bound))
	return nil
}

// toUnix is addr as x/sys/unix takes it.
func toUnix(addr netip.AddrPort) (unix.Sockaddr, error) {
	ip := addr.Addr().Unmap()
	if ip.Is4() {
		return &unix.SockaddrInet4{Port: int(addr.Port()), Addr: ip.As4()}, nil
	}
	zone, err := scopeID(ip.Zone())
	if err != nil {
		return nil, err
	}
	return &unix.SockaddrInet6{Port: int(addr.Port()), Addr: ip.As16(), ZoneId: zone}, nil
}

func port(sa unix.Sockaddr) uint16 {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return uint16(sa.Port)
	case *unix.SockaddrInet6:
		return uint16(sa.Port)
	}
	return 0
}

// netConn returns the socket as Go's net knows it, over a descriptor of its own.
func (s *socket) netConn() (*net.UDPConn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn != nil {
		return s.conn, nil
	}
	fd, err := unix.FcntlInt(uintptr(s.fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("fcntl F_DUPFD_CLOEXEC", err)
	}
	file := os.NewFile(uintptr(fd), "udp")
	defer file.Close()
	conn, err := net.FilePacketConn(file)
	if err != nil {
		return nil, err
	}
	s.conn = conn.(*net.UDPConn) // of a datagram socket of these families it is one
	if by := s.sendBy.Load(); by != 0 {
		err = s.conn.SetWriteDeadline(time.Unix(0, by))
	}
	return s.conn, err
}

// expire lets sends that wait for room fail, from linger after now on.
func (s *socket) expire() error {
	by := time.Now().Add(linger)
	s.sendBy.Store(by.UnixNano())
	s.mu.Lock()
	conn := s.conn
	s.mu.Unlock()
	if conn == nil {
		return nil
	}
	return conn.SetWriteDeadline(by)
}

// waitWritable waits for room in the send buffer, or until expire says otherwise.
func (s *socket) waitWritable() error {
	const most = linger / 5
	for {
		if by := s.sendBy.Load(); by != 0 && time.Now().UnixNano() > by {
			return net.ErrClosed
		}
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(s.fd), Events: unix.POLLOUT}}, int(most.Milliseconds()))
		if err != nil && err != unix.EINTR {
			return os.NewSyscallError("poll", err)
		}
		if n > 0 {
			return nil
		}
	}
}

func (s *socket) close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drops, s.closed = receiveDrops(s.fd), true
	var err error
	if s.conn != nil {
		err = s.conn.Close()
	}
	return errors.Join(err, os.NewSyscallError("close", unix.Close(s.fd)))
}

// settle judges the outcome of a system call that sends: done, or to be done
// again since there is room now.
func (s *socket) settle(errno unix.Errno) (done bool, err error) {
	switch errno {
	case 0:
		return true, nil
	case unix.EINTR:
		return false, nil
	case unix.EAGAIN:
		err := s.waitWritable()
		return err != nil, err
	}
	return true, errno
}

// setGRO asks for datagrams of one sender to be merged on receipt.
func (s *socket) setGRO() error {
	return os.NewSyscallError("setsockopt UDP_GRO", unix.SetsockoptInt(s.fd, unix.SOL_UDP, unix.UDP_GRO, 1))
}
