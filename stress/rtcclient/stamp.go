package rtcclient

import (
	"encoding/binary"
	"hash/crc32"
	"time"
)

// stampSize is the length of a stamp, in bytes.
const stampSize = 20

// A Stamp stands in every payload of a Publisher, with a checksum over itself
// and what follows.
type Stamp struct {
	Stream uint32 // which Publisher and kind, random
	Number uint32 // of the packet in the stream, from 0
	Sent   time.Time
}

// PutVideo fills b, which has 36 bytes at least, as the payload of one packet of
// a VP8 frame.
func (s Stamp) PutVideo(b []byte, picture uint16, first, key bool) {
	s.put(b[putVP8(b, picture, first, key):])
}

// ReadVideo reads what PutVideo wrote, and whether the rest is as it was.
func ReadVideo(b []byte) (s Stamp, intact bool) {
	b, _ = skipVP8(b)
	if s, ok := readStamp(b); ok {
		return s, checkSum(b)
	}
	return Stamp{}, false
}

func (s Stamp) put(b []byte) {
	binary.BigEndian.PutUint32(b, s.Stream)
	binary.BigEndian.PutUint32(b[4:], s.Number)
	binary.BigEndian.PutUint64(b[8:], uint64(s.Sent.UnixNano()))
	binary.BigEndian.PutUint32(b[16:], sum(b))
}

// sum is the CRC-32C of a stamped payload but for the sum itself.
func sum(b []byte) uint32 {
	table := crc32.MakeTable(crc32.Castagnoli)
	return crc32.Update(crc32.Checksum(b[:16], table), table, b[stampSize:])
}

func checkSum(b []byte) bool { return binary.BigEndian.Uint32(b[16:]) == sum(b) }

func readStamp(b []byte) (s Stamp, ok bool) {
	if len(b) < stampSize {
		return Stamp{}, false
	}
	return Stamp{
		Stream: binary.BigEndian.Uint32(b),
		Number: binary.BigEndian.Uint32(b[4:]),
		Sent:   time.Unix(0, int64(binary.BigEndian.Uint64(b[8:]))),
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
