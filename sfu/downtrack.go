package sfu

import (
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/pion/rtp"
	"github.com/pion/sdp/v3"
	"github.com/pion/webrtc/v4"

	"github.com/sfu-agent/sfu-agent/sfu/rtpmap"
)

// A downTrack is what one viewer receives in one m-section. It implements
// webrtc.TrackLocal.
type downTrack struct {
	slot    *slot
	session *Session
	format  format // the slot's, with the viewer's payload types
	mid     string

	// Set by Bind, before the first packet.
	writer  webrtc.TrackLocalWriter
	ssrc    uint32
	rtxSSRC uint32

	source atomic.Pointer[source] // nil until the first packet
	seqs   rtpmap.Map

	// These belong to the goroutine of the up-track.
	header     rtp.Header
	extensions headerExtensions // of header
	packets    uint32
	octets     uint32
	last       time.Time // when the last packet went out
	nextReport time.Time
	frame      firstFrame

	retransmitter retransmitter
}

// source is whose packets a viewer gets, and how its numbers differ.
type source struct {
	up         *upTrack
	generation int    // of the down-track's seqs
	offset     uint32 // from the up-track's timestamps to the viewer's
	// base is added to all sequence numbers. It keeps the first one below 2^15,
	// so that a viewer who misses the first packets guesses the right SRTP
	// rollover counter (RFC 3711, section 3.3.1).
	base uint16
}

// firstFrame follows a video down-track up to its first complete key frame.
type firstFrame int

const (
	frameNone firstFrame = iota
	frameBegun
	frameDone
)

// Bind implements webrtc.TrackLocal.
func (d *downTrack) Bind(c webrtc.TrackLocalContext) (webrtc.RTPCodecParameters, error) {
	for _, p := range c.CodecParameters() {
		if p.PayloadType == d.format.pt {
			d.writer, d.ssrc, d.rtxSSRC = c.WriteStream(), uint32(c.SSRC()), uint32(c.SSRCRetransmission())
			return p, d.bindHeaders(c.HeaderExtensions())
		}
	}
	return webrtc.RTPCodecParameters{}, fmt.Errorf("%w: payload type %d", ErrCodec, d.format.pt)
}

// bindHeaders writes what all packets of a stream have in common.
func (d *downTrack) bindHeaders(negotiated []webrtc.RTPHeaderExtensionParameter) error {
	if !d.mayVary() {
		negotiated = slices.DeleteFunc(slices.Clone(negotiated), func(n webrtc.RTPHeaderExtensionParameter) bool {
			return n.URI != sdp.SDESMidURI
		})
	}
	d.header = rtp.Header{Version: 2, PayloadType: uint8(d.format.pt), SSRC: d.ssrc}
	if err := d.extensions.bind(&d.header, negotiated, d.mid); err != nil {
		return err
	}
	return d.retransmitter.bind(d, negotiated)
}

func (d *downTrack) hasRTX() bool { return d.rtxSSRC != 0 && d.format.rtx != 0 }

// mayVary says whether a packet may hold what is not the same when it is sent
// again. Where it is sent again under its own sequence number it may not: one
// SRTP key and index would protect two different packets (RFC 3711, section
// 9.1), which gives away both and, with AES-GCM, the authentication key.
func (d *downTrack) mayVary() bool { return !d.format.isVideo() || d.hasRTX() }

// Unbind implements webrtc.TrackLocal.
func (d *downTrack) Unbind(webrtc.TrackLocalContext) error { return nil }

// ID implements webrtc.TrackLocal: the track's part of a=msid.
func (d *downTrack) ID() string { return d.Kind().String() }

// StreamID implements webrtc.TrackLocal. All tracks of a room are one stream.
func (d *downTrack) StreamID() string { return d.session.room }

// RID implements webrtc.TrackLocal.
func (d *downTrack) RID() string { return "" }

// Kind implements webrtc.TrackLocal.
func (d *downTrack) Kind() webrtc.RTPCodecType { return d.format.kind() }

// forward writes one packet of u to the viewer and adds to sum what became of
// it.
func (d *downTrack) forward(u *upTrack, p *packet, sum *tally) {
	if len(p.payload) == 0 {
		d.skip(u, p.seq)
		return
	}
	s := d.source.Load()
	if s == nil || s.up != u {
		if !p.start {
			sum.drops[dropNoKeyFrame]++
			return
		}
		s = d.turnTo(u, p)
	}
	seq, ts, ok := d.seqs.Next(p.seq, p.ts)
	if !ok {
		sum.drops[dropLate]++
		return
	}
	h := &d.header
	h.Marker, h.SequenceNumber, h.Timestamp = p.marker, seq+s.base, ts
	h.Padding, h.PaddingSize = false, 0
	if p.padding > 0 && d.mayVary() {
		h.Padding, h.PaddingSize = true, p.padding
	}
	d.extensions.stamp(d.session, p.sent)
	if n, err := d.writer.WriteRTP(h, p.payload); err != nil || n == 0 { // 0: no way to the viewer
		sum.drops[dropWrite]++
		return
	}
	sum.sent(h, len(p.payload))
	d.packets++
	d.octets += uint32(len(p.payload)) // padding is not counted (RFC 3550, section 6.4.1)
	d.last = p.arrived
	d.sendReport(u, s, p.arrived)
	d.followFirstFrame(p)
}

// turnTo makes u the source, from p on.
func (d *downTrack) turnTo(u *upTrack, p *packet) *source {
	s := &source{up: u}
	if old := d.source.Load(); old != nil {
		s.base = old.base
	} else if p.seq >= 1<<15 {
		s.base = 1 << 15
	}
	pause := max(p.arrived.Sub(d.last), 0)
	s.generation = d.seqs.Switch(p.seq, p.ts, uint32(scale(uint64(pause), uint64(d.format.clock))))
	_, ts, _ := d.seqs.Next(p.seq, p.ts)
	s.offset = ts - p.ts
	d.source.Store(s)
	d.nextReport = p.arrived
	return s
}

// skip closes the gap that a packet of u without media leaves.
func (d *downTrack) skip(u *upTrack, seq uint16) {
	if s := d.source.Load(); s != nil && s.up == u {
		d.seqs.Drop(seq)
	}
}

// followFirstFrame measures the time to the first complete key frame: the last
// packet of a frame has the marker set.
func (d *downTrack) followFirstFrame(p *packet) {
	if d.frame == frameDone || !d.format.isVideo() {
		return
	}
	if p.start {
		d.frame = frameBegun
	}
	if d.frame == frameBegun && p.marker {
		d.frame = frameDone
		d.session.server.count.firstFrame.observe(p.arrived.Sub(d.session.began))
	}
}
