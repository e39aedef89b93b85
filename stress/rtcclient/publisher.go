package rtcclient

import (
	"cmp"
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/rtp"
	"github.com/pion/webrtc/v4"
)

// Source is what a Publisher sends: VP8 frames of equal packets at an even
// pace, and Opus. The pictures are no pictures, but their headers are right.
type Source struct {
	Rate        int  // of the video in bit/s; 0: 1 Mbit/s
	FPS         int  // frames per second; 0: 30
	PacketSize  int  // RTP payload in bytes; 0: 1200
	Paced       bool // packets evenly over the frame's time, not all at once
	KeyInterval int  // frames from one key frame to the next unasked; 0: only when asked
	NoVideo     bool
	NoAudio     bool // else 50 packets/s of 100 bytes
}

// A Publisher sends a Source to a WHIP endpoint until it is closed.
type Publisher struct {
	*client
	source  Source
	packets atomic.Uint64
	bytes   atomic.Uint64
	plis    atomic.Uint64
	keys    atomic.Uint64
	key     atomic.Bool // the next frame is to be a key frame
	stop    context.CancelFunc
	work    sync.WaitGroup
	once    sync.Once
	err     error
}

// PublisherStats count since the beginning.
type PublisherStats struct {
	Packets, Bytes uint64 // RTP, audio and video
	PLIs           uint64 // key-frame requests received
	KeyFrames      uint64 // sent
}

// Publish connects to cfg.URL and starts sending cfg.Source.
func Publish(ctx context.Context, cfg Config) (*Publisher, error) {
	s := cfg.Source
	s.Rate, s.FPS, s.PacketSize = cmp.Or(s.Rate, 1_000_000), cmp.Or(s.FPS, 30), cmp.Or(s.PacketSize, 1200)
	p := &Publisher{source: s}
	p.key.Store(true)
	var video, audio *webrtc.TrackLocalStaticRTP
	var feedback []*webrtc.RTPSender
	c, err := dial(ctx, cfg, func(pc *webrtc.PeerConnection) (err error) {
		if !s.NoAudio {
			if audio, err = addTrack(pc, webrtc.MimeTypeOpus, &feedback); err != nil {
				return err
			}
		}
		if !s.NoVideo {
			video, err = addTrack(pc, webrtc.MimeTypeVP8, &feedback)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	p.client = c
	if err := c.connect(ctx); err != nil {
		_ = c.close(ctx)
		return nil, err
	}
	running, stop := context.WithCancel(context.Background())
	p.stop = stop
	for _, sender := range feedback {
		p.work.Go(func() { p.readRTCP(sender) })
	}
	if audio != nil {
		p.work.Go(func() { p.sendAudio(running, audio) })
	}
	if video != nil {
		p.work.Go(func() { p.sendVideo(running, video) })
	}
	return p, nil
}

func addTrack(pc *webrtc.PeerConnection, mime string, feedback *[]*webrtc.RTPSender) (*webrtc.TrackLocalStaticRTP, error) {
	track, err := webrtc.NewTrackLocalStaticRTP(webrtc.RTPCodecCapability{MimeType: mime}, mime[:5], "stress")
	if err != nil {
		return nil, err
	}
	t, err := pc.AddTransceiverFromTrack(track, webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionSendonly})
	if err != nil {
		return nil, err
	}
	*feedback = append(*feedback, t.Sender())
	return track, nil
}

// Stats returns the counts so far.
func (p *Publisher) Stats() PublisherStats {
	return PublisherStats{Packets: p.packets.Load(), Bytes: p.bytes.Load(), PLIs: p.plis.Load(), KeyFrames: p.keys.Load()}
}

// Close stops sending, leaves the room and waits.
func (p *Publisher) Close(ctx context.Context) error {
	p.once.Do(func() {
		p.stop()
		p.err = p.client.close(ctx)
		p.work.Wait()
	})
	return p.err
}

func (p *Publisher) readRTCP(sender *webrtc.RTPSender) {
	for {
		packets, _, err := sender.ReadRTCP()
		if err != nil {
			return
		}
		for _, packet := range packets {
			if _, ok := packet.(*rtcp.PictureLossIndication); ok {
				p.plis.Add(1)
				p.key.Store(true)
			}
		}
	}
}

// sendVideo sends a frame at each tick.
func (p *Publisher) sendVideo(ctx context.Context, track *webrtc.TrackLocalStaticRTP) {
	perFrame := max(1, p.source.Rate/8/p.source.FPS/p.source.PacketSize)
	every := time.Second / time.Duration(p.source.FPS)
	burst := perFrame
	if p.source.Paced {
		every, burst = every/time.Duration(perFrame), 1
	}
	v := &videoStream{p: p, track: track, perFrame: perFrame, out: newStream(90000 / uint32(p.source.FPS))}
	pace(ctx, every, func() {
		for range burst {
			v.send()
		}
	})
}

func (p *Publisher) sendAudio(ctx context.Context, track *webrtc.TrackLocalStaticRTP) {
	out := newStream(960)
	payload := make([]byte, 100)
	pace(ctx, 20*time.Millisecond, func() {
		out.stamp(payload)
		p.write(track, out.next(true, payload))
	})
}

func (p *Publisher) write(track *webrtc.TrackLocalStaticRTP, packet *rtp.Packet) {
	if track.WriteRTP(packet) == nil {
		p.packets.Add(1)
		p.bytes.Add(uint64(packet.MarshalSize()))
	}
}

// pace calls f every so often on average, until ctx ends.
func pace(ctx context.Context, every time.Duration, f func()) {
	due := time.Now()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-ctx.Done():
			return
		}
		for !time.Now().Before(due) {
			f()
			due = due.Add(every)
		}
		timer.Reset(time.Until(due))
	}
}

// videoStream cuts frames into packets.
type videoStream struct {
	p        *Publisher
	track    *webrtc.TrackLocalStaticRTP
	out      *stream
	perFrame int
	frame    int // number of the frame
	index    int // of the next packet in its frame
	key      bool
}

func (v *videoStream) send() {
	if v.index == 0 {
		asked := v.p.key.Swap(false)
		v.key = asked || v.p.source.KeyInterval > 0 && v.frame%v.p.source.KeyInterval == 0
		if v.key {
			v.p.keys.Add(1)
		}
	}
	payload := make([]byte, v.p.source.PacketSize)
	v.out.stamp(payload[putVP8(payload, uint16(v.frame)&0x7fff, v.index == 0, v.key):])
	v.index++
	last := v.index == v.perFrame
	v.p.write(v.track, v.out.next(last, payload))
	if last {
		v.index, v.frame = 0, v.frame+1
	}
}

// stream numbers the packets of one track.
type stream struct {
	id, number uint32
	seq        uint16
	ts, step   uint32 // step: from one frame to the next
}

func newStream(step uint32) *stream {
	return &stream{id: rand.Uint32(), seq: uint16(rand.Uint32()), ts: rand.Uint32(), step: step}
}

func (s *stream) stamp(b []byte) {
	stamp{stream: s.id, number: s.number, sent: time.Now()}.put(b)
	s.number++
}

// next makes the next packet. last ends the frame.
func (s *stream) next(last bool, payload []byte) *rtp.Packet {
	p := &rtp.Packet{Header: rtp.Header{Version: 2, Marker: last, SequenceNumber: s.seq, Timestamp: s.ts}, Payload: payload}
	s.seq++
	if last {
		s.ts += s.step
	}
	return p
}
