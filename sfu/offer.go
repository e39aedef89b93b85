package sfu

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/pion/sdp/v3"
	"github.com/pion/webrtc/v4"
)

// Role is what a client does in a room.
type Role string

// The roles.
const (
	Publisher Role = "publisher"
	Viewer    Role = "viewer"
)

// An offer is a client's SDP, checked and reduced to what the SFU answers: one
// format for each m-section, no candidates (a lite ICE agent sends no checks),
// no simulcast.
type offer struct {
	ice        ICE
	media      []media
	origin     sdp.Origin
	group      string          // a=group
	attributes []sdp.Attribute // of the session, passed on as they came
}

// media is one m-section of an offer.
type media struct {
	mid        string
	video      bool
	formats    []format // that the SFU forwards, in the client's order
	ssrc       uint32   // of what the client sends, 0 unknown
	rtxSSRC    uint32
	attributes []sdp.Attribute // passed on as they came
}

// parseOffer reads the SDP of a client in role. Its errors are ErrMalformed and
// ErrUnusable.
func parseOffer(text string, role Role) (*offer, error) {
	if !strings.HasPrefix(text, "v=0") { // RFC 8866, section 5.1
		return nil, fmt.Errorf("%w: it does not begin with v=0", ErrMalformed)
	}
	var d sdp.SessionDescription
	if err := d.UnmarshalString(text); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	o := &offer{origin: d.Origin, attributes: passed(d.Attributes)}
	o.group, _ = d.Attribute(sdp.AttrKeyGroup)
	for _, m := range d.MediaDescriptions {
		if err := o.addMedia(m, role); err != nil {
			return nil, fmt.Errorf("%w: m=%s: %w", ErrUnusable, m.MediaName.Media, err)
		}
	}
	if err := o.checkTransport(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnusable, err)
	}
	return o, nil
}

// addMedia checks one m-section (RFC 9725, section 4.4) and adds it.
func (o *offer) addMedia(m *sdp.MediaDescription, role Role) error {
	kind := m.MediaName.Media
	if kind != "audio" && kind != "video" {
		return fmt.Errorf("only audio and video are supported")
	}
	out := media{video: kind == "video", formats: formatsOf(m), attributes: append(passed(m.Attributes), extmapsOf(m, role)...)}
	for _, other := range o.media {
		if other.video == out.video {
			return fmt.Errorf("a second track of this kind is not supported")
		}
	}
	if err := checkDirection(m, role); err != nil {
		return err
	}
	if _, mux := m.Attribute(sdp.AttrKeyRTCPMux); !mux {
		return fmt.Errorf("no a=rtcp-mux")
	}
	out.mid, _ = m.Attribute(sdp.AttrKeyMID)
	if mids, ok := strings.CutPrefix(o.group, "BUNDLE "); !ok || !slices.Contains(strings.Fields(mids), out.mid) {
		return fmt.Errorf("a=mid:%.32q is not in the BUNDLE group", out.mid)
	}
	if len(out.formats) == 0 {
		return fmt.Errorf("%w: none of the offered formats is supported", ErrCodec)
	}
	if role == Publisher {
		out.readSSRC(m)
		out.dropRTX()
	}
	o.media = append(o.media, out)
	return nil
}

// checkDirection wants a publisher to send and a viewer to receive.
func checkDirection(m *sdp.MediaDescription, role Role) error {
	want := sdp.AttrKeySendOnly
	if role == Viewer {
		want = sdp.AttrKeyRecvOnly
	}
	for _, a := range m.Attributes {
		switch a.Key {
		case want, sdp.AttrKeySendRecv:
			return nil
		case sdp.AttrKeySendOnly, sdp.AttrKeyRecvOnly, sdp.AttrKeyInactive:
			return fmt.Errorf("a=%s in the offer of a %s", a.Key, role)
		}
	}
	return nil // sendrecv is the default (RFC 8866, section 6.7)
}

// readSSRC finds the SSRCs of the media stream and of its RTX stream.
func (m *media) readSSRC(d *sdp.MediaDescription) {
	for _, a := range d.Attributes {
		fields := strings.Fields(a.Value)
		switch {
		case a.Key == sdp.AttrKeySSRC && m.ssrc == 0 && len(fields) > 0:
			m.ssrc = parseSSRC(fields[0])
		case a.Key == sdp.AttrKeySSRCGroup && len(fields) == 3 && fields[0] == sdp.SemanticTokenFlowIdentification:
			if m.rtxSSRC == 0 {
				m.ssrc, m.rtxSSRC = parseSSRC(fields[1]), parseSSRC(fields[2])
			}
		}
	}
	if m.ssrc == 0 || m.ssrc == m.rtxSSRC {
		m.rtxSSRC = 0
	}
}

// dropRTX does without RTX where the client does not say which of its streams
// that is, as those that offer simulcast.
func (m *media) dropRTX() {
	for i := range m.formats {
		if m.rtxSSRC == 0 {
			m.formats[i].rtx = 0
		}
	}
}

func parseSSRC(s string) uint32 {
	n, _ := strconv.ParseUint(s, 10, 32)
	return uint32(n)
}

// checkTransport wants what ICE, DTLS and BUNDLE need.
func (o *offer) checkTransport() error {
	if len(o.media) == 0 {
		return fmt.Errorf("no m-section")
	}
	all := slices.Concat(o.attributes, o.media[0].attributes) // the first m-section is the tagged one
	o.ice = ICE{Ufrag: valueOf(all, "ice-ufrag"), Pwd: valueOf(all, "ice-pwd")}
	if err := o.ice.check(); err != nil {
		return err
	}
	if valueOf(all, "fingerprint") == "" {
		return fmt.Errorf("no a=fingerprint")
	}
	switch setup := valueOf(all, sdp.AttrKeyConnectionSetup); setup {
	case "actpass", "active", "":
		return nil
	default:
		return fmt.Errorf("a=setup:%.16q: the server takes the DTLS server's part", setup)
	}
}

func valueOf(attributes []sdp.Attribute, key string) string {
	for _, a := range attributes {
		if a.Key == key {
			return a.Value
		}
	}
	return ""
}

// passed are the attributes that reach pion as the client wrote them.
func passed(all []sdp.Attribute) []sdp.Attribute {
	var out []sdp.Attribute
	for _, a := range all {
		switch a.Key {
		case "ice-ufrag", "ice-pwd", "fingerprint", sdp.AttrKeyConnectionSetup, sdp.AttrKeyMsid, sdp.AttrKeyExtMapAllowMixed:
			out = append(out, a)
		}
	}
	return out
}

// describe writes the offer with the chosen format of each m-section, as pion
// is to see it. ice replaces the credentials the offer came with.
func (o *offer) describe(role Role, chosen []format, ice ICE) (webrtc.SessionDescription, error) {
	d := sdp.SessionDescription{
		Origin:           o.origin,
		SessionName:      "-",
		TimeDescriptions: []sdp.TimeDescription{{}},
		Attributes:       append([]sdp.Attribute{{Key: sdp.AttrKeyGroup, Value: o.group}}, withICE(o.attributes, ice)...),
	}
	for i, m := range o.media {
		md := m.describe(role, chosen[i])
		md.Attributes = append(md.Attributes, withICE(m.attributes, ice)...)
		d.MediaDescriptions = append(d.MediaDescriptions, md)
	}
	text, err := d.Marshal()
	return webrtc.SessionDescription{Type: webrtc.SDPTypeOffer, SDP: string(text)}, err
}

// withICE replaces the credentials where there are some.
func withICE(attributes []sdp.Attribute, ice ICE) []sdp.Attribute {
	out := slices.Clone(attributes)
	for i, a := range out {
		switch a.Key {
		case "ice-ufrag":
			out[i].Value = ice.Ufrag
		case "ice-pwd":
			out[i].Value = ice.Pwd
		}
	}
	return out
}

// describe writes the m-section with format f.
func (m media) describe(role Role, f format) *sdp.MediaDescription {
	kind := "audio"
	if m.video {
		kind = "video"
	}
	d := sdp.NewJSEPMediaDescription(kind, nil).WithValueAttribute(sdp.AttrKeyMID, m.mid)
	d.WithPropertyAttribute(sdp.AttrKeyRTCPMux).WithPropertyAttribute(sdp.AttrKeyRTCPRsize)
	if role == Publisher {
		d.WithPropertyAttribute(sdp.AttrKeySendOnly)
	} else {
		d.WithPropertyAttribute(sdp.AttrKeyRecvOnly)
	}
	for _, c := range f.codecs() {
		name := c.MimeType[len(kind)+1:]
		d.WithCodec(uint8(c.PayloadType), name, c.ClockRate, c.Channels, c.SDPFmtpLine)
		for _, fb := range c.RTCPFeedback {
			d.WithValueAttribute("rtcp-fb", strings.TrimSpace(fmt.Sprintf("%d %s %s", c.PayloadType, fb.Type, fb.Parameter)))
		}
	}
	if m.rtxSSRC != 0 && f.rtx != 0 {
		d.WithValueAttribute(sdp.AttrKeySSRCGroup, fmt.Sprintf("%s %d %d", sdp.SemanticTokenFlowIdentification, m.ssrc, m.rtxSSRC))
		d.WithValueAttribute(sdp.AttrKeySSRC, fmt.Sprintf("%d cname:%s", m.rtxSSRC, m.mid))
	}
	if m.ssrc != 0 {
		d.WithValueAttribute(sdp.AttrKeySSRC, fmt.Sprintf("%d cname:%s", m.ssrc, m.mid))
	}
	return d
}
