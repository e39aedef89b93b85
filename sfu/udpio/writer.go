package udpio

import (
	"errors"
	"net"
	"os"
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
}

// startWriter starts a writer. It ends when the queue is closed and empty.
func startWriter(q *queue, c *counters, l *ladder) *writer {
	w := &writer{
		queue: q, counters: c, ladder: l,
		done:     make(chan struct{}),
		messages: make([]message, 0, maxMessages),
		parts:    make([][]byte, 0, maxMessages*maxTrain),
	}
	go w.run()
	return w
}

func (w *writer) wait() { <-w.done }

func (w *writer) run() {
	defer close(w.done)
	for {
		b, done := w.queue.take()
		switch {
		case b != nil:
			w.spend(b)
			w.queue.release(b)
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
		w.sendBatch(b)
		return
	}
	begin := time.Now()
	w.counters.waited(b.waited, begin.Sub(b.since))
	w.sendBatch(b)
	w.load.spent(begin, time.Now())
	w.queue.hold.delay.Store(int64(w.load.delay(most)))
}

// sendBatch sends a batch, a message for each destination in turn so that one
// with much to get does not hold up the others.
func (w *writer) sendBatch(b *batch) {
	w.ladder.retry()
	for groups := b.groups; len(groups) > 0; {
		unfinished := groups[:0]
		for _, g := range groups {
			if g.head = w.add(g.dest, b.packets, g.head); g.head >= 0 {
				unfinished = append(unfinished, g)
			}
		}
		groups = unfinished
	}
	w.flush()
}

// add appends the next message for a destination and returns what follows it.
func (w *writer) add(d *destination, packets []packet, head int32) int32 {
	most := 1
	if w.ladder.trains() && d.trains.allows(len(packets[head].data)) {
		most = maxTrain
	}
	start := len(w.parts)
	w.parts, head = train(w.parts, packets, head, most)
	w.messages = append(w.messages, message{dest: d, parts: w.parts[start:]})
	if len(w.messages) == maxMessages {
		w.flush()
	}
	return head
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
