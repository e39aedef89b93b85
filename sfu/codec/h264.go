package codec

import "encoding/binary"

// NAL unit types (RFC 6184, table 1; H.264, table 7-1).
const (
	nalIDR   = 5
	nalSPS   = 7
	nalSTAPA = 24
	nalFUA   = 28
)

// h264KeyFrame finds a sequence parameter set or the first slice of an IDR
// picture in a single NAL unit, STAP-A or FU-A packet (RFC 6184, section 5).
// The other aggregates belong to the interleaved mode, which WebRTC has not.
func h264KeyFrame(p []byte) bool {
	if len(p) == 0 {
		return false
	}
	switch p[0] & 0x1f {
	case nalSTAPA:
		return stapKeyFrame(p[1:])
	case nalFUA:
		const start = 0x80
		return len(p) > 1 && p[1]&start != 0 && nalKeyFrame(p[1]&0x1f, p[2:])
	}
	return nalKeyFrame(p[0]&0x1f, p[1:])
}

func stapKeyFrame(p []byte) bool {
	for len(p) > 2 {
		size := int(binary.BigEndian.Uint16(p))
		p = p[2:]
		if size == 0 || size > len(p) {
			return false
		}
		if nalKeyFrame(p[0]&0x1f, p[1:size]) {
			return true
		}
		p = p[size:]
	}
	return false
}

// nalKeyFrame judges a NAL unit by its type and what follows its header. A
// slice header opens with first_mb_in_slice, coded ue(v): zero is one set bit.
func nalKeyFrame(kind byte, rest []byte) bool {
	if len(rest) == 0 {
		return false
	}
	return kind == nalSPS || kind == nalIDR && rest[0]&0x80 != 0
}
