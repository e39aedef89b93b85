package sfu

import (
	"encoding/binary"

	"github.com/pion/rtcp"
	"github.com/pion/rtp"
)

// resendBurst is how many retransmissions a viewer may have at once; each
// packet it is sent earns another.
const resendBurst = 512

// A retransmitter answers one viewer's NACKs from its up-track's cache. It
// belongs to the goroutine that reads the viewer's RTCP.
type retransmitter struct {
	header rtp.Header
	buf    []byte // of 2 + maxPacket bytes, made when first needed
	rtxSeq uint16
	earned uint64 // packets of the up-track when the budget was last filled
	budget uint64
}

// retransmit sends again what the viewer misses: on its RTX stream (RFC 4588)
// where there is one, else as it was.
func (d *downTrack) retransmit(nacks []rtcp.NackPair) {
	s := d.source.Load()
	if s == nil || s.up.cache == nil {
		return
	}
	d.retransmitter.fill(s.up.packets.Load())
	count := &d.session.server.count
	for _, pair := range nacks {
		pair.Range(func(seq uint16) bool {
			count.nacks.Add(1)
			if n, sent := d.resend(s, seq); sent {
				count.retransmits.Add(1)
				count.packetsOut.Add(1)
				count.bytesOut.Add(uint64(headerSize + n))
			}
			return d.retransmitter.budget > 0
		})
	}
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

// resend sends one packet again by the viewer's sequence number, and returns
// the length of its payload.
func (d *downTrack) resend(s *source, out uint16) (size int, sent bool) {
	r := &d.retransmitter
	seq, generation, ok := d.seqs.Reverse(out - s.base)
	if !ok || generation != s.generation || r.budget == 0 {
		return 0, false
	}
	n, ok := s.up.cache.Load(seq, r.buf[2:])
	if !ok {
		return 0, false
	}
	start, err := r.header.Unmarshal(r.buf[2 : 2+n])
	if err != nil {
		return 0, false
	}
	payload, ok := unpad(&r.header, r.buf[2+start:2+n])
	if !ok {
		return 0, false
	}
	r.budget--
	r.header = rtp.Header{
		Version: 2, Marker: r.header.Marker, PayloadType: uint8(d.format.pt), SSRC: d.ssrc,
		SequenceNumber: out, Timestamp: r.header.Timestamp + s.offset,
	}
	if d.rtxSSRC != 0 && d.format.rtx != 0 {
		payload = d.wrapRTX(r.buf[start : 2+start+len(payload)])
	}
	_, err = d.writer.WriteRTP(&r.header, payload)
	return len(payload), err == nil
}

// wrapRTX makes the retransmitter's header that of the RTX stream and puts the
// original sequence number in the first two of b's bytes, before the payload.
func (d *downTrack) wrapRTX(b []byte) []byte {
	r := &d.retransmitter
	binary.BigEndian.PutUint16(b, r.header.SequenceNumber)
	r.header.PayloadType, r.header.SSRC, r.header.SequenceNumber = uint8(d.format.rtx), d.rtxSSRC, r.rtxSeq
	r.rtxSeq++
	return b
}
