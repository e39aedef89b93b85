// Package codec tells what the first bytes of an RTP payload say about the
// picture they carry.
package codec

import "strings"

// KeyFrame reports whether an RTP payload begins a key frame, that is, whether
// a decoder that knows nothing yet can start with this packet. The MIME type is
// compared without regard to case ("video/VP8", RFC 4855). known is false for
// codecs it cannot judge, audio among them; a payload too short or malformed
// begins nothing.
//
// A picture whose parameter sets travel apart (H.264) begins at the first of
// them and again at its first slice.
func KeyFrame(mime string, payload []byte) (start, known bool) {
	switch {
	case strings.EqualFold(mime, "video/VP8"):
		return vp8KeyFrame(payload), true
	case strings.EqualFold(mime, "video/VP9"):
		return vp9KeyFrame(payload), true
	case strings.EqualFold(mime, "video/H264"):
		return h264KeyFrame(payload), true
	case strings.EqualFold(mime, "video/AV1"):
		return av1KeyFrame(payload), true
	}
	return false, false
}
