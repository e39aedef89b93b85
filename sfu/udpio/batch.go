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

	trains   trainLimits // the writer's
	inFlight bool        // uringEngine's: has a message in the ring
}

// A batch is datagrams grouped by destination, each group in order.
type batch struct {
	groups  []group
	packets []packet
	chunks  [][]byte // the last one is being filled
	room    []byte   // of the last chunk

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

// reset empties the batch and keeps the memory of its slices.
func (b *batch) reset() {
	clear(b.groups)
	clear(b.packets)
	clear(b.chunks)
	*b = batch{groups: b.groups[:0], packets: b.packets[:0], chunks: b.chunks[:0]}
}
