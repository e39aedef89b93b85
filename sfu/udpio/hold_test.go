package udpio

import (
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

// scriptedConn is a Conn whose writer sends to a script, each send taking that
// long. It has no socket.
func scriptedConn(t *testing.T, config Config, sending time.Duration) (*Conn, *script) {
	t.Helper()
	l, scripts := scripted(t, allowed, func(message) error { time.Sleep(sending); return nil })
	config = config.withDefaults()
	c := &Conn{queue: newQueue(config.QueueBytes, config.DestinationBytes, config.MaxHold, unix.AF_INET)}
	c.writer = startWriter(c.queue, l.counters, l, newPace(config.Pace))
	return c, scripts[0]
}

// out is the number of datagrams sent.
func (c *Conn) out() uint64 { return c.writer.counters.packetsOut.Load() }

func (c *Conn) endWriter() {
	c.queue.close()
	c.writer.wait()
}

// TestHold: what is written under a hold leaves on release, as one train, and
// when the hold is too long without it.
func TestHold(t *testing.T) {
	for _, test := range []struct {
		name     string
		maxHold  time.Duration
		holds    time.Duration // 0: no hold; otherwise until release
		leaves   time.Duration // after the first datagram
		batches  uint64
		released uint64 // Stats.Holds
	}{
		{"none", time.Millisecond, 0, 0, 3, 0},
		{"released", time.Millisecond, 600 * time.Microsecond, 600 * time.Microsecond, 1, 1},
		{"too long", time.Millisecond, time.Hour, time.Millisecond, 1, 1},
		{"off", -1, time.Hour, 0, 3, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, _ := scriptedConn(t, Config{MaxHold: test.maxHold}, 0)
				defer c.endWriter()
				if test.holds > 0 {
					c.Hold()
					c.Hold() // they nest
					time.AfterFunc(test.holds/2, c.Release)
					time.AfterFunc(test.holds, c.Release)
				}
				for n := range 3 {
					if c.out() > 0 && test.batches == 1 {
						t.Errorf("sent %d before the last was written", c.out())
					}
					c.queue.write(datagram(uint64(n), 100), destinationAt(1))
					synctest.Wait()
				}
				time.Sleep(test.leaves - 1)
				synctest.Wait()
				if c.out() > 0 && test.leaves > 0 {
					t.Errorf("sent %d datagrams too early", c.out())
				}
				time.Sleep(2 * time.Nanosecond)
				synctest.Wait()
				n := c.writer.counters
				if c.out() != 3 || n.batchesOut.Load() != test.batches || n.holds.Load() != test.released || n.heldTime.Load() != int64(test.leaves) {
					t.Errorf("sent %d datagrams in %d batches, %d holds of %v", c.out(), n.batchesOut.Load(), n.holds.Load(), time.Duration(n.heldTime.Load()))
				}
				time.Sleep(2 * test.holds) // until all is released
			})
		})
	}
}

// TestHoldAfterWrite: what was written before the hold counts from its own time.
func TestHoldAfterWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := scriptedConn(t, Config{MaxHold: time.Millisecond}, 400*time.Microsecond)
		defer c.endWriter()
		write := func() { c.queue.write([]byte("x"), destinationAt(1)); synctest.Wait() }
		write() // the writer is at it for 400 us
		write() // waits
		c.Hold()
		defer c.Release()
		time.Sleep(time.Millisecond - 1)
		synctest.Wait()
		if c.out() != 1 {
			t.Errorf("sent %d, want 1", c.out())
		}
		time.Sleep(401 * time.Microsecond)
		synctest.Wait()
		if c.out() != 2 {
			t.Errorf("sent %d, want 2", c.out())
		}
	})
}

// TestHoldEndsWhenFull: no datagram is dropped because of a hold as long as the
// writer can keep up.
func TestHoldEndsWhenFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := scriptedConn(t, Config{MaxHold: time.Millisecond}, 0)
		defer c.endWriter()
		c.Hold()
		defer c.Release()
		for n := range 4000 {
			if drop, err := c.queue.write(make([]byte, 1200), destinationAt(n%3)); drop != dropNone || err != nil {
				t.Fatal(n, drop, err)
			}
			synctest.Wait()
		}
		if c.out() == 0 {
			t.Error("nothing sent")
		}
	})
}

func TestReleaseWithoutHold(t *testing.T) {
	c := listen(t, Config{})
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	c.Hold()
	c.Release()
	c.Release()
}

// TestBusyWriterDelays: a writer that spends nearly all of its time sending lets
// batches grow; one that does not sends at once.
func TestBusyWriterDelays(t *testing.T) {
	for _, test := range []struct {
		every time.Duration // a datagram is written; each send takes 80 us
		delay bool
	}{{time.Millisecond, false}, {160 * time.Microsecond, false}, {84 * time.Microsecond, true}} {
		t.Run(fmt.Sprint(test.every), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, _ := scriptedConn(t, Config{MaxHold: time.Millisecond}, 80*time.Microsecond)
				defer c.endWriter()
				const packets = 5000
				for range packets {
					c.queue.write([]byte("x"), destinationAt(1))
					time.Sleep(test.every)
				}
				time.Sleep(time.Second)
				synctest.Wait()
				n := c.writer.counters
				t.Logf("share %.2f, %d delays of %v, %d batches", c.writer.load.share, n.delays.Load(), time.Duration(n.heldTime.Load()), n.batchesOut.Load())
				if (n.delays.Load() > 0) != test.delay || n.holds.Load() > 0 {
					t.Errorf("%d delays, %d holds", n.delays.Load(), n.holds.Load())
				}
				if mean := time.Duration(n.heldTime.Load()) / max(time.Duration(n.delays.Load()), 1); mean > time.Millisecond {
					t.Errorf("delayed by %v on average", mean)
				}
				if c.out() != packets {
					t.Errorf("sent %d of %d", c.out(), packets)
				}
				if l := c.writer.load.share; test.delay && l < delayFrom {
					t.Errorf("load %.2f", l)
				}
			})
		})
	}
}

func TestLoad(t *testing.T) {
	now := time.Now()
	var l load
	spell := func(busy, idle time.Duration) {
		begin := now.Add(idle)
		now = begin.Add(busy)
		l.spent(begin, now)
	}
	for range 1000 {
		spell(800*time.Microsecond, 200*time.Microsecond)
	}
	if l.share < 0.79 || l.share > 0.81 || l.delay(time.Millisecond).Round(50*time.Microsecond) != 500*time.Microsecond {
		t.Errorf("share %.3f, delay %v", l.share, l.delay(time.Millisecond))
	}
	spell(time.Microsecond, time.Hour)
	if l.share > 0.01 || l.delay(time.Millisecond) != 0 {
		t.Errorf("after an hour of rest: share %.3f", l.share)
	}
	spell(time.Hour, 0)
	if l.share != 1 || l.delay(time.Millisecond) != time.Millisecond {
		t.Errorf("after an hour of work: share %.3f", l.share)
	}
}

// TestOrderWithHolds: holds that overlap, of several writers, neither lose nor
// reorder.
func TestOrderWithHolds(t *testing.T) {
	everyRung(t, func(t *testing.T, rung string) {
		const each, writers = 1000, 4
		c := listen(t, Config{Rung: rung})
		sinks := make([]*sink, writers)
		for i := range sinks {
			sinks[i] = newSink(t, "127.0.0.1")
		}
		var all sync.WaitGroup
		for i, s := range sinks {
			all.Go(func() { s.err = s.receive(each) })
			all.Go(func() {
				random := rand.New(rand.NewPCG(3, uint64(i)))
				for number := 0; number < each; {
					c.Hold()
					for range min(1+random.IntN(20), each-number) {
						c.WriteToAddrPort(datagram(uint64(number), 1000), s.addr())
						number++
					}
					c.Release()
				}
			})
		}
		all.Wait()
		for i, s := range sinks {
			if s.err != nil || s.lost > 0 {
				t.Errorf("destination %d: lost %d, %v", i, s.lost, s.err)
			}
		}
		c.Close()
		if s := c.Stats(); s.PacketsOut != each*writers || s.Holds == 0 || s.HeldTime == 0 {
			t.Errorf("%+v", s)
		}
	})
}

// TestHeldFrameIsOneTrain: what a hold is for.
func TestHeldFrameIsOneTrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := scriptedConn(t, Config{MaxHold: time.Millisecond}, 0)
		defer c.endWriter()
		const viewers, frame = 5, 8
		c.Hold()
		for n := range frame * viewers {
			c.queue.write(fmt.Appendf(nil, "%d", n%viewers), destinationAt(n%viewers))
			synctest.Wait()
		}
		c.Release()
		synctest.Wait()
		var want []string
		for n := range viewers {
			want = append(want, slices.Repeat([]string{fmt.Sprint(n)}, frame)...)
		}
		if n := c.writer.counters; !slices.Equal(s.sent, want) || n.trains.Load() != viewers || n.batchesOut.Load() != 1 {
			t.Errorf("sent %q in %d trains of %d batches", s.sent, n.trains.Load(), n.batchesOut.Load())
		}
	})
}

// TestCloseWithHolds: Close does not wait for a Release, sends what is held, and
// a late Release is harmless.
func TestCloseWithHolds(t *testing.T) {
	everyRung(t, func(t *testing.T, rung string) {
		const each = 100
		s := newSink(t, "127.0.0.1")
		c := listen(t, Config{Rung: rung, MaxHold: time.Hour})
		c.Hold()
		for number := range uint64(each) {
			c.WriteToAddrPort(datagram(number, 200), s.addr())
		}
		begin := time.Now()
		c.Close()
		if err := s.receive(each); err != nil || s.lost > 0 {
			t.Errorf("lost %d, %v", s.lost, err)
		}
		if took := time.Since(begin); took > time.Minute {
			t.Errorf("took %v", took)
		}
		c.Release()
		c.Hold()
		if _, err := c.WriteToAddrPort([]byte("late"), s.addr()); err == nil {
			t.Errorf("write after Close: %v, want %v", err, net.ErrClosed)
		}
	})
}

// BenchmarkHold is what a hold of nothing costs.
func BenchmarkHold(b *testing.B) {
	c := benchConn(b, "auto")
	b.ReportAllocs()
	for b.Loop() {
		c.Hold()
		c.Release()
	}
}
