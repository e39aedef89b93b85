package rtpmap

import (
	"math/rand/v2"
	"testing"
)

// A model is a Map that remembers everything and counts instead of keeping
// runs: the number that goes out is the packet's place among those not dropped.
type model struct {
	sources []*source
}

type source struct {
	first, out int64 // of its first packet
	newest     int64 // first-1 if there is none
	dropped    map[int64]bool
	tsDelta    uint32
	newestTS   uint32
}

func (s *source) place(n int64) int64 {
	out := s.out + n - s.first
	for d := range s.dropped {
		if d < n {
			out--
		}
	}
	return out
}

func (m *model) last() *source { return m.sources[len(m.sources)-1] }

func (m *model) next(n int64, ts uint32) (out uint16, outTS uint32, ok bool) {
	s := m.last()
	outTS = ts + s.tsDelta
	if n < s.first || s.dropped[n] {
		return 0, outTS, false
	}
	if n > s.newest {
		s.newest = n
		if int32(outTS-s.newestTS) > 0 {
			s.newestTS = outTS
		}
	}
	return uint16(s.place(n)), outTS, true
}

func (m *model) drop(n int64) bool {
	s := m.last()
	if n <= s.newest {
		return false
	}
	s.newest, s.dropped[n] = n, true
	return true
}

func (m *model) switchTo(n int64, ts, step uint32) int {
	s := &source{first: n, newest: n - 1, out: n, newestTS: ts, dropped: map[int64]bool{}}
	if len(m.sources) > 0 {
		was := m.last()
		s.out = was.place(was.newest + 1)
		s.newestTS = was.newestTS
		s.tsDelta = was.newestTS + max(step, 1) - ts
	}
	m.sources = append(m.sources, s)
	return len(m.sources)
}

func (m *model) reverse(out uint16) (seq uint16, generation int, ok bool) {
	for i := len(m.sources) - 1; i >= 0; i-- {
		s := m.sources[i]
		for n := s.newest; n >= s.first; n-- {
			if !s.dropped[n] && uint16(s.place(n)) == out {
				return uint16(n), i + 1, true
			}
		}
	}
	return 0, 0, false
}

// play takes two bytes of script for each call on both and compares what they
// answer.
func play(t *testing.T, start uint16, script []byte) {
	var m Map
	ref := &model{}
	newest, ts := int64(start), uint32(start)<<16
	if got, want := m.Switch(start, ts, 0), ref.switchTo(newest, ts, 0); got != want {
		t.Fatalf("first Switch = %d, want %d", got, want)
	}
	newest--
	for i := 0; i+1 < len(script); i += 2 {
		op, arg := script[i], int64(script[i+1])
		switch {
		case op < 150: // mostly in order, some lost, some late
			n := newest + 1
			if arg > 200 {
				n += arg - 200
			} else if arg > 150 {
				n -= arg - 150
			}
			ts += uint32(arg)
			out, outTS, ok := m.Next(uint16(n), ts)
			wantOut, wantTS, wantOK := ref.next(n, ts)
			if ok != wantOK || outTS != wantTS || ok && out != wantOut {
				t.Fatalf("%d: Next(%d, %d) = %d, %d, %v, want %d, %d, %v", i, n, ts, out, outTS, ok, wantOut, wantTS, wantOK)
			}
			newest = max(newest, n)
		case op < 200:
			n := newest + 1 + arg%4 - 1
			if got, want := m.Drop(uint16(n)), ref.drop(n); got != want {
				t.Fatalf("%d: Drop(%d) = %v, want %v", i, n, got, want)
			}
			newest = max(newest, n)
		case op < 205:
			n := (arg * 257) & 0xffff
			ts = uint32(arg) << 24
			if got, want := m.Switch(uint16(n), ts, uint32(arg)), ref.switchTo(n, ts, uint32(arg)); got != want {
				t.Fatalf("%d: Switch(%d) = %d, want %d", i, n, got, want)
			}
			newest = n - 1
		default:
			s := ref.last()
			out := uint16(s.place(s.newest) + 2 - arg)
			seq, generation, ok := m.Reverse(out)
			wantSeq, wantGeneration, wantOK := ref.reverse(out)
			if ok != wantOK || ok && (seq != wantSeq || generation != wantGeneration) {
				t.Fatalf("%d: Reverse(%d) = %d, %d, %v, want %d, %d, %v", i, out, seq, generation, ok, wantSeq, wantGeneration, wantOK)
			}
		}
	}
}

// maxScript keeps a script below what a Map remembers: each run takes a drop or
// a switch of two bytes.
const maxScript = 2 * maxRuns

func TestMapAgainstModel(t *testing.T) {
	for seed := range uint64(3000) {
		random := rand.New(rand.NewPCG(seed, 1))
		script := make([]byte, random.IntN(maxScript))
		for i := range script {
			script[i] = byte(random.UintN(256))
		}
		play(t, uint16(random.UintN(1<<16)), script)
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

func FuzzMap(f *testing.F) {
	f.Add(uint16(65530), []byte{0, 0, 0, 0, 150, 1, 0, 0, 0, 160, 255, 3, 201, 9, 0, 0, 255, 4})
	f.Add(uint16(0), []byte{0, 0, 0, 210, 170, 2, 0, 155, 0, 0, 255, 1, 255, 5})
	f.Fuzz(func(t *testing.T, start uint16, script []byte) {
		play(t, start, script[:min(len(script), maxScript)])
	})
}
