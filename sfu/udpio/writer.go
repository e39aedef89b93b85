package udpio

import (
	"errors"
	"net"
	"os"
	"slices"
	"time"
)

// A writer is the goroutine that takes what waits in the queue and sends it.
type writer struct {
	queue    *queue
	counters *counters
	done     chan struct{}
	ladder   *ladder

	// Of the goroutine alone.
	messages []message
	parts    [][]byte
	single   [1]message
	load     load

	pace          pace
	start, lateAt time.Time
	now           time.Duration // since start
	late          []*batch      // with a rest, the oldest first
	lateChunks    int           // of these
	lateTimer     *time.Timer   // wakes the writer at lateAt
	unpaced       bool          // no budget counts
}

// startWriter starts a writer. It ends when the queue is closed and empty.
func startWriter(q *queue, c *counters, l *ladder, p pace) *writer {
	w := &writer{
		queue: q, counters: c, ladder: l, pace: p,
		done:     make(chan struct{}),
		messages: make([]message, 0, maxMessages),
		parts:    make([][]byte, 0, maxMessages*maxTrain),
		start:    time.Now(),
	}
	w.lateTimer = time.AfterFunc(lateTurn, q.signal)
	w.lateTimer.Stop()
	go w.run()
	return w
}

func (w *writer) wait() { <-w.done }

func (w *writer) run() {
	defer close(w.done)
	defer w.lateTimer.Stop()
	for {
		b, done := w.queue.take()
		if len(w.late) > 0 && (done || !time.Now().Before(w.lateAt)) {
			w.sendLate(done)
		}
		switch {
		case b != nil:
			w.spend(b)
		case done:
			return
		default:
			<-w.queue.wake
		}
	}
}

// spend sends a batch and accounts for the time.
func (w *writer) spend(b *batch) {
	most := w.queue.hold.most
	if most == 0 {
		w.sendNew(b)
		return
	}
	begin := time.Now()
	w.counters.waited(b.waited, begin.Sub(b.since))
	w.sendNew(b)
	w.load.spent(begin, time.Now())
	w.queue.hold.delay.Store(int64(w.load.delay(most)))
}

// sendNew sends a batch, or keeps what is over budget for a later turn.
func (w *writer) sendNew(b *batch) {
	n := len(w.late)
	if w.sendBatch(b) || n > 0 && w.late[n-1].absorb(b) {
		w.queue.release(b)
		return
	}
	if n == 0 {
		w.later()
	}
	w.late = append(w.late, b)
	w.lateChunks += len(b.chunks)
	for w.lateChunks > w.queue.maxChunks/2 {
		w.sendFirstLate()
	}
}

// later sets the time of the next turn of what is late.
func (w *writer) later() {
	w.lateAt = time.Now().Add(lateTurn)
	w.lateTimer.Reset(lateTurn)
}

// sendLate gives what was over budget its turn, the oldest batch first, or sends
// all of it.
func (w *writer) sendLate(all bool) {
	for all && len(w.late) > 0 {
		w.sendFirstLate()
	}
	unfinished := w.late[:0]
	for _, b := range w.late {
		if w.sendBatch(b) {
			w.lateChunks -= len(b.chunks)
			w.queue.release(b)
		} else {
			unfinished = append(unfinished, b)
		}
	}
	clear(w.late[len(unfinished):])
	if w.late = unfinished; len(w.late) > 0 {
		w.later()
	}
}

// sendFirstLate sends the oldest batch that is late, whatever the budget.
func (w *writer) sendFirstLate() {
	b := w.late[0]
	w.late = slices.Delete(w.late, 0, 1)
	w.lateChunks -= len(b.chunks)
	w.unpaced = true
	w.sendBatch(b)
	w.unpaced = false
	w.queue.release(b)
	for _, b := range w.late {
		for _, g := range b.rest {
			if g.dest.late == 0 {
				g.dest.late = b.turn
			}
		}
	}
}

// sendBatch sends a batch, a message for each destination in turn so that one
// with much to get does not hold up the others. It reports false if it leaves a
// rest, which is of destinations that are over their budget.
func (w *writer) sendBatch(b *batch) bool {
	w.ladder.retry()
	w.tick()
	for sent := true; sent && len(b.rest) > 0; {
		sent = false
		unfinished := b.rest[:0]
		for _, g := range b.rest {
			if w.add(b, &g) {
				sent = true
			}
			if g.head >= 0 {
				unfinished = append(unfinished, g)
			}
		}
		b.rest = unfinished
	}
	w.flush()
	b.again = true
	return len(b.rest) == 0
}

// tick reads the clock that budgets go by.
func (w *writer) tick() {
	if w.pace.bits > 0 {
		w.now = time.Since(w.start)
	}
}

// add appends the next message of a group, unless its destination is over its
// budget or has older datagrams that are.
func (w *writer) add(b *batch, g *group) bool {
	d, first := g.dest, len(b.packets[g.head].data)
	room := maxTrainBytes
	if !w.unpaced {
		if d.late != 0 && d.late < b.turn {
			return false
		}
		if room = w.pace.room(d.full, w.now, first); room < first {
			d.late = b.turn
			return false
		}
	}
	most := 1
	if w.ladder.trains() && d.trains.allows(first) {
		most = maxTrain
	}
	start, bytes := len(w.parts), 0
	w.parts, g.head, bytes = train(w.parts, b.packets, g.head, most, room)
	if !w.unpaced {
		d.full = w.pace.spend(d.full, w.now, bytes)
	}
	if b.again {
		w.counters.paced.Add(uint64(len(w.parts) - start))
	}
	if g.head < 0 && d.late == b.turn {
		d.late = 0
	}
	w.messages = append(w.messages, message{dest: d, parts: w.parts[start:]})
	if len(w.messages) == maxMessages {
		w.flush()
		w.tick()
	}
	return true
}

func (w *writer) flush() {
	w.send(w.messages)
	clear(w.messages)
	clear(w.parts)
	w.messages, w.parts = w.messages[:0], w.parts[:0]
}

// send sends all messages, passing over those that the kernel refuses.
func (w *writer) send(messages []message) {
	for len(messages) > 0 {
		n, err := w.ladder.send(messages)
		if n > 0 {
			w.counters.sent(messages[:n])
			messages = messages[n:]
		}
		if err != nil && len(messages) > 0 {
			w.refused(messages[0], err)
			messages = messages[1:]
		}
	}
}

// refused deals with a message that did not leave: a train leaves as single
// datagrams, a single one is lost.
func (w *writer) refused(m message, err error) {
	switch {
	case errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrDeadlineExceeded):
		w.counters.dropped(dropClosed, len(m.parts))
	case len(m.parts) > 1:
		w.sendSingly(m, err)
	default:
		w.counters.dropped(dropRefused, 1)
	}
}

// sendSingly sends the datagrams of a train that was refused. Where the first
// one leaves on the same rung it was the train that could not, and the
// destination gets none for a while.
func (w *writer) sendSingly(m message, refusal error) {
	at := w.ladder.at
	for i := range m.parts {
		w.single[0] = message{dest: m.dest, parts: m.parts[i : i+1]}
		n, err := w.ladder.send(w.single[:])
		if n > 0 {
			w.counters.sent(w.single[:])
		} else {
			w.refused(w.single[0], err)
		}
		if i == 0 && n > 0 && w.ladder.at == at {
			w.ladder.trainRefused(m, refusal)
		}
	}
	w.single[0] = message{}
}
