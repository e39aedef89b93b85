package fanout

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"net/netip"
	"os"
	"runtime"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/sfu-agent/sfu-agent/stress/rtcclient"
)

// ceiling is the ceiling part: what cannot be left out of forwarding. For each
// outgoing packet it writes a header and seals the payload with the
// destination's key, and sends with sendmmsg(2) from a socket that Go's netpoller
// does not know: a frame that comes at once as a train for each destination
// (udp(7), UDP_SEGMENT), paced packets one by one. Nothing is received, looked up
// or queued.
type ceiling struct {
	fd    int
	rooms []*ceilingRoom
	stop  chan struct{} // nil: not running
	done  chan struct{}
	err   error // of the run

	// Of the run alone. Messages wait until there are maxMessages of them or
	// the slab is full.
	slab     []byte
	used     int
	headers  [maxMessages]mmsghdr
	iovecs   [maxMessages]unix.Iovec
	controls [maxMessages][24]byte // CMSG_SPACE(2) on 64-bit machines
	waiting  int
	limit    int // messages of one system call
}

// One system call takes 16 trains or 64 single packets; a train has 16 packets
// at most. More of either gains little.
const (
	maxMessages = 64
	maxTrains   = 16
	maxTrain    = 16
)

type mmsghdr struct {
	header unix.Msghdr
	n      uint32
}

type ceilingRoom struct {
	stream   uint32
	number   atomic.Uint64 // of packets sent
	frame    uint64
	payloads [][]byte
	dests    []*ceilingDest
	due      time.Time // of the next burst
	index    int       // of the next packet in its frame, where paced
}

type ceilingDest struct {
	crypt *crypt
	to    unix.RawSockaddrInet6 // the longer of the two
	toLen uint32
	ssrc  uint32
	seq   uint64 // with its wraps
}

func newCeiling() (handlers, func(context.Context) error, error) {
	c := &ceiling{fd: -1, slab: make([]byte, maxMessages*maxTrain*sealedSize)}
	return handlers{"open": handle(c.open), "load": handle(c.load), "sent": c.sent}, c.close, nil
}

type openCeiling struct {
	Rooms int              `json:"rooms"`
	Dests []netip.AddrPort `json:"dests"`
}

func (c *ceiling) open(_ context.Context, o openCeiling) (any, error) {
	family := unix.AF_INET
	if o.Dests[0].Addr().Is6() {
		family = unix.AF_INET6
	}
	var err error
	if c.fd, err = unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	for room := range o.Rooms {
		c.rooms = append(c.rooms, &ceilingRoom{stream: uint32(room)})
	}
	for i, addr := range o.Dests {
		d := &ceilingDest{crypt: newCrypt(i), ssrc: uint32(i) + 1}
		d.setAddr(addr)
		room := c.rooms[i%o.Rooms]
		room.dests = append(room.dests, d)
	}
	return nil, nil
}

func (d *ceilingDest) setAddr(addr netip.AddrPort) {
	d.to.Family, d.to.Addr, d.toLen = unix.AF_INET6, addr.Addr().As16(), unix.SizeofSockaddrInet6
	if addr.Addr().Is4() {
		four := (*unix.RawSockaddrInet4)(unsafe.Pointer(&d.to))
		four.Family, four.Addr, d.toLen = unix.AF_INET, addr.Addr().As4(), unix.SizeofSockaddrInet4
	}
	binary.BigEndian.PutUint16((*[2]byte)(unsafe.Pointer(&d.to.Port))[:], addr.Port())
}

// load has all rooms send so from now on, and returns how many packets each was
// sent until then.
func (c *ceiling) load(_ context.Context, l Load) (any, error) {
	if c.stop != nil {
		close(c.stop)
		<-c.done
		c.stop = nil
	}
	if c.err != nil {
		return nil, c.err
	}
	numbers := c.numbers()
	if l.Rate > 0 {
		c.stop, c.done = make(chan struct{}), make(chan struct{})
		go c.run(l)
	}
	return numbers, nil
}

func (c *ceiling) sent(context.Context, json.RawMessage) (any, error) { return c.numbers(), nil }

func (c *ceiling) numbers() []uint64 {
	numbers := make([]uint64, len(c.rooms))
	for i, r := range c.rooms {
		numbers[i] = r.number.Load()
	}
	return numbers
}

func (c *ceiling) close(ctx context.Context) error {
	_, err := c.load(ctx, Load{})
	if c.fd >= 0 {
		unix.Close(c.fd)
	}
	return err
}

// run sends until it is stopped, from a thread of its own that sleeps in the
// kernel.
func (c *ceiling) run(l Load) {
	defer close(c.done)
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	burst := l.Frame
	c.limit = maxTrains
	if l.Paced || l.Frame == 1 {
		burst, c.limit = 1, maxMessages
	}
	every := time.Duration(float64(burst) / l.packetsPerSecond() * float64(time.Second))
	start := time.Now()
	for i, r := range c.rooms {
		r.due = start.Add(every * time.Duration(i) / time.Duration(len(c.rooms)))
		r.payloads = payloads(burst)
	}
	for c.err == nil {
		for _, r := range c.rooms { // in the order of their dues
			if !c.sleepUntil(r.due) {
				return
			}
			c.burst(r, l.Frame)
			if r.due = r.due.Add(every); time.Since(r.due) > maxLate {
				r.due = time.Now()
			}
		}
	}
}

// maxLate is as of the publishers.
const maxLate = 100 * time.Millisecond

func payloads(n int) [][]byte {
	all := make([][]byte, n)
	for i := range all {
		all[i] = make([]byte, payloadSize)
	}
	return all
}

// sleepUntil returns false when it is time to stop.
func (c *ceiling) sleepUntil(due time.Time) bool {
	for {
		select {
		case <-c.stop:
			return false
		default:
		}
		left := time.Until(due)
		if left <= 0 {
			return true
		}
		ts := unix.NsecToTimespec(min(left, 50*time.Millisecond).Nanoseconds())
		_ = unix.Nanosleep(&ts, nil) // the loop looks at the clock
	}
}

// burst sends the room's next packets to all of its destinations.
func (c *ceiling) burst(r *ceilingRoom, perFrame int) {
	now := time.Now()
	for i, payload := range r.payloads {
		stamp := rtcclient.Stamp{Stream: r.stream, Number: uint32(r.number.Load()) + uint32(i), Sent: now}
		stamp.PutVideo(payload, uint16(r.frame)&0x7fff, r.index+i == 0, false)
	}
	for _, d := range r.dests {
		for i := 0; i < len(r.payloads); i += maxTrain {
			c.train(r, d, r.payloads[i:min(i+maxTrain, len(r.payloads))], r.index+i, perFrame)
		}
	}
	c.flush()
	r.number.Add(uint64(len(r.payloads)))
	if r.index += len(r.payloads); r.index >= perFrame {
		r.index, r.frame = 0, r.frame+1
	}
}

// train seals packets for one destination, and sends what waits when it is much.
func (c *ceiling) train(r *ceilingRoom, d *ceilingDest, payloads [][]byte, index, perFrame int) {
	start := c.used
	for i, payload := range payloads {
		packet := c.slab[c.used : c.used+sealedSize]
		packet[0], packet[1] = 0x80, 96
		if index+i == perFrame-1 {
			packet[1] |= 0x80 // marker
		}
		binary.BigEndian.PutUint16(packet[2:], uint16(d.seq))
		binary.BigEndian.PutUint32(packet[4:], uint32(r.frame*3000))
		binary.BigEndian.PutUint32(packet[8:], d.ssrc)
		d.crypt.seal(uint32(d.seq>>16), packet, payload)
		d.seq++
		c.used += sealedSize
	}
	c.message(d, c.slab[start:c.used], len(payloads) > 1)
	if c.waiting == c.limit {
		c.flush()
	}
}

func (c *ceiling) message(d *ceilingDest, b []byte, train bool) {
	i := c.waiting
	c.waiting++
	c.iovecs[i].Base = &b[0]
	c.iovecs[i].SetLen(len(b))
	h := &c.headers[i].header
	*h = unix.Msghdr{Name: (*byte)(unsafe.Pointer(&d.to)), Namelen: d.toLen, Iov: &c.iovecs[i]}
	h.SetIovlen(1)
	if train {
		control := (*unix.Cmsghdr)(unsafe.Pointer(&c.controls[i]))
		control.Level, control.Type = unix.SOL_UDP, unix.UDP_SEGMENT
		control.SetLen(unix.CmsgLen(2))
		binary.NativeEndian.PutUint16(c.controls[i][unix.CmsgLen(0):], sealedSize)
		h.Control = &c.controls[i][0]
		h.SetControllen(unix.CmsgSpace(2))
	}
}

func (c *ceiling) flush() {
	for sent := 0; sent < c.waiting && c.err == nil; {
		n, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(c.fd), uintptr(unsafe.Pointer(&c.headers[sent])), uintptr(c.waiting-sent), 0, 0, 0)
		if errno != 0 && errno != unix.EINTR {
			c.err = os.NewSyscallError("sendmmsg", errno)
			break
		}
		if errno == 0 {
			sent += int(n)
		}
	}
	c.waiting, c.used = 0, 0
}
