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
	FPS         int  // frames per second; 0: 30. Not looked at where Frame is set
	Frame       int  // packets of a frame; 0: as many as Rate and FPS give
	PacketSize  int  // RTP payload in bytes; 0: 1200
	Paced       bool // packets evenly over the frame's time, not all at once
	KeyInterval int  // frames from one key frame to the next unasked; 0: only when asked
	Pause       bool // no video until Set says otherwise
	NoVideo     bool
	NoAudio     bool // else 50 packets/s of 100 bytes
}

func (s Source) withDefaults() Source {
	s.Rate, s.FPS, s.PacketSize = cmp.Or(s.Rate, 1_000_000), cmp.Or(s.FPS, 30), cmp.Or(s.PacketSize, 1200)
	return s
}

// A Publisher sends a Source to a WHIP endpoint until it is closed.
type Publisher struct {
	*client
	source  Source
	video   *videoStream
	packets atomic.Uint64
	bytes   atomic.Uint64
	videos  atomic.Uint64
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
	Video          uint64 // packets of video
	PLIs           uint64 // key-frame requests received
	KeyFrames      uint64 // sent
}

// Publish connects to cfg.URL and starts sending cfg.Source.
func Publish(ctx context.Context, cfg Config) (*Publisher, error) {
	s := cfg.Source.withDefaults()
	p := &Publisher{source: s}
	p.key.Store(true)
	p.video = &videoStream{p: p, out: newStream(0), changed: make(chan struct{}, 1)}
	p.Set(s)
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
			p.video.track = video
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
		p.work.Go(func() { p.video.run(running) })
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
	return PublisherStats{
		Packets: p.packets.Load(), Bytes: p.bytes.Load(), Video: p.videos.Load(), PLIs: p.plis.Load(), KeyFrames: p.keys.Load(),
	}
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
	Stamp{Stream: s.id, Number: s.number, Sent: time.Now()}.put(b)
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
