package sfu

import (
	"io"
	"sync"

	"github.com/pion/rtcp"
	"github.com/pion/transport/v4/packetio"
)

// rtcpSink stands where pion queues the RTCP of one SSRC for a reader: it has
// the packets handled in pion's own goroutine, which saves a goroutine and a
// queue for every down-track.
type rtcpSink struct {
	session *Session
	ssrc    uint32
	once    sync.Once
	closed  chan struct{}
}

// newBuffer implements webrtc.SettingEngine's BufferFactory for a viewer.
func (s *Session) newBuffer(kind packetio.BufferPacketType, ssrc uint32) io.ReadWriteCloser {
	if kind == packetio.RTCPBufferPacket {
		return &rtcpSink{session: s, ssrc: ssrc, closed: make(chan struct{})}
	}
	return boundedBuffer(1) // a viewer sends no media
}

// Write handles the packets that concern the SSRC.
func (r *rtcpSink) Write(b []byte) (int, error) {
	packets, err := rtcp.Unmarshal(b)
	if err != nil {
		return 0, err
	}
	for _, d := range r.session.downs {
		if d.ssrc == r.ssrc {
			d.handleRTCP(packets)
		}
	}
	return len(b), nil
}

// Read implements io.Reader: there is nothing to read but the end.
func (r *rtcpSink) Read([]byte) (int, error) {
	<-r.closed
	return 0, io.EOF
}

// Close ends Read.
func (r *rtcpSink) Close() error {
	r.once.Do(func() { close(r.closed) })
	return nil
}

func (d *downTrack) handleRTCP(packets []rtcp.Packet) {
	for _, p := range packets {
		switch p := p.(type) {
		case *rtcp.PictureLossIndication:
			if p.MediaSSRC == d.ssrc {
				d.slot.wantKeyFrame()
			}
		case *rtcp.TransportLayerCC:
			if p.MediaSSRC == d.ssrc {
				d.session.server.count.transportFeedbacks.Add(1)
			}
		case *rtcp.FullIntraRequest:
			d.slot.wantKeyFrame()
		case *rtcp.TransportLayerNack:
			if p.MediaSSRC == d.ssrc {
				d.retransmit(p.Nacks)
			}
		}
	}
}
