package sfu

import "time"

// Asking a publisher again for what got lost: after a packet's grace, since it
// may be late only, then each interval, a number of times.
const (
	nackWindow   = 512 // packets; a gap further back is lost for good
	nackGrace    = 10 * time.Millisecond
	nackInterval = 60 * time.Millisecond
	nackTries    = 8
)

// losses keeps which packets of an up-track are missing. It belongs to the
// goroutine that reads the track.
type losses struct {
	started bool
	newest  uint16 // highest sequence number seen
	have    [nackWindow / 64]uint64
	missing []gap // in the order of their sequence numbers
	next    time.Time
	lost    uint64 // packets given up
}

// gap is one packet that did not come yet.
type gap struct {
	seq   uint16
	since time.Time
	asked time.Time
	tries int
}

// add records a packet. It returns false for one that was there before or that
// is too old to tell.
func (l *losses) add(seq uint16, now time.Time) (fresh bool) {
	if !l.started {
		l.started, l.newest = true, seq
		l.set(seq)
		return true
	}
	ahead := int16(seq - l.newest)
	if ahead > 0 {
		l.advance(seq, now)
		return true
	}
	if ahead <= -nackWindow || l.has(seq) {
		return false
	}
	l.set(seq)
	for i, g := range l.missing {
		if g.seq == seq {
			l.missing = append(l.missing[:i], l.missing[i+1:]...)
			break
		}
	}
	return true
}

// advance makes seq the newest. All between is missing, unless the gap is wider
// than the window: then the source has jumped and nothing is asked for.
func (l *losses) advance(seq uint16, now time.Time) {
	jumped := seq-l.newest >= nackWindow
	if jumped {
		l.lost += uint64(len(l.missing))
		l.missing, l.have = l.missing[:0], [nackWindow / 64]uint64{}
	} else {
		for s := l.newest + 1; s != seq; s++ {
			l.clear(s)
			l.missing = append(l.missing, gap{seq: s, since: now})
		}
	}
	l.newest = seq
	l.set(seq)
	l.expire()
}

// expire gives up what fell out of the window.
func (l *losses) expire() {
	n := 0
	for n < len(l.missing) && l.newest-l.missing[n].seq >= nackWindow {
		n++
	}
	l.giveUp(n)
}

func (l *losses) giveUp(first int) {
	l.lost += uint64(first)
	l.missing = append(l.missing[:0], l.missing[first:]...)
}

// due appends to seqs what has to be asked for at now.
func (l *losses) due(now time.Time, seqs []uint16) []uint16 {
	if len(l.missing) == 0 || now.Before(l.next) {
		return seqs
	}
	l.next = now.Add(nackGrace / 2) // no need to look at each packet
	kept := l.missing[:0]
	for _, g := range l.missing {
		wait, last := nackInterval, g.asked
		if g.tries == 0 {
			wait, last = nackGrace, g.since
		}
		if now.Sub(last) >= wait {
			if g.tries == nackTries {
				l.lost++
				continue
			}
			g.asked, g.tries = now, g.tries+1
			seqs = append(seqs, g.seq)
		}
		kept = append(kept, g)
	}
	l.missing = kept
	return seqs
}

func (l *losses) has(seq uint16) bool { return l.have[seq%nackWindow/64]>>(seq%64)&1 == 1 }
func (l *losses) set(seq uint16)      { l.have[seq%nackWindow/64] |= 1 << (seq % 64) }
func (l *losses) clear(seq uint16)    { l.have[seq%nackWindow/64] &^= 1 << (seq % 64) }
