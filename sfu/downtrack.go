package sfu

import (
	"fmt"
	"sync/atomic"
	"time"

	"github.com/pion/rtp"
	"github.com/pion/webrtc/v4"

	"github.com/sfu-agent/sfu-agent/sfu/rtpmap"
)

// headerSize is the length of the RTP header that viewers get, in bytes.
const headerSize = 12

// A downTrack is what one viewer receives in one m-section. It implements
// webrtc.TrackLocal.
type downTrack struct {
	slot    *slot
	session *Session
	format  format // the slot's, with the viewer's payload types

	// Set by Bind, before the first packet.
	writer  webrtc.TrackLocalWriter
	ssrc    uint32
	rtxSSRC uint32

	source atomic.Pointer[source] // nil until the first packet
	seqs   rtpmap.Map

	// These belong to the goroutine of the up-track.
	header     rtp.Header
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
			return p, nil
		}
	}
	return webrtc.RTPCodecParameters{}, fmt.Errorf("%w: payload type %d", ErrCodec, d.format.pt)
}

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

// forward writes one packet of u to the viewer, or says why not.
func (d *downTrack) forward(u *upTrack, p *packet) drop {
	s := d.source.Load()
	if s == nil || s.up != u {
		if !p.start {
			return dropNoKeyFrame
		}
		s = d.turnTo(u, p)
	}
	seq, ts, ok := d.seqs.Next(p.seq, p.ts)
	if !ok {
		return dropLate
	}
	d.header = rtp.Header{
		Version: 2, Marker: p.marker, PayloadType: uint8(d.format.pt), SSRC: d.ssrc,
		SequenceNumber: seq + s.base, Timestamp: ts,
	}
	if _, err := d.writer.WriteRTP(&d.header, p.payload); err != nil {
		return dropWrite
	}
	d.packets++
	d.octets += uint32(len(p.payload))
	d.last = p.arrived
	d.sendReport(u, s, p.arrived)
	d.followFirstFrame(p)
	return dropNone
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
