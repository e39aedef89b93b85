package udpio

import (
	"sync/atomic"
	"time"
)

// DefaultMaxHold is the default of Config.MaxHold.
const DefaultMaxHold = time.Millisecond

// A hold is why the filling batch is left to grow although the writer is free:
// someone has more to write at once (Conn.Hold), or the writer is so busy that
// larger batches are worth a delay.
//
// No timer runs while nothing waits. Who writes the first datagram sets waiting
// and then looks at holders; the last holder leaves and then looks at waiting. At
// least one sees the other, so a wake-up is never missed.
type hold struct {
	most    time.Duration // 0: never
	holders atomic.Int32
	delay   atomic.Int64 // nanoseconds that the writer asks for
	waiting atomic.Bool  // the filling batch has something
	timer   *time.Timer  // wakes the writer; nil where most is 0
}

// patience is how long after its first datagram the filling batch may leave,
// and on whose account.
func (h *hold) patience() (time.Duration, patience) {
	switch {
	case h.most == 0:
		return 0, atOnce
	case h.holders.Load() > 0:
		return h.most, held
	}
	if delay := time.Duration(h.delay.Load()); delay > 0 {
		return delay, delayed
	}
	return 0, atOnce
}

// patience is why a batch waits.
type patience int

const (
	atOnce patience = iota
	held
	delayed
)

// Hold says that more datagrams are about to be written: until Release what
// waits is left to grow, so that datagrams to the same destination leave as one
// train, but never longer than Config.MaxHold. Holds of several callers may
// overlap. Both calls are cheap, safe to make from any goroutine, and allowed
// after Close.
func (c *Conn) Hold() { c.queue.hold.holders.Add(1) }

// Release ends a Hold. There must be one for each; more panic.
func (c *Conn) Release() {
	h := &c.queue.hold
	switch n := h.holders.Add(-1); {
	case n < 0:
		panic("udpio: Release without Hold")
	case n == 0 && h.waiting.Load():
		c.queue.signal()
	}
}

const (
	// loadWindow is the time over which the writer's load is averaged.
	loadWindow = 50 * time.Millisecond

	// Between these shares of its time spent sending, the writer delays batches
	// by more and more of Config.MaxHold.
	delayFrom, delayFull = 0.7, 0.9
)

// A load is the share of its time that a goroutine was busy, of late.
type load struct {
	share float64
	until time.Time // when the last busy spell ended
}

// spent accounts for a busy spell and for the time before it.
func (l *load) spent(begin, end time.Time) {
	busy := end.Sub(begin)
	total := end.Sub(l.until)
	if l.until.IsZero() || total > loadWindow {
		total = max(loadWindow, busy)
	}
	l.until = end
	if total > 0 {
		weight := min(float64(total)/float64(loadWindow), 1)
		l.share += weight * (float64(busy)/float64(total) - l.share)
	}
}

// delay is what batches are worth waiting for at this load.
func (l *load) delay(most time.Duration) time.Duration {
	over := (l.share - delayFrom) / (delayFull - delayFrom)
	return time.Duration(min(max(over, 0), 1) * float64(most))
}
