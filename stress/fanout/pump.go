package fanout

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A pump reads many UDP sockets with one goroutine: a viewer that costs little
// leaves the machine to the SFU.
type pump struct {
	epoll, wake int
	done        chan struct{}

	mu   sync.Mutex   // guards taps and what their take counts
	taps map[int]*tap // by file descriptor

	// Of the goroutine alone.
	headers  [atOnce]mmsghdr
	iovecs   [atOnce]unix.Iovec
	buffers  [atOnce][64 << 10]byte
	controls [atOnce][64]byte
	from     [atOnce]unix.RawSockaddrAny
}

// atOnce is how many messages are taken from a socket with one recvmmsg(2).
const atOnce = 16

// socketBuffer is asked of the kernel for each receiving socket, in bytes.
const socketBuffer = 4 << 20

func newPump() (*pump, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, errors.Join(os.NewSyscallError("eventfd", err), unix.Close(epoll))
	}
	p := &pump{epoll: epoll, wake: wake, done: make(chan struct{}), taps: map[int]*tap{}}
	p.point()
	if err := p.watch(wake); err != nil {
		return nil, errors.Join(err, unix.Close(wake), unix.Close(epoll))
	}
	go p.run()
	return p, nil
}

func (p *pump) watch(fd int) error {
	event := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)}
	return os.NewSyscallError("epoll_ctl", unix.EpollCtl(p.epoll, unix.EPOLL_CTL_ADD, fd, &event))
}

// close ends the pump, whose taps are closed.
func (p *pump) close() error {
	one := make([]byte, 8)
	binary.NativeEndian.PutUint64(one, 1)
	if _, err := unix.Write(p.wake, one); err != nil {
		return os.NewSyscallError("write eventfd", err)
	}
	<-p.done
	return errors.Join(unix.Close(p.wake), unix.Close(p.epoll))
}

func (p *pump) run() {
	defer close(p.done)
	events := make([]unix.EpollEvent, 128)
	for {
		n, err := unix.EpollWait(p.epoll, events, -1)
		if err != nil && err != unix.EINTR {
			return
		}
		p.mu.Lock()
		for i := range max(n, 0) {
			if t := p.taps[int(events[i].Fd)]; t != nil {
				p.receive(t)
			} else if int(events[i].Fd) == p.wake {
				p.mu.Unlock()
				return
			}
		}
		p.mu.Unlock()
	}
}

// receive takes some messages from a readable socket. Where there are more epoll
// says so again.
func (p *pump) receive(t *tap) {
	for i := range p.headers {
		h := &p.headers[i].header
		h.Namelen = unix.SizeofSockaddrAny
		h.SetControllen(len(p.controls[i]))
	}
	count, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, uintptr(t.fd), uintptr(unsafe.Pointer(&p.headers)), atOnce, unix.MSG_DONTWAIT, 0, 0)
	if errno != 0 {
		return
	}
	now := time.Now()
	for i := range int(count) {
		h := &p.headers[i]
		message := p.buffers[i][:h.n]
		segment := segmentSize(p.controls[i][:h.header.Controllen], len(message))
		for len(message) > 0 {
			size := min(segment, len(message))
			t.take(message[:size], &p.from[i], now)
			message = message[size:]
		}
	}
}

// point has the headers point to their memory, which is the pump's own.
func (p *pump) point() {
	for i := range p.headers {
		p.iovecs[i].Base = &p.buffers[i][0]
		p.iovecs[i].SetLen(len(p.buffers[i]))
		h := &p.headers[i].header
		h.Name, h.Iov, h.Control = (*byte)(unsafe.Pointer(&p.from[i])), &p.iovecs[i], &p.controls[i][0]
		h.SetIovlen(1)
	}
}

// segmentSize is the length of the datagrams that were merged into a message of
// that length, by its one control message.
func segmentSize(control []byte, message int) int {
	if len(control) < unix.CmsgLen(4) {
		return message
	}
	header := (*unix.Cmsghdr)(unsafe.Pointer(&control[0]))
	if header.Level != unix.SOL_UDP || header.Type != unix.UDP_GRO {
		return message
	}
	return max(1, int(int32(binary.NativeEndian.Uint32(control[unix.CmsgLen(0):]))))
}

// A tap is one of a pump's sockets. Its packets are counted from their RTP
// headers, which are not encrypted; pass says which of them, besides what is
// not RTP, go on to those who read the tap, a net.PacketConn.
type tap struct {
	pump  *pump
	fd    int
	local *net.UDPAddr
	pass  func(n uint64, packet []byte, at time.Time) bool

	flow    flow
	ssrc    uint32
	strange uint64 // RTP packets of a second SSRC
	last    time.Time

	in    chan datagram
	full  uint64 // not passed on because in was full
	gone  chan struct{}
	close sync.Once
}

type datagram struct {
	data []byte
	from *net.UDPAddr
}

// open binds a socket to any port of addr. Where whole is set trains come up to
// here uncut (udp(7), UDP_GRO). pass is called with the pump locked.
func (p *pump) open(addr netip.Addr, whole bool, pass func(uint64, []byte, time.Time) bool) (*tap, error) {
	fd, local, err := listenUDP(addr, whole)
	if err != nil {
		return nil, err
	}
	t := &tap{pump: p, fd: fd, local: local, pass: pass, in: make(chan datagram, 256), gone: make(chan struct{})}
	p.mu.Lock()
	p.taps[fd] = t
	p.mu.Unlock()
	if err := p.watch(fd); err != nil {
		return nil, errors.Join(err, t.Close())
	}
	return t, nil
}

func listenUDP(addr netip.Addr, whole bool) (fd int, local *net.UDPAddr, err error) {
	family, sa := unix.AF_INET, unix.Sockaddr(&unix.SockaddrInet4{Addr: addr.As4()})
	if addr.Is6() {
		family, sa = unix.AF_INET6, &unix.SockaddrInet6{Addr: addr.As16()}
	}
	fd, err = unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, nil, os.NewSyscallError("socket", err)
	}
	defer func() {
		if err != nil {
			unix.Close(fd)
		}
	}()
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, socketBuffer) != nil {
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, socketBuffer) // as much as net.core.rmem_max allows
	}
	if whole {
		unix.SetsockoptInt(fd, unix.SOL_UDP, unix.UDP_GRO, 1) // a kernel without it cuts trains
	}
	if err := unix.Bind(fd, sa); err != nil {
		return -1, nil, fmt.Errorf("bind udp %s: %w", addr, err)
	}
	bound, err := unix.Getsockname(fd)
	if err != nil {
		return -1, nil, os.NewSyscallError("getsockname", err)
	}
	port := 0
	switch sa := bound.(type) {
	case *unix.SockaddrInet4:
		port = sa.Port
	case *unix.SockaddrInet6:
		port = sa.Port
	}
	return fd, net.UDPAddrFromAddrPort(netip.AddrPortFrom(addr, uint16(port))), nil
}

// take deals with one datagram, with the pump locked.
func (t *tap) take(b []byte, from *unix.RawSockaddrAny, now time.Time) {
	if isRTP(b) {
		ssrc := binary.BigEndian.Uint32(b[8:])
		if !t.flow.started {
			t.ssrc = ssrc
		}
		if ssrc != t.ssrc {
			t.strange++
			return
		}
		t.last = now
		if !t.pass(t.flow.add(binary.BigEndian.Uint16(b[2:])), b, now) {
			return
		}
	}
	select {
	case t.in <- datagram{append([]byte(nil), b...), sender(from)}:
	default:
		t.full++
	}
}

// overflowed is how many datagrams the kernel dropped because the socket's buffer
// was full.
func (t *tap) overflowed() uint64 {
	var info [unix.SK_MEMINFO_VARS]uint32
	length := uint32(unsafe.Sizeof(info))
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(t.fd), unix.SOL_SOCKET, unix.SO_MEMINFO,
		uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&length)), 0)
	if errno != 0 {
		return 0
	}
	return uint64(info[unix.SK_MEMINFO_DROPS])
}

// isRTP tells RTP from STUN and DTLS (RFC 7983) and from RTCP (RFC 5761).
func isRTP(b []byte) bool {
	return len(b) >= rtpHeaderSize && b[0]>>6 == 2 && (b[1] < 192 || b[1] > 223)
}

func sender(from *unix.RawSockaddrAny) *net.UDPAddr {
	six := (*unix.RawSockaddrInet6)(unsafe.Pointer(from))
	port := binary.BigEndian.Uint16((*[2]byte)(unsafe.Pointer(&six.Port))[:])
	if from.Addr.Family == unix.AF_INET {
		four := (*unix.RawSockaddrInet4)(unsafe.Pointer(from))
		return net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.AddrFrom4(four.Addr), port))
	}
	return net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.AddrFrom16(six.Addr), port))
}

// ReadFrom implements net.PacketConn.
func (t *tap) ReadFrom(b []byte) (int, net.Addr, error) {
	select {
	case d := <-t.in:
		return copy(b, d.data), d.from, nil
	case <-t.gone:
		return 0, nil, net.ErrClosed
	}
}

// WriteTo implements net.PacketConn.
func (t *tap) WriteTo(b []byte, to net.Addr) (int, error) {
	select {
	case <-t.gone:
		return 0, net.ErrClosed
	default:
	}
	addr := to.(*net.UDPAddr).AddrPort()
	sa := unix.Sockaddr(&unix.SockaddrInet6{Addr: addr.Addr().As16(), Port: int(addr.Port())})
	if ip := addr.Addr().Unmap(); ip.Is4() {
		sa = &unix.SockaddrInet4{Addr: ip.As4(), Port: int(addr.Port())}
	}
	if err := unix.Sendto(t.fd, b, 0, sa); err != nil {
		return 0, os.NewSyscallError("sendto", err)
	}
	return len(b), nil
}

// Close implements net.PacketConn.
func (t *tap) Close() error {
	var err error
	t.close.Do(func() {
		close(t.gone)
		t.pump.mu.Lock()
		defer t.pump.mu.Unlock()
		delete(t.pump.taps, t.fd)
		err = unix.Close(t.fd)
	})
	return err
}

// LocalAddr implements net.PacketConn.
func (t *tap) LocalAddr() net.Addr { return t.local }

// SetDeadline implements net.PacketConn; nobody here waits but until Close.
func (t *tap) SetDeadline(time.Time) error { return nil }

// SetReadDeadline implements net.PacketConn.
func (t *tap) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline implements net.PacketConn.
func (t *tap) SetWriteDeadline(time.Time) error { return nil }
