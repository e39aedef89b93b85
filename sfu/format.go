package sfu

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/pion/sdp/v3"
	"github.com/pion/webrtc/v4"
)

// A format is one codec as an m-section offers it (RFC 8866, section 6.6).
type format struct {
	mime     string // "video/VP8"
	pt       webrtc.PayloadType
	rtx      webrtc.PayloadType // payload type of its RTX stream (RFC 4588), 0 without
	clock    uint32             // Hz
	channels uint16
	fmtp     string
	feedback []webrtc.RTCPFeedback
}

// mimes are the codecs the SFU forwards, by the name in a=rtpmap, lower case.
var mimes = map[string]string{
	"audio/opus": webrtc.MimeTypeOpus,
	"video/vp8":  webrtc.MimeTypeVP8,
	"video/vp9":  webrtc.MimeTypeVP9,
	"video/h264": webrtc.MimeTypeH264,
	"video/av1":  webrtc.MimeTypeAV1,
}

// supported says whether the SFU forwards f: Opus, VP8, VP9 profile 0, AV1
// profile 0 and H.264 baseline with packetization mode 1.
func (f format) supported() bool {
	if _, known := mimes[strings.ToLower(f.mime)]; !known || f.isVideo() && f.clock != 90000 {
		return false
	}
	switch f.mime {
	case webrtc.MimeTypeVP9:
		return f.parameter("profile-id", "0") == "0"
	case webrtc.MimeTypeAV1:
		return f.parameter("profile", "0") == "0"
	case webrtc.MimeTypeH264:
		return f.parameter("packetization-mode", "0") == "1" && strings.HasPrefix(f.h264Profile(), "42")
	case webrtc.MimeTypeOpus:
		return f.clock == 48000 && f.channels == 2 // RFC 7587, section 7
	}
	return true
}

// receives says how well a viewer that offers f gets a stream sent as g: 0 not
// at all, 2 exactly, 1 where only the H.264 baseline constraints differ.
func (f format) receives(g format) int {
	switch {
	case f.mime != g.mime || !f.supported():
		return 0
	case f.mime == webrtc.MimeTypeH264 && f.h264Profile() != g.h264Profile():
		return 1
	}
	return 2
}

// h264Profile is profile_idc and profile_iop of profile-level-id, lower case;
// its default is that of RFC 6184, section 8.1.
func (f format) h264Profile() string {
	id := strings.ToLower(f.parameter("profile-level-id", "420010"))
	if len(id) != 6 {
		return ""
	}
	return id[:4]
}

func (f format) parameter(name, otherwise string) string {
	for p := range strings.SplitSeq(f.fmtp, ";") {
		key, value, _ := strings.Cut(strings.TrimSpace(p), "=")
		if strings.EqualFold(key, name) {
			return value
		}
	}
	return otherwise
}

// formatsOf reads the formats of an m-section in the order of preference, those
// of RTX, RED and FEC excepted.
func formatsOf(m *sdp.MediaDescription) []format {
	byPT := map[string]*format{}
	var order []*format
	for _, pt := range m.MediaName.Formats {
		n, err := strconv.ParseUint(pt, 10, 7)
		if err != nil || byPT[pt] != nil {
			continue
		}
		f := &format{pt: webrtc.PayloadType(n)}
		byPT[pt], order = f, append(order, f)
	}
	for _, a := range m.Attributes {
		pt, value, _ := strings.Cut(a.Value, " ")
		switch {
		case a.Key == "rtcp-fb" && pt == "*":
			for _, f := range order {
				f.addFeedback(value)
			}
		case byPT[pt] == nil:
		case a.Key == "rtpmap":
			byPT[pt].setMap(m.MediaName.Media, value)
		case a.Key == "fmtp":
			byPT[pt].fmtp = value
		case a.Key == "rtcp-fb":
			byPT[pt].addFeedback(value)
		}
	}
	return withRTX(order, byPT)
}

// withRTX keeps the media formats of order and tells each its RTX payload type.
func withRTX(order []*format, byPT map[string]*format) []format {
	for _, f := range order {
		if !strings.EqualFold(f.mime, webrtc.MimeTypeRTX) {
			continue
		}
		if media := byPT[f.parameter("apt", "")]; media != nil && media != f {
			media.rtx = f.pt
		}
	}
	var formats []format
	for _, f := range order {
		if f.supported() {
			formats = append(formats, *f)
		}
	}
	return formats
}

// setMap reads "VP8/90000" or "opus/48000/2".
func (f *format) setMap(kind, value string) {
	name, rest, _ := strings.Cut(value, "/")
	clock, channels, _ := strings.Cut(rest, "/")
	hz, _ := strconv.ParseUint(clock, 10, 32)
	n, _ := strconv.ParseUint(channels, 10, 16)
	f.mime, f.clock, f.channels = kind+"/"+name, uint32(hz), uint16(n)
	if known, ok := mimes[strings.ToLower(f.mime)]; ok {
		f.mime = known
	}
}

// feedbacks are the RTCP feedback messages (RFC 4585, RFC 5104 and TWCC) that
// the SFU answers with where the client offers them.
var feedbacks = []webrtc.RTCPFeedback{
	{Type: webrtc.TypeRTCPFBNACK},
	{Type: webrtc.TypeRTCPFBNACK, Parameter: "pli"},
	{Type: webrtc.TypeRTCPFBCCM, Parameter: "fir"},
	{Type: webrtc.TypeRTCPFBTransportCC},
}

// addFeedback reads "nack pli" and keeps it if it is one of feedbacks.
func (f *format) addFeedback(value string) {
	name, parameter, _ := strings.Cut(value, " ")
	fb := webrtc.RTCPFeedback{Type: name, Parameter: parameter}
	if slices.Contains(feedbacks, fb) && !slices.Contains(f.feedback, fb) {
		f.feedback = append(f.feedback, fb)
	}
}

func (f format) isVideo() bool { return strings.HasPrefix(f.mime, "video/") }

func (f format) kind() webrtc.RTPCodecType {
	if f.isVideo() {
		return webrtc.RTPCodecTypeVideo
	}
	return webrtc.RTPCodecTypeAudio
}

// codecs is f as pion registers it, with its RTX stream. want are the feedback
// messages to answer with.
func (f format) codecs() []webrtc.RTPCodecParameters {
	media := webrtc.RTPCodecParameters{PayloadType: f.pt, RTPCodecCapability: webrtc.RTPCodecCapability{
		MimeType: f.mime, ClockRate: f.clock, Channels: f.channels, SDPFmtpLine: f.fmtp, RTCPFeedback: f.feedback,
	}}
	if f.rtx == 0 {
		return []webrtc.RTPCodecParameters{media}
	}
	return []webrtc.RTPCodecParameters{media, {PayloadType: f.rtx, RTPCodecCapability: webrtc.RTPCodecCapability{
		MimeType: webrtc.MimeTypeRTX, ClockRate: f.clock, SDPFmtpLine: fmt.Sprintf("apt=%d", f.pt),
	}}}
}
