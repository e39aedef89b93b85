package systemd1

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/godbus/dbus/v5"
)

const (
	minPoll = 200 * time.Millisecond // from a job's start to the first look at its unit, doubled
	maxPoll = time.Second
)

// jobWatch sees the jobs of one unit end. It is made before the job, so that
// none ends unseen.
type jobWatch struct {
	unit    string
	removed chan removed
	changed chan struct{} // since the watch began, or the last look
}

type removed struct {
	job    dbus.ObjectPath
	result string // "done", "canceled", "timeout", "failed", "dependency", "skipped", ...
}

func (s *Systemd) watchJobs(unit string) *jobWatch {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := &jobWatch{unit: unit, removed: make(chan removed, 8), changed: s.changed}
	s.jobs[unit] = append(s.jobs[unit], w)
	return w
}

func (s *Systemd) unwatch(w *jobWatch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	rest := slices.DeleteFunc(s.jobs[w.unit], func(o *jobWatch) bool { return o == w })
	if len(rest) == 0 {
		delete(s.jobs, w.unit)
	} else {
		s.jobs[w.unit] = rest
	}
}

// jobRemoved takes the signal of that name. A watch that is full misses the
// result and finds it in the unit's state.
func (s *Systemd) jobRemoved(sig *dbus.Signal) {
	var id uint32
	var r removed
	var unit string
	if dbus.Store(sig.Body, &id, &r.job, &unit, &r.result) != nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range s.jobs[unit] {
		select {
		case w.removed <- r:
		default:
		}
	}
}

// outcome is how a job ended: by its result or, where the signal was missed, by
// the state of its unit.
type outcome struct {
	result string // of the job, "" if not seen
	unit   Unit   // where result is ""; its Name is "" if there is no unit any more
}

// wait returns when job has been removed or the unit is settled. It calls look
// now and then meanwhile.
func (s *Systemd) wait(ctx context.Context, w *jobWatch, job dbus.ObjectPath, look func()) (outcome, error) {
	every := minPoll
	poll := time.NewTimer(every)
	defer poll.Stop()
	for {
		select {
		case r := <-w.removed:
			if r.job != job {
				continue
			}
			s.bySignal.Add(1)
			return outcome{result: r.result}, nil
		case <-w.changed:
			w.changed = s.change()
		case <-poll.C:
			every = min(2*every, maxPoll)
			poll.Reset(every)
		case <-ctx.Done():
			return outcome{}, expired(ctx, nil)
		}
		u, err := s.state(ctx, w.unit)
		switch {
		case errors.Is(err, ErrNoUnit), err == nil && u.settled():
			s.byPoll.Add(1)
			return outcome{unit: u}, nil
		case err != nil:
			return outcome{}, err
		case look != nil:
			look()
		}
	}
}
