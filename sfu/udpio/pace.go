package udpio

import "time"

const (
	// DefaultPace is the default of Config.Pace, in bits per second: far above
	// what a viewer's link carries for long, and far below line rate, at which
	// bursts overflow shallow queues on the way (RFC 9002, section 7.7).
	DefaultPace = 200_000_000

	// burstBytes may leave to one destination at once: a train of full datagrams.
	burstBytes = maxTrain * 1500

	// lateTurn is how long what was over its budget waits for its next turn.
	lateTurn = time.Millisecond

	// maxPace is where the arithmetic ends.
	maxPace = 1_000_000_000_000
)

// A pace is the budget of every destination: a token bucket, kept as the time
// at which it will be full again.
type pace struct {
	bits  int64         // per second; 0: no budget
	depth time.Duration // how much time's worth may leave at once
}

func newPace(bits int64) pace {
	if bits <= 0 {
		return pace{}
	}
	p := pace{bits: min(bits, maxPace)}
	p.depth = max(p.cost(burstBytes), lateTurn)
	return p
}

// cost is how long the bucket takes to win these bytes back.
func (p pace) cost(bytes int) time.Duration {
	return time.Duration(int64(bytes) * 8 * int64(time.Second) / p.bits)
}

// room is how many bytes may leave now in a message that begins with a datagram
// of length first, 0 if it has to wait. One that is larger than the bucket
// leaves when that is full.
func (p pace) room(full, now time.Duration, first int) int {
	if p.bits == 0 {
		return maxTrainBytes
	}
	wait := max(full-now, 0)
	room := int(int64(p.depth-wait) * p.bits / int64(8*time.Second))
	if room < first && wait > 0 {
		return 0
	}
	return min(max(room, first), max(maxTrainBytes, first))
}

// spend takes bytes out of the bucket and returns when it will be full again.
func (p pace) spend(full, now time.Duration, bytes int) time.Duration {
	if p.bits == 0 {
		return 0
	}
	return max(full, now) + p.cost(bytes)
}
