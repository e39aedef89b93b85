package sfu

// A holder is a conn that can be told to let what waits grow, so that it leaves
// in fewer and longer batches, until as many Releases as Holds.
type holder interface {
	Hold()
	Release()
}

// hold is one holder's hold, of one goroutine.
type hold struct {
	conn holder // nil: there is nothing to hold
	held bool
}

func (h *hold) begin() {
	if h.conn != nil && !h.held {
		h.conn.Hold()
		h.held = true
	}
}

func (h *hold) release() {
	if h.held {
		h.conn.Release()
		h.held = false
	}
}

// paddingPart is which part of a frame's longest packet its others may be padded
// by: a 32nd.
const paddingPart = 32

// equalize has nearly equal packets of a frame padded to the longest of them:
// only packets of one length can leave in one train (udp(7), UDP_SEGMENT), and
// encoders split a frame into packets whose lengths differ by a byte or so, the
// longer ones last. The last packet of a frame may be shorter.
func equalize(batch []packet) {
	for len(batch) > 0 {
		n, longest := 1, len(batch[0].payload)
		for n < len(batch) && batch[n].ts == batch[0].ts {
			longest = max(longest, len(batch[n].payload))
			n++
		}
		for i := range n - 1 {
			if p := &batch[i]; longest-len(p.payload) <= longest/paddingPart {
				p.padding = byte(longest - len(p.payload))
			}
		}
		batch = batch[n:]
	}
}
