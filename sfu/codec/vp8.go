package codec

// vp8KeyFrame reads the payload descriptor and the first octet of the payload
// header (RFC 7741, sections 4.2 and 4.3).
func vp8KeyFrame(p []byte) bool {
	if len(p) == 0 || p[0]&0x10 == 0 || p[0]&0x07 != 0 { // S: start of partition; PID: the first
		return false
	}
	n := 1
	if p[0]&0x80 != 0 { // X
		if len(p) < 2 {
			return false
		}
		ext := p[1]
		n = 2
		if ext&0x80 != 0 { // I: PictureID of one octet, or two where M is set
			if len(p) <= n {
				return false
			}
			if p[n]&0x80 != 0 {
				n++
			}
			n++
		}
		if ext&0x40 != 0 { // L: TL0PICIDX
			n++
		}
		if ext&0x30 != 0 { // T or K: TID, Y, KEYIDX
			n++
		}
	}
	return len(p) > n && p[n]&0x01 == 0 // P: inverse key frame flag
}
