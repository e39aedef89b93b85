package sfu

import (
	"fmt"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/pion/rtp"
	"github.com/pion/webrtc/v4"
)

// BenchmarkForward measures a publisher's packets on their way to all viewers,
// from the up-track to the socket's write: renumbering, header extensions,
// padding, SRTP and pion's layers. One packet at a time, and frames of eight.
func BenchmarkForward(b *testing.B) {
	for _, viewers := range []int{1, 20, 100} {
		for _, frame := range []int{1, 8} {
			b.Run(fmt.Sprintf("viewers=%d/frame=%d", viewers, frame), func(b *testing.B) { benchmarkForward(b, viewers, frame) })
		}
	}
}

func benchmarkForward(b *testing.B, viewers, frame int) {
	server, conn := newServer(b)
	p := publish(b, server, "r", clientConfig{})
	for range viewers {
		view(b, server, "r", clientConfig{video: []webrtc.RTPCodecParameters{vp8, rtxOf(vp8)}, exts: true})
	}
	sink := func(out bool, packet []byte) bool { return out && isRTP(packet) }
	conn.lose.Store(&sink)
	u := p.session.upTracks()[1]
	packets := make([][]byte, frame)
	for i := range packets {
		packets[i] = make([]byte, 12+1180+i*2/frame) // the longer ones last, as libwebrtc has them
		copy(packets[i][12:], []byte{0x10, 0x00, 0, 0, 0x9d, 0x01, 0x2a})
	}
	h := rtp.Header{Version: 2, SSRC: 1}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	b.ReportAllocs()
	before := server.Stats().Counters
	sent := 0
	began := threadTime(b)
	for b.Loop() {
		h.Timestamp += 3000
		for i, raw := range packets {
			h.SequenceNumber++
			h.Marker = i == frame-1
			_, _ = h.MarshalTo(raw)
		}
		u.handle(packets, time.Now())
		sent += frame * viewers
	}
	b.ReportMetric(float64(threadTime(b)-began)/float64(sent), "cpu-ns/forward")
	after := server.Stats().Counters
	if out := after.PacketsOut - before.PacketsOut; out < uint64(sent) {
		b.Fatalf("forwarded %d of %d packets", out, sent)
	}
	if padding := after.PaddingOut - before.PaddingOut; frame == 8 && padding != uint64(sent/2) {
		b.Fatalf("%d bytes of padding in %d packets", padding, sent)
	}
}

// threadTime is the CPU time of the calling thread (getrusage(2)): the machine
// may be busy with other things.
func threadTime(b *testing.B) time.Duration {
	b.Helper()
	const thread = 1 // RUSAGE_THREAD
	var usage syscall.Rusage
	if err := syscall.Getrusage(thread, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
