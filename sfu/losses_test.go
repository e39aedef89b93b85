package sfu

import (
	"slices"
	"testing"
	"time"
)

func TestLosses(t *testing.T) {
	ms := func(n int) time.Time { return time.Unix(1000, int64(n)*1e6) }
	type step struct {
		at    int // ms
		seq   uint16
		stale bool     // seen before, or too old
		ask   []uint16 // what is due then
	}
	for _, test := range []struct {
		name  string
		steps []step
		lost  uint64
	}{
		{"in order", []step{{at: 0, seq: 65534}, {at: 1, seq: 65535}, {at: 100, seq: 0}}, 0},
		{"late within the grace", []step{{at: 0, seq: 1}, {at: 1, seq: 3}, {at: 5, seq: 2}, {at: 50, seq: 4}}, 0},
		{"asked, then again", []step{
			{at: 0, seq: 65535}, {at: 1, seq: 2}, {at: 12, seq: 3, ask: []uint16{0, 1}}, {at: 30, seq: 4}, {at: 40, seq: 1},
			{at: 80, seq: 5, ask: []uint16{0}}, {at: 81, seq: 0}, {at: 200, seq: 6},
		}, 0},
		{"twice the same", []step{{at: 0, seq: 1}, {at: 1, seq: 1, stale: true}, {at: 1, seq: 3}, {at: 2, seq: 2}, {at: 3, seq: 2, stale: true}}, 0},
		{"too old", []step{{at: 0, seq: 1000}, {at: 1, seq: 1000 - nackWindow, stale: true}}, 0},
		{"out of the window", []step{{at: 0, seq: 1}, {at: 1, seq: 3}, {at: 2, seq: 3 + nackWindow - 1}, {at: 3, seq: 4 + nackWindow - 1}}, 1},
		{"a jump asks for nothing", []step{{at: 0, seq: 1}, {at: 1, seq: 3}, {at: 2, seq: 3 + nackWindow}, {at: 50, seq: 4 + nackWindow}}, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			var l losses
			for i, s := range test.steps {
				if fresh := l.add(s.seq, ms(s.at)); fresh == s.stale {
					t.Errorf("step %d: fresh %v", i, fresh)
				}
				ask := l.due(ms(s.at), nil)
				if test.name == "out of the window" {
					continue // hundreds
				}
				if !slices.Equal(ask, s.ask) {
					t.Errorf("step %d: asked for %v, want %v", i, ask, s.ask)
				}
			}
			if l.lost != test.lost {
				t.Errorf("%d lost, want %d", l.lost, test.lost)
			}
		})
	}
}

func TestLossesGiveUp(t *testing.T) {
	var l losses
	now := time.Unix(1000, 0)
	l.add(1, now)
	l.add(3, now)
	asked := 0
	for range 1000 {
		now = now.Add(10 * time.Millisecond)
		asked += len(l.due(now, nil))
	}
	if asked != nackTries || l.lost != 1 || len(l.missing) != 0 {
		t.Errorf("asked %d times, %d lost, missing %v", asked, l.lost, l.missing)
	}
}

// FuzzLosses compares with a map of what came.
func FuzzLosses(f *testing.F) {
	f.Add([]byte{1, 1, 2, 255, 1, 3, 0, 1, 200, 100})
	f.Fuzz(func(t *testing.T, steps []byte) {
		var l losses
		seen := map[int]bool{} // by the number before it wraps
		newest := 60000
		now := time.Unix(1000, 0)
		for i, b := range steps {
			seq := newest + int(int8(b))
			fresh := l.add(uint16(seq), now)
			if want := !seen[seq]; fresh != want {
				t.Fatalf("step %d: %d is fresh: %v, want %v", i, seq, fresh, want)
			}
			seen[seq] = true
			if i == 0 || seq > newest {
				newest = seq
			}
			now = now.Add(time.Millisecond)
			for _, s := range l.due(now, nil) {
				if s := newest - int(uint16(newest)-s); seen[s] {
					t.Fatalf("step %d: asked for %d, which came", i, s)
				}
			}
			if len(l.missing) >= nackWindow {
				t.Fatalf("%d missing", len(l.missing))
			}
		}
	})
}
