package sfu

import (
	"sync/atomic"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/rtp"
	"github.com/pion/webrtc/v4"

	"github.com/sfu-agent/sfu-agent/sfu/codec"
	"github.com/sfu-agent/sfu-agent/sfu/rtpcache"
)

// cachePackets is how many packets of a video up-track are kept for viewers
// that miss some: about a second of 12 Mbit/s.
const cachePackets = 1024

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
	out    packet
}

// A packet is one RTP packet of an up-track on its way to the viewers.
type packet struct {
	seq     uint16
	ts      uint32
	marker  bool
	start   bool // of what a decoder can begin with: a key frame, or any audio
	payload []byte
	arrived time.Time
}

func newUpTrack(s *Session, f format, to *slot) *upTrack {
	u := &upTrack{slot: to, session: s, format: f, count: &s.server.count}
	if f.isVideo() {
		u.cache = rtpcache.New(cachePackets)
		u.keyFrames = newKeyFrames(u.sendPLI)
	}
	return u
}

// read forwards what remote receives until the session ends.
func (u *upTrack) read(remote *webrtc.TrackRemote) {
	u.ssrc.Store(uint32(remote.SSRC()))
	buf := make([]byte, maxPacket)
	for {
		n, _, err := remote.Read(buf)
		if err != nil {
			return
		}
		u.handle(buf[:n], time.Now())
	}
}

// handle forwards one packet. raw is not kept.
func (u *upTrack) handle(raw []byte, now time.Time) {
	u.count.packetsIn.Add(1)
	u.count.bytesIn.Add(uint64(len(raw)))
	u.packets.Add(1)
	u.bytes.Add(uint64(len(raw)))
	payload, ok := u.parse(raw)
	if !ok {
		u.count.drops[dropMalformed].Add(1)
		return
	}
	fresh := u.losses.add(u.header.SequenceNumber, now)
	u.recover(now)
	if !fresh {
		u.count.drops[dropDuplicate].Add(1)
		return
	}
	p := &u.out
	*p = packet{seq: u.header.SequenceNumber, ts: u.header.Timestamp, marker: u.header.Marker, payload: payload, arrived: now}
	if len(payload) == 0 {
		u.count.drops[dropPadding].Add(1)
		u.skip(p.seq)
		return
	}
	if u.cache != nil {
		u.cache.Store(p.seq, raw)
	}
	p.start = u.begins(payload)
	u.fanOut(p)
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

// fanOut writes one packet to every down-track of the slot.
func (u *upTrack) fanOut(p *packet) {
	var sent, waiting uint64
	for _, d := range *u.slot.down.Load() {
		switch reason := d.forward(u, p); reason {
		case dropNone:
			sent++
		case dropNoKeyFrame:
			waiting++
		default:
			u.count.drops[reason].Add(1)
		}
	}
	u.count.packetsOut.Add(sent)
	u.count.bytesOut.Add(sent * uint64(headerSize+len(p.payload)))
	if waiting > 0 {
		u.count.drops[dropNoKeyFrame].Add(waiting)
		u.keyFrames.want()
	}
}

// skip closes the gap that a packet without media leaves.
func (u *upTrack) skip(seq uint16) {
	for _, d := range *u.slot.down.Load() {
		d.skip(u, seq)
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
