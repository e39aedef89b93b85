package rtcclient

import (
	"encoding/binary"
	"time"
)

// stampSize is the length of a stamp, in bytes.
const stampSize = 16

// A stamp stands in every payload of a Publisher.
type stamp struct {
	stream uint32 // which Publisher and kind, random
	number uint32 // of the packet in the stream, from 0
	sent   time.Time
}

func (s stamp) put(b []byte) {
	binary.BigEndian.PutUint32(b, s.stream)
	binary.BigEndian.PutUint32(b[4:], s.number)
	binary.BigEndian.PutUint64(b[8:], uint64(s.sent.UnixNano()))
}

func readStamp(b []byte) (s stamp, ok bool) {
	if len(b) < stampSize {
		return stamp{}, false
	}
	return stamp{
		stream: binary.BigEndian.Uint32(b),
		number: binary.BigEndian.Uint32(b[4:]),
		sent:   time.Unix(0, int64(binary.BigEndian.Uint64(b[8:]))),
	}, true
}

// vp8Header is the payload descriptor with a 15-bit picture ID and the first
// bytes of a VP8 frame (RFC 7741, sections 4.2 and 4.3), which packets that go
// on with a frame leave out.
const (
	descriptorSize = 4
	keyHeaderSize  = 10 // frame tag, start code, 640 x 360
	tagSize        = 3
)

// putVP8 writes the headers of one packet of a frame and returns their length.
func putVP8(b []byte, picture uint16, first, key bool) int {
	b[0], b[1] = 0x80, 0x80 // X; I
	binary.BigEndian.PutUint16(b[2:], picture|0x8000)
	if !first {
		return descriptorSize
	}
	b[0] |= 0x10 // S: start of partition 0
	if !key {
		copy(b[descriptorSize:], []byte{0x11, 0, 0}) // P, show_frame
		return descriptorSize + tagSize
	}
	copy(b[descriptorSize:], []byte{0x10, 0, 0, 0x9d, 0x01, 0x2a, 0x80, 0x02, 0x68, 0x01})
	return descriptorSize + keyHeaderSize
}

// skipVP8 returns what follows the headers that putVP8 writes.
func skipVP8(b []byte) (rest []byte, key bool) {
	if len(b) < descriptorSize+tagSize {
		return nil, false
	}
	if b[0]&0x10 == 0 {
		return b[descriptorSize:], false
	}
	if b[descriptorSize]&1 == 1 {
		return b[descriptorSize+tagSize:], false
	}
	return b[min(len(b), descriptorSize+keyHeaderSize):], true
}
