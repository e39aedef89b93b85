package rtcclient

import (
	"context"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/pion/rtp"
	"github.com/pion/webrtc/v4"
)

// A Viewer receives from a WHEP endpoint, checks and measures, until it is
// closed.
type Viewer struct {
	*client
	posted  time.Time
	work    sync.WaitGroup
	once    sync.Once
	err     error
	closing chan struct{}
	check   func(Checked)

	mu     sync.Mutex
	stats  ViewerStats
	counts map[uint32]*arrivals // by stream
	seqs   map[uint32]*arrivals // by SSRC
	delays *hdrhistogram.Histogram
}

// ViewerStats count since the offer was posted.
type ViewerStats struct {
	Packets, Bytes uint64 // RTP, audio and video, without duplicates
	Video, Audio   uint64 // packets of each
	Lost           uint64 // missed by a second or more, retransmission included
	Missing        uint64 // missed by less
	Duplicates     uint64
	Corrupt        uint64 // packets whose checksum is wrong
	Holes          uint64 // numbers of the RTP streams that never came, whatever became of the contents
	KeyFrames      uint64
	Streams        int           // publishers' tracks seen, one after the other or together
	FirstPacket    time.Duration // from the POST; 0: none yet
	FirstKeyFrame  time.Duration // its first packet
}

// View connects to cfg.URL. It returns when the session is connected; media
// may follow later.
func View(ctx context.Context, cfg Config) (*Viewer, error) {
	v := &Viewer{
		posted: time.Now(), closing: make(chan struct{}), check: cfg.Check, counts: map[uint32]*arrivals{}, seqs: map[uint32]*arrivals{},
		delays: hdrhistogram.New(1, int64(10*time.Second/time.Microsecond), 2),
	}
	c, err := dial(ctx, cfg, func(pc *webrtc.PeerConnection) error {
		pc.OnTrack(v.onTrack)
		for _, kind := range []webrtc.RTPCodecType{webrtc.RTPCodecTypeAudio, webrtc.RTPCodecTypeVideo} {
			if kind == webrtc.RTPCodecTypeAudio && cfg.Source.NoAudio || kind == webrtc.RTPCodecTypeVideo && cfg.Source.NoVideo {
				continue
			}
			if _, err := pc.AddTransceiverFromKind(kind, webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionRecvonly}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	v.client = c
	if err := c.connect(ctx); err != nil {
		_ = v.Close(ctx)
		return nil, err
	}
	return v, nil
}

func (v *Viewer) onTrack(remote *webrtc.TrackRemote, receiver *webrtc.RTPReceiver) {
	v.mu.Lock()
	defer v.mu.Unlock()
	select {
	case <-v.closing:
		return
	default:
	}
	v.work.Go(func() { v.read(remote) })
	v.work.Go(func() { // the receiver reports are made from what is read here
		for {
			if _, _, err := receiver.ReadRTCP(); err != nil {
				return
			}
		}
	})
}

func (v *Viewer) read(remote *webrtc.TrackRemote) {
	buf := make([]byte, 1500)
	var h rtp.Header
	for {
		n, _, err := remote.Read(buf)
		if err != nil {
			return
		}
		size, err := h.Unmarshal(buf[:n])
		if err != nil {
			continue
		}
		v.take(remote.Kind(), &h, buf[size:n], time.Now())
	}
}

// take counts one packet.
func (v *Viewer) take(kind webrtc.RTPCodecType, h *rtp.Header, payload []byte, now time.Time) {
	key := false
	if kind == webrtc.RTPCodecTypeVideo {
		payload, key = skipVP8(payload)
	}
	s, ok := readStamp(payload)
	if !ok {
		return
	}
	if v.check != nil {
		v.check(Checked{SSRC: h.SSRC, Seq: h.SequenceNumber, Stream: s.Stream, Number: s.Number, Sent: s.Sent, Intact: checkSum(payload)})
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	of(v.seqs, h.SSRC).addSeq(h.SequenceNumber, now)
	if !of(v.counts, s.Stream).add(s.Number, now) {
		v.stats.Duplicates++
		return
	}
	v.stats.Packets++
	if !checkSum(payload) {
		v.stats.Corrupt++
	}
	v.stats.Bytes += uint64(h.MarshalSize() + len(payload))
	if kind == webrtc.RTPCodecTypeVideo {
		v.stats.Video++
	} else {
		v.stats.Audio++
	}
	if v.stats.FirstPacket == 0 {
		v.stats.FirstPacket = now.Sub(v.posted)
	}
	if key {
		v.stats.KeyFrames++
		if v.stats.FirstKeyFrame == 0 {
			v.stats.FirstKeyFrame = now.Sub(v.posted)
		}
	}
	_ = v.delays.RecordValue(max(1, now.Sub(s.Sent).Microseconds())) // above 10 s: not recorded
}

// Stats returns the counts so far.
func (v *Viewer) Stats() ViewerStats {
	v.mu.Lock()
	defer v.mu.Unlock()
	s := v.stats
	s.Streams = len(v.counts)
	for _, a := range v.counts {
		lost, missing := a.gaps(time.Now())
		s.Lost += lost
		s.Missing += missing
	}
	for _, a := range v.seqs {
		lost, missing := a.gaps(time.Now())
		s.Holes += lost + missing
	}
	return s
}

// Latency returns a copy of the one-way delays from the Publisher's write, in
// microseconds. It means something where both have the same clock.
func (v *Viewer) Latency() *hdrhistogram.Histogram {
	v.mu.Lock()
	defer v.mu.Unlock()
	return hdrhistogram.Import(v.delays.Export())
}

// Close leaves the room and waits.
func (v *Viewer) Close(ctx context.Context) error {
	v.once.Do(func() {
		v.mu.Lock()
		close(v.closing)
		v.mu.Unlock()
		v.err = v.client.close(ctx)
		v.work.Wait()
	})
	return v.err
}
