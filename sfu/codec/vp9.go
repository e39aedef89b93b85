package codec

// vp9KeyFrame reads the payload descriptor (RFC 9628, section 4.2): the
// beginning (B) of a frame of the lowest spatial layer that is predicted from
// no other picture (P clear). It does not look behind the descriptor, so
// end-to-end encrypted frames are told as well.
func vp9KeyFrame(p []byte) bool {
	if len(p) == 0 {
		return false
	}
	hasID, predicted, hasLayer, begin := p[0]&0x80 != 0, p[0]&0x40 != 0, p[0]&0x20 != 0, p[0]&0x08 != 0
	if predicted || !begin {
		return false
	}
	n := 1
	if hasID { // 7 bits, or 15 where M is set
		if len(p) <= n {
			return false
		}
		if p[n]&0x80 != 0 {
			n++
		}
		n++
	}
	if len(p) <= n { // the layer octet, or the picture's first
		return false
	}
	return !hasLayer || p[n]&0x0e == 0 // SID
}
