package rtpmap

import "testing"

// A step is one call on a Map and what it must answer.
type step struct {
	do   string // "next", "drop", "switch" or "reverse"
	seq  uint16
	ts   uint32
	step uint32

	out        uint16
	outTS      uint32
	generation int
	ok         bool
}

func next(seq uint16, ts uint32, out uint16, outTS uint32) step {
	return step{do: "next", seq: seq, ts: ts, out: out, outTS: outTS, ok: true}
}

func refused(seq uint16) step      { return step{do: "next", seq: seq} }
func drop(seq uint16) step         { return step{do: "drop", seq: seq, ok: true} }
func dropLate(seq uint16) step     { return step{do: "drop", seq: seq} }
func notSent(out uint16) step      { return step{do: "reverse", seq: out} }
func reverse(out, seq uint16) step { return reverseOf(out, seq, 1) }
func reverseOf(out, seq uint16, generation int) step {
	return step{do: "reverse", seq: out, out: seq, generation: generation, ok: true}
}

func switchTo(seq uint16, ts, by uint32, generation int) step {
	return step{do: "switch", seq: seq, ts: ts, step: by, generation: generation}
}

func TestMap(t *testing.T) {
	for name, steps := range map[string][]step{
		"empty": {notSent(0), notSent(65535), drop(7), next(9, 1, 9, 1)},
		"in order": {
			next(10, 100, 10, 100), next(11, 100, 11, 100), next(12, 3100, 12, 3100),
			reverse(10, 10), reverse(12, 12), notSent(13), notSent(9),
		},
		"loss leaves a hole": {
			next(10, 0, 10, 0), next(13, 0, 13, 0), reverse(11, 11), next(11, 0, 11, 0), next(12, 0, 12, 0),
		},
		"drop closes the gap": {
			next(10, 0, 10, 0), drop(11), drop(12), next(13, 0, 11, 0), next(14, 0, 12, 0),
			refused(11), refused(12), reverse(11, 13), reverse(10, 10), notSent(13),
		},
		"the same packet twice": {
			next(10, 0, 10, 0), drop(11), next(12, 0, 11, 0), next(10, 0, 10, 0), next(12, 0, 11, 0),
		},
		"drop after loss": {
			next(10, 0, 10, 0), drop(12), next(13, 0, 12, 0), next(11, 0, 11, 0), refused(12), reverse(11, 11),
		},
		"late drop stays a hole": {
			next(10, 0, 10, 0), next(12, 0, 12, 0), dropLate(11), next(13, 0, 13, 0), reverse(11, 11),
		},
		"drop twice": {
			next(10, 0, 10, 0), drop(11), dropLate(11), next(12, 0, 11, 0),
		},
		"late packet before the first drop of many": {
			next(1, 0, 1, 0), drop(3), next(4, 0, 3, 0), drop(5), next(6, 0, 4, 0), next(2, 0, 2, 0), refused(3), refused(5),
		},
		"before the first": {
			next(10, 0, 10, 0), refused(9), notSent(9),
		},
		"over the wrap-around": {
			next(65534, 0, 65534, 0), drop(65535), next(0, 0, 65535, 0), drop(1), next(2, 0, 0, 0),
			refused(65535), refused(1), next(65534, 0, 65534, 0), reverse(65535, 0), reverse(0, 2), reverse(65534, 65534), notSent(1),
		},
		"switch": {
			next(10, 1000, 10, 1000), next(11, 2000, 11, 2000),
			switchTo(500, 77, 3000, 2), next(500, 77, 12, 5000), next(502, 177, 14, 5100), next(501, 77, 13, 5000),
			refused(499), refused(11),
			reverse(11, 11), reverseOf(12, 500, 2), reverseOf(14, 502, 2), notSent(15),
		},
		"switch back to the first source": {
			next(10, 1000, 10, 1000), switchTo(500, 50, 10, 2), next(500, 50, 11, 1010),
			switchTo(13, 4000, 10, 3), next(13, 4000, 12, 1020), refused(10), refused(12), reverseOf(10, 10, 1), reverseOf(12, 13, 3),
		},
		"switch first": {
			switchTo(7, 70, 99, 1), next(7, 70, 7, 70), next(8, 80, 8, 80), refused(6),
		},
		"switch without a packet between": {
			next(7, 70, 7, 70), switchTo(100, 0, 5, 2), switchTo(200, 0, 5, 3), next(200, 0, 8, 75), reverseOf(8, 200, 3),
		},
		"switch after drops": {
			next(7, 70, 7, 70), drop(8), drop(9), switchTo(100, 0, 5, 2), drop(100), next(101, 0, 8, 75), refused(100), reverse(7, 7), reverseOf(8, 101, 2),
		},
		"switch with no time passed": {
			next(7, 70, 7, 70), switchTo(100, 70, 0, 2), next(100, 70, 8, 71),
		},
		"switch follows the newest timestamp": {
			next(7, 70, 7, 70), next(8, 50, 8, 50), switchTo(100, 0, 5, 2), next(100, 0, 9, 75),
		},
		"timestamps wrap": {
			next(7, 0xffffff00, 7, 0xffffff00), switchTo(100, 0x10, 0x200, 2), next(100, 0x10, 8, 0x100), next(101, 0x20, 9, 0x110),
			switchTo(9, 0xfffffff0, 1, 3), next(9, 0xfffffff0, 10, 0x111), next(10, 0, 11, 0x121),
		},
		"long loss stays a hole": {
			next(0, 0, 0, 0), next(window, 0, window, 0), next(1, 0, 1, 0),
		},
		"numbered anew": {
			next(0, 0, 0, 0), next(window+1, 0, 1, 0), next(window+2, 0, 2, 0), refused(window), refused(3), reverse(1, window+1),
		},
		"dropped after numbering anew": {
			next(0, 0, 0, 0), drop(20000), next(20001, 0, 1, 0), refused(19999), refused(20000),
		},
		"far behind is far ahead": {
			next(30000, 0, 30000, 0), next(100, 0, 30001, 0), next(101, 0, 30002, 0),
		},
	} {
		t.Run(name, func(t *testing.T) {
			var m Map
			for i, s := range steps {
				s.check(t, i, &m)
			}
		})
	}
}

func (s step) check(t *testing.T, i int, m *Map) {
	t.Helper()
	switch s.do {
	case "next":
		out, ts, ok := m.Next(s.seq, s.ts)
		if ok != s.ok || ok && (out != s.out || ts != s.outTS) {
			t.Errorf("%d: Next(%d, %d) = %d, %d, %v, want %d, %d, %v", i, s.seq, s.ts, out, ts, ok, s.out, s.outTS, s.ok)
		}
	case "drop":
		if ok := m.Drop(s.seq); ok != s.ok {
			t.Errorf("%d: Drop(%d) = %v, want %v", i, s.seq, ok, s.ok)
		}
	case "switch":
		if g := m.Switch(s.seq, s.ts, s.step); g != s.generation {
			t.Errorf("%d: Switch(%d) = %d, want %d", i, s.seq, g, s.generation)
		}
	case "reverse":
		seq, g, ok := m.Reverse(s.seq)
		if ok != s.ok || ok && (seq != s.out || g != s.generation) {
			t.Errorf("%d: Reverse(%d) = %d, %d, %v, want %d, %d, %v", i, s.seq, seq, g, ok, s.out, s.generation, s.ok)
		}
	}
}

func TestMapForgets(t *testing.T) {
	var m Map
	for n := range 100_000 { // keep one, drop one
		if n%2 == 0 {
			if out, _, ok := m.Next(uint16(n), 0); !ok || out != uint16(n/2) {
				t.Fatalf("Next(%d) = %d, %v, want %d", n, out, ok, n/2)
			}
		} else if !m.Drop(uint16(n)) {
			t.Fatalf("Drop(%d) = false", n)
		}
	}
	if len(m.closed) != maxRuns || cap(m.closed) > 2*maxRuns {
		t.Errorf("%d runs remembered (capacity %d), want %d", len(m.closed), cap(m.closed), maxRuns)
	}
	const newest = 99_998
	for back := range 2 * maxRuns {
		n := newest - 2*back
		seq, _, ok := m.Reverse(uint16(n / 2))
		if want := back < maxRuns; ok != want || ok && seq != uint16(n) {
			t.Errorf("Reverse(%d) = %d, %v, want %d, %v", n/2, seq, ok, uint16(n), want)
		}
		out, _, ok := m.Next(uint16(n), 0)
		if want := back < maxRuns; ok != want || ok && out != uint16(n/2) {
			t.Errorf("late Next(%d) = %d, %v, want %v", n, out, ok, want)
		}
	}
}

// TestMapLongRun checks numbers that wrapped many times within one run.
func TestMapLongRun(t *testing.T) {
	var m Map
	m.Next(65000, 0)
	m.Drop(65001)
	for n := 65002; n < 500_000; n++ {
		if out, _, ok := m.Next(uint16(n), 0); !ok || out != uint16(n-1) {
			t.Fatalf("Next(%d) = %d, %v", n, out, ok)
		}
	}
	for back := range 3000 {
		n := 499_999 - back
		if seq, _, ok := m.Reverse(uint16(n - 1)); !ok || seq != uint16(n) {
			t.Fatalf("Reverse(%d) = %d, %v, want %d", uint16(n-1), seq, ok, uint16(n))
		}
	}
}

func TestMapAllocates(t *testing.T) {
	var m Map
	seq := uint16(0)
	step := func() {
		m.Next(seq, uint32(seq))
		m.Drop(seq + 1)
		m.Reverse(seq)
		seq += 2
	}
	for range 2 * maxRuns {
		step()
	}
	if n := testing.AllocsPerRun(1000, step); n != 0 {
		t.Errorf("%v allocations per packet", n)
	}
}

func BenchmarkMapNext(b *testing.B) {
	var m Map
	seq := uint16(0)
	b.ReportAllocs()
	for b.Loop() {
		m.Next(seq, 0)
		seq++
	}
}

func BenchmarkMapDropEverySecond(b *testing.B) {
	var m Map
	seq := uint16(0)
	b.ReportAllocs()
	for b.Loop() {
		m.Next(seq, 0)
		m.Drop(seq + 1)
		seq += 2
	}
}
