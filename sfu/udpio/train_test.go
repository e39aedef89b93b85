package udpio

import (
	"bytes"
	"slices"
	"testing"
	"time"
)

// chain links datagrams of these lengths into one group.
func chain(lengths []int) []packet {
	packets := make([]packet, len(lengths))
	for i, n := range lengths {
		packets[i] = packet{data: bytes.Repeat([]byte{byte(i)}, n), next: int32(i + 1)}
	}
	if len(packets) > 0 {
		packets[len(packets)-1].next = -1
	}
	return packets
}

// trains cuts all of a group.
func trains(packets []packet, most int) [][]int {
	var cut [][]int
	for head := int32(0); head >= 0; {
		var parts [][]byte
		parts, head, _ = train(nil, packets, head, most, maxTrainBytes)
		var lengths []int
		for _, part := range parts {
			lengths = append(lengths, len(part))
		}
		cut = append(cut, lengths)
	}
	return cut
}

func TestTrain(t *testing.T) {
	repeat := func(length, times int) []int { return slices.Repeat([]int{length}, times) }
	for _, test := range []struct {
		name    string
		lengths []int
		most    int
		want    [][]int
	}{
		{"one", []int{100}, 16, [][]int{{100}}},
		{"equal", []int{100, 100, 100}, 16, [][]int{{100, 100, 100}}},
		{"no trains", []int{100, 100}, 1, [][]int{{100}, {100}}},
		{"shorter one closes", []int{100, 100, 60, 100}, 16, [][]int{{100, 100, 60}, {100}}},
		{"shorter ones do not follow", []int{100, 60, 60}, 16, [][]int{{100, 60}, {60}}},
		{"longer one opens", []int{60, 100, 100}, 16, [][]int{{60}, {100, 100}}},
		{"too many", repeat(100, 20), 16, [][]int{repeat(100, 16), repeat(100, 4)}},
		{"too long", repeat(30000, 5), 16, [][]int{{30000, 30000}, {30000, 30000}, {30000}}},
		{"empty ones go alone", []int{100, 0, 0, 100}, 16, [][]int{{100}, {0}, {0}, {100}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := trains(chain(test.lengths), test.most); !slices.EqualFunc(got, test.want, slices.Equal) {
				t.Errorf("trains of %v = %v, want %v", test.lengths, got, test.want)
			}
		})
	}
}

// FuzzTrain: trains are what the kernel takes, and what it makes of them are the
// datagrams again.
func FuzzTrain(f *testing.F) {
	f.Add([]byte{10, 10, 10, 5, 10, 0, 200, 200}, byte(16), uint16(0))
	f.Add(bytes.Repeat([]byte{12}, 40), byte(15), uint16(25_000))
	f.Add([]byte{0, 0, 0}, byte(3), uint16(1))
	f.Add([]byte{255, 255, 255, 254}, byte(15), uint16(65_000))
	f.Add([]byte{12, 12, 13, 12}, byte(15), uint16(1300))
	f.Fuzz(func(t *testing.T, scaled []byte, most byte, mostBytes uint16) {
		if len(scaled) == 0 {
			return
		}
		lengths := make([]int, len(scaled))
		for i, n := range scaled {
			lengths[i] = int(n) * 100
		}
		limit, limitBytes := int(most)%maxTrain+1, min(int(mostBytes), maxTrainBytes)
		packets := chain(lengths)
		var sent [][]byte
		for head := int32(0); head >= 0; {
			var parts [][]byte
			var total int
			parts, head, total = train(nil, packets, head, limit, limitBytes)
			joined := bytes.Join(parts, nil)
			if len(joined) != total || len(parts) > limit || len(parts) > 1 && total > limitBytes {
				t.Fatalf("train of %d, %d bytes, said to be %d, limits %d and %d", len(parts), len(joined), total, limit, limitBytes)
			}
			segment := 0
			if len(parts) > 1 {
				segment = len(parts[0])
			}
			if got := splitAll(joined, segment); !slices.EqualFunc(got, parts, bytes.Equal) {
				t.Fatalf("train of %d arrives as %d", len(parts), len(got))
			}
			sent = append(sent, parts...)
		}
		if !slices.EqualFunc(sent, packets, func(b []byte, p packet) bool { return bytes.Equal(b, p.data) }) {
			t.Errorf("trains of %v leave %d datagrams", lengths, len(sent))
		}
	})
}

// splitAll is what a receiver makes of a message.
func splitAll(message []byte, segment int) (datagrams [][]byte) {
	for offset, end := 0, false; !end; {
		var datagram []byte
		datagram, end = split(message, offset, segment)
		offset += len(datagram)
		datagrams = append(datagrams, datagram)
	}
	return datagrams
}

func TestTrainLimits(t *testing.T) {
	var l trainLimits
	if !l.allows(1) || !l.allows(maxDatagram) {
		t.Error("no limit refuses")
	}
	l = trainLimits{until: time.Now().Add(time.Hour)}
	if l.allows(1) || l.allows(1200) {
		t.Error("no trains allowed, yet one is")
	}
	l.segment = 1200
	if !l.allows(1200) || l.allows(1201) {
		t.Error("limit of 1200 is not one")
	}
	l.until = time.Now().Add(-time.Second)
	if !l.allows(1201) || l != (trainLimits{}) {
		t.Errorf("limit has not ended: %+v", l)
	}
}
