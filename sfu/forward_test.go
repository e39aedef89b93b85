package sfu

import (
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/pion/rtp"
	"github.com/pion/webrtc/v4"
)

// checkFrames wants the viewer to get, in order and without a gap in the RTP
// numbering, the frames of these numbers, two packets each, the first with the
// descriptor of a key frame.
func checkFrames(t *testing.T, packets []rtp.Packet, numbers ...byte) {
	t.Helper()
	slices.SortStableFunc(packets, func(a, b rtp.Packet) int { return int(int16(a.SequenceNumber - b.SequenceNumber)) })
	var got []byte
	for i, p := range packets {
		if i > 0 && p.SequenceNumber != packets[i-1].SequenceNumber+1 {
			t.Errorf("sequence number %d follows %d", p.SequenceNumber, packets[i-1].SequenceNumber)
		}
		if i%2 == 0 {
			got = append(got, p.Payload[len(p.Payload)-1])
			continue
		}
		if !p.Marker || p.Timestamp != packets[i-1].Timestamp || p.Payload[len(p.Payload)-1] != got[i/2] {
			t.Errorf("packet %d does not end frame %d: %v", i, got[i/2], p)
		}
	}
	if !slices.Equal(got, numbers) {
		t.Errorf("got frames %v, want %v", got, numbers)
	}
	if len(packets) > 0 && packets[0].Payload[1] != 0 {
		t.Error("the first frame is no key frame")
	}
}

func TestViewersGetEveryPacket(t *testing.T) {
	server, _ := newServer(t)
	p := publish(t, server, "r", clientConfig{})
	viewers := make([]*client, 5)
	for i := range viewers {
		viewers[i] = view(t, server, "r", clientConfig{})
	}
	f := film{track: p.video, seq: 65530, ts: 1<<32 - 10000}
	sound := rtp.Packet{Header: rtp.Header{Version: 2}, Payload: []byte{1}}
	var want []byte
	for i := range byte(50) {
		f.frame(t, i == 0, i)
		must(t, p.audio.WriteRTP(&sound))
		sound.SequenceNumber++
		sound.Timestamp += 960
		want = append(want, i)
		time.Sleep(time.Millisecond) // pion's queues on the way are finite
	}
	for _, v := range viewers {
		waitFor(t, "all packets", func() bool { v.mu.Lock(); defer v.mu.Unlock(); return len(v.packets) >= 100 && len(v.sounds) >= 50 })
		checkFrames(t, v.received(), want...)
	}
	stats := server.Stats()
	if c := stats.Counters; c.PacketsIn != 150 || c.PacketsOut != 750 || stats.FirstFrame.Count != 5 {
		t.Errorf("stats: %+v", stats)
	}
	if r := stats.Rooms[0]; !r.Publisher || r.Viewers != 5 || len(r.Tracks) != 2 || r.Tracks[1].Packets != 100 {
		t.Errorf("room: %+v", r)
	}
}

func TestViewerBeginsWithKeyFrame(t *testing.T) {
	server, _ := newServer(t)
	p := publish(t, server, "r", clientConfig{})
	v := view(t, server, "r", clientConfig{})
	f := film{track: p.video}
	for i, key := range []bool{false, false, true, false} {
		f.frame(t, key, byte(i))
	}
	waitFor(t, "the frames from the key frame on", func() bool { return len(v.received()) >= 4 })
	checkFrames(t, v.received(), 2, 3)
	if n := server.Stats().Counters.Drops["no_key_frame"]; n != 4 {
		t.Errorf("%d packets dropped before the key frame, want 4", n)
	}
}

// A padding-only packet takes a number of the publisher's, but none of the
// viewer's.
func TestPaddingLeavesNoGap(t *testing.T) {
	server, _ := newServer(t)
	p := publish(t, server, "r", clientConfig{})
	v := view(t, server, "r", clientConfig{})
	f := film{track: p.video}
	f.frame(t, true, 0)
	padding := rtp.Packet{Header: rtp.Header{Version: 2, Padding: true, SequenceNumber: f.seq, PaddingSize: 200}}
	must(t, f.track.WriteRTP(&padding))
	f.seq++
	f.frame(t, false, 1)
	waitFor(t, "both frames", func() bool { return len(v.received()) >= 4 })
	checkFrames(t, v.received(), 0, 1)
}

func TestPublisherComesBack(t *testing.T) {
	server, _ := newServer(t)
	p := publish(t, server, "r", clientConfig{})
	v := view(t, server, "r", clientConfig{})
	f := film{track: p.video, seq: 30000, ts: 1}
	f.frame(t, true, 0)
	f.frame(t, false, 1)
	waitFor(t, "the first publisher's frames", func() bool { return len(v.received()) >= 4 })
	p.session.Close()
	if r := server.Stats().Rooms[0]; r.Publisher || r.Viewers != 1 {
		t.Errorf("room without its publisher: %+v", r)
	}
	p = publish(t, server, "r", clientConfig{})
	f = film{track: p.video, seq: 7, ts: 4_000_000_000}
	for i, key := range []bool{false, true, false} {
		f.frame(t, key, byte(2+i))
	}
	waitFor(t, "the second publisher's frames", func() bool { return len(v.received()) >= 8 })
	packets := v.received()
	checkFrames(t, packets, 0, 1, 3, 4)
	pause := packets[4].Timestamp - packets[2].Timestamp
	if pause == 0 || pause > uint32(timeout/time.Second)*90000 {
		t.Errorf("timestamps jump by %d over the change of publisher", pause)
	}
}

// The second publisher offers VP8 last, and has to use it all the same.
func TestPublisherComesBackWithTheViewersCodec(t *testing.T) {
	h264 := webrtc.RTPCodecParameters{PayloadType: 102, RTPCodecCapability: webrtc.RTPCodecCapability{
		MimeType: webrtc.MimeTypeH264, ClockRate: 90000, SDPFmtpLine: "packetization-mode=1;profile-level-id=42e01f",
	}}
	server, _ := newServer(t)
	p := publish(t, server, "r", clientConfig{})
	v := view(t, server, "r", clientConfig{})
	p.session.Close()
	both := publish(t, server, "r", clientConfig{video: []webrtc.RTPCodecParameters{h264, vp8}, sends: webrtc.MimeTypeVP8})
	if got := both.session.chosen[1].mime; got != webrtc.MimeTypeVP8 {
		t.Errorf("the publisher is to send %s", got)
	}
	both.session.Close()
	publish(t, server, "r", clientConfig{video: []webrtc.RTPCodecParameters{h264}})
	select {
	case <-v.session.Done(): // it cannot receive H.264
	case <-time.After(timeout):
		t.Error("the viewer of VP8 is kept in a room of H.264")
	}
}

func TestViewerWithOtherPayloadTypes(t *testing.T) {
	other := vp8
	other.PayloadType = 120
	server, _ := newServer(t)
	p := publish(t, server, "r", clientConfig{})
	v := view(t, server, "r", clientConfig{video: []webrtc.RTPCodecParameters{other}})
	f := film{track: p.video}
	f.frame(t, true, 0)
	waitFor(t, "the frame", func() bool { return len(v.received()) >= 2 })
	if pt := v.received()[0].PayloadType; pt != 120 {
		t.Errorf("payload type %d, want 120", pt)
	}
}

func TestViewerWithoutTheCodec(t *testing.T) {
	vp9 := webrtc.RTPCodecParameters{PayloadType: 98, RTPCodecCapability: webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeVP9, ClockRate: 90000, SDPFmtpLine: "profile-id=0"}}
	server, _ := newServer(t)
	publish(t, server, "r", clientConfig{})
	v := newClient(t, clientConfig{role: Viewer, video: []webrtc.RTPCodecParameters{vp9}})
	if err := v.join(server, "r"); !errors.Is(err, ErrCodec) {
		t.Errorf("a viewer of VP9 in a room of VP8: %v", err)
	}
	if r := server.Stats().Rooms[0]; r.Viewers != 0 {
		t.Errorf("it takes a place: %+v", r)
	}
}

// losePackets has the server's socket lose the chosen RTP packets of one
// direction, each of them once: retransmissions pass.
func losePackets(conn *lossyConn, lostOut bool, choose func(n int) bool) (lost func() int) {
	var mu sync.Mutex
	var seen, dropped int
	f := func(out bool, b []byte) bool {
		if out != lostOut || !isRTP(b) || len(b) < 20 {
			return false
		}
		mu.Lock()
		defer mu.Unlock()
		seen++
		if choose(seen) {
			dropped++
			return true
		}
		return false
	}
	conn.lose.Store(&f)
	return func() int { mu.Lock(); defer mu.Unlock(); return dropped }
}

func TestNACKAnswered(t *testing.T) {
	for name, codecs := range map[string][]webrtc.RTPCodecParameters{
		"plain": {vp8},
		"RTX":   {vp8, rtxOf(vp8)},
	} {
		t.Run(name, func(t *testing.T) {
			server, conn := newServer(t)
			p := publish(t, server, "r", clientConfig{})
			v := view(t, server, "r", clientConfig{video: codecs, nack: true})
			lost := losePackets(conn, true, func(n int) bool { return n%5 == 0 })
			f := film{track: p.video, seq: 65500}
			var want []byte
			for i := range byte(100) {
				f.frame(t, i == 0, i)
				want = append(want, i)
				time.Sleep(2 * time.Millisecond)
			}
			conn.lose.Store(nil)
			waitFor(t, "the lost packets", func() bool {
				f.packet(t, false, []byte{0, 0}) // what is lost shows by what follows
				return len(firstOf(v.received(), 2*len(want))) == 2*len(want)
			})
			checkFrames(t, firstOf(v.received(), 2*len(want)), want...)
			c := server.Stats().Counters
			if lost() == 0 || c.NACKs < uint64(lost()) || c.Retransmits < uint64(lost()) {
				t.Errorf("lost %d packets, asked again for %d, resent %d", lost(), c.NACKs, c.Retransmits)
			}
			if rtx := v.session.downs[1].rtxSSRC; (rtx != 0) != (name == "RTX") {
				t.Errorf("RTX SSRC %d", rtx)
			}
		})
	}
}

// firstOf returns the first n packets by sequence number, without duplicates,
// or fewer if some have not come.
func firstOf(packets []rtp.Packet, n int) []rtp.Packet {
	byseq := map[uint16]rtp.Packet{}
	for _, p := range packets {
		byseq[p.SequenceNumber] = p
	}
	if len(packets) == 0 {
		return nil
	}
	first := packets[0].SequenceNumber
	var out []rtp.Packet
	for i := range n {
		p, ok := byseq[first+uint16(i)]
		if !ok {
			return out
		}
		out = append(out, p)
	}
	return out
}

func TestPublishersLossesRecovered(t *testing.T) {
	server, conn := newServer(t)
	p := publish(t, server, "r", clientConfig{})
	v := view(t, server, "r", clientConfig{})
	lost := losePackets(conn, false, func(n int) bool { return n%7 == 0 })
	f := film{track: p.video}
	const frames = 100
	for i := range byte(frames) {
		f.frame(t, i == 0, i)
		time.Sleep(2 * time.Millisecond)
	}
	conn.lose.Store(nil)
	waitFor(t, "all frames", func() bool {
		f.packet(t, false, []byte{0, 0})
		return len(firstOf(v.received(), 2*frames)) == 2*frames
	})
	var want []byte
	for i := range byte(frames) {
		want = append(want, i)
	}
	checkFrames(t, firstOf(v.received(), 2*frames), want...)
	if track := server.Stats().Rooms[0].Tracks[1]; lost() == 0 || track.Lost != 0 {
		t.Errorf("lost %d on the way, %d of them for good", lost(), track.Lost)
	}
}

func TestSenderReportsKeepTheTimeline(t *testing.T) {
	server, _ := newServer(t)
	p := publish(t, server, "r", clientConfig{})
	v := view(t, server, "r", clientConfig{})
	f := film{track: p.video, ts: 1000}
	f.frame(t, true, 0)
	u := p.session.upTracks()[1]
	waitFor(t, "the publisher's report", func() bool { return u.report.Load() != nil })
	source := *u.report.Load()
	waitFor(t, "the viewer's report", func() bool {
		f.frame(t, false, 1)
		v.mu.Lock()
		defer v.mu.Unlock()
		return len(v.reports) > 0
	})
	v.mu.Lock()
	defer v.mu.Unlock()
	for ssrc, sr := range v.reports {
		elapsed := float64(sr.NTPTime-source.ntp) / (1 << 32)
		ticks := int32(sr.RTPTime - source.rtp) // the first publisher's timestamps are the viewer's
		if ssrc != v.session.downs[1].ssrc || elapsed < 0 || elapsed > timeout.Seconds() {
			t.Fatalf("report %+v of SSRC %d, %f s after the publisher's", sr, ssrc, elapsed)
		}
		if diff := float64(ticks) - elapsed*90000; diff < -100 || diff > 100 {
			t.Errorf("%d ticks in %f s", ticks, elapsed)
		}
	}
}
