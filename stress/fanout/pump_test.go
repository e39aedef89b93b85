package fanout

import (
	"context"
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var loopback = netip.AddrFrom4([4]byte{127, 0, 0, 1})

// TestCeilingArrives has the ceiling send over loopback and wants each packet to
// arrive, those that are checked with the right contents.
func TestCeilingArrives(t *testing.T) {
	for name, l := range map[string]Load{
		"frames": {Rate: 20_000_000, Frame: 8}, "long frames": {Rate: 20_000_000, Frame: 40},
		"paced": {Rate: 10_000_000, Frame: 8, Paced: true}, "single packets": {Rate: 10_000_000, Frame: 1},
	} {
		t.Run(name, func(t *testing.T) {
			viewers, ceiling := startPlain(t, 2, 6)
			ask(t, ceiling, "load", Load{Rate: 1_000_000, Frame: 1})
			ask(t, viewers, "await", nil)
			ask(t, viewers, "begin", uint64(1))
			ask(t, ceiling, "load", l)
			var got uint64
			for end := time.Now().Add(20 * time.Second); got < 3000; time.Sleep(5 * time.Millisecond) {
				if time.Now().After(end) {
					t.Fatalf("only %d packets arrived", got)
				}
				got = ask(t, viewers, "received", nil).(uint64)
			}
			tally := ask(t, viewers, "end", ask(t, ceiling, "load", Load{})).(tally)
			if tally.Lost > 0 || tally.Corrupt > 0 || tally.Duplicates > 0 || tally.Delivered < 3000 || tally.Checked != tally.Delivered || tally.Viewers != 6 {
				t.Errorf("%+v", tally)
			}
		})
	}
}

// TestLossIsSeen wants packets that were not sent to be missed, at the end too.
func TestLossIsSeen(t *testing.T) {
	viewers, ceiling := startPlain(t, 1, 2)
	ask(t, ceiling, "load", Load{Rate: 1_000_000, Frame: 1})
	ask(t, viewers, "await", nil)
	sent := ask(t, ceiling, "load", Load{}).([]uint64)
	ask(t, viewers, "end", sent) // all has come
	ask(t, viewers, "begin", uint64(1))
	sent[0] += 5
	if tally := ask(t, viewers, "end", sent).(tally); tally.Lost != 10 || tally.Losers != 2 || tally.Delivered != 0 {
		t.Errorf("%+v", tally)
	}
}

func startPlain(t *testing.T, rooms, n int) (viewers, ceiling handlers) {
	t.Helper()
	start := func(new func() (handlers, func(context.Context) error, error)) handlers {
		h, stop, err := new()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := stop(context.Background()); err != nil {
				t.Error(err)
			}
		})
		return h
	}
	viewers, ceiling = start(newViewers), start(newCeiling)
	addrs := ask(t, viewers, "plain", plainViewers{loopback, true, rooms, n}).([]netip.AddrPort)
	ask(t, ceiling, "open", openCeiling{rooms, addrs})
	return viewers, ceiling
}

// ask calls a handler as a part does.
func ask(t *testing.T, h handlers, do string, args any) any {
	t.Helper()
	result, err := h[do](t.Context(), mustJSON(t, args))
	if err != nil {
		t.Fatalf("%s: %v", do, err)
	}
	return result
}

func TestIsRTP(t *testing.T) {
	packet := func(first, second byte) []byte {
		b := make([]byte, rtpHeaderSize)
		b[0], b[1] = first, second
		return b
	}
	for name, test := range map[string]struct {
		b    []byte
		want bool
	}{
		"RTP": {packet(0x80, 96), true}, "RTP, marker": {packet(0x80, 96|0x80), true}, "RTP, extension": {packet(0x90, 111), true},
		"sender report": {packet(0x80, 200), false}, "feedback": {packet(0x81, 205), false},
		"STUN": {packet(0, 1), false}, "DTLS": {packet(22, 254), false}, "short": {packet(0x80, 96)[:11], false}, "empty": {nil, false},
	} {
		if isRTP(test.b) != test.want {
			t.Errorf("%s: %v", name, !test.want)
		}
	}
}

func TestSegmentSize(t *testing.T) {
	control := make([]byte, 24)
	binary.NativeEndian.PutUint64(control, 20)
	binary.NativeEndian.PutUint32(control[8:], 17)   // SOL_UDP
	binary.NativeEndian.PutUint32(control[12:], 104) // UDP_GRO
	binary.NativeEndian.PutUint32(control[16:], 1228)
	if n := segmentSize(control, 5000); n != 1228 {
		t.Errorf("segments of %d bytes", n)
	}
	if n := segmentSize(nil, 5000); n != 5000 {
		t.Errorf("without control message: segments of %d bytes", n)
	}
	binary.NativeEndian.PutUint32(control[12:], 1)
	if n := segmentSize(control, 5000); n != 5000 {
		t.Errorf("another control message: segments of %d bytes", n)
	}
}
