package sfu

import (
	"math/bits"
	"time"

	"github.com/pion/rtcp"
)

// reportInterval is the time between two sender reports of a down-track.
const reportInterval = 2 * time.Second

// senderReport is a publisher's last word on which of its wall-clock time
// belongs to which RTP timestamp (RFC 3550, section 6.4.1).
type senderReport struct {
	ntp     uint64 // 32.32 fixed point seconds
	rtp     uint32
	arrived time.Time
}

// at extrapolates to now for a clock of hz.
func (r *senderReport) at(now time.Time, hz uint32) (ntp uint64, rtp uint32) {
	d := uint64(max(now.Sub(r.arrived), 0))
	return r.ntp + scale(d, 1<<32), r.rtp + uint32(scale(d, uint64(hz)))
}

// scale is nanoseconds times perSecond over 1e9 without overflow.
func scale(nanoseconds, perSecond uint64) uint64 {
	hi, lo := bits.Mul64(nanoseconds, perSecond)
	q, _ := bits.Div64(hi%1e9, lo, 1e9)
	return q
}

// sendReport tells the viewer when what it receives was taken, in the
// publisher's time: audio and video of one publisher stay in step. It runs in
// the up-track's goroutine.
func (d *downTrack) sendReport(u *upTrack, s *source, now time.Time) {
	last := u.report.Load()
	if last == nil || now.Before(d.nextReport) {
		return
	}
	d.nextReport = now.Add(reportInterval)
	ntp, rtp := last.at(now, d.format.clock)
	d.session.writeRTCP(
		&rtcp.SenderReport{SSRC: d.ssrc, NTPTime: ntp, RTPTime: rtp + s.offset, PacketCount: d.packets, OctetCount: d.octets},
		rtcp.NewCNAMESourceDescription(d.ssrc, d.StreamID()),
	)
}
