package codec

import (
	"slices"
	"testing"
)

func TestKeyFrame(t *testing.T) {
	for _, test := range []struct {
		name    string
		mime    string
		payload []byte
		start   bool
	}{
		{"empty", "video/VP8", nil, false},
		{"key", "video/VP8", []byte{0x10, 0x50, 0x01, 0x00}, true},
		{"MIME in lower case", "video/vp8", []byte{0x10, 0x50}, true},
		{"inter", "video/VP8", []byte{0x10, 0x51}, false},
		{"continued", "video/VP8", []byte{0x00, 0x50}, false},
		{"second partition", "video/VP8", []byte{0x11, 0x50}, false},
		{"descriptor alone", "video/VP8", []byte{0x10}, false},
		{"X cut", "video/VP8", []byte{0x90}, false},
		{"X without fields", "video/VP8", []byte{0x90, 0x00, 0x50}, true},
		{"7-bit PictureID", "video/VP8", []byte{0x90, 0x80, 0x7f, 0x50}, true},
		{"7-bit PictureID, inter", "video/VP8", []byte{0x90, 0x80, 0x7e, 0x51}, false},
		{"15-bit PictureID", "video/VP8", []byte{0x90, 0x80, 0x81, 0x23, 0x50}, true},
		{"15-bit PictureID cut", "video/VP8", []byte{0x90, 0x80, 0x81}, false},
		{"PictureID cut", "video/VP8", []byte{0x90, 0x80}, false},
		{"all fields", "video/VP8", []byte{0x90, 0xf0, 0x81, 0x23, 0x05, 0x20, 0x50}, true},
		{"all fields, inter", "video/VP8", []byte{0x90, 0xf0, 0x81, 0x23, 0x05, 0x20, 0x51}, false},
		{"all fields cut", "video/VP8", []byte{0x90, 0xf0, 0x81, 0x23, 0x05, 0x20}, false},
		{"K without T", "video/VP8", []byte{0x90, 0x10, 0x01, 0x50}, true},

		{"empty", "video/VP9", nil, false},
		{"key", "video/VP9", []byte{0x08, 0x82}, true},
		{"predicted", "video/VP9", []byte{0x48, 0x86}, false},
		{"not the beginning", "video/VP9", []byte{0x00, 0x82}, false},
		{"7-bit PictureID, SID 0", "video/VP9", []byte{0xa8, 0x01, 0x10, 0x00, 0x82}, true},
		{"15-bit PictureID, SID 0", "video/VP9", []byte{0xa8, 0x81, 0x01, 0x00, 0x00, 0x82}, true},
		{"upper spatial layer", "video/VP9", []byte{0xa8, 0x81, 0x01, 0x03, 0x00, 0x82}, false},
		{"with scalability structure", "video/VP9", []byte{0x8a, 0x81, 0x01, 0x00, 0x82}, true},
		{"PictureID cut", "video/VP9", []byte{0x88}, false},
		{"layer cut", "video/VP9", []byte{0xa8, 0x01}, false},

		{"empty", "video/H264", nil, false},
		{"SPS", "video/H264", []byte{0x67, 0x42}, true},
		{"SPS header alone", "video/H264", []byte{0x67}, false},
		{"PPS", "video/H264", []byte{0x68, 0xce}, false},
		{"IDR, first slice", "video/H264", []byte{0x65, 0x88}, true},
		{"IDR, later slice", "video/H264", []byte{0x65, 0x44}, false},
		{"IDR without slice header", "video/H264", []byte{0x65}, false},
		{"other slice", "video/H264", []byte{0x41, 0x9a}, false},
		{"STAP-A SPS PPS", "video/H264", []byte{0x78, 0, 2, 0x67, 0x42, 0, 2, 0x68, 0xce}, true},
		{"STAP-A AUD SPS", "video/H264", []byte{0x78, 0, 1, 0x09, 0, 2, 0x67, 0x42}, true},
		{"STAP-A PPS", "video/H264", []byte{0x78, 0, 2, 0x68, 0xce}, false},
		{"STAP-A PPS IDR", "video/H264", []byte{0x78, 0, 2, 0x68, 0xce, 0, 2, 0x65, 0x88}, true},
		{"STAP-A too long", "video/H264", []byte{0x78, 0, 9, 0x67, 0x42}, false},
		{"STAP-A size zero", "video/H264", []byte{0x78, 0, 0, 0, 1, 0x67}, false},
		{"STAP-A alone", "video/H264", []byte{0x78}, false},
		{"FU-A IDR start", "video/H264", []byte{0x7c, 0x85, 0x88}, true},
		{"FU-A IDR start, later slice", "video/H264", []byte{0x7c, 0x85, 0x44}, false},
		{"FU-A IDR middle", "video/H264", []byte{0x7c, 0x05, 0x88}, false},
		{"FU-A IDR end", "video/H264", []byte{0x7c, 0x45, 0x88}, false},
		{"FU-A SPS start", "video/H264", []byte{0x7c, 0x87, 0x42}, true},
		{"FU-A other start", "video/H264", []byte{0x7c, 0x81, 0x88}, false},
		{"FU-A cut", "video/H264", []byte{0x7c}, false},

		{"empty", "video/AV1", nil, false},
		{"N", "video/AV1", []byte{0x18, 0x0a, 0x0b}, true},
		{"header alone", "video/AV1", []byte{0x18}, false},
		{"N and Z", "video/AV1", []byte{0x98, 0x0a, 0x0b}, false},
		{"sequence header, W 1", "video/AV1", []byte{0x10, 0x08, 0x00}, true},
		{"frame, W 1", "video/AV1", []byte{0x10, 0x30, 0x08}, false},
		{"continued sequence header", "video/AV1", []byte{0x90, 0x08}, false},
		{"delimiter, sequence header, W 2", "video/AV1", []byte{0x20, 0x01, 0x10, 0x08, 0x00}, true},
		{"frame, frame, W 2", "video/AV1", []byte{0x20, 0x01, 0x30, 0x30, 0x08}, false},
		{"sequence header, W 0", "video/AV1", []byte{0x00, 0x02, 0x08, 0x00, 0x01, 0x30}, true},
		{"two-byte length", "video/AV1", append(append([]byte{0x00, 0x80, 0x01, 0x30}, make([]byte, 127)...), 0x01, 0x08), true},
		{"length beyond the packet", "video/AV1", []byte{0x00, 0x7f, 0x30, 0x08}, false},
		{"length unfinished", "video/AV1", []byte{0x00, 0xff, 0xff}, false},
		{"empty element", "video/AV1", []byte{0x00, 0x00, 0x01, 0x08}, true},
	} {
		t.Run(test.mime+" "+test.name, func(t *testing.T) {
			start, known := KeyFrame(test.mime, test.payload)
			if start != test.start || !known {
				t.Errorf("KeyFrame(%s, % x) = %v, %v, want %v, true", test.mime, test.payload, start, known, test.start)
			}
		})
	}
}

func TestKeyFrameUnknown(t *testing.T) {
	for _, mime := range []string{"", "audio/opus", "video/H265", "video/rtx"} {
		if start, known := KeyFrame(mime, []byte{0x10, 0x50}); start || known {
			t.Errorf("KeyFrame(%q) = %v, %v, want false, false", mime, start, known)
		}
	}
}

func FuzzKeyFrame(f *testing.F) {
	for _, seed := range [][]byte{{0x90, 0xf0, 0x81, 0x23, 0x05, 0x20, 0x50}, {0xa8, 0x81, 0x01, 0x00, 0x82}, {0x78, 0, 2, 0x67, 0x42}, {0x7c, 0x85, 0x88}, {0x20, 0x01, 0x10, 0x08}} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		before := slices.Clone(payload)
		for _, mime := range []string{"video/VP8", "video/VP9", "video/H264", "video/AV1"} {
			start, known := KeyFrame(mime, payload)
			if !known || start && len(payload) < 2 {
				t.Errorf("KeyFrame(%s, % x) = %v, %v", mime, payload, start, known)
			}
			// What begins a key frame still does so with more behind it.
			if mime != "video/AV1" && start {
				if again, _ := KeyFrame(mime, append(slices.Clone(payload), 0)); !again {
					t.Errorf("KeyFrame(%s, % x 00) = false", mime, payload)
				}
			}
		}
		if !slices.Equal(before, payload) {
			t.Error("payload changed")
		}
	})
}
