package udpio

import (
	"encoding/binary"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A frame is the memory behind one struct msghdr that sends.
type frame struct {
	iovecs  [maxTrain]unix.Iovec
	control [segmentSpace]byte
}

// segmentSpace is CMSG_SPACE(sizeof(uint16)) on 64-bit machines.
const segmentSpace = 24

// fill points header to what m says.
func (f *frame) fill(header *unix.Msghdr, m message) {
	for i, part := range m.parts {
		f.iovecs[i].Base = unsafe.SliceData(part)
		f.iovecs[i].SetLen(len(part))
	}
	*header = unix.Msghdr{Name: (*byte)(unsafe.Pointer(&m.dest.to.raw)), Namelen: m.dest.to.length, Iov: &f.iovecs[0]}
	header.SetIovlen(len(m.parts))
	if len(m.parts) > 1 {
		header.Control = &f.control[0]
		header.SetControllen(putSegment(f.control[:], len(m.parts[0])))
	}
}

// putSegment writes a UDP_SEGMENT control message and returns its length.
func putSegment(b []byte, size int) int {
	h := (*unix.Cmsghdr)(unsafe.Pointer(&b[0]))
	h.Level, h.Type = unix.SOL_UDP, unix.UDP_SEGMENT
	h.SetLen(unix.CmsgLen(2))
	binary.NativeEndian.PutUint16(b[unix.CmsgLen(0):], uint16(size))
	return unix.CmsgSpace(2)
}
