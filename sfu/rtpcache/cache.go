// Package rtpcache keeps the last RTP packets of one up-track for all who may
// ask for them again.
package rtpcache

import "sync"

// MaxPacket is the length in bytes of the longest packet a Cache keeps.
const MaxPacket = 1500

// A Cache holds copies of the most recent packets by sequence number, a fixed
// number of them in memory that never grows. One goroutine stores while any
// number load. It does not know about sources: one that numbers its packets
// anew gets a Cache of its own.
type Cache struct {
	mask uint16

	mu    sync.RWMutex
	slots []slot
	data  []byte // MaxPacket bytes for each slot
}

type slot struct {
	seq    uint16
	length uint16 // 0: nothing here
}

// New returns a Cache for the given number of packets, rounded up to a power of
// two within 2 to 32768 so that slots follow each other over the wrap-around.
// It takes about 1.5 kB for each, which the kernel gives as they come into use.
func New(packets int) *Cache {
	n := 2
	for n < packets && n < 1<<15 {
		n *= 2
	}
	return &Cache{mask: uint16(n - 1), slots: make([]slot, n), data: make([]byte, n*MaxPacket)}
}

// Store keeps a copy of packet under seq, in place of the one whose turn it is
// to go. An empty packet, or one longer than MaxPacket, is not kept.
func (c *Cache) Store(seq uint16, packet []byte) {
	if len(packet) == 0 || len(packet) > MaxPacket {
		return
	}
	i := seq & c.mask
	c.mu.Lock()
	defer c.mu.Unlock()
	c.slots[i] = slot{seq: seq, length: uint16(len(packet))}
	copy(c.packet(i), packet)
}

// Load copies the packet of that sequence number into buf and returns its
// length. It returns 0 and false when the Cache has no such packet any more, or
// when buf is too short for it.
func (c *Cache) Load(seq uint16, buf []byte) (n int, ok bool) {
	i := seq & c.mask
	c.mu.RLock()
	defer c.mu.RUnlock()
	s := c.slots[i]
	if s.length == 0 || s.seq != seq || len(buf) < int(s.length) {
		return 0, false
	}
	return copy(buf, c.packet(i)[:s.length]), true
}

func (c *Cache) packet(slot uint16) []byte {
	start := int(slot) * MaxPacket
	return c.data[start : start+MaxPacket]
}
