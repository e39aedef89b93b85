package sfu

import (
	"encoding/binary"
	"strings"
	"testing"
	"time"

	"github.com/pion/rtp"
	"github.com/pion/sdp/v3"
	"github.com/pion/webrtc/v4"
)

func TestAbsSendTime(t *testing.T) {
	for _, test := range []struct {
		at   time.Time
		want absSendTime
	}{
		{time.Unix(0, 0), 0},
		{time.Unix(64, 0), 0},
		{time.Unix(65, 5e8), 1<<18 | 1<<17},
		{time.Unix(1<<33+63, 1e9-1), 1<<24 - 1},
	} {
		if got := absSendTimeOf(test.at); got != test.want {
			t.Errorf("%v: %#x, want %#x", test.at, got, test.want)
		}
	}
}

func TestExtmapsOf(t *testing.T) {
	lines := []string{"3 " + sdp.TransportCCURI, "2/recvonly " + sdp.ABSSendTimeURI, "15 " + sdp.SDESMidURI, "0 " + sdp.SDESMidURI,
		"x " + sdp.SDESMidURI, "4", "5 urn:ietf:params:rtp-hdrext:toffset", "6 " + sdp.SDESMidURI + " attributes"}
	m := &sdp.MediaDescription{}
	for _, line := range lines {
		m.WithValueAttribute(sdp.AttrKeyExtMap, line)
	}
	m.WithValueAttribute("other", lines[0])
	for role, want := range map[Role]string{Publisher: lines[0], Viewer: strings.Join([]string{lines[0], lines[1], lines[7]}, "\n")} {
		var got []string
		for _, a := range extmapsOf(m, role) {
			got = append(got, a.Value)
		}
		if strings.Join(got, "\n") != want {
			t.Errorf("%s: %q", role, got)
		}
	}
}

// extensionIDs are those of the answer, by URI.
func extensionIDs(t *testing.T, c *client) map[string]uint8 {
	t.Helper()
	ids := map[string]uint8{}
	for _, r := range c.pc.GetReceivers() {
		for _, e := range r.GetParameters().HeaderExtensions {
			ids[e.URI] = uint8(e.ID)
		}
	}
	return ids
}

// Every packet to a viewer, of audio, video and RTX alike, has the next
// transport-wide sequence number, the time, and its m-section.
func TestViewersGetHeaderExtensions(t *testing.T) {
	server, conn := newServer(t)
	p := publish(t, server, "r", clientConfig{})
	v := view(t, server, "r", clientConfig{video: []webrtc.RTPCodecParameters{vp8, rtxOf(vp8)}, exts: true, nack: true})
	lost := losePackets(conn, true, func(n int) bool { return n%7 == 3 })
	f := film{track: p.video}
	sound := rtp.Packet{Header: rtp.Header{Version: 2}, Payload: []byte{1}}
	began := time.Now()
	const frames = 100
	for i := range byte(frames) {
		f.frame(t, i == 0, i)
		must(t, p.audio.WriteRTP(&sound))
		sound.SequenceNumber++
		sound.Timestamp += 960
		time.Sleep(2 * time.Millisecond)
	}
	conn.lose.Store(nil)
	waitFor(t, "the lost packets", func() bool {
		f.packet(t, false, []byte{0, 0})
		return len(firstOf(v.received(), 2*frames)) == 2*frames
	})
	p.close() // no more packets
	waitFor(t, "all that was sent", func() bool {
		v.mu.Lock()
		defer v.mu.Unlock()
		return len(v.packets)+len(v.sounds)+lost() == int(server.Stats().Counters.PacketsOut)
	})
	ids := extensionIDs(t, v)
	if len(ids) != 3 {
		t.Fatalf("negotiated %v", ids)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	numbers := map[uint16]bool{}
	for kind, packets := range map[string][]rtp.Packet{"audio": v.sounds, "video": v.packets} {
		for _, q := range packets {
			number, at := q.GetExtension(ids[sdp.TransportCCURI]), q.GetExtension(ids[sdp.ABSSendTimeURI])
			if len(number) != 2 || len(at) != 3 {
				t.Fatalf("%s packet %d has extensions %v and %v", kind, q.SequenceNumber, number, at)
			}
			numbers[binary.BigEndian.Uint16(number)] = true
			since := time.Duration(uint32(at[0])<<16|uint32(at[1])<<8|uint32(at[2])) * time.Second >> 18
			since -= time.Duration(began.UnixNano()) % (64 * time.Second)
			if since < -time.Millisecond {
				since += 64 * time.Second
			}
			if since > timeout {
				t.Errorf("%s packet %d was sent %v after the first", kind, q.SequenceNumber, since)
			}
			if mid := string(q.GetExtension(ids[sdp.SDESMidURI])); mid != map[string]string{"audio": "0", "video": "1"}[kind] {
				t.Errorf("%s packet has mid %q", kind, mid)
			}
		}
	}
	sent := int(server.Stats().Counters.PacketsOut)
	for i := range sent {
		if !numbers[uint16(i+1)] {
			sent--
		}
	}
	if len(numbers) != len(v.packets)+len(v.sounds) || sent != len(numbers) {
		t.Errorf("%d packets came with %d numbers, %d of them among the first %d", len(v.packets)+len(v.sounds), len(numbers), sent, sent+lost())
	}
	if c := server.Stats().Counters; lost() == 0 || c.Retransmits < uint64(lost())/2 || c.TransportFeedbacks == 0 {
		t.Errorf("%d packets lost; stats: %+v", lost(), c)
	}
}

// Without RTX a retransmission has the SRTP index of the packet that was lost.
func TestNothingVariesWithoutRTX(t *testing.T) {
	server, _ := newServer(t)
	p := publish(t, server, "r", clientConfig{})
	v := view(t, server, "r", clientConfig{exts: true})
	f := film{track: p.video}
	f.frame(t, true, 0)
	waitFor(t, "the frame", func() bool { return len(v.received()) >= 2 })
	ids := extensionIDs(t, v)
	for _, q := range v.received() {
		if got := q.GetExtensionIDs(); len(got) != 1 || got[0] != ids[sdp.SDESMidURI] {
			t.Errorf("a packet that may be sent again has extensions %v", got)
		}
	}
}

func TestNoExtensionsUnlessOffered(t *testing.T) {
	server, _ := newServer(t)
	p := publish(t, server, "r", clientConfig{})
	v := view(t, server, "r", clientConfig{video: []webrtc.RTPCodecParameters{vp8, rtxOf(vp8)}})
	f := film{track: p.video}
	f.frame(t, true, 0)
	waitFor(t, "the frame", func() bool { return len(v.received()) >= 2 })
	for _, q := range v.received() {
		if q.Extension {
			t.Errorf("extensions %v", q.GetExtensionIDs())
		}
	}
	if strings.Contains(v.answer, "extmap:") || strings.Contains(v.answer, "transport-cc") {
		t.Errorf("answer:\n%s", v.answer)
	}
}
