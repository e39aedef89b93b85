package udpio

import "time"

const (
	// maxTrain is the number of datagrams of one train. The kernel allows 64,
	// and 128 since 6.9; the gain beyond 16 is small and bursts cost packets.
	maxTrain      = 16
	maxTrainBytes = 65000 // of at most 65507 over IPv4
)

// trainLimits is what a destination's route was seen to refuse, until it is
// tried again.
type trainLimits struct {
	until   time.Time // zero: no limit
	segment int       // trains of longer datagrams are refused; 0: all are
}

// allows reports whether a train of datagrams of this length may be tried.
func (l *trainLimits) allows(segment int) bool {
	if l.until.IsZero() || segment <= l.segment {
		return true
	}
	if time.Now().Before(l.until) {
		return false
	}
	*l = trainLimits{}
	return true
}

// train appends to parts the datagrams that leave together, beginning with
// packets[head], and returns them with the one that follows, -1 at the end of
// the group, and their length. They are at most so many, and but for the first
// at most so many bytes. All of a train are as long as its first, but for the
// last, which may be shorter (udp(7), UDP_SEGMENT).
func train(parts [][]byte, packets []packet, head int32, most, mostBytes int) (all [][]byte, next int32, bytes int) {
	first := packets[head].data
	parts, head, bytes = append(parts, first), packets[head].next, len(first)
	for n := 1; n < most && head >= 0; n++ {
		p := packets[head]
		if len(p.data) > len(first) || len(p.data) == 0 || bytes+len(p.data) > mostBytes {
			break
		}
		parts, head = append(parts, p.data), p.next
		bytes += len(p.data)
		if len(p.data) < len(first) {
			break
		}
	}
	return parts, head, bytes
}
