package udpio

import (
	"errors"
	"fmt"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sfu-agent/sfu-agent/sfu/udpio/internal/uring"
)

// uringLimit bounds the wait for answers. They are there at once, since no send
// waits for room: where it passes the ring is broken.
const uringLimit = time.Second

// uringEngine sends up to maxMessages with one io_uring_enter(2), as mmsg does
// with sendmmsg(2).
type uringEngine struct {
	socket  *socket
	ring    *uring.Ring
	lost    error // why there is no ring any more
	headers [maxMessages]unix.Msghdr
	frames  [maxMessages]frame
	results [maxMessages]int32
}

func openUring(s *socket) (engine, error) {
	ring, err := uring.New(maxMessages)
	if err != nil {
		return nil, err
	}
	return &uringEngine{socket: s, ring: ring}, nil
}

func (e *uringEngine) send(messages []message) (int, error) {
	for e.lost == nil {
		count := e.push(messages)
		e.submit(count)
		runtime.KeepAlive(messages)
		sent, errno := e.sentFirst(messages[:count])
		if sent > 0 {
			return sent, nil // what is wrong with the next one shows when it is tried again
		}
		switch errno {
		case unix.ECANCELED, unix.ENOMEM: // io_uring's own
			e.lose(errno)
			continue
		}
		if _, err := e.socket.settle(errno); err != nil {
			return 0, err
		}
	}
	return 0, e.lost
}

// push fills the ring and returns with how many messages. A destination gets no
// more than one: the kernel goes on after one that finds no room in the socket's
// buffer, and a second one could overtake it.
func (e *uringEngine) push(messages []message) int {
	for i, m := range messages[:min(len(messages), maxMessages)] {
		if m.dest.inFlight {
			return i
		}
		m.dest.inFlight = true
		e.frames[i].fill(&e.headers[i], m)
		e.results[i] = -int32(unix.ECANCELED) // unless answered otherwise
		e.ring.Sendmsg(uint64(i), e.socket.fd, &e.headers[i], unix.MSG_DONTWAIT)
	}
	return min(len(messages), maxMessages)
}

// submit notes the results of what was pushed.
func (e *uringEngine) submit(count int) {
	for count > 0 && e.lost == nil {
		err := e.ring.Submit(count, uringLimit)
		for id, result, ok := e.ring.Next(); ok; id, result, ok = e.ring.Next() {
			e.results[id] = result
			count--
		}
		if err != nil {
			e.lose(err)
		}
	}
}

// sentFirst moves the messages that left before the others, and returns how many
// they are and why the next one did not.
func (e *uringEngine) sentFirst(messages []message) (sent int, errno unix.Errno) {
	for i, m := range messages {
		m.dest.inFlight = false
		switch {
		case e.results[i] >= 0:
			copy(messages[sent+1:], messages[sent:i])
			messages[sent] = m
			sent++
		case errno == 0:
			errno = unix.Errno(-e.results[i])
		}
	}
	return sent, errno
}

// lose gives up the ring, for the first cause: what is wrong after that follows
// from it.
func (e *uringEngine) lose(cause error) {
	if e.lost != nil {
		return
	}
	e.lost = fmt.Errorf("%w: %w", errLost, cause)
	if err := e.ring.Close(); err != nil {
		e.lost = fmt.Errorf("%w; %w", e.lost, err)
	}
}

func (e *uringEngine) close() error {
	if e.lost != nil {
		return nil
	}
	e.lost = errors.Join(errLost, unix.ESHUTDOWN)
	return e.ring.Close()
}
