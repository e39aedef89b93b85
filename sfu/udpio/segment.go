package udpio

import (
	"encoding/binary"
	"unsafe"

	"golang.org/x/sys/unix"
)

// segmentSize reads the length of the datagrams that a UDP_GRO control message
// says were merged, 0 if there is none.
func segmentSize(control []byte) int {
	for len(control) >= unix.SizeofCmsghdr {
		header := *(*unix.Cmsghdr)(unsafe.Pointer(&control[0]))
		length := int(header.Len)
		if length < unix.SizeofCmsghdr || length > len(control) {
			return 0
		}
		if header.Level == unix.SOL_UDP && header.Type == unix.UDP_GRO && length >= unix.CmsgLen(4) {
			return max(int(int32(binary.NativeEndian.Uint32(control[unix.CmsgLen(0):]))), 0)
		}
		control = control[min(unix.CmsgSpace(length-unix.CmsgLen(0)), len(control)):]
	}
	return 0
}

// split returns the datagram at offset of a message of datagrams of that length,
// 0 meaning the message is one, and whether it is the last.
func split(message []byte, offset, segment int) (datagram []byte, end bool) {
	rest := message[offset:]
	if segment == 0 || segment >= len(rest) {
		return rest, true
	}
	return rest[:segment], false
}

// segments is the number of datagrams that split finds.
func segments(length, segment int) int {
	if segment == 0 || length == 0 {
		return 1
	}
	return (length + segment - 1) / segment
}
