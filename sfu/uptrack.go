package sfu

import (
	"runtime"
	"sync/atomic"
	"time"

	"github.com/pion/interceptor"
	"github.com/pion/rtcp"
	"github.com/pion/rtp"
	"github.com/pion/webrtc/v4"

	"github.com/sfu-agent/sfu-agent/sfu/codec"
	"github.com/sfu-agent/sfu-agent/sfu/rtpcache"
)

// cachePackets is how many packets of a video up-track are kept for viewers
// that miss some: about a second of 12 Mbit/s.
const cachePackets = 1024

// maxBatch is how many packets of an up-track are forwarded together at most.
const maxBatch = 64

// An upTrack is what one publisher sends in one m-section.
type upTrack struct {
	slot      *slot
	session   *Session
	format    format // the slot's, with the publisher's payload types
	count     *counters
	cache     *rtpcache.Cache // nil for audio, for which nobody sends NACKs
	keyFrames *keyFrames      // nil for audio
	report    atomic.Pointer[senderReport]

	ssrc                 atomic.Uint32
	packets, bytes, lost atomic.Uint64

	// The rest belongs to the goroutine in read.
	header rtp.Header
	losses losses
	seqs   []uint16
	bufs   [][]byte // of received packets, maxPacket bytes each; made as needed
	batch  []packet
}

// A packet is one RTP packet of an up-track on its way to the viewers.
type packet struct {
	seq     uint16
	ts      uint32
	marker  bool
	start   bool   // of what a decoder can begin with: a key frame, or any audio
	payload []byte // empty: to be left out of the viewers' sequence
	padding byte   // bytes to add where the viewer can take them
	arrived time.Time
	sent    absSendTime
}

func newUpTrack(s *Session, f format, to *slot) *upTrack {
	u := &upTrack{slot: to, session: s, format: f, count: &s.server.count}
	if f.isVideo() {
		u.cache = rtpcache.New(cachePackets)
		u.keyFrames = newKeyFrames(u.sendPLI)
	}
	return u
}

// An rtpReader is a webrtc.TrackRemote.
type rtpReader interface {
	Read([]byte) (int, interceptor.Attributes, error)
}

// read forwards what remote receives by way of in until the session ends. While
// there are several packets to forward it holds the conn.
func (u *upTrack) read(remote rtpReader, in *inbox) {
	hold := hold{conn: u.session.server.holder}
	defer hold.release()
	for {
		n, err := u.receive(remote, in)
		if err != nil {
			return
		}
		if n > 1 || in.pending() > 0 {
			hold.begin()
		}
		u.handle(u.bufs[:n], time.Now())
		if in.pending() == 0 {
			hold.release()
		}
	}
}

// receive waits for a packet and puts it into u.bufs with those that wait
// behind it. It returns their number.
func (u *upTrack) receive(remote rtpReader, in *inbox) (n int, err error) {
	for n = 0; n == 0 || n < maxBatch && in.pending() > 0; n++ {
		if n == len(u.bufs) {
			u.bufs = append(u.bufs, make([]byte, maxPacket))
		}
		u.bufs[n] = u.bufs[n][:maxPacket]
		length, _, err := remote.Read(u.bufs[n])
		if err != nil {
			return 0, err
		}
		u.bufs[n] = u.bufs[n][:length]
		if n == 0 && in.pending() == 0 {
			runtime.Gosched() // pion's goroutines may be about to hand on what came with it
		}
	}
	return n, nil
}

// handle forwards packets that came together. They are not kept.
func (u *upTrack) handle(received [][]byte, now time.Time) {
	u.batch = u.batch[:0]
	for _, raw := range received {
		u.accept(raw, now)
	}
	u.recover(now)
	equalize(u.batch)
	u.fanOut()
}

// accept adds one packet to the batch if it is new and sound.
func (u *upTrack) accept(raw []byte, now time.Time) {
	u.count.packetsIn.Add(1)
	u.count.bytesIn.Add(uint64(len(raw)))
	u.packets.Add(1)
	u.bytes.Add(uint64(len(raw)))
	payload, ok := u.parse(raw)
	if !ok {
		u.count.drops[dropMalformed].Add(1)
		return
	}
	if !u.losses.add(u.header.SequenceNumber, now) {
		u.count.drops[dropDuplicate].Add(1)
		return
	}
	p := packet{seq: u.header.SequenceNumber, ts: u.header.Timestamp, marker: u.header.Marker, payload: payload, arrived: now, sent: absSendTimeOf(now)}
	switch {
	case len(payload) == 0:
		u.count.drops[dropPadding].Add(1)
	case u.cache != nil:
		u.cache.Store(p.seq, raw)
	}
	p.start = u.begins(payload)
	u.batch = append(u.batch, p)
}

// parse reads the header and returns the payload without its padding.
func (u *upTrack) parse(raw []byte) (payload []byte, ok bool) {
	n, err := u.header.Unmarshal(raw)
	if err != nil {
		return nil, false
	}
	return unpad(&u.header, raw[n:])
}

// unpad takes the padding off a payload (RFC 3550, section 5.1).
func unpad(h *rtp.Header, payload []byte) (unpadded []byte, ok bool) {
	if !h.Padding {
		return payload, true
	}
	if len(payload) == 0 {
		return nil, false
	}
	padding := int(payload[len(payload)-1])
	if padding == 0 || padding > len(payload) {
		return nil, false
	}
	return payload[:len(payload)-padding], true
}

// begins says whether a viewer can start with this payload.
func (u *upTrack) begins(payload []byte) bool {
	if u.keyFrames == nil {
		return true
	}
	start, known := codec.KeyFrame(u.format.mime, payload)
	if start {
		u.keyFrames.arrived()
	}
	return start || !known
}

// fanOut writes the batch to every down-track of the slot, to one after the
// other: what goes to the same destination in a row can leave in one train.
func (u *upTrack) fanOut() {
	var sum tally
	for _, d := range *u.slot.down.Load() {
		for i := range u.batch {
			d.forward(u, &u.batch[i], &sum)
		}
	}
	u.count.add(&sum)
	if sum.drops[dropNoKeyFrame] > 0 {
		u.keyFrames.want()
	}
}

// recover asks the publisher again for what is missing.
func (u *upTrack) recover(now time.Time) {
	u.lost.Store(u.losses.lost)
	if u.cache == nil {
		return
	}
	u.seqs = u.losses.due(now, u.seqs[:0])
	if len(u.seqs) > 0 {
		u.session.writeRTCP(&rtcp.TransportLayerNack{
			MediaSSRC: u.ssrc.Load(),
			Nacks:     rtcp.NackPairsFromSequenceNumbers(u.seqs),
		})
	}
}

func (u *upTrack) sendPLI() {
	if ssrc := u.ssrc.Load(); ssrc != 0 {
		u.count.plis.Add(1)
		u.session.writeRTCP(&rtcp.PictureLossIndication{MediaSSRC: ssrc})
	}
}

// readRTCP takes the publisher's sender reports until the session ends. It has
// to run even if nobody wants them: the receiver reports are made from them.
func (u *upTrack) readRTCP(receiver *webrtc.RTPReceiver) {
	buf := make([]byte, maxPacket)
	for {
		n, _, err := receiver.Read(buf)
		if err != nil {
			return
		}
		packets, err := rtcp.Unmarshal(buf[:n])
		if err != nil {
			continue
		}
		for _, p := range packets {
			if sr, ok := p.(*rtcp.SenderReport); ok && sr.SSRC == u.ssrc.Load() {
				u.report.Store(&senderReport{ntp: sr.NTPTime, rtp: sr.RTPTime, arrived: time.Now()})
			}
		}
	}
}
