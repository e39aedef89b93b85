package udpio

import (
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

func destinationAt(n int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)}), 1)
}

// put writes and returns why it was dropped.
func put(t *testing.T, q *queue, length, destination int) dropReason {
	t.Helper()
	drop, err := q.write(make([]byte, length), destinationAt(destination))
	if err != nil {
		t.Fatal(err)
	}
	return drop
}

// fill writes until something is dropped.
func fill(t *testing.T, q *queue, length, destination int) (n int, drop dropReason) {
	t.Helper()
	for ; drop == dropNone; n++ {
		drop = put(t, q, length, destination)
	}
	return n - 1, drop
}

func TestQueueBoundsOneDestination(t *testing.T) {
	q := newQueue(1<<20, 10_000, 0, unix.AF_INET)
	if n, drop := fill(t, q, 1000, 1); n != 10 || drop != dropDestination {
		t.Errorf("%d datagrams, then %v", n, drop)
	}
	if drop := put(t, q, 1000, 2); drop != dropNone {
		t.Errorf("another destination: %v", drop)
	}
	b, _ := q.take()
	if drop := put(t, q, 1000, 1); drop != dropNone {
		t.Errorf("while the others are being sent: %v", drop)
	}
	q.release(b)
}

func TestQueueBoundsMemory(t *testing.T) {
	const chunks = 4
	q := newQueue(chunks*chunkBytes, 1<<30, 0, unix.AF_INET)
	for round := range 3 {
		n, drop := fill(t, q, chunkBytes/4, 1)
		if n != 4*chunks-min(round, 1) || drop != dropQueue {
			t.Errorf("round %d: %d datagrams, then %v", round, n, drop)
		}
		b, _ := q.take()
		if drop := put(t, q, 1, 1); drop != dropQueue {
			t.Errorf("round %d: room for more while all is being sent", round)
		}
		q.release(b)
		if drop := put(t, q, 1, 1); drop != dropNone { // spoils a chunk of the next round
			t.Errorf("round %d: no room after release: %v", round, drop)
		}
	}
}

func TestQueueBoundsDatagrams(t *testing.T) {
	q := newQueue(100*meanDatagram, 1<<30, 0, unix.AF_INET)
	for _, length := range []int{0, 1} {
		if n, drop := fill(t, q, length, 1); n != 100 || drop != dropQueue {
			t.Errorf("%d datagrams of %d bytes, then %v", n, length, drop)
		}
		b, _ := q.take()
		q.release(b)
	}
}

func TestQueueForgetsDestinations(t *testing.T) {
	q := newQueue(64<<20, 1<<20, 0, unix.AF_INET)
	for n := range maxDestinations {
		put(t, q, 10, n)
	}
	if drop := put(t, q, 10, maxDestinations); drop != dropQueue {
		t.Errorf("one more, while all have something waiting: %v", drop)
	}
	b, _ := q.take()
	if drop := put(t, q, 10, maxDestinations); drop != dropNone {
		t.Errorf("one more, when none has: %v", drop)
	}
	if len(q.destinations) != 1 || len(b.groups) != maxDestinations {
		t.Errorf("%d known, %d being sent", len(q.destinations), len(b.groups))
	}
}

func TestQueueGroups(t *testing.T) {
	q := newQueue(1<<20, 1<<20, 0, unix.AF_INET)
	for n := range 30 {
		q.write([]byte{byte(n)}, destinationAt(n%3))
	}
	b, _ := q.take()
	if len(b.groups) != 3 {
		t.Fatalf("%d groups", len(b.groups))
	}
	for i, g := range b.groups {
		want := i
		for head := g.head; head >= 0; head = b.packets[head].next {
			if got := int(b.packets[head].data[0]); got != want || g.dest.addr != destinationAt(i) {
				t.Errorf("group %d to %v: datagram %d, want %d", i, g.dest.addr, got, want)
			}
			want += 3
		}
		if want != 30+i {
			t.Errorf("group %d ends before %d", i, want)
		}
	}
	q.release(b)
	if b, closed := q.take(); b != nil || closed {
		t.Errorf("take of nothing = %v, %v", b, closed)
	}
}

func TestWriteRefuses(t *testing.T) {
	c := listen(t, Config{})
	for _, test := range []struct {
		name   string
		length int
		to     netip.AddrPort
	}{
		{"no address", 10, netip.AddrPort{}},
		{"IPv6 on an IPv4 socket", 10, netip.MustParseAddrPort("[2001:db8::1]:1")},
		{"longer than a datagram can be", maxDatagram + 1, netip.MustParseAddrPort("127.0.0.1:1")},
	} {
		if n, err := c.WriteToAddrPort(make([]byte, test.length), test.to); n != 0 || err == nil {
			t.Errorf("%s: %d, %v", test.name, n, err)
		}
	}
	if _, err := c.WriteTo(nil, nil); err == nil {
		t.Error("WriteTo nil: no error")
	}
}

func TestWriteAllocates(t *testing.T) {
	everyRung(t, func(t *testing.T, rung string) {
		if rung == "writebatch" || rung == "plain" {
			return // what they call allocates
		}
		c, s := listen(t, Config{Rung: rung}), newSink(t, "127.0.0.1")
		b, to := make([]byte, 1200), s.addr()
		write := func() {
			for range 20 {
				c.WriteToAddrPort(b, to)
			}
		}
		for range 100 {
			write()
		}
		if n := testing.AllocsPerRun(200, write); n >= 1 {
			t.Errorf("%v allocations per 20 datagrams", n)
		}
	})
}
