package agent

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/sfu-agent/sfu-agent/cgroups"
)

// slot is the place of one worker: one goroutine leads one incarnation after
// the other through its life and publishes what it knows as a snapshot.
type slot struct {
	agent    *Agent
	index    int
	id       string
	requests chan request
	limits   cgroups.Limits
	snapshot atomic.Pointer[Worker]
}

// request is what an operator wants of a slot's worker.
type request struct {
	drain    bool // else give it back to service
	deadline time.Duration
	limits   *cgroups.Limits // then neither of the above
	done     chan error
}

// requestLimit bounds how long an operator waits for a slot to take a request.
const requestLimit = 3 * time.Second

func newSlot(a *Agent, index int) *slot {
	s := &slot{agent: a, index: index, id: strconv.Itoa(index), requests: make(chan request), limits: a.cfg.Limits}
	s.snapshot.Store(&Worker{
		ID: s.id, State: StatePlacing, Since: time.Now(), Placer: a.cfg.PlacerName, Limits: s.limits,
	})
	return s
}

func (s *slot) worker() Worker { return *s.snapshot.Load() }

// update is called by the slot's own goroutine only.
func (s *slot) update(change func(*Worker)) {
	w := s.worker()
	before := w.State
	change(&w)
	if w.State != before {
		w.Since = time.Now()
	}
	s.snapshot.Store(&w)
}

// ask hands a request to the slot's goroutine. Only a slot with a living
// worker takes one.
func (s *slot) ask(r request) error {
	r.done = make(chan error, 1)
	limit := time.NewTimer(requestLimit)
	defer limit.Stop()
	select {
	case s.requests <- r:
	case <-limit.C:
		return fmt.Errorf("worker %s is %s: %w", s.id, s.worker().State, ErrNotReady)
	}
	select {
	case err := <-r.done:
		return err
	case <-limit.C:
		return fmt.Errorf("worker %s did not answer in %s: %w", s.id, requestLimit, ErrNotReady)
	}
}

// run leads the slot's workers, the first of which may be adopted, until ctx
// ends and the last worker is gone.
func (s *slot) run(ctx context.Context, p Placement) {
	restarts := backoff{times: s.agent.cfg.Times}
	adopted := p != nil
	for ctx.Err() == nil {
		began := time.Now()
		if p == nil {
			p = s.place(ctx)
		}
		planned := false
		if p != nil {
			planned = s.live(ctx, p, adopted)
		}
		if errors.Is(context.Cause(ctx), ErrHandover) {
			return
		}
		p, adopted = nil, false
		if ctx.Err() != nil {
			return
		}
		s.pause(ctx, restarts.next(planned, time.Since(began)), restarts.failed())
	}
}

// place writes the record before the process exists, so that whatever happens
// from there on is found again.
func (s *slot) place(ctx context.Context) Placement {
	cfg := &s.agent.cfg
	name := cfg.State.name(s.index)
	spec := Spec{
		Name: name, Exe: cfg.Exe, Args: cfg.WorkerArgs(s.index, name), Socket: cfg.State.socket(name),
		User: cfg.User, Group: cfg.Group, Limits: s.limits,
	}
	rec := Record{Name: name, Placer: cfg.PlacerName, Socket: spec.Socket}
	s.update(func(w *Worker) {
		*w = Worker{
			ID: s.id, Name: name, State: StatePlacing, Placer: cfg.PlacerName, Limits: s.limits,
			Restarts: w.Restarts, LastExit: w.LastExit,
		}
	})
	bounded, cancel := context.WithTimeout(ctx, cfg.Times.Place)
	defer cancel()
	err := cfg.State.save(rec)
	var p Placement
	if err == nil {
		p, err = cfg.Placer.Place(bounded, spec)
	}
	if err != nil {
		cfg.State.forget(rec)
		if ctx.Err() == nil {
			s.agent.log.Error("worker not placed", "worker", s.id, "name", name, "error", err)
			s.ended(name, "not placed: "+err.Error(), Exit{Reason: ReasonUnknown})
		}
		return nil
	}
	rec = p.Record()
	rec.Limits = s.limits
	if err := cfg.State.save(rec); err != nil {
		s.agent.log.Error("worker would not be found again, ending it", "worker", s.id, "error", err)
		s.agent.end(context.WithoutCancel(ctx), p)
		return nil
	}
	return p
}

// ended puts the last incarnation's end into the snapshot.
func (s *slot) ended(name, text string, exit Exit) {
	s.update(func(w *Worker) {
		w.LastExit = &LastExit{Exit: exit, Name: name, Time: time.Now(), Text: text}
		w.Restarts++
	})
}

// pause waits before the next incarnation.
func (s *slot) pause(ctx context.Context, delay time.Duration, failed bool) {
	if delay == 0 {
		return
	}
	s.update(func(w *Worker) {
		w.State = StateBackoff
		if failed {
			w.State = StateFailed
		}
		w.PID, w.Unit, w.Cgroup, w.Status, w.DrainDeadline = 0, "", "", nil, nil
	})
	if failed {
		s.agent.log.Error("worker ended too often in a row, waiting longer", "worker", s.id, "next_try_in", delay)
	}
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

// backoff is the restart policy of a slot.
type backoff struct {
	times Times
	short int // lives shorter than Times.Stable in a row
}

// next is how long to wait after a life.
func (b *backoff) next(planned bool, lived time.Duration) time.Duration {
	if planned || lived >= b.times.Stable {
		b.short = 0
		return 0
	}
	b.short++
	if b.failed() {
		return b.times.Failed
	}
	delay := b.times.MinDelay << min(b.short-1, 20)
	return min(delay, b.times.MaxDelay)
}

func (b *backoff) failed() bool { return b.short >= startLimit }
