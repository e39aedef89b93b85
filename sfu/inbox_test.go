package sfu

import (
	"errors"
	"io"
	"sync"
	"testing"

	"github.com/pion/transport/v4/packetio"
)

func TestInboxIsBounded(t *testing.T) {
	var count counters
	b := newInbox(&count)
	for i := range inboxPackets {
		if _, err := b.Write([]byte{byte(i)}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := b.Write([]byte{0}); !errors.Is(err, packetio.ErrFull) {
		t.Errorf("write to a full inbox: %v", err)
	}
	if _, err := b.Write(make([]byte, maxPacket+1)); err != nil {
		t.Errorf("a packet that is too long ends the stream: %v", err)
	}
	if inbox, malformed := count.drops[dropInbox].Load(), count.drops[dropMalformed].Load(); inbox != 1 || malformed != 1 {
		t.Errorf("%d packets dropped for want of room and %d malformed, want 1 each", inbox, malformed)
	}
	buf := make([]byte, maxPacket)
	for i := range inboxPackets {
		if n, err := b.Read(buf); n != 1 || err != nil || buf[0] != byte(i) {
			t.Fatalf("read %d: %v, %v", i, buf[:n], err)
		}
	}
	if n := b.pending(); n != 0 {
		t.Errorf("%d packets wait in an inbox that was read empty", n)
	}
}

func TestInboxShortRead(t *testing.T) {
	b := newInbox(&counters{})
	for _, packet := range []string{"long", "x"} {
		_, err := b.Write([]byte(packet))
		must(t, err)
	}
	buf := make([]byte, 2)
	if _, err := b.Read(buf); !errors.Is(err, io.ErrShortBuffer) {
		t.Errorf("short read: %v", err)
	}
	if n, err := b.Read(buf); err != nil || string(buf[:n]) != "x" {
		t.Errorf("the packet behind it: %q, %v", buf[:n], err)
	}
}

func TestInboxClose(t *testing.T) {
	b := newInbox(&counters{})
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := b.Read(make([]byte, maxPacket)); !errors.Is(err, io.EOF) {
			t.Errorf("read while the inbox is closed: %v", err)
		}
	})
	must(t, b.Close())
	wg.Wait()
	if _, err := b.Write([]byte{1}); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("write to a closed inbox: %v", err)
	}
}

func TestInboxPassesAllInOrder(t *testing.T) {
	b := newInbox(&counters{})
	const packets = 10000
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; i < packets; {
			if _, err := b.Write([]byte{byte(i), byte(i >> 8)}); err == nil {
				i++
			}
		}
	})
	buf := make([]byte, maxPacket)
	for i := range packets {
		n, err := b.Read(buf)
		if err != nil || n != 2 || int(buf[0])|int(buf[1])<<8 != i {
			t.Fatalf("packet %d: %v, %v", i, buf[:n], err)
		}
	}
	wg.Wait()
	if len(b.free) > inboxPackets {
		t.Errorf("%d buffers for at most %d packets", len(b.free), inboxPackets)
	}
}
