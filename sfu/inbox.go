package sfu

import (
	"io"
	"sync"

	"github.com/pion/transport/v4/packetio"
	"github.com/pion/webrtc/v4"
)

const (
	inboxPackets = 256 // that wait in one inbox: a second of 3 Mbit/s
	maxInboxes   = 8   // of one publisher: audio, video, and RTX of each, twice
)

// An inbox stands where pion queues a publisher's decrypted RTP packets of one
// SSRC for the up-track. It tells how many wait, so that the up-track can take
// together what came together. What does not fit is dropped and counted.
type inbox struct {
	count *counters

	mu      sync.Mutex
	filled  sync.Cond
	waiting [inboxPackets][]byte // a ring
	first   int                  // index in waiting
	n       int
	free    [][]byte // read already; as many are made as ever waited at once
	closed  bool
}

func newInbox(count *counters) *inbox {
	b := &inbox{count: count}
	b.filled.L = &b.mu
	return b
}

// Write adds a copy of packet. It does not block.
func (b *inbox) Write(packet []byte) (int, error) {
	if len(packet) > maxPacket {
		b.count.drops[dropMalformed].Add(1)
		return len(packet), nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return 0, io.ErrClosedPipe
	}
	if b.n == inboxPackets {
		b.count.drops[dropInbox].Add(1)
		return 0, packetio.ErrFull
	}
	b.waiting[(b.first+b.n)%inboxPackets] = append(b.buffer(), packet...)
	b.n++
	b.filled.Signal()
	return len(packet), nil
}

func (b *inbox) buffer() []byte {
	if len(b.free) == 0 {
		return make([]byte, 0, maxPacket)
	}
	last := len(b.free) - 1
	buf := b.free[last]
	b.free = b.free[:last]
	return buf[:0]
}

// Read waits for a packet and moves it to p. It returns io.ErrShortBuffer, and
// the packet is lost, if p is too short, and io.EOF when the inbox is closed.
func (b *inbox) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for b.n == 0 && !b.closed {
		b.filled.Wait()
	}
	if b.closed {
		return 0, io.EOF
	}
	packet := b.waiting[b.first]
	b.waiting[b.first] = nil
	b.first = (b.first + 1) % inboxPackets
	b.n--
	b.free = append(b.free, packet)
	if len(p) < len(packet) {
		return 0, io.ErrShortBuffer
	}
	return copy(p, packet), nil
}

// pending is the number of packets that wait.
func (b *inbox) pending() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.n
}

// Close ends Read and drops what waits.
func (b *inbox) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	b.filled.Broadcast()
	return nil
}

// newInbox implements webrtc.SettingEngine's BufferFactory for a publisher.
func (s *Session) newInbox(kind packetio.BufferPacketType, ssrc uint32) io.ReadWriteCloser {
	if kind == packetio.RTCPBufferPacket {
		return boundedBuffer(inboxPackets)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.inboxes) == maxInboxes {
		return boundedBuffer(1) // nobody is to read it
	}
	b := newInbox(&s.server.count)
	s.inboxes[ssrc] = b
	return b
}

// boundedBuffer is a queue of pion's.
func boundedBuffer(packets int) *packetio.Buffer {
	b := packetio.NewBuffer()
	b.SetLimitCount(packets)
	return b
}

// inbox returns that of the SSRC, or nil.
func (s *Session) inbox(ssrc webrtc.SSRC) *inbox {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.inboxes[uint32(ssrc)]
}
