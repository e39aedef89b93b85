package udpio

import (
	"sync/atomic"
	"time"
)

// Stats is what a Conn has done since Listen, and how.
type Stats struct {
	PacketsIn, BytesIn   uint64 // datagrams and their payload handed to readers or about to be
	PacketsOut, BytesOut uint64 // datagrams and their payload taken by the kernel
	BatchesIn            uint64 // system calls that received something
	BatchesOut           uint64 // system calls that sent something
	Trains               uint64 // sends of several datagrams as one
	TrainPackets         uint64 // datagrams of these

	// Holds counts batches that were left to grow because of Conn.Hold, Delays
	// those because the writer was busy; HeldTime is how long, from their first
	// datagram on, in all.
	Holds, Delays uint64
	HeldTime      time.Duration

	// Paced counts datagrams that left later because their destination had used
	// up its budget (Config.Pace).
	Paced uint64

	// Drops counts datagrams lost here, by reason: "queue" and "destination"
	// (no room in all or for the one), "refused" (by the kernel), "closed" (not
	// sent when the Conn was closed) and "receive-buffer" (came when the
	// socket's buffer was full).
	Drops map[string]uint64

	Demotions uint64 // times a rung or a train proved impossible on the way
	Rung      string // way of sending in use
	Why       string // why not a better one; empty if there is none
}

// dropReason says why a datagram was not sent.
type dropReason int

const (
	dropNone dropReason = iota
	dropQueue
	dropDestination
	dropRefused
	dropClosed
	dropReasons
)

func (r dropReason) String() string {
	return [...]string{"none", "queue", "destination", "refused", "closed"}[r]
}

type counters struct {
	packetsIn, bytesIn, batchesIn    atomic.Uint64
	packetsOut, bytesOut, batchesOut atomic.Uint64
	trains, trainPackets             atomic.Uint64
	holds, delays                    atomic.Uint64
	heldTime                         atomic.Int64 // nanoseconds
	paced, demotions                 atomic.Uint64
	drops                            [dropReasons]atomic.Uint64
}

func (c *counters) received(datagrams, bytes int) {
	c.packetsIn.Add(uint64(datagrams))
	c.bytesIn.Add(uint64(bytes))
	c.batchesIn.Add(1)
}

func (c *counters) sent(messages []message) {
	var packets, bytes, trains, trainPackets uint64
	for _, m := range messages {
		packets += uint64(len(m.parts))
		for _, part := range m.parts {
			bytes += uint64(len(part))
		}
		if len(m.parts) > 1 {
			trains++
			trainPackets += uint64(len(m.parts))
		}
	}
	c.packetsOut.Add(packets)
	c.bytesOut.Add(bytes)
	c.batchesOut.Add(1)
	c.trains.Add(trains)
	c.trainPackets.Add(trainPackets)
}

// waited counts a batch that was sent this long after its first datagram came.
func (c *counters) waited(why patience, time time.Duration) {
	switch why {
	case atOnce:
		return
	case held:
		c.holds.Add(1)
	case delayed:
		c.delays.Add(1)
	}
	c.heldTime.Add(int64(time))
}

func (c *counters) dropped(reason dropReason, n int) { c.drops[reason].Add(uint64(n)) }

// Stats returns a snapshot.
func (c *Conn) Stats() Stats {
	n := &c.counters
	stands := c.writer.ladder.state.Load()
	s := Stats{
		PacketsIn: n.packetsIn.Load(), BytesIn: n.bytesIn.Load(), BatchesIn: n.batchesIn.Load(),
		PacketsOut: n.packetsOut.Load(), BytesOut: n.bytesOut.Load(), BatchesOut: n.batchesOut.Load(),
		Trains: n.trains.Load(), TrainPackets: n.trainPackets.Load(),
		Holds: n.holds.Load(), Delays: n.delays.Load(), HeldTime: time.Duration(n.heldTime.Load()),
		Paced: n.paced.Load(), Demotions: n.demotions.Load(), Rung: stands.rung, Why: stands.why,
		Drops: map[string]uint64{"receive-buffer": c.socket.receiveDrops()},
	}
	for r := dropQueue; r < dropReasons; r++ {
		s.Drops[r.String()] = n.drops[r].Load()
	}
	return s
}
