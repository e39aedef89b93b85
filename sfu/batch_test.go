package sfu

import (
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/pion/interceptor"
	"github.com/pion/rtp"
	"github.com/pion/webrtc/v4"
)

func TestEqualize(t *testing.T) {
	type frame struct{ sizes, padding []int }
	for name, frames := range map[string][]frame{
		"split about equally": {{[]int{1100, 1100, 1101, 1101}, []int{1, 1, 0, 0}}},
		"short first packet":  {{[]int{1070, 1100, 1101}, []int{31, 1, 0}}},
		"shorter last packet": {{[]int{1100, 1100, 1099}, []int{0, 0, 0}}},
		"one packet":          {{[]int{700}, []int{0}}},
		"too different":       {{[]int{500, 1100, 1101}, []int{0, 1, 0}}},
		"nothing in it":       {{[]int{0, 20, 20}, []int{0, 0, 0}}},
		"two frames":          {{[]int{1000, 1001}, []int{1, 0}}, {[]int{1010, 1012}, []int{2, 0}}},
	} {
		t.Run(name, func(t *testing.T) {
			var batch []packet
			var want, got []int
			for i, f := range frames {
				for _, size := range f.sizes {
					batch = append(batch, packet{ts: uint32(i), payload: make([]byte, size)})
				}
				want = append(want, f.padding...)
			}
			equalize(batch)
			for _, p := range batch {
				got = append(got, int(p.padding))
			}
			if !slices.Equal(got, want) {
				t.Errorf("padding %v, want %v", got, want)
			}
		})
	}
}

// holdingConn records what the server writes while it holds and while not.
type holdingConn struct {
	*lossyConn
	holds, releases atomic.Int32

	mu    sync.Mutex
	held  map[netip.AddrPort][]int // lengths of RTP packets
	loose int                      // RTP packets
}

func (c *holdingConn) Hold()    { c.holds.Add(1) }
func (c *holdingConn) Release() { c.releases.Add(1) }

func (c *holdingConn) WriteToAddrPort(b []byte, to netip.AddrPort) (int, error) {
	if isRTP(b) {
		c.mu.Lock()
		if c.holds.Load() > c.releases.Load() {
			c.held[to] = append(c.held[to], len(b))
		} else {
			c.loose++
		}
		c.mu.Unlock()
	}
	return c.lossyConn.WriteToAddrPort(b, to)
}

// inboxTrack is a track that ends when its inbox is empty.
type inboxTrack struct{ *inbox }

func (t inboxTrack) Read(b []byte) (int, interceptor.Attributes, error) {
	if t.pending() == 0 {
		_ = t.Close()
	}
	n, err := t.inbox.Read(b)
	return n, nil, err
}

// feed has u forward frames of that many packets that came together, before its
// publisher sends anything. Half of a frame's packets are longer by a byte than
// the others, as libwebrtc splits frames.
func feed(t *testing.T, u *upTrack, from uint16, frames, packets int) {
	t.Helper()
	in := newInbox(u.count)
	for i := range frames * packets {
		h := rtp.Header{Version: 2, SequenceNumber: from + uint16(i), Timestamp: uint32(i/packets) * 3000, Marker: i%packets == packets-1}
		payload := append([]byte{0x10, 0x00, 0, 0, 0x9d, 0x01, 0x2a}, make([]byte, 1000+i%packets*2/packets)...)
		raw, err := (&rtp.Packet{Header: h, Payload: payload}).Marshal()
		must(t, err)
		_, err = in.Write(raw)
		must(t, err)
	}
	u.read(inboxTrack{in}, in)
}

// What came together is written under one hold, to one viewer after the other,
// in packets of one length; what came alone is not held.
func TestHeldWhileMoreIsPending(t *testing.T) {
	conn := &holdingConn{held: map[netip.AddrPort][]int{}}
	server, _ := newServer(t, func(c *Config) {
		conn.lossyConn = c.Conn.(*lossyConn)
		c.Conn = conn
	})
	p := publish(t, server, "r", clientConfig{})
	const viewers, frames, packets = 3, 24, 8
	for range viewers {
		view(t, server, "r", clientConfig{video: []webrtc.RTPCodecParameters{vp8, rtxOf(vp8)}})
	}
	u := p.session.upTracks()[1]
	feed(t, u, 0, frames, packets)
	if h, r := conn.holds.Load(), conn.releases.Load(); h != 1 || r != 1 {
		t.Errorf("held %d times and released %d times, want one of each", h, r)
	}
	if conn.loose > 0 || len(conn.held) != viewers {
		t.Errorf("%d packets without a hold, %d viewers with", conn.loose, len(conn.held))
	}
	for to, lengths := range conn.held {
		if len(lengths) != frames*packets || slices.Max(lengths) != slices.Min(lengths) {
			t.Errorf("%s was sent packets of lengths %v", to, lengths)
		}
	}
	if n := server.Stats().Counters.PaddingOut; n != viewers*frames*packets/2 {
		t.Errorf("%d bytes of padding", n)
	}

	feed(t, u, frames*packets, 1, 1)
	if h := conn.holds.Load(); h != 1 || conn.loose != viewers {
		t.Errorf("a lone packet: %d holds, %d packets written without", h-1, conn.loose)
	}
}

// What is padded arrives as it was, also by RTX, and is counted right in sender
// reports.
func TestPaddingIsTransparent(t *testing.T) {
	for name, codecs := range map[string][]webrtc.RTPCodecParameters{
		"RTX": {vp8, rtxOf(vp8)},
		"NACK without RTX, where packets must stay as they are": {vp8},
	} {
		t.Run(name, func(t *testing.T) {
			server, conn := newServer(t)
			p := publish(t, server, "r", clientConfig{})
			v := view(t, server, "r", clientConfig{video: codecs, exts: true, nack: true})
			lost := losePackets(conn, true, func(n int) bool { return n%5 == 2 })
			u := p.session.upTracks()[1]
			const frames, packets = 20, 8
			feed(t, u, 100, frames, packets)
			conn.lose.Store(nil)
			if octets := v.session.downs[1].octets; octets != frames*packets*1007+frames*packets/2 {
				t.Errorf("sender reports count %d octets", octets)
			}
			padding := server.Stats().Counters.PaddingOut
			if want := uint64(frames * packets / 2); name == "RTX" && padding != want || name != "RTX" && padding != 0 {
				t.Errorf("%d bytes of padding", padding)
			}
			var all []rtp.Packet
			next := uint16(100 + frames*packets)
			waitFor(t, "all packets", func() bool {
				feed(t, u, next, 1, 1) // what is lost shows by what follows
				next++
				all = firstOf(v.received(), frames*packets)
				return len(all) == frames*packets
			})
			for i, q := range all {
				if size := 1007 + i%packets*2/packets; len(q.Payload) != size {
					t.Errorf("packet %d has %d bytes of payload, want %d", i, len(q.Payload), size)
				}
			}
			if lost() == 0 {
				t.Error("no packet was lost")
			}
		})
	}
}

// AES-GCM adds a tag of 16 bytes (RFC 7714, section 12), AES-CM with HMAC-SHA1
// one of 10.
func TestAESGCM(t *testing.T) {
	server, conn := newServer(t)
	p := publish(t, server, "r", clientConfig{})
	v := view(t, server, "r", clientConfig{})
	const size = 12 + 1000 + 16
	var in, out atomic.Int32
	watch := func(sent bool, b []byte) bool {
		if isRTP(b) && len(b) == size {
			if sent {
				out.Add(1)
			} else {
				in.Add(1)
			}
		}
		return false
	}
	conn.lose.Store(&watch)
	f := film{track: p.video}
	f.packet(t, true, append([]byte{0x10, 0x00, 0, 0, 0x9d, 0x01, 0x2a}, make([]byte, 993)...))
	waitFor(t, "the packet", func() bool { return len(v.received()) == 1 })
	if in.Load() != 1 || out.Load() != 1 {
		t.Errorf("of one packet each way, %d came and %d went with a tag of AES-GCM", in.Load(), out.Load())
	}
}
