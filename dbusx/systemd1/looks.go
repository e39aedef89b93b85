package systemd1

import (
	"context"
	"time"
)

// lookLimit bounds one look.
const lookLimit = 3 * time.Second

// looks asks for the state of the units whose jobs are waited for, of all at
// once. systemd runs jobs only when it has no call left to answer: one that
// re-executes itself again and again would get to answering questions and to
// nothing else.
type looks struct {
	s      *Systemd
	cancel context.CancelFunc
	wanted chan struct{}
	done   chan struct{}
}

// look is what was seen of a unit.
type look struct {
	unit Unit // zero if there is none
	err  error
}

func newLooks(s *Systemd) *looks {
	ctx, cancel := context.WithCancel(context.Background())
	l := &looks{s: s, cancel: cancel, wanted: make(chan struct{}, 1), done: make(chan struct{})}
	go l.run(ctx)
	return l
}

func (l *looks) close() {
	l.cancel()
	<-l.done
}

// want asks for a look that begins after this.
func (l *looks) want() {
	select {
	case l.wanted <- struct{}{}:
	default:
	}
}

func (l *looks) run(ctx context.Context) {
	defer close(l.done)
	for {
		select {
		case <-l.wanted:
			l.once(ctx)
		case <-ctx.Done():
			return
		}
	}
}

// once tells all who wait now what there is to see. A look that takes too long
// tells nothing.
func (l *looks) once(ctx context.Context) {
	waiting := l.s.waiting()
	if len(waiting) == 0 {
		return
	}
	names := make([]string, 0, len(waiting))
	for _, w := range waiting {
		names = append(names, w.unit)
	}
	ctx, stop := context.WithTimeout(ctx, lookLimit)
	defer stop()
	units, err := l.s.list(ctx, names...)
	if err != nil && again(err) {
		return
	}
	state := make(map[string]Unit, len(units))
	for _, u := range units {
		if u.LoadState != "not-found" {
			state[u.Name] = u
		}
	}
	for _, w := range waiting {
		select {
		case w.seen <- look{state[w.unit], err}:
		default: // it has not taken the last one yet
		}
	}
}
