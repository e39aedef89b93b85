package fanout

// A flow counts the packets of one RTP stream by their sequence numbers.
type flow struct {
	started    bool
	newest     uint64 // sequence number with its wraps
	seen       [seenPackets / 64]uint64
	packets    uint64 // without duplicates
	duplicates uint64
	reordered  uint64
}

// seenPackets is how far back it is known which packets came: all that a
// sequence number can mean.
const seenPackets = 1 << 15

// firstFlowNumber is that of sequence number 0 in the first cycle.
const firstFlowNumber = 1 << 16

// add counts a packet and returns its number, wraps included.
func (f *flow) add(seq uint16) uint64 {
	if !f.started {
		f.started = true
		f.newest = firstFlowNumber + uint64(seq)
		f.set(f.newest)
		f.packets++
		return f.newest
	}
	n := f.newest + uint64(int64(int16(seq-uint16(f.newest))))
	switch {
	case n > f.newest:
		for missing := f.newest + 1; missing < n; missing++ {
			f.seen[missing%seenPackets/64] &^= 1 << (missing % 64)
		}
		f.newest = n
	case f.has(n):
		f.duplicates++
		return n
	default:
		f.reordered++
	}
	f.set(n)
	f.packets++
	return n
}

func (f *flow) set(n uint64)      { f.seen[n%seenPackets/64] |= 1 << (n % 64) }
func (f *flow) has(n uint64) bool { return f.seen[n%seenPackets/64]&(1<<(n%64)) != 0 }

// extend gives a sequence number near the newest its wraps.
func (f *flow) extend(seq uint16) uint64 {
	return f.newest + uint64(int64(int16(seq-uint16(f.newest))))
}
