package sfu

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/pion/sdp/v3"
	"github.com/pion/webrtc/v4"
)

func sdpFile(t testing.TB, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// names are "MIME payload-type/RTX payload-type".
func names(formats []format) []string {
	var out []string
	for _, f := range formats {
		out = append(out, f.mime+" "+f.parameter("profile-level-id", "")+" "+webrtcPT(f.pt)+"/"+webrtcPT(f.rtx))
	}
	return out
}

func webrtcPT(pt webrtc.PayloadType) string {
	return strings.TrimLeft(string([]byte{'0' + byte(pt)/100, '0' + byte(pt)/10%10, '0' + byte(pt)%10}), "0")
}

func TestParseOffer(t *testing.T) {
	for _, test := range []struct {
		file         string
		role         Role
		audio, video []string
		ssrc, rtx    uint32
	}{
		{"chromium-156-publish.sdp", Publisher, []string{"audio/opus  111/"}, []string{
			"video/VP8  96/97", "video/H264 42001f 102/103", "video/H264 42e01f 108/109", "video/AV1  45/46", "video/VP9  98/99",
		}, 0, 0},
		{"chromium-156-simulcast.sdp", Publisher, []string{"audio/opus  111/"}, []string{
			"video/VP8  96/", "video/H264 42001f 102/", "video/H264 42e01f 108/", "video/AV1  45/", "video/VP9  98/",
		}, 0, 0},
		{"chromium-156-view.sdp", Viewer, []string{"audio/opus  111/"}, []string{
			"video/VP8  96/97", "video/VP9  98/99", "video/H264 42001f 102/103", "video/H264 42e01f 108/109", "video/AV1  45/46",
		}, 0, 0},
	} {
		t.Run(test.file, func(t *testing.T) {
			o, err := parseOffer(sdpFile(t, test.file), test.role)
			if err != nil {
				t.Fatal(err)
			}
			if len(o.media) != 2 || o.media[0].video || !o.media[1].video || o.media[0].mid != "0" || o.media[1].mid != "1" {
				t.Fatalf("m-sections: %+v", o.media)
			}
			if got := names(o.media[0].formats); !slices.Equal(got, test.audio) {
				t.Errorf("audio %q, want %q", got, test.audio)
			}
			if got := names(o.media[1].formats); !slices.Equal(got, test.video) {
				t.Errorf("video %q, want %q", got, test.video)
			}
			if (o.media[1].ssrc != 0) != (test.file == "chromium-156-publish.sdp") || (o.media[1].rtxSSRC != 0) != (o.media[1].ssrc != 0) {
				t.Errorf("SSRCs %d and %d", o.media[1].ssrc, o.media[1].rtxSSRC)
			}
			if err := o.ice.check(); err != nil {
				t.Error(err)
			}
		})
	}
}

// describe has to give pion what was chosen and nothing else.
func TestDescribe(t *testing.T) {
	o, err := parseOffer(sdpFile(t, "chromium-156-publish.sdp"), Publisher)
	must(t, err)
	chosen := []format{o.media[0].formats[0], o.media[1].formats[0]}
	description, err := o.describe(Publisher, chosen, ICE{Ufrag: "newfrag", Pwd: "new-password"})
	must(t, err)
	var d sdp.SessionDescription
	must(t, d.UnmarshalString(description.SDP))
	video := d.MediaDescriptions[1]
	if got := strings.Join(video.MediaName.Formats, " "); got != "96 97" {
		t.Errorf("formats %q", got)
	}
	for _, want := range []string{"a=ice-ufrag:newfrag\r\n", "a=ice-pwd:new-password\r\n", "a=rtcp-fb:96 nack pli\r\n", "a=fmtp:97 apt=96\r\n", "a=ssrc-group:FID ", "a=sendonly\r\n", "a=group:BUNDLE 0 1\r\n"} {
		if !strings.Contains(description.SDP, want) {
			t.Errorf("%q is missing in\n%s", want, description.SDP)
		}
	}
	for _, not := range []string{"candidate", "goog-remb", "H264", "rid", "simulcast", "toffset", "ufrag:m2o0"} {
		if strings.Contains(description.SDP, not) {
			t.Errorf("%q is left in\n%s", not, description.SDP)
		}
	}
}

func TestBadOffers(t *testing.T) {
	good := sdpFile(t, "chromium-156-publish.sdp")
	without := func(prefix string) string {
		var out []string
		for line := range strings.Lines(good) {
			if !strings.HasPrefix(line, prefix) {
				out = append(out, line)
			}
		}
		return strings.Join(out, "")
	}
	session, _, _ := strings.Cut(good, "m=")
	_, video, _ := strings.Cut(good, "m=video")
	for _, test := range []struct {
		name string
		text string
		role Role
		want error
	}{
		{"empty", "", Publisher, ErrMalformed},
		{"no SDP", "hello", Publisher, ErrMalformed},
		{"cut", good[:len(good)/2] + "\r\nm=video", Publisher, ErrMalformed},
		{"no m-section", session, Publisher, ErrUnusable},
		{"viewer sends", good, Viewer, ErrUnusable},
		{"publisher receives", strings.ReplaceAll(good, "a=sendonly", "a=recvonly"), Publisher, ErrUnusable},
		{"inactive", strings.ReplaceAll(good, "a=sendonly", "a=inactive"), Publisher, ErrUnusable},
		{"no BUNDLE", without("a=group:BUNDLE"), Publisher, ErrUnusable},
		{"not all bundled", strings.Replace(good, "BUNDLE 0 1", "BUNDLE 0", 1), Publisher, ErrUnusable},
		{"no mid", without("a=mid"), Publisher, ErrUnusable},
		{"no rtcp-mux", without("a=rtcp-mux"), Publisher, ErrUnusable},
		{"no ufrag", without("a=ice-ufrag"), Publisher, ErrUnusable},
		{"short password", strings.ReplaceAll(good, "a=ice-pwd:", "a=ice-pwd:x\r\na=x:"), Publisher, ErrUnusable},
		{"no fingerprint", without("a=fingerprint"), Publisher, ErrUnusable},
		{"DTLS server", strings.ReplaceAll(good, "a=setup:actpass", "a=setup:passive"), Publisher, ErrUnusable},
		{"data channel", good + "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\n", Publisher, ErrUnusable},
		{"two videos", good + "m=video" + video, Publisher, ErrUnusable},
		{"no codec", strings.ReplaceAll(good, "opus/48000/2", "speex/48000/2"), Publisher, ErrCodec},
	} {
		t.Run(test.name, func(t *testing.T) {
			if _, err := parseOffer(test.text, test.role); !errors.Is(err, test.want) {
				t.Errorf("got %v, want %v", err, test.want)
			}
		})
	}
}

func TestDTLSClientMayOffer(t *testing.T) {
	active := strings.ReplaceAll(sdpFile(t, "chromium-156-publish.sdp"), "a=setup:actpass", "a=setup:active")
	if _, err := parseOffer(active, Publisher); err != nil {
		t.Error(err)
	}
}

func TestFormatReceives(t *testing.T) {
	h264 := func(fmtp string) format { return format{mime: webrtc.MimeTypeH264, fmtp: fmtp, clock: 90000} }
	vp9 := func(fmtp string) format { return format{mime: webrtc.MimeTypeVP9, fmtp: fmtp, clock: 90000} }
	for _, test := range []struct {
		offered, sent format
		want          int
	}{
		{format{mime: webrtc.MimeTypeVP8, clock: 90000}, format{mime: webrtc.MimeTypeVP8, clock: 90000}, 2},
		{format{mime: webrtc.MimeTypeVP8, clock: 90000}, vp9(""), 0},
		{vp9("profile-id=0"), vp9(""), 2},
		{vp9("profile-id=2"), vp9("profile-id=2"), 0},
		{h264("packetization-mode=1;profile-level-id=42e01f"), h264("packetization-mode=1;profile-level-id=42e034"), 2},
		{h264("profile-level-id=42001F; packetization-mode=1"), h264("packetization-mode=1;profile-level-id=42e01f"), 1},
		{h264("packetization-mode=0;profile-level-id=42e01f"), h264("packetization-mode=1;profile-level-id=42e01f"), 0},
		{h264("packetization-mode=1;profile-level-id=64001f"), h264("packetization-mode=1;profile-level-id=42e01f"), 0},
		{h264("packetization-mode=1;profile-level-id=42e0"), h264("packetization-mode=1;profile-level-id=42e01f"), 0},
		{format{mime: "video/H265", clock: 90000}, format{mime: "video/H265", clock: 90000}, 0},
	} {
		if got := test.offered.receives(test.sent); got != test.want {
			t.Errorf("%q receives %q: %d, want %d", test.offered.fmtp, test.sent.fmtp, got, test.want)
		}
	}
}

// FuzzOffer wants pion never to see an offer that it cannot parse or answer.
func FuzzOffer(f *testing.F) {
	for _, name := range []string{"chromium-156-publish.sdp", "chromium-156-simulcast.sdp", "chromium-156-view.sdp"} {
		f.Add(sdpFile(f, name), strings.Contains(name, "view"))
	}
	f.Fuzz(func(t *testing.T, text string, view bool) {
		role := Publisher
		if view {
			role = Viewer
		}
		o, err := parseOffer(text, role)
		if err != nil {
			if !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrUnusable) {
				t.Errorf("error of no class: %v", err)
			}
			return
		}
		var chosen []format
		for _, m := range o.media {
			chosen = append(chosen, m.formats[0])
		}
		description, err := o.describe(role, chosen, o.ice)
		if err != nil {
			t.Fatalf("describe: %v", err)
		}
		var again sdp.SessionDescription
		if err := again.UnmarshalString(description.SDP); err != nil {
			t.Fatalf("%v in what was made of it:\n%s", err, description.SDP)
		}
		if len(again.MediaDescriptions) != len(o.media) {
			t.Fatalf("%d m-sections of %d:\n%s", len(again.MediaDescriptions), len(o.media), description.SDP)
		}
	})
}
