package sfu

import (
	"math"
	"sync/atomic"
	"time"

	"github.com/pion/rtp"
)

// Stats is the Server's account of itself.
type Stats struct {
	Rooms    []Room
	Counters Counters
	// FirstFrame counts, in seconds from the arrival of a viewer's offer to its
	// first complete key frame handed to the socket.
	FirstFrame Histogram
	Draining   bool
}

// Room is one room.
type Room struct {
	Name      string
	Since     time.Time
	Publisher bool // someone publishes now
	Viewers   int
	Tracks    []Track
}

// Track is what a room forwards in one m-section.
type Track struct {
	Kind    string // "audio" or "video"
	Codec   string // MIME type, "video/VP8"
	SSRC    uint32 // 0 while no publisher sends
	RID     string
	Packets uint64 // this publisher's
	Bytes   uint64
	Lost    uint64 // never received, retransmission included
}

// Counters only grow while the Server lives.
type Counters struct {
	PacketsIn, BytesIn   uint64            // RTP from publishers
	PacketsOut, BytesOut uint64            // RTP to viewers, retransmissions and padding included
	PaddingOut           uint64            // bytes of padding among BytesOut
	Drops                map[string]uint64 // packets not forwarded, by reason
	NACKs                uint64            // packets that viewers asked again
	Retransmits          uint64            // of these, answered from the cache
	PLIs                 uint64            // key-frame requests sent to publishers
	TransportFeedbacks   uint64            // TWCC messages from viewers
	Joins                map[string]uint64 // sessions by result: "ok", "refused", "failed"
}

// Histogram has cumulative counts like a Prometheus histogram.
type Histogram struct {
	Bounds []float64 // upper bounds, seconds, ascending
	Counts []uint64  // observations <= the bound of the same index
	Count  uint64
	Sum    float64 // seconds
}

// A drop is a reason for not forwarding a packet.
type drop int

const (
	dropNone       drop = iota
	dropMalformed       // from the publisher: no RTP, or longer than maxPacket
	dropInbox           // from the publisher: came faster than it could be forwarded
	dropDuplicate       // from the publisher: seen already
	dropPadding         // from the publisher: probes of bandwidth, no media
	dropNoKeyFrame      // to a viewer: it waits for a key frame to begin with
	dropLate            // to a viewer: too old to find its place in the sequence
	dropWrite           // to a viewer: its transport takes none
	drops
)

var dropNames = [drops]string{
	dropMalformed: "malformed", dropInbox: "inbox", dropDuplicate: "duplicate", dropPadding: "padding",
	dropNoKeyFrame: "no_key_frame", dropLate: "late", dropWrite: "write",
}

// A join is the result of a client's offer.
type join int

const (
	joinOK      join = iota // ICE and DTLS are done
	joinRefused             // answered with an error
	joinFailed              // answered, but the client did not connect in time
	joins
)

var joinNames = [joins]string{joinOK: "ok", joinRefused: "refused", joinFailed: "failed"}

type counters struct {
	packetsIn, bytesIn, packetsOut, bytesOut atomic.Uint64
	paddingOut                               atomic.Uint64
	nacks, retransmits, plis                 atomic.Uint64
	transportFeedbacks                       atomic.Uint64
	drops                                    [drops]atomic.Uint64
	joins                                    [joins]atomic.Uint64
	firstFrame                               histogram
}

// A tally is what became of the packets of one batch.
type tally struct {
	packets, bytes, padding uint64
	drops                   [drops]uint64
}

// sent counts an RTP packet that was handed to the socket.
func (t *tally) sent(h *rtp.Header, payload int) {
	t.packets++
	t.bytes += uint64(h.MarshalSize() + payload + int(h.PaddingSize))
	t.padding += uint64(h.PaddingSize)
}

func (c *counters) add(t *tally) {
	c.packetsOut.Add(t.packets)
	c.bytesOut.Add(t.bytes)
	c.paddingOut.Add(t.padding)
	for reason, n := range t.drops {
		if n > 0 {
			c.drops[reason].Add(n)
		}
	}
}

func (c *counters) snapshot() Counters {
	s := Counters{
		PacketsIn: c.packetsIn.Load(), BytesIn: c.bytesIn.Load(),
		PacketsOut: c.packetsOut.Load(), BytesOut: c.bytesOut.Load(),
		PaddingOut: c.paddingOut.Load(),
		NACKs:      c.nacks.Load(), Retransmits: c.retransmits.Load(), PLIs: c.plis.Load(), TransportFeedbacks: c.transportFeedbacks.Load(),
		Drops: map[string]uint64{}, Joins: map[string]uint64{},
	}
	for reason := dropNone + 1; reason < drops; reason++ {
		s.Drops[dropNames[reason]] = c.drops[reason].Load()
	}
	for result := range joins {
		s.Joins[joinNames[result]] = c.joins[result].Load()
	}
	return s
}

// bounds of the first-frame histogram, in seconds.
var bounds = [...]float64{0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10}

type histogram struct {
	buckets [len(bounds) + 1]atomic.Uint64 // not cumulative; the last one is above all bounds
	sum     atomic.Uint64                  // nanoseconds
}

func (h *histogram) observe(d time.Duration) {
	i := 0
	for i < len(bounds) && d.Seconds() > bounds[i] {
		i++
	}
	h.buckets[i].Add(1)
	h.sum.Add(uint64(max(d, 0)))
}

func (h *histogram) snapshot() Histogram {
	out := Histogram{Bounds: bounds[:], Sum: math.Round(time.Duration(h.sum.Load()).Seconds()*1e6) / 1e6}
	for i := range bounds {
		out.Count += h.buckets[i].Load()
		out.Counts = append(out.Counts, out.Count)
	}
	out.Count += h.buckets[len(bounds)].Load()
	return out
}
