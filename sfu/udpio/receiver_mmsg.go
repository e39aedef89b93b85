package udpio

import (
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	maxReceive     = 32       // datagrams, or merged ones, of one recvmmsg
	receiveBytes   = 64 << 10 // of one of them; memory is used as far as it is filled
	receiveControl = 64       // bytes of control messages
)

// mmsgReceiver reads with recvmmsg(2) of as many datagrams as there are, merged
// ones (udp(7), UDP_GRO) taken apart.
//
// Go's netpoller must know when there is something to read, and must not hear
// about each datagram sent. So it watches an epoll set, not the socket; the
// set's only member is the socket, with EPOLLIN alone.
type mmsgReceiver struct {
	fd       int
	counters *counters
	log      *slog.Logger
	set      *os.File // the epoll set
	ready    syscall.RawConn
	fill     func(uintptr) bool // r.receive, made once
	closed   atomic.Bool

	mu      sync.Mutex // of all below
	single  bool       // recvmmsg is refused, recvmsg takes its place
	refusal error      // to be logged
	want    int        // how many to ask for
	count   int        // received
	err     error
	current int // message that read takes from
	offset  int // in it
	headers [maxReceive]mmsghdr
	iovecs  [maxReceive]unix.Iovec
	from    [maxReceive]sockaddr
	control [maxReceive][receiveControl]byte
	data    []byte // receiveBytes for each
}

func newMmsgReceiver(s *socket, c *counters, log *slog.Logger, single bool) (*mmsgReceiver, error) {
	set, err := epollSet(s.fd)
	if err != nil {
		return nil, err
	}
	ready, err := set.SyscallConn()
	if err == nil {
		err = set.SetReadDeadline(time.Time{}) // which fails if the netpoller did not take it
	}
	if err != nil {
		return nil, errors.Join(err, set.Close())
	}
	r := &mmsgReceiver{fd: s.fd, counters: c, log: log, set: set, ready: ready, single: single, want: 1, data: make([]byte, maxReceive*receiveBytes)}
	r.fill = r.receive
	for i := range r.headers {
		r.iovecs[i].Base = &r.data[i*receiveBytes]
		r.iovecs[i].SetLen(receiveBytes)
		h := &r.headers[i].hdr
		h.Name = (*byte)(unsafe.Pointer(&r.from[i].raw))
		h.Iov = &r.iovecs[i]
		h.SetIovlen(1)
		h.Control = &r.control[i][0]
	}
	return r, nil
}

// epollSet returns an epoll set that is readable when the socket is.
func epollSet(fd int) (*os.File, error) {
	set, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	event := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)}
	if err := unix.EpollCtl(set, unix.EPOLL_CTL_ADD, fd, &event); err != nil {
		unix.Close(set)
		return nil, os.NewSyscallError("epoll_ctl", err)
	}
	if err := unix.SetNonblock(set, true); err != nil { // what os.NewFile takes for pollable
		unix.Close(set)
		return nil, os.NewSyscallError("fcntl O_NONBLOCK", err)
	}
	return os.NewFile(uintptr(set), "epoll"), nil
}

func (r *mmsgReceiver) read(b []byte) (int, netip.AddrPort, error) {
	r.mu.Lock()
	n, from, err := r.take(b)
	refusal := r.refusal
	r.refusal = nil
	r.mu.Unlock()
	if refusal != nil {
		r.log.Warn("UDP receive path demoted", "from", "recvmmsg", "to", "recvmsg", "cause", refusal)
	}
	return n, from, err
}

// take copies the next datagram received, waiting for one if there is none.
func (r *mmsgReceiver) take(b []byte) (int, netip.AddrPort, error) {
	for !r.closed.Load() {
		for r.current < r.count {
			if n, from := r.next(b); from.IsValid() {
				return n, from, nil
			}
		}
		if err := r.ready.Read(r.fill); err != nil {
			return 0, netip.AddrPort{}, r.whenOpen(err)
		}
		if r.err != nil {
			return 0, netip.AddrPort{}, r.err
		}
	}
	return 0, netip.AddrPort{}, net.ErrClosed
}

// next copies the next datagram of what was received.
func (r *mmsgReceiver) next(b []byte) (int, netip.AddrPort) {
	i := r.current
	message := r.data[i*receiveBytes:][:r.headers[i].n]
	segment := segmentSize(r.control[i][:r.headers[i].hdr.Controllen])
	datagram, end := split(message, r.offset, segment)
	r.offset += len(datagram)
	if end {
		r.current, r.offset = i+1, 0
	}
	return copy(b, datagram), r.from[i].decode()
}

// receive fills the headers with what the socket has. It reports false when
// that is nothing, for the netpoller to wait.
func (r *mmsgReceiver) receive(uintptr) bool {
	r.current, r.offset, r.count, r.err = 0, 0, 0, nil
	for i := range r.headers[:r.want] {
		h := &r.headers[i].hdr
		h.Namelen = uint32(unsafe.Sizeof(r.from[i].raw))
		h.SetControllen(receiveControl)
	}
	for {
		n, errno := r.call()
		switch {
		case errno == 0:
			r.received(n)
			return true
		case errno == unix.EINTR:
		case errno == unix.EAGAIN:
			r.want = 1
			return false
		case !r.single && refused(errno):
			r.single, r.want, r.refusal = true, 1, errno
			r.counters.demotions.Add(1)
		default:
			r.err = os.NewSyscallError("receive", errno)
			return true
		}
	}
}

// call receives with one system call, and returns the number of messages.
func (r *mmsgReceiver) call() (int, unix.Errno) {
	if r.single {
		n, _, errno := unix.Syscall(unix.SYS_RECVMSG, uintptr(r.fd), uintptr(unsafe.Pointer(&r.headers[0].hdr)), unix.MSG_DONTWAIT)
		r.headers[0].n = uint32(n)
		return 1, errno
	}
	n, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, uintptr(r.fd),
		uintptr(unsafe.Pointer(&r.headers)), uintptr(r.want), unix.MSG_DONTWAIT, 0, 0)
	return int(n), errno
}

// received counts what came. A socket that had all it was asked for is asked
// for more, an idle one for a single datagram, which is cheaper.
func (r *mmsgReceiver) received(n int) {
	if n == r.want && !r.single {
		r.want = maxReceive
	}
	r.count = n
	datagrams, bytes := 0, 0
	for i := range r.headers[:n] {
		length := int(r.headers[i].n)
		bytes += length
		datagrams += segments(length, segmentSize(r.control[i][:r.headers[i].hdr.Controllen]))
	}
	r.counters.received(datagrams, bytes)
}

func (r *mmsgReceiver) setDeadline(t time.Time) error { return r.whenOpen(r.set.SetReadDeadline(t)) }

func (r *mmsgReceiver) close() error {
	r.closed.Store(true)
	return r.set.Close()
}

// whenOpen turns an error of the closed epoll set into that of a closed socket.
func (r *mmsgReceiver) whenOpen(err error) error {
	if err != nil && r.closed.Load() {
		return net.ErrClosed
	}
	return err
}
