package codec

// av1KeyFrame reads the aggregation header: N marks the first packet of a coded
// video sequence. Where a sender leaves N clear, a sequence header among the
// packet's OBUs says the same (AV1 RTP payload format, section 4.4).
func av1KeyFrame(p []byte) bool {
	if len(p) < 2 {
		return false
	}
	continued, count, first := p[0]&0x80 != 0, int(p[0]>>4&0x03), p[0]&0x08 != 0 // Z, W, N
	if continued {
		return false
	}
	return first || av1SequenceHeader(p[1:], count)
}

// av1SequenceHeader walks the OBU elements of a packet. count is W: 0 when each
// has a length, else their number, the last being without one.
func av1SequenceHeader(p []byte, count int) bool {
	const sequenceHeader = 1
	for i := 1; len(p) > 0; i++ {
		size := len(p)
		if count == 0 || i < count {
			n, width := leb128(p)
			if width == 0 || n > uint64(len(p)-width) {
				return false
			}
			p, size = p[width:], int(n)
		}
		if size > 0 && p[0]>>3&0x0f == sequenceHeader {
			return true
		}
		p = p[size:]
	}
	return false
}

// leb128 reads an unsigned little-endian base-128 number of at most 8 bytes
// (AV1 specification, section 4.10.5) and its width, 0 if there is none.
func leb128(p []byte) (value uint64, width int) {
	for i := 0; i < min(len(p), 8); i++ {
		value |= uint64(p[i]&0x7f) << (7 * i)
		if p[i]&0x80 == 0 {
			return value, i + 1
		}
	}
	return 0, 0
}
