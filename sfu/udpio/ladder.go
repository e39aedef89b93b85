package udpio

import (
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// retryAfter is how long a rung or a train that was refused is not tried again.
const retryAfter = time.Minute

// errLost is that of an engine that can send nothing any more.
var errLost = errors.New("rung is lost")

// errTrain is why a rung without trains does not send one.
var errTrain = errors.New("rung has no trains")

// A ladder is an engine that goes down a rung when the one it stands on proves
// impossible, and comes back later to try again.
type ladder struct {
	socket   *socket
	counters *counters
	log      *slog.Logger
	why      string // why the chosen rung is not a better one

	rungs   []rung // the chosen one and those below it
	engines []engine
	at      int       // in rungs
	again   time.Time // when to try the chosen rung again, or to look for a lower one

	toldRung, toldTrain bool // what was logged

	state atomic.Pointer[standing]
}

// standing is where a ladder stands, and why not higher.
type standing struct{ rung, why string }

func newLadder(s *socket, c *counters, rungs []rung, why string, log *slog.Logger) (*ladder, error) {
	l := &ladder{socket: s, counters: c, log: log, why: why, rungs: rungs, engines: make([]engine, len(rungs))}
	err := l.stand(0, why)
	if err != nil && rungs[0].wish {
		l.again = time.Now().Add(retryAfter)
		err = l.stand(1, err.Error())
	}
	if err != nil {
		return nil, err
	}
	return l, nil
}

// stand takes its place on a rung.
func (l *ladder) stand(at int, why string) error {
	if l.engines[at] == nil {
		e, err := l.rungs[at].open(l.socket)
		if err != nil {
			return fmt.Errorf("open rung %s: %w", l.rungs[at].name, err)
		}
		l.engines[at] = e
	}
	l.at = at
	l.state.Store(&standing{l.rungs[at].name, why})
	return nil
}

func (l *ladder) trains() bool { return l.rungs[l.at].trains }

// send is engine.send with the rung it stands on, or the first below that can.
func (l *ladder) send(messages []message) (int, error) {
	if !l.trains() {
		if messages = singles(messages); len(messages) == 0 {
			return 0, errTrain
		}
	}
	n, err := l.engines[l.at].send(messages)
	if n == 0 && refused(err) && len(messages[0].parts) == 1 && l.descend(messages[:1], err) {
		return 1, nil
	}
	return n, err
}

// singles returns the messages before the first train.
func singles(messages []message) []message {
	for i, m := range messages {
		if len(m.parts) > 1 {
			return messages[:i]
		}
	}
	return messages
}

// refused reports whether an error may be that of a lost engine, of a filter
// installed since, or of a kernel that has no such system call.
func refused(err error) bool {
	return errors.Is(err, errLost) || errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM)
}

// descend goes down to the first rung that can send the message, and reports
// whether one did. Unless the engine is lost it looks only once in a while, and
// only where the rung's system call itself is refused: EPERM may as well come
// from a packet filter.
func (l *ladder) descend(one []message, cause error) bool {
	lost := errors.Is(cause, errLost)
	if !lost && time.Now().Before(l.again) {
		return false
	}
	l.again = time.Now().Add(retryAfter)
	was, before := l.at, l.state.Load().why
	if !lost && !errors.Is(l.rungs[was].call(), errors.ErrUnsupported) {
		return false
	}
	why := fmt.Sprintf("%s: %v while sending", l.rungs[was].name, cause)
	for at := was + 1; at < len(l.rungs); at++ {
		if l.stand(at, why) != nil {
			continue
		}
		if n, _ := l.engines[at].send(one); n > 0 {
			l.counters.demotions.Add(1)
			if lost {
				l.engines[was] = nil
			}
			if !l.toldRung {
				l.toldRung = true
				l.log.Warn("UDP send path demoted; told once", "from", l.rungs[was].name, "to", l.rungs[at].name, "cause", cause)
			}
			return true
		}
	}
	l.stand(was, before) // it is open, so it does not fail
	return false
}

// retry returns to the chosen rung when its time has come.
func (l *ladder) retry() {
	if l.at == 0 || time.Now().Before(l.again) {
		return
	}
	if err := l.stand(0, l.why); err != nil {
		l.again = time.Now().Add(retryAfter)
	}
}

// close closes the engines that have something besides the socket.
func (l *ladder) close() error {
	var errs []error
	for _, e := range l.engines {
		if e, ok := e.(interface{ close() error }); ok {
			errs = append(errs, e.close())
		}
	}
	return errors.Join(errs...)
}

// trainRefused notes that a train did not leave but its first datagram did:
// this route has no trains, or none of datagrams of this length.
func (l *ladder) trainRefused(m message, cause error) {
	if errors.Is(cause, errTrain) || !m.dest.trains.allows(len(m.parts[0])) {
		return // cut before that was known
	}
	limits := trainLimits{until: time.Now().Add(retryAfter)}
	if errors.Is(cause, unix.EMSGSIZE) {
		limits.segment = len(m.parts[0]) - 1
	}
	m.dest.trains = limits
	l.counters.demotions.Add(1)
	if !l.toldTrain {
		l.toldTrain = true
		l.log.Warn("UDP trains refused, sending singly; told once", "destination", m.dest.addr, "bytes", len(m.parts[0]), "cause", cause)
	}
}
