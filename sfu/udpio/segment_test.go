package udpio

import (
	"bytes"
	"encoding/binary"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// cmsg makes one control message.
func cmsg(level, kind int32, data []byte) []byte {
	b := make([]byte, unix.CmsgSpace(len(data)))
	h := (*unix.Cmsghdr)(unsafe.Pointer(&b[0]))
	h.Level, h.Type = level, kind
	h.SetLen(unix.CmsgLen(len(data)))
	copy(b[unix.CmsgLen(0):], data)
	return b
}

func int32Bytes(n int32) []byte { return binary.NativeEndian.AppendUint32(nil, uint32(n)) }

func TestSegmentSize(t *testing.T) {
	gro := cmsg(unix.SOL_UDP, unix.UDP_GRO, int32Bytes(1200))
	other := cmsg(unix.SOL_SOCKET, unix.SO_TIMESTAMP, make([]byte, 5))
	for name, test := range map[string]struct {
		control []byte
		want    int
	}{
		"none":                    {nil, 0},
		"alone":                   {gro, 1200},
		"behind another":          {append(bytes.Clone(other), gro...), 1200},
		"before another":          {append(bytes.Clone(gro), other...), 1200},
		"another alone":           {other, 0},
		"another level":           {cmsg(unix.SOL_SOCKET, unix.UDP_GRO, int32Bytes(1200)), 0},
		"too short":               {cmsg(unix.SOL_UDP, unix.UDP_GRO, []byte{1, 2}), 0},
		"negative":                {cmsg(unix.SOL_UDP, unix.UDP_GRO, int32Bytes(-1)), 0},
		"header cut":              {gro[:unix.SizeofCmsghdr-1], 0},
		"data cut":                {gro[:unix.CmsgLen(4)-1], 0},
		"length zero":             {make([]byte, 64), 0},
		"without padding at last": {gro[:unix.CmsgLen(4)], 1200},
	} {
		t.Run(name, func(t *testing.T) {
			if got := segmentSize(test.control); got != test.want {
				t.Errorf("segmentSize(% x) = %d, want %d", test.control, got, test.want)
			}
		})
	}
}

func TestPutSegment(t *testing.T) {
	b := make([]byte, segmentSpace)
	n := putSegment(b, 1200)
	messages, err := unix.ParseSocketControlMessage(b[:n])
	if err != nil || len(messages) != 1 {
		t.Fatalf("%v, %v", messages, err)
	}
	m := messages[0]
	if m.Header.Level != unix.SOL_UDP || m.Header.Type != unix.UDP_SEGMENT || binary.NativeEndian.Uint16(m.Data) != 1200 {
		t.Errorf("%+v", m)
	}
}

func FuzzSegmentSize(f *testing.F) {
	f.Add(cmsg(unix.SOL_UDP, unix.UDP_GRO, int32Bytes(1200)))
	f.Add(append(cmsg(unix.SOL_SOCKET, 1, make([]byte, 3)), cmsg(unix.SOL_UDP, unix.UDP_GRO, int32Bytes(7))...))
	f.Add(cmsg(unix.SOL_UDP, unix.UDP_GRO, int32Bytes(-1)))
	f.Add(cmsg(unix.SOL_UDP, unix.UDP_GRO, []byte{1, 2}))
	f.Add(cmsg(unix.SOL_UDP, unix.UDP_GRO, int32Bytes(1200))[:unix.CmsgLen(4)])
	f.Add(make([]byte, 64))
	f.Add(bytes.Repeat([]byte{0xff}, 64))
	f.Fuzz(func(t *testing.T, control []byte) {
		got := segmentSize(control)
		messages, err := unix.ParseSocketControlMessage(control)
		if err != nil {
			return // that one refuses all if the last is cut
		}
		want := 0
		for _, m := range messages {
			if m.Header.Level == unix.SOL_UDP && m.Header.Type == unix.UDP_GRO && len(m.Data) >= 4 {
				want = max(int(int32(binary.NativeEndian.Uint32(m.Data))), 0)
				break
			}
		}
		if got != want {
			t.Errorf("segmentSize(% x) = %d, want %d", control, got, want)
		}
	})
}

func FuzzSplit(f *testing.F) {
	f.Add(3000, 1200)
	f.Add(0, 0)
	f.Add(5, 5)
	f.Fuzz(func(t *testing.T, length, segment int) {
		if length < 0 || length > receiveBytes || segment < 0 {
			return
		}
		message := make([]byte, length)
		for i := range message {
			message[i] = byte(i % 251)
		}
		var joined []byte
		count := 0
		for end := false; !end; count++ {
			var datagram []byte
			datagram, end = split(message, len(joined), segment)
			if !end && len(datagram) != segment || end && segment > 0 && len(datagram) > segment {
				t.Fatalf("split %d by %d: datagram of %d", length, segment, len(datagram))
			}
			joined = append(joined, datagram...)
		}
		if !bytes.Equal(joined, message) || count != segments(length, segment) {
			t.Errorf("split %d by %d: %d bytes in %d, segments says %d", length, segment, len(joined), count, segments(length, segment))
		}
	})
}

// FuzzReceive: messages of several datagrams of any length, merged or not, are
// read one by one, as much of each as fits, and counted right.
func FuzzReceive(f *testing.F) {
	f.Add([]byte{0, 30, 12, 1, 200, 100, 0, 0, 5, 2, 1, 1}, 1500)
	f.Add([]byte{0xff, 0xff, 1}, 100)
	f.Add([]byte{4, 0, 0, 4, 0, 1}, 0)
	f.Fuzz(func(t *testing.T, script []byte, room int) {
		c := &counters{}
		r := &mmsgReceiver{counters: c, data: make([]byte, maxReceive*receiveBytes), want: maxReceive}
		var want [][]byte
		count := 0
		for ; len(script) >= 3 && count < maxReceive; count, script = count+1, script[3:] {
			length, segment := int(script[0])<<8|int(script[1]), int(script[2])*20
			message := r.data[count*receiveBytes:][:length]
			for i := range message {
				message[i] = byte(i % 251)
			}
			r.headers[count].n = uint32(length)
			r.from[count], _ = encode(destinationAt(count), unix.AF_INET)
			if segment > 0 {
				r.headers[count].hdr.SetControllen(copy(r.control[count][:], cmsg(unix.SOL_UDP, unix.UDP_GRO, int32Bytes(int32(segment)))))
			}
			want = append(want, splitAll(message, segment)...)
		}
		r.received(count)
		if n := c.packetsIn.Load(); n != uint64(len(want)) {
			t.Fatalf("%d datagrams counted, want %d", n, len(want))
		}
		buf := make([]byte, min(max(room, 0), receiveBytes))
		for i, datagram := range want {
			if r.current == r.count {
				t.Fatalf("%d datagrams, want %d", i, len(want))
			}
			from := destinationAt(r.current)
			n, got := r.next(buf)
			if !bytes.Equal(buf[:n], datagram[:min(len(datagram), len(buf))]) || got != from {
				t.Fatalf("datagram %d: %d bytes from %v, want %d from %v", i, n, got, len(datagram), from)
			}
		}
		if r.current != r.count {
			t.Errorf("more than %d datagrams", len(want))
		}
	})
}
