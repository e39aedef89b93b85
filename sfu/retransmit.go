package sfu

import (
	"encoding/binary"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/rtp"
	"github.com/pion/webrtc/v4"

	"github.com/sfu-agent/sfu-agent/sfu/rtpcache"
)

// resendBurst is how many retransmissions a viewer may have at once; each
// packet it is sent earns another.
const resendBurst = 512

// A retransmitter answers one viewer's NACKs from its up-track's cache. It
// belongs to the goroutine that reads the viewer's RTCP.
type retransmitter struct {
	header     rtp.Header
	extensions headerExtensions // of header
	cached     rtp.Header
	buf        []byte // of 2 + maxPacket bytes, made when first needed
	rtxSeq     uint16
	earned     uint64 // packets of the up-track when the budget was last filled
	budget     uint64
}

// bind writes what all retransmissions have in common: the header of the RTX
// stream (RFC 4588) where there is one, else that of d.
func (r *retransmitter) bind(d *downTrack, negotiated []webrtc.RTPHeaderExtensionParameter) error {
	r.header = rtp.Header{Version: 2, PayloadType: uint8(d.format.pt), SSRC: d.ssrc}
	if d.hasRTX() {
		r.header.PayloadType, r.header.SSRC = uint8(d.format.rtx), d.rtxSSRC
	}
	return r.extensions.bind(&r.header, negotiated, d.mid)
}

// retransmit sends again what the viewer misses.
func (d *downTrack) retransmit(nacks []rtcp.NackPair) {
	s := d.source.Load()
	if s == nil || s.up.cache == nil {
		return
	}
	d.retransmitter.fill(s.up.packets.Load())
	count := &d.session.server.count
	now := absSendTimeOf(time.Now())
	var sum tally
	for _, pair := range nacks {
		pair.Range(func(seq uint16) bool {
			count.nacks.Add(1)
			d.resend(s, seq, now, &sum)
			return d.retransmitter.budget > 0
		})
	}
	count.retransmits.Add(sum.packets)
	count.add(&sum)
}

// fill adds one retransmission for every packet that came from the publisher
// since the last time.
func (r *retransmitter) fill(packets uint64) {
	if r.buf == nil {
		r.buf, r.budget = make([]byte, 2+maxPacket), resendBurst
	} else {
		r.budget = min(r.budget+packets-min(r.earned, packets), resendBurst)
	}
	r.earned = packets
}

// resend sends one packet again by the viewer's sequence number.
func (d *downTrack) resend(s *source, out uint16, now absSendTime, sum *tally) {
	r := &d.retransmitter
	seq, generation, ok := d.seqs.Reverse(out - s.base)
	if !ok || generation != s.generation || r.budget == 0 {
		return
	}
	start, end, ok := r.load(s.up.cache, seq)
	if !ok {
		return
	}
	r.budget--
	r.header.Marker, r.header.SequenceNumber, r.header.Timestamp = r.cached.Marker, out, r.cached.Timestamp+s.offset
	if d.hasRTX() { // RFC 4588, section 4: the original sequence number goes before the payload
		start -= 2
		binary.BigEndian.PutUint16(r.buf[start:], out)
		r.header.SequenceNumber = r.rtxSeq
		r.rtxSeq++
	}
	r.extensions.stamp(d.session, now)
	if n, err := d.writer.WriteRTP(&r.header, r.buf[start:end]); err == nil && n > 0 {
		sum.sent(&r.header, end-start)
	}
}

// load reads a packet from the cache into r.buf and says where its payload is,
// before which two bytes are free.
func (r *retransmitter) load(cache *rtpcache.Cache, seq uint16) (start, end int, ok bool) {
	n, ok := cache.Load(seq, r.buf[2:])
	if !ok {
		return 0, 0, false
	}
	header, err := r.cached.Unmarshal(r.buf[2 : 2+n])
	if err != nil {
		return 0, 0, false
	}
	payload, ok := unpad(&r.cached, r.buf[2+header:2+n])
	return 2 + header, 2 + header + len(payload), ok
}
