package udpio

import (
	"net/netip"
	"time"
)

// A destination is what is known of an address that was written to.
type destination struct {
	addr netip.AddrPort
	to   sockaddr

	// The queue's: place in the filling batch, if turn is that batch's.
	turn  uint64
	place int32

	// The writer's.
	trains trainLimits
	full   time.Duration // when its budget is whole again, since the writer's start
	late   uint64        // turn of the first batch that has something over budget, 0: none
	slot   int           // absorb's: place in a rest

	inFlight bool // uringEngine's: has a message in the ring
}

// maxAbsorbed is the number of datagrams of a batch that absorbs others.
const maxAbsorbed = 4096

// A batch is datagrams grouped by destination, each group in order.
type batch struct {
	groups  []group
	packets []packet
	chunks  [][]byte // the last one is being filled
	room    []byte   // of the last chunk

	turn  uint64  // of a batch taken
	rest  []group // of groups, not yet sent
	again bool    // the rest had its turn before

	since  time.Time // when the first datagram came, where holds are on
	waited patience  // why it was left to grow
	ample  bool      // it is so large that it is left to grow no longer
}

type group struct {
	dest       *destination
	head, tail int32 // in packets
	bytes      int
}

type packet struct {
	data []byte
	next int32 // of the same group; -1 is the end
}

// add appends a datagram, whose data lies in the batch's chunks, to the group of
// its destination.
func (b *batch) add(d *destination, data []byte, turn uint64) {
	n := int32(len(b.packets))
	b.packets = append(b.packets, packet{data: data, next: -1})
	if d.turn != turn {
		d.turn, d.place = turn, int32(len(b.groups))
		b.groups = append(b.groups, group{dest: d, head: n, tail: n, bytes: len(data)})
		return
	}
	g := &b.groups[d.place]
	b.packets[g.tail].next = n
	g.tail = n
	g.bytes += len(data)
}

// absorb copies the rest of a later batch behind its own, if that fits in the
// room of its last chunk. So what is late does not keep nearly empty chunks.
func (b *batch) absorb(from *batch) bool {
	bytes := 0
	for _, g := range from.rest {
		g.dest.slot = -1
		for p := g.head; p >= 0; p = from.packets[p].next {
			bytes += len(from.packets[p].data)
		}
	}
	if bytes > len(b.room) || len(b.packets)+len(from.packets) > maxAbsorbed {
		return false
	}
	for i, g := range b.rest {
		g.dest.slot = i
	}
	for _, g := range from.rest {
		for p := g.head; p >= 0; p = from.packets[p].next {
			n := copy(b.room, from.packets[p].data)
			b.append(g.dest, b.room[:n:n])
			b.room = b.room[n:]
		}
		if g.dest.late == from.turn {
			g.dest.late = b.turn
		}
	}
	return true
}

// append appends a datagram to the rest, to the group that its destination's slot
// says.
func (b *batch) append(d *destination, data []byte) {
	n := int32(len(b.packets))
	b.packets = append(b.packets, packet{data: data, next: -1})
	if d.slot < 0 {
		d.slot = len(b.rest)
		b.rest = append(b.rest, group{dest: d, head: n, tail: n})
		return
	}
	g := &b.rest[d.slot]
	b.packets[g.tail].next = n
	g.tail = n
}

// reset empties the batch and keeps the memory of its slices.
func (b *batch) reset() {
	clear(b.groups)
	clear(b.packets)
	clear(b.chunks)
	*b = batch{groups: b.groups[:0], packets: b.packets[:0], chunks: b.chunks[:0]}
}
