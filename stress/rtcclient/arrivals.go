package rtcclient

import (
	"slices"
	"time"
)

// arrivals keeps which packets of a stream came. Packets before the first one
// that came do not count.
type arrivals struct {
	started bool
	next    uint32 // number after the newest
	missing []missed
	lost    uint64 // given up because there were too many missing
}

type missed struct {
	number uint32
	since  time.Time
}

// Reordering, and how much is remembered for it.
const (
	lostAfter  = time.Second
	maxMissing = 4096
)

// add records a packet and says whether it is the first of its number.
func (a *arrivals) add(number uint32, now time.Time) (first bool) {
	if !a.started {
		a.started, a.next = true, number+1
		return true
	}
	if int32(number-a.next) < 0 {
		for i, m := range a.missing {
			if m.number == number {
				a.missing = slices.Delete(a.missing, i, i+1)
				return true
			}
		}
		return false
	}
	for n := a.next; n != number; n++ {
		if len(a.missing) == maxMissing {
			a.lost += uint64(number - n)
			break
		}
		a.missing = append(a.missing, missed{n, now})
	}
	a.next = number + 1
	return true
}

// addSeq is add for an RTP sequence number.
func (a *arrivals) addSeq(seq uint16, now time.Time) (first bool) {
	if !a.started {
		return a.add(uint32(seq), now)
	}
	return a.add(a.next+uint32(int32(int16(seq-uint16(a.next)))), now)
}

// of returns the arrivals under key, which it makes if need be.
func of(m map[uint32]*arrivals, key uint32) *arrivals {
	a := m[key]
	if a == nil {
		a = &arrivals{}
		m[key] = a
	}
	return a
}

// gaps counts what is missing since long, and what is missing only now.
func (a *arrivals) gaps(now time.Time) (lost, missing uint64) {
	lost = a.lost
	for _, m := range a.missing {
		if now.Sub(m.since) >= lostAfter {
			lost++
		} else {
			missing++
		}
	}
	return lost, missing
}
