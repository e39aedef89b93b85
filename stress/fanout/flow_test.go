package fanout

import (
	"math/rand/v2"
	"testing"
)

func TestFlow(t *testing.T) {
	for name, test := range map[string]struct {
		seqs                           []uint16
		packets, duplicates, reordered uint64
		span                           uint64 // from the first number to the newest, both counted
	}{
		"in order":     {[]uint16{7, 8, 9}, 3, 0, 0, 3},
		"a gap":        {[]uint16{7, 9}, 2, 0, 0, 3},
		"late":         {[]uint16{7, 9, 8}, 3, 0, 1, 3},
		"twice":        {[]uint16{7, 8, 8, 7}, 2, 2, 0, 2},
		"wrap":         {[]uint16{65534, 65535, 0, 1}, 4, 0, 0, 4},
		"late, wrap":   {[]uint16{65534, 0, 65535}, 3, 0, 1, 3},
		"before":       {[]uint16{0, 65535, 1}, 3, 0, 1, 2},
		"a wide gap":   {[]uint16{0, 30000, 60000, 24464}, 4, 0, 0, 90001},
		"a turn later": {[]uint16{5, 30000, 60000, 24464, 54464, 5}, 6, 0, 0, 131073},
	} {
		t.Run(name, func(t *testing.T) {
			var f flow
			first := f.add(test.seqs[0])
			for _, seq := range test.seqs[1:] {
				f.add(seq)
			}
			if f.packets != test.packets || f.duplicates != test.duplicates || f.reordered != test.reordered || f.newest-first+1 != test.span {
				t.Errorf("%d packets, %d duplicates, %d reordered, newest %d after first %d", f.packets, f.duplicates, f.reordered, f.newest, first)
			}
		})
	}
}

// TestFlowModel loses, repeats and delays packets of many turns.
func TestFlowModel(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	var f flow
	seen := map[uint64]bool{}
	var packets, duplicates uint64
	for n := uint64(firstFlowNumber); n < firstFlowNumber+300_000; n++ {
		if n > firstFlowNumber && random.IntN(20) == 0 {
			continue
		}
		for _, number := range []uint64{n, max(firstFlowNumber, n-uint64(random.IntN(1000)))}[:1+random.IntN(2)] {
			if got := f.add(uint16(number)); got != number {
				t.Fatalf("packet %d was taken for %d", number, got)
			}
			if seen[number] {
				duplicates++
			} else {
				packets++
			}
			seen[number] = true
		}
	}
	if f.packets != packets || f.duplicates != duplicates {
		t.Errorf("%d packets and %d duplicates, want %d and %d", f.packets, f.duplicates, packets, duplicates)
	}
}
