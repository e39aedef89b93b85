package sfu

import (
	"encoding/binary"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pion/rtp"
	"github.com/pion/sdp/v3"
	"github.com/pion/webrtc/v4"
)

// extensionURIs are the RTP header extensions that publishers are to send, and
// that viewers get, where they offer them.
var extensionURIs = map[Role][]string{
	Publisher: {sdp.TransportCCURI},
	Viewer:    {sdp.TransportCCURI, sdp.ABSSendTimeURI, sdp.SDESMidURI},
}

// extmapsOf are the a=extmap lines of an m-section that are of use for a client
// in role and can have one-byte headers (RFC 8285, section 4.2).
func extmapsOf(m *sdp.MediaDescription, role Role) []sdp.Attribute {
	var found []sdp.Attribute
	for _, a := range m.Attributes {
		fields := strings.Fields(a.Value) // "3/recvonly URI"
		if a.Key != sdp.AttrKeyExtMap || len(fields) < 2 || !slices.Contains(extensionURIs[role], fields[1]) {
			continue
		}
		id, _, _ := strings.Cut(fields[0], "/")
		if n, err := strconv.ParseUint(id, 10, 8); err == nil && n >= 1 && n <= 14 {
			found = append(found, a)
		}
	}
	return found
}

// headerExtensions are the values of one stream's header extensions that change
// from packet to packet, nil if not negotiated. They are part of the stream's
// rtp.Header and written in place, which costs no allocation.
type headerExtensions struct {
	transportCC []byte // 16 bits
	absSendTime []byte // 24 bits
}

// bind adds the negotiated extensions to h.
func (e *headerExtensions) bind(h *rtp.Header, negotiated []webrtc.RTPHeaderExtensionParameter, mid string) error {
	for _, n := range negotiated {
		var value []byte
		switch n.URI {
		case sdp.TransportCCURI:
			e.transportCC = make([]byte, 2)
			value = e.transportCC
		case sdp.ABSSendTimeURI:
			e.absSendTime = make([]byte, 3)
			value = e.absSendTime
		case sdp.SDESMidURI:
			value = []byte(mid)
		}
		if len(value) == 0 || len(value) > 16 { // RFC 8285, section 4.2
			continue
		}
		if err := h.SetExtension(uint8(n.ID), value); err != nil {
			return err
		}
	}
	return nil
}

// stamp gives the next packet of the session's transport its values.
func (e *headerExtensions) stamp(s *Session, at absSendTime) {
	if e.transportCC != nil {
		binary.BigEndian.PutUint16(e.transportCC, uint16(s.transportSeq.Add(1)))
	}
	if e.absSendTime != nil {
		e.absSendTime[0], e.absSendTime[1], e.absSendTime[2] = byte(at>>16), byte(at>>8), byte(at)
	}
}

// absSendTime is a time of sending in 24 bits: seconds modulo 64 with 18 bits
// of fraction (http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time).
type absSendTime uint32

func absSendTimeOf(t time.Time) absSendTime {
	const modulus = uint64(64 * time.Second) // divides the time from NTP's epoch to Unix's
	return absSendTime(uint64(t.UnixNano()) % modulus << 18 / uint64(time.Second))
}
