package rtpcache

import (
	"bytes"
	"encoding/binary"
	"sync"
	"testing"
)

// packet returns a recognisable packet for a number that does not wrap.
func packet(n, length int) []byte {
	p := bytes.Repeat([]byte{byte(n), byte(n >> 8), byte(n >> 16)}, length/3+1)[:length]
	binary.BigEndian.PutUint16(p, uint16(n))
	return p
}

func TestCacheKeepsTheLast(t *testing.T) {
	for _, test := range []struct{ ask, size int }{{0, 2}, {1, 2}, {2, 2}, {100, 128}, {128, 128}, {1 << 20, 1 << 15}} {
		c := New(test.ask)
		buf := make([]byte, MaxPacket)
		const first = 65000
		last := first + 2*test.size // over the wrap-around
		for n := first; n < last; n++ {
			c.Store(uint16(n), packet(n, 100+n%1000))
		}
		for n := last - 2*test.size; n < last; n++ {
			length, ok := c.Load(uint16(n), buf)
			if want := n >= last-test.size; ok != want {
				t.Fatalf("New(%d): Load(%d) = %v, want %v (last is %d)", test.ask, n, ok, want, last-1)
			} else if ok && !bytes.Equal(buf[:length], packet(n, 100+n%1000)) {
				t.Fatalf("New(%d): Load(%d) is another packet", test.ask, n)
			}
		}
	}
}

func TestCacheReordered(t *testing.T) {
	c, buf := New(16), make([]byte, MaxPacket)
	for _, n := range []int{5, 7, 6, 65535, 4, 5} {
		c.Store(uint16(n), packet(n, 50))
	}
	for _, n := range []int{4, 5, 6, 7} {
		if length, ok := c.Load(uint16(n), buf); !ok || !bytes.Equal(buf[:length], packet(n, 50)) {
			t.Errorf("Load(%d) = % x, %v", n, buf[:length], ok)
		}
	}
	if _, ok := c.Load(8, buf); ok {
		t.Error("Load(8) = true, never stored")
	}
	if _, ok := c.Load(0, buf); ok {
		t.Error("Load(0) = true, never stored")
	}
}

func TestCacheLimits(t *testing.T) {
	c, buf := New(4), make([]byte, MaxPacket+1)
	c.Store(1, nil)
	c.Store(2, make([]byte, MaxPacket+1))
	c.Store(3, packet(3, MaxPacket))
	for seq, want := range map[uint16]int{0: 0, 1: 0, 2: 0, 3: MaxPacket} {
		if n, ok := c.Load(seq, buf); n != want || ok != (want > 0) {
			t.Errorf("Load(%d) = %d, %v, want %d", seq, n, ok, want)
		}
	}
	if n, ok := c.Load(3, buf[:MaxPacket-1]); n != 0 || ok {
		t.Errorf("Load into a short buffer = %d, %v", n, ok)
	}
	c.Store(3, packet(3, 10))
	if n, ok := c.Load(3, buf); n != 10 || !ok {
		t.Errorf("Load of the shorter successor = %d, %v", n, ok)
	}
}

// TestCacheConcurrent checks that whoever loads gets whole packets while
// another stores.
func TestCacheConcurrent(t *testing.T) {
	const packets = 20000
	c := New(64)
	done := make(chan struct{})
	var readers sync.WaitGroup
	for range 3 {
		readers.Go(func() {
			buf := make([]byte, MaxPacket)
			for seq := uint16(0); ; seq++ {
				select {
				case <-done:
					return
				default:
				}
				n, ok := c.Load(seq, buf)
				if !ok {
					continue
				}
				if got := binary.BigEndian.Uint16(buf); got != seq || len(bytes.Trim(buf[2:n], string(buf[2:3]))) != 0 {
					t.Errorf("Load(%d) = packet %d, torn or foreign", seq, got)
					return
				}
			}
		})
	}
	for n := range packets {
		p := bytes.Repeat([]byte{byte(n * 7)}, 20+n%1400)
		binary.BigEndian.PutUint16(p, uint16(n))
		c.Store(uint16(n), p)
	}
	close(done)
	readers.Wait()
}

func TestCacheAllocates(t *testing.T) {
	c, buf, p := New(64), make([]byte, MaxPacket), packet(1, 1200)
	if n := testing.AllocsPerRun(1000, func() { c.Store(1, p); c.Load(1, buf) }); n != 0 {
		t.Errorf("%v allocations per Store and Load", n)
	}
}

func BenchmarkCacheStore(b *testing.B) {
	c, p, seq := New(1024), packet(1, 1200), uint16(0)
	b.ReportAllocs()
	for b.Loop() {
		c.Store(seq, p)
		seq++
	}
}

func BenchmarkCacheLoad(b *testing.B) {
	c, p, buf := New(1024), packet(1, 1200), make([]byte, MaxPacket)
	for seq := range uint16(1024) {
		c.Store(seq, p)
	}
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		own, seq := make([]byte, len(buf)), uint16(0)
		for pb.Next() {
			c.Load(seq&1023, own)
			seq++
		}
	})
}
