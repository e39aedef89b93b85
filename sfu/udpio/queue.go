package udpio

import (
	"maps"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	chunkBytes      = 64 << 10 // a datagram is smaller
	maxDatagram     = 65507    // the longest UDP payload over IPv4
	maxDestinations = 8192
	maxFreeChunks   = 64  // kept for the next batches
	meanDatagram    = 512 // the queue's bound in bytes by this is its bound in datagrams
)

// A queue holds the datagrams that wait to be sent. Those that wait together
// are a batch; while the writer sends one the next one fills.
type queue struct {
	family         int           // of the socket
	wake           chan struct{} // holds a token when the filling batch may have something
	maxChunks      int           // of filling and the batch being sent together
	maxPackets     int           // of a batch
	maxDestination int
	hold           hold

	mu           sync.Mutex
	closed       bool
	turn         uint64 // of the filling batch
	filling      *batch
	spare        *batch
	destinations map[netip.AddrPort]*destination
	last         *destination // written to: often the next one as well
	free         [][]byte
	chunks       int // in use
}

func newQueue(maxBytes, maxDestination int, maxHold time.Duration, family int) *queue {
	q := &queue{
		family:         family,
		wake:           make(chan struct{}, 1),
		maxChunks:      max(maxBytes/chunkBytes, 2),
		maxPackets:     max(maxBytes/meanDatagram, 2),
		maxDestination: maxDestination,
		turn:           1,
		filling:        &batch{},
		spare:          &batch{},
		destinations:   make(map[netip.AddrPort]*destination),
	}
	if maxHold > 0 {
		q.hold.most = maxHold
		q.hold.timer = time.AfterFunc(maxHold, q.overdue)
		q.hold.timer.Stop()
	}
	return q
}

// write appends a copy of b, or says why it was dropped.
func (q *queue) write(b []byte, to netip.AddrPort) (dropReason, error) {
	if len(b) > maxDatagram {
		return dropNone, unix.EMSGSIZE
	}
	if to.Addr().Is4In6() {
		to = netip.AddrPortFrom(to.Addr().Unmap(), to.Port())
	}
	q.mu.Lock()
	d := q.last
	if d == nil || d.addr != to {
		d = q.destinations[to]
	}
	if d == nil { // encoding may have to ask the kernel for a zone
		q.mu.Unlock()
		sa, err := encode(to, q.family)
		if err != nil {
			return dropNone, err
		}
		q.mu.Lock()
		d = q.learn(to, sa)
	}
	if q.closed {
		q.mu.Unlock()
		return dropNone, net.ErrClosed
	}
	q.last = d
	wake, wait := false, time.Duration(0)
	drop := q.append(d, b)
	if drop == dropNone {
		wake, wait = q.grown(d)
	}
	q.mu.Unlock()
	if wake {
		q.wakeAfter(wait)
	}
	return drop, nil
}

// grown looks at the filling batch after a datagram was added, and returns
// whether the writer must hear of it, and when.
func (q *queue) grown(d *destination) (wake bool, wait time.Duration) {
	f := q.filling
	if len(f.packets) == 1 {
		wake = true
		q.hold.waiting.Store(true)
		if q.hold.most > 0 {
			f.since = time.Now()
			wait, f.waited = q.hold.patience()
		}
	}
	if !f.ample && (f.groups[d.place].bytes > q.maxDestination/2 || len(f.packets) > q.maxPackets/2 || q.chunks > q.maxChunks/2) {
		f.ample, wake, wait = true, true, 0
	}
	return wake, wait
}

func (q *queue) wakeAfter(wait time.Duration) {
	if wait > 0 {
		q.hold.timer.Reset(wait)
	} else {
		q.signal()
	}
}

// overdue is called when the timer of a hold ends.
func (q *queue) overdue() {
	if q.hold.waiting.Load() {
		q.signal()
	}
}

func (q *queue) append(d *destination, b []byte) dropReason {
	f := q.filling
	if d == nil || len(f.packets) == q.maxPackets {
		return dropQueue
	}
	if d.turn == q.turn && f.groups[d.place].bytes+len(b) > q.maxDestination {
		return dropDestination
	}
	if len(f.room) < len(b) && !q.extend(f) {
		return dropQueue
	}
	n := copy(f.room, b)
	f.add(d, f.room[:n:n], q.turn)
	f.room = f.room[n:]
	return dropNone
}

// extend gives the batch another chunk.
func (q *queue) extend(f *batch) bool {
	if q.chunks == q.maxChunks {
		return false
	}
	q.chunks++
	var chunk []byte
	if n := len(q.free); n > 0 {
		chunk, q.free = q.free[n-1], q.free[:n-1]
	} else {
		chunk = make([]byte, chunkBytes)
	}
	f.chunks = append(f.chunks, chunk)
	f.room = chunk
	return true
}

// learn makes a destination known. When there are too many, those that have
// nothing waiting are forgotten; if that does not help it returns nil.
func (q *queue) learn(to netip.AddrPort, sa sockaddr) *destination {
	if d := q.destinations[to]; d != nil {
		return d
	}
	if len(q.destinations) >= maxDestinations {
		maps.DeleteFunc(q.destinations, func(_ netip.AddrPort, d *destination) bool { return d.turn != q.turn })
		q.last = nil
		if len(q.destinations) >= maxDestinations {
			return nil
		}
	}
	d := &destination{addr: to, to: sa}
	q.destinations[to] = d
	return d
}

func (q *queue) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// take returns the batch that has filled, nil if there is none to be sent yet,
// and whether the queue is closed and empty. The writer gives the batch back with
// release.
func (q *queue) take() (b *batch, done bool) {
	q.mu.Lock()
	if len(q.filling.packets) == 0 {
		defer q.mu.Unlock()
		return nil, q.closed
	}
	if wait := q.unripe(); wait > 0 {
		q.mu.Unlock()
		q.wakeAfter(wait)
		return nil, false
	}
	defer q.mu.Unlock()
	b = q.filling
	b.turn, b.rest = q.turn, b.groups
	if q.filling, q.spare = q.spare, nil; q.filling == nil {
		q.filling = &batch{}
	}
	q.turn++
	q.hold.waiting.Store(false)
	return b, false
}

// unripe is for how long the filling batch is still left to grow.
func (q *queue) unripe() time.Duration {
	wait, why := q.hold.patience()
	if wait == 0 || q.closed || q.filling.ample {
		return 0
	}
	wait -= time.Since(q.filling.since)
	if wait > 0 {
		q.filling.waited = why
	}
	return wait
}

func (q *queue) release(b *batch) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.chunks -= len(b.chunks)
	for _, chunk := range b.chunks {
		if len(q.free) < maxFreeChunks {
			q.free = append(q.free, chunk)
		}
	}
	b.reset()
	q.spare = b
}

func (q *queue) close() {
	q.mu.Lock()
	q.closed = true
	q.mu.Unlock()
	if q.hold.timer != nil {
		q.hold.timer.Stop()
	}
	q.signal()
}
