package sfu

import (
	"fmt"
	"testing"
	"time"

	"github.com/pion/rtp"
)

// BenchmarkForward measures one publisher's packet on its way to all viewers,
// from the up-track to the socket's write: renumbering, SRTP and pion's layers.
func BenchmarkForward(b *testing.B) {
	for _, viewers := range []int{1, 20, 100} {
		b.Run(fmt.Sprintf("viewers=%d", viewers), func(b *testing.B) { benchmarkForward(b, viewers) })
	}
}

func benchmarkForward(b *testing.B, viewers int) {
	server, conn := newServer(b)
	p := publish(b, server, "r", clientConfig{})
	for range viewers {
		view(b, server, "r", clientConfig{})
	}
	sink := func(out bool, packet []byte) bool { return out && isRTP(packet) }
	conn.lose.Store(&sink)
	u := p.session.upTracks()[1]
	raw := make([]byte, 12+1200)
	h := rtp.Header{Version: 2, SSRC: 1}
	key := append([]byte{0x10, 0x00, 0, 0, 0x9d, 0x01, 0x2a}, make([]byte, 1193)...)
	b.ReportAllocs()
	sent := 0
	for b.Loop() {
		h.SequenceNumber = uint16(sent)
		h.Timestamp = uint32(sent) * 300
		_, _ = h.MarshalTo(raw)
		copy(raw[12:], key)
		u.handle(raw, time.Now())
		sent++
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(sent)/float64(viewers), "ns/forward")
	if out := server.Stats().Counters.PacketsOut; out < uint64(sent*viewers) {
		b.Fatalf("forwarded %d of %d packets", out, sent*viewers)
	}
}
