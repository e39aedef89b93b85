package systemd1

import (
	"context"
	"slices"
	"time"

	"github.com/godbus/dbus/v5"
)

const (
	minPoll = 500 * time.Millisecond // from a job's start to the first look at its unit, doubled
	maxPoll = time.Second

	minGlance = 500 * time.Microsecond // between two glances
	maxGlance = 50 * time.Millisecond
)

// jobWatch sees the jobs of one unit end. It is made before the job, so that
// none ends unseen.
type jobWatch struct {
	unit    string
	removed chan removed
	seen    chan look
	changed chan struct{} // the next change, when the watch began
	waits   bool          // the job has begun
}

type removed struct {
	job    dbus.ObjectPath
	result string // "done", "canceled", "timeout", "failed", "dependency", "skipped", ...
}

func (s *Systemd) watchJobs(unit string) *jobWatch {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := &jobWatch{unit: unit, removed: make(chan removed, 8), seen: make(chan look, 1), changed: s.changed}
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

// outcome is how a job ended: by its effect, by its result or, where the signal
// was missed, by the state of its unit.
type outcome struct {
	seen   bool   // its effect; the rest is empty
	result string // of the job, "" if not seen
	unit   Unit   // where result is ""; its Name is "" if there is no unit any more
}

// sight is what wait does beside waiting; either function may be nil.
type sight struct {
	glance func() bool   // often: has the job had its effect?
	every  time.Duration // the first time, doubled; within minGlance and maxGlance
	look   func()        // now and then
}

// wait returns when job has been removed, has had its effect or the unit is
// settled.
func (s *Systemd) wait(ctx context.Context, w *jobWatch, job dbus.ObjectPath, sight sight) (outcome, error) {
	s.await(w)
	every, soon := minPoll, min(max(minGlance, sight.every), maxGlance)
	poll, glance := time.NewTimer(every), time.NewTimer(soon)
	defer poll.Stop()
	defer glance.Stop()
	if sight.glance == nil {
		glance.Stop()
	}
	for {
		select {
		case <-glance.C:
			if sight.glance() {
				s.bySight.Add(1)
				return outcome{seen: true}, nil
			}
			soon = min(2*soon, maxGlance)
			glance.Reset(soon)
		case r := <-w.removed:
			if r.job == job {
				s.bySignal.Add(1)
				return outcome{result: r.result}, nil
			}
		case l := <-w.seen:
			switch {
			case l.err != nil:
				return outcome{}, l.err
			case l.unit.settled():
				s.byPoll.Add(1)
				return outcome{unit: l.unit}, nil
			case sight.look != nil:
				sight.look()
			}
		case <-poll.C:
			s.looks.want()
			every = min(2*every, maxPoll)
			poll.Reset(every)
		case <-ctx.Done():
			return outcome{}, expired(ctx, nil)
		}
	}
}

// await has looks tell w from now on, too, and one begin at once if signals may
// have been missed since the watch began.
func (s *Systemd) await(w *jobWatch) {
	s.mu.Lock()
	w.waits = true
	missed := w.changed != s.changed
	s.mu.Unlock()
	if missed {
		s.looks.want()
	}
}

// waiting returns who waits for the end of a job.
func (s *Systemd) waiting() []*jobWatch {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []*jobWatch
	for _, watches := range s.jobs {
		for _, w := range watches {
			if w.waits {
				all = append(all, w)
			}
		}
	}
	return all
}
