package rtcclient

import (
	"context"
	"sync"
	"time"

	"github.com/pion/webrtc/v4"
)

// maxLate is how far a publisher may fall behind and still catch up. What it is
// later than that is left out, or a short stop of the machine would become a
// burst that nobody asked for.
const maxLate = 100 * time.Millisecond

// tempo is how video is sent: every so often so many packets.
type tempo struct {
	every    time.Duration // 0: nothing is sent
	burst    int           // packets at a time
	perFrame int
	step     uint32 // of the RTP timestamp from one frame to the next
}

func (s Source) tempo() tempo {
	t := tempo{burst: s.Frame, perFrame: s.Frame}
	frame := time.Second / time.Duration(s.FPS)
	if s.Frame == 0 {
		t.perFrame = max(1, s.Rate/8/s.FPS/s.PacketSize)
		t.burst = t.perFrame
	} else {
		frame = time.Duration(float64(s.Frame*s.PacketSize*8) / float64(s.Rate) * float64(time.Second))
	}
	t.every, t.step = frame, uint32(frame*90000/time.Second)
	if s.Paced {
		t.every, t.burst = frame/time.Duration(t.perFrame), 1
	}
	if s.Pause {
		t.every = 0
	}
	return t
}

// videoStream cuts frames into packets.
type videoStream struct {
	p       *Publisher
	track   *webrtc.TrackLocalStaticRTP
	out     *stream
	changed chan struct{} // holds a token when the tempo is new

	mu       sync.Mutex // held while a burst is sent
	tempo    tempo
	due      time.Time // of the next burst
	perFrame int       // of the frame that is being sent
	frame    int       // number of the frame
	index    int       // of the next packet in its frame
	key      bool
}

// Set changes the rate, frame size and pacing of the video. Once it returns
// nothing is sent in the old way any more.
func (p *Publisher) Set(s Source) {
	v := p.video
	s = s.withDefaults()
	v.mu.Lock()
	v.tempo, v.due = s.tempo(), time.Now()
	v.mu.Unlock()
	select {
	case v.changed <- struct{}{}:
	default:
	}
}

// run sends bursts when they are due.
func (v *videoStream) run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-v.changed:
		case <-ctx.Done():
			return
		}
		if wait, more := v.sendDue(); more {
			timer.Reset(wait)
		}
	}
}

// sendDue sends what is due, and says in how long there is more.
func (v *videoStream) sendDue() (wait time.Duration, more bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.tempo.every == 0 {
		return 0, false
	}
	for {
		late := time.Since(v.due)
		if late < 0 {
			return -late, true
		}
		if late > maxLate {
			v.due = v.due.Add(late)
		}
		for range v.tempo.burst {
			v.send()
		}
		v.due = v.due.Add(v.tempo.every)
	}
}

func (v *videoStream) send() {
	if v.index == 0 {
		v.perFrame, v.out.step = v.tempo.perFrame, v.tempo.step
		asked := v.p.key.Swap(false)
		interval := v.p.source.KeyInterval
		v.key = asked || interval > 0 && v.frame%interval == 0
		if v.key {
			v.p.keys.Add(1)
		}
	}
	payload := make([]byte, v.p.source.PacketSize)
	v.out.stamp(payload[putVP8(payload, uint16(v.frame)&0x7fff, v.index == 0, v.key):])
	v.index++
	last := v.index == v.perFrame
	v.p.write(v.track, v.out.next(last, payload))
	v.p.videos.Add(1)
	if last {
		v.index, v.frame = 0, v.frame+1
	}
}
