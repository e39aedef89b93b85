package udpio

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// A departure is a datagram that a script was given.
type departure struct {
	to     netip.AddrPort
	at     time.Duration
	number uint64
	bytes  int
}

// departures has a script note what it is given. It is to be read when the
// writer is done.
func departures(s *script) *[]departure {
	var noted []departure
	begin := time.Now()
	s.fail = func(m message) error {
		for _, part := range m.parts {
			noted = append(noted, departure{m.dest.addr, time.Since(begin), binary.BigEndian.Uint64(part), len(part)})
		}
		return nil
	}
	return &noted
}

// checkDepartures reports an error where a destination's datagrams, numbered from
// 0, are not all there in order, or leave faster than the pace allows.
func checkDepartures(noted []departure, want map[netip.AddrPort]uint64, p pace, largest int) error {
	next := make(map[netip.AddrPort]uint64)
	full := make(map[netip.AddrPort]time.Duration)
	for _, d := range noted {
		if d.number != next[d.to] {
			return fmt.Errorf("to %v: datagram %d, want %d", d.to, d.number, next[d.to])
		}
		next[d.to]++
		if p.bits == 0 {
			continue
		}
		full[d.to] = max(full[d.to], d.at) + p.cost(d.bytes)
		if over := full[d.to] - d.at - max(p.depth, p.cost(largest)); over > 2*time.Microsecond { // rounding
			return fmt.Errorf("to %v: datagram %d of %d bytes left %v early", d.to, d.number, d.bytes, over)
		}
	}
	for to, n := range want {
		if next[to] != n {
			return fmt.Errorf("to %v: %d of %d", to, next[to], n)
		}
	}
	return nil
}

// TestPaceSpreadsBurst: a key frame leaves at the pace, without a pace at once,
// and what goes elsewhere does not wait for it.
func TestPaceSpreadsBurst(t *testing.T) {
	const frame, length = 100, 1200
	for _, test := range []struct {
		name string
		pace int64
		last time.Duration // when the last datagram leaves
	}{
		{"default", 0, 4 * time.Millisecond}, // 25 kB at once and every millisecond, of 120 kB
		{"slow", 20_000_000, 40 * time.Millisecond},
		{"none", -1, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				config := Config{Pace: test.pace}
				c, s := scriptedConn(t, config, 0)
				noted := departures(s)
				for n := range uint64(frame) {
					c.queue.write(datagram(n, length), destinationAt(1))
				}
				for n := range uint64(10) {
					c.queue.write(datagram(n, length), destinationAt(2))
					time.Sleep(100 * time.Microsecond)
				}
				time.Sleep(time.Second)
				c.endWriter()
				want := map[netip.AddrPort]uint64{destinationAt(1): frame, destinationAt(2): 10}
				if err := checkDepartures(*noted, want, c.writer.pace, 0); err != nil {
					t.Error(err)
				}
				var last time.Duration
				for _, d := range *noted {
					if d.to == destinationAt(1) {
						last = d.at
					} else if d.at != time.Duration(d.number)*100*time.Microsecond {
						t.Errorf("the other destination's %d left at %v", d.number, d.at)
					}
				}
				if last < test.last-test.last/10 || last > test.last+test.last/10 {
					t.Errorf("the last one left at %v, want %v", last, test.last)
				}
				if paced := c.writer.counters.paced.Load(); (paced > 0) != (test.last > 0) || paced > frame {
					t.Errorf("%d paced", paced)
				}
			})
		})
	}
}

// TestPaceTakesTurns: destinations that are over their budget get the same.
func TestPaceTakesTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const destinations, each = 5, 200
		c, s := scriptedConn(t, Config{}, 0)
		noted := departures(s)
		want := make(map[netip.AddrPort]uint64)
		c.Hold()
		for to := range destinations { // the first has all in before the last has any
			want[destinationAt(to)] = each
			for n := range uint64(each) {
				c.queue.write(datagram(n, 1000), destinationAt(to))
			}
		}
		c.Release()
		time.Sleep(time.Second)
		c.endWriter()
		if err := checkDepartures(*noted, want, c.writer.pace, 0); err != nil {
			t.Error(err)
		}
		sent := make(map[netip.AddrPort]int)
		for i, d := range *noted {
			sent[d.to]++
			if i%destinations > 0 {
				continue
			}
			least, most := each, 0
			for to := range want {
				least, most = min(least, sent[to]), max(most, sent[to])
			}
			if most-least > maxTrain {
				t.Fatalf("after %d: one has %d, another %d", i, most, least)
			}
		}
	})
}

// TestPaceRandom: whatever is written when, all of it leaves in order and within
// the budget as long as the memory for that lasts.
func TestPaceRandom(t *testing.T) {
	for seed := range uint64(50) {
		synctest.Test(t, func(t *testing.T) {
			random := rand.New(rand.NewPCG(4, seed))
			c, s := scriptedConn(t, Config{Pace: 1 << (20 + random.IntN(10)), QueueBytes: 64 << 20, DestinationBytes: 8 << 20}, 0)
			noted := departures(s)
			want := make(map[netip.AddrPort]uint64)
			for range 40 {
				to := destinationAt(random.IntN(3))
				length := lengths(random)
				for range random.IntN(60) {
					if drop, err := c.queue.write(datagram(want[to], length()), to); drop != dropNone || err != nil {
						t.Fatal(drop, err)
					}
					want[to]++
				}
				time.Sleep(time.Duration(random.IntN(3)) * time.Duration(random.IntN(1_000_000)))
			}
			time.Sleep(time.Minute)
			c.endWriter()
			if err := checkDepartures(*noted, want, c.writer.pace, 0); err != nil {
				t.Errorf("seed %d: %v", seed, err)
			}
			if d := c.queue.chunks; d != 0 || len(c.writer.late) > 0 || c.writer.lateChunks != 0 {
				t.Errorf("seed %d: %d chunks and %d batches are left", seed, d, len(c.writer.late))
			}
		})
	}
}

// TestPaceIsNoLimit: more than the budget for long is neither lost nor piled up,
// nor does it cost others their memory.
func TestPaceIsNoLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := scriptedConn(t, Config{Pace: 1_000_000, QueueBytes: 4 << 20}, 0)
		noted := departures(s)
		const packets = 20_000 // 24 MB where the budget allows 125 kB a second
		for n := range uint64(packets) {
			if drop, err := c.queue.write(datagram(n, 1200), destinationAt(1)); drop != dropNone || err != nil {
				t.Fatal(n, drop, err)
			}
			if n%10 == 0 {
				if drop, err := c.queue.write(datagram(n/10, 1200), destinationAt(2)); drop != dropNone || err != nil {
					t.Fatal(n, drop, err)
				}
				time.Sleep(100 * time.Microsecond)
				synctest.Wait()
			}
		}
		c.endWriter()
		want := map[netip.AddrPort]uint64{destinationAt(1): packets, destinationAt(2): packets / 10}
		if err := checkDepartures(*noted, want, pace{}, 0); err != nil {
			t.Error(err)
		}
		if c.queue.chunks != 0 {
			t.Errorf("%d chunks in use", c.queue.chunks)
		}
	})
}

// TestPaceOneByOne: a burst that the writer is given one datagram at a time is
// spread as well, and what waits takes little memory.
func TestPaceOneByOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := scriptedConn(t, Config{Pace: 10_000_000}, 0)
		noted := departures(s)
		const packets = 500
		for n := range uint64(packets) {
			for to := range 2 {
				c.queue.write(datagram(n, 700), destinationAt(to))
				synctest.Wait()
			}
		}
		c.queue.mu.Lock()
		chunks := c.queue.chunks
		c.queue.mu.Unlock()
		if chunks > 2*packets*700/chunkBytes+2 {
			t.Errorf("%d chunks in use", chunks)
		}
		time.Sleep(10 * time.Second)
		c.endWriter()
		if err := checkDepartures(*noted, map[netip.AddrPort]uint64{destinationAt(0): packets, destinationAt(1): packets}, c.writer.pace, 0); err != nil {
			t.Error(err)
		}
	})
}

// TestPaceLargeDatagrams: what is larger than the bucket leaves all the same.
func TestPaceLargeDatagrams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := scriptedConn(t, Config{Pace: 10_000_000}, 0)
		noted := departures(s)
		for n := range uint64(5) {
			c.queue.write(datagram(n, maxDatagram), destinationAt(1))
		}
		time.Sleep(time.Second)
		if out := c.out(); out != 5 {
			t.Errorf("%d sent", out)
		}
		c.endWriter()
		if err := checkDepartures(*noted, map[netip.AddrPort]uint64{destinationAt(1): 5}, c.writer.pace, maxDatagram); err != nil {
			t.Error(err)
		}
	})
}

// TestCloseSendsWhatIsPaced: Close does not wait for the budget.
func TestCloseSendsWhatIsPaced(t *testing.T) {
	everyRung(t, func(t *testing.T, rung string) {
		const each = 300
		s := newSink(t, "127.0.0.1")
		c := listen(t, Config{Rung: rung, Pace: 1_000_000})
		for number := range uint64(each) {
			c.WriteToAddrPort(datagram(number, 1000), s.addr())
		}
		c.Close()
		if err := s.receive(each); err != nil || s.lost > 0 {
			t.Errorf("lost %d, %v", s.lost, err)
		}
		if s := c.Stats(); s.PacketsOut != each {
			t.Errorf("%+v", s)
		}
	})
}

// A link forwards what its socket has, at a rate; the socket's receive buffer is
// its queue. It counts datagrams until it has heard nothing for a while.
func link(s *sink, bits int, arrived *atomic.Int64) {
	buf := make([]byte, 2048)
	begin, bytes := time.Now(), 0
	for {
		s.conn.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
		n, err := s.conn.Read(buf)
		if err != nil {
			return
		}
		if arrived.Add(1) == 1 {
			begin = time.Now()
		}
		bytes += n
		time.Sleep(time.Duration(bytes*8)*time.Second/time.Duration(bits) - time.Since(begin))
	}
}

// TestPaceSparesShallowQueue: on the way to a link of 100 Mbit/s with a queue of
// some 50 datagrams, a key frame of 100 at line rate loses a part and at a pace
// below the link's none. That is far below, for a busy machine to be as good.
func TestPaceSparesShallowQueue(t *testing.T) {
	const frame = 100
	for _, test := range []struct {
		name string
		pace int64
		loss bool
	}{{"line rate", -1, true}, {"paced", 5_000_000, false}} {
		t.Run(test.name, func(t *testing.T) {
			c, s := listen(t, Config{Pace: test.pace}), newSink(t, "127.0.0.1")
			s.conn.SetReadBuffer(64 << 10)
			var arrived atomic.Int64
			done := make(chan struct{})
			go func() { defer close(done); link(s, 100_000_000, &arrived) }()
			c.Hold()
			for n := range uint64(frame) {
				c.WriteToAddrPort(datagram(n, 1200), s.addr())
			}
			c.Release()
			<-done
			t.Logf("%d of %d arrived", arrived.Load(), frame)
			if lost := frame - arrived.Load(); (lost > 0) != test.loss {
				t.Errorf("lost %d of %d", lost, frame)
			}
		})
	}
}
