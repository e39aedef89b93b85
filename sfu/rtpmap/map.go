// Package rtpmap renumbers the RTP packets of one down-track, so that the
// receiver sees one unbroken source whatever is left out or switched.
package rtpmap

import "sync"

const (
	// window is how far behind the newest packet a late one is still told from
	// one far ahead, and how long a hole may be that is left for late packets.
	window = 4096
	// maxRuns bounds what is remembered behind the newest run.
	maxRuns = 128
)

// A Map rewrites sequence numbers and timestamps of the packets of one source
// at a time. Lost packets leave a hole in the numbers that go out, as they must;
// packets left out on purpose (Drop) leave none. Every packet number maps to the
// same outgoing number however often and late it comes.
//
// The zero value is ready: the first packet keeps its numbers. A Map may be used
// by several goroutines. It remembers the last 128 runs between drops and never
// grows beyond that.
type Map struct {
	mu         sync.Mutex
	generation int   // of the source, from 1; 0 before the first packet
	next       int64 // number that follows the newest of this source, not wrapped
	current    run   // up to next
	closed     []run // before current, oldest first
	tsDelta    uint32
	newestTS   uint32 // as sent
}

// A run is a row of packet numbers without drops.
type run struct {
	first, out int64 // of the source and as sent, not wrapped
	length     int64
	generation int
}

// Next maps one packet of the present source. It refuses a late packet which
// was left out, precedes the source's first one, or is too old to tell. More
// than 4096 missing packets in a row are taken for a source that numbers anew
// and leave no hole.
func (m *Map) Next(seq uint16, ts uint32) (outSeq uint16, outTS uint32, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.generation == 0 {
		m.start(seq, ts)
	}
	s := m.unwrap(seq)
	outTS = ts + m.tsDelta
	if s < m.next {
		out, ok := m.late(s)
		return uint16(out), outTS, ok
	}
	if s-m.next >= window {
		m.skip(m.next, s)
	}
	m.next = s + 1
	if int32(outTS-m.newestTS) > 0 {
		m.newestTS = outTS
	}
	return uint16(m.current.out + s - m.current.first), outTS, true
}

// Drop leaves out a packet and closes its place in the numbers that go out. It
// reports false for a late packet, whose place is already spoken for and stays
// a hole.
func (m *Map) Drop(seq uint16) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.generation == 0 {
		return true
	}
	s := m.unwrap(seq)
	if s < m.next {
		return false
	}
	end := s
	if s-m.next >= window {
		end = m.next
	}
	m.skip(end, s+1)
	m.next = s + 1
	return true
}

// Switch turns to another source whose first packet is (seq, ts): another layer
// of the publisher, or the publisher come back. Its numbers follow the newest
// sent; its first timestamp follows the newest sent by step, in units of the RTP
// clock and at least 1, which should be the time since then. It returns the
// generation that Reverse reports for packets of this source, 1 and up.
func (m *Map) Switch(seq uint16, ts, step uint32) (generation int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.generation == 0 {
		m.start(seq, ts)
		return m.generation
	}
	m.generation++
	m.skip(m.next, int64(seq))
	m.next = int64(seq)
	m.tsDelta = m.newestTS + max(step, 1) - ts
	return m.generation
}

// Reverse finds the packet that went out under outSeq: its number in its source
// and the generation of that source. It reports false for numbers not sent yet
// or too old.
func (m *Map) Reverse(outSeq uint16) (seq uint16, generation int, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	newest := m.current.out + m.next - m.current.first - 1
	out := newest - int64(uint16(newest)-outSeq)
	if r := m.open(); out >= r.out && out < r.out+r.length {
		return uint16(r.first + out - r.out), r.generation, true
	}
	for i := len(m.closed) - 1; i >= 0; i-- {
		if r := m.closed[i]; out >= r.out {
			return uint16(r.first + out - r.out), r.generation, out < r.out+r.length
		}
	}
	return 0, 0, false
}

func (m *Map) start(seq uint16, ts uint32) {
	m.generation = 1
	m.next = int64(seq)
	m.current = run{first: m.next, out: m.next, generation: 1}
	m.newestTS = ts
}

// unwrap gives seq its place around the newest number of the source.
func (m *Map) unwrap(seq uint16) int64 {
	newest := m.next - 1
	if behind := uint16(newest) - seq; behind < window {
		return newest - int64(behind)
	}
	return newest + int64(seq-uint16(newest))
}

// open is the current run with its length so far.
func (m *Map) open() run {
	r := m.current
	r.length = m.next - r.first
	return r
}

// late maps a number before next.
func (m *Map) late(s int64) (out int64, ok bool) {
	if s >= m.current.first {
		return m.current.out + s - m.current.first, true
	}
	for i := len(m.closed) - 1; i >= 0 && m.closed[i].generation == m.generation; i-- {
		if r := m.closed[i]; s >= r.first {
			return r.out + s - r.first, s < r.first+r.length
		}
	}
	return 0, false
}

// skip ends the current run before end and opens the next one at first.
func (m *Map) skip(end, first int64) {
	r := m.current
	r.length = end - r.first
	m.current = run{first: first, out: r.out + r.length, generation: m.generation}
	if r.length == 0 {
		return
	}
	if len(m.closed) == maxRuns {
		m.closed = m.closed[:copy(m.closed, m.closed[1:])]
	}
	m.closed = append(m.closed, r)
}
