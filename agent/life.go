package agent

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/sfu-agent/sfu-agent/agent/control"
	"github.com/sfu-agent/sfu-agent/cgroups"
)

// life is one incarnation of a worker, from placed to gone.
type life struct {
	*slot
	p       Placement
	rec     Record
	control Control
	placed  time.Time
	heard   time.Time // of the last good answer
	hung    bool
	planned bool             // the agent wants it to end
	over    <-chan time.Time // the drain's deadline
}

type answer struct {
	status control.Status
	err    error
}

// live watches a placed worker until it is gone and cleared away. It reports
// whether the end was planned. Under ErrHandover the worker is left running.
func (s *slot) live(ctx context.Context, p Placement, adopted bool) (planned bool) {
	now := time.Now()
	l := &life{slot: s, p: p, rec: p.Record(), placed: now, heard: now}
	l.rec.Limits = s.worker().Limits
	l.control = s.agent.cfg.Control(l.rec.Socket)
	defer l.control.Close()
	s.update(func(w *Worker) {
		w.Name, w.State, w.PID, w.Unit, w.Cgroup, w.Socket = l.rec.Name, StateStarting, l.rec.PID, l.rec.Unit, l.rec.Cgroup, l.rec.Socket
		w.Adopted, w.Status = adopted, nil
	})
	verb := "worker placed"
	if adopted {
		verb = "worker adopted"
	}
	s.agent.log.Info(verb, "worker", s.id, "name", l.rec.Name, "pid", l.rec.PID, "placer", l.rec.Placer, "unit", l.rec.Unit)

	inner, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	answers, exits := make(chan answer), make(chan Exit, 1)
	wg.Go(func() { l.poll(inner, answers) })
	wg.Go(func() {
		if exit, err := p.Wait(inner); err == nil {
			exits <- exit
		}
	})
	exit, gone := l.watch(ctx, answers, exits)
	cancel()
	wg.Wait()
	if gone {
		l.clear(ctx, exit)
	}
	return l.planned
}

// poll asks the worker for its status again and again.
func (l *life) poll(ctx context.Context, answers chan<- answer) {
	tick := time.NewTicker(l.agent.cfg.Times.Poll)
	defer tick.Stop()
	for {
		bounded, cancel := context.WithTimeout(ctx, 2*l.agent.cfg.Times.Poll)
		status, err := l.control.Status(bounded)
		cancel()
		select {
		case answers <- answer{status, err}:
		case <-ctx.Done():
			return
		}
		if l.worker().State == StateStarting {
			tick.Reset(l.agent.cfg.Times.Poll / 20) // ready as soon as it says so
		} else {
			tick.Reset(l.agent.cfg.Times.Poll)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// watch returns the worker's exit, or false when it was left running.
func (l *life) watch(ctx context.Context, answers <-chan answer, exits <-chan Exit) (Exit, bool) {
	done, hurry := ctx.Done(), (<-chan struct{})(nil)
	for {
		select {
		case exit := <-exits:
			return exit, true
		case a := <-answers:
			if l.observe(a) {
				return l.stop(ctx, exits), true
			}
		case r := <-l.requests:
			r.done <- l.serve(ctx, r)
		case <-l.over:
			l.agent.log.Warn("drain deadline reached", "worker", l.id)
			return l.stop(ctx, exits), true
		case <-hurry:
			return l.stop(ctx, exits), true
		case <-done:
			if errors.Is(context.Cause(ctx), ErrHandover) {
				return Exit{}, false
			}
			done, hurry = nil, l.agent.cfg.Hurry
			if err := l.drain(context.WithoutCancel(ctx), l.agent.cfg.Times.Drain); err != nil {
				return l.stop(ctx, exits), true
			}
		}
	}
}

// observe takes a worker's answer, or its silence, and reports whether the
// worker has to be stopped.
func (l *life) observe(a answer) (stop bool) {
	times, now := l.agent.cfg.Times, time.Now()
	state := l.worker().State
	if a.err != nil {
		limit := times.Hang
		if state == StateStarting {
			limit = times.Start
		}
		if now.Sub(l.heard) < limit {
			return false
		}
		l.hung = true
		l.agent.log.Error("worker does not answer", "worker", l.id, "name", l.rec.Name, "for", now.Sub(l.heard).Round(time.Millisecond), "error", a.err)
		return true
	}
	l.heard = now
	l.update(func(w *Worker) {
		w.Status = &a.status
		if w.State == StateStarting {
			w.State = stateOf(a.status)
		}
	})
	switch {
	case state == StateStarting && l.worker().State == StateStarting:
		l.hung = now.Sub(l.placed) > times.Start
		return l.hung
	case state == StateStarting:
		l.agent.log.Info("worker ready", "worker", l.id, "name", l.rec.Name, "udp", a.status.UDP.Address,
			"rung", a.status.UDP.Rung, "why", a.status.UDP.Why, "after", now.Sub(l.placed).Round(time.Millisecond))
	}
	return l.over != nil && a.status.State == control.StateDraining && len(a.status.Rooms) == 0
}

func stateOf(s control.Status) State {
	switch s.State {
	case control.StateReady:
		return StateReady
	case control.StateDraining:
		return StateDraining
	}
	return StateStarting
}

// serve does what an operator asked for.
func (l *life) serve(ctx context.Context, r request) error {
	switch {
	case r.limits != nil:
		return l.limit(ctx, *r.limits)
	case r.drain:
		return l.drain(ctx, r.deadline)
	}
	if err := l.control.Undrain(ctx); err != nil {
		return fmt.Errorf("worker %s: %w", l.id, err)
	}
	l.planned, l.over = false, nil
	l.update(func(w *Worker) { w.State, w.DrainDeadline = StateReady, nil })
	l.agent.log.Info("drain cancelled", "worker", l.id)
	return nil
}

// limit changes all limits or none, here and for the successors.
func (l *life) limit(ctx context.Context, limits cgroups.Limits) error {
	before := l.worker().Limits
	if err := l.p.SetLimits(ctx, limits); err != nil {
		if back := l.p.SetLimits(ctx, before); back != nil && !errors.Is(back, errors.ErrUnsupported) {
			err = errors.Join(err, fmt.Errorf("and back: %w", back))
		}
		return fmt.Errorf("worker %s: %w", l.id, err)
	}
	l.limits, l.rec.Limits = limits, limits
	l.update(func(w *Worker) { w.Limits = limits })
	l.agent.log.Info("limits changed", "worker", l.id, "limits", fmt.Sprintf("%+v", limits))
	return l.agent.cfg.State.save(l.rec)
}

func (l *life) drain(ctx context.Context, deadline time.Duration) error {
	if err := l.control.Drain(ctx); err != nil {
		return fmt.Errorf("worker %s: %w", l.id, err)
	}
	until := time.Now().Add(deadline)
	l.planned, l.over = true, time.After(deadline)
	l.update(func(w *Worker) { w.State, w.DrainDeadline = StateDraining, &until })
	l.agent.log.Info("worker drains", "worker", l.id, "deadline", deadline)
	return nil
}

// stop ends the worker and returns its exit.
func (l *life) stop(ctx context.Context, exits <-chan Exit) Exit {
	grace := l.agent.cfg.Times.Stop
	if l.hung {
		grace = 0
	} else {
		l.planned = true
	}
	l.update(func(w *Worker) { w.State = StateStopping })
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace+l.agent.cfg.Times.Place)
	defer cancel()
	if err := l.p.Stop(bounded, grace); err != nil {
		l.agent.log.Warn("worker not stopped", "worker", l.id, "error", err)
	}
	exit := Exit{Reason: ReasonUnknown}
	select {
	case exit = <-exits:
	case <-bounded.Done():
	}
	if l.hung {
		exit.Reason = ReasonHang
	}
	return exit
}

// clear removes what an ended worker left and says why it ended.
func (l *life) clear(ctx context.Context, exit Exit) {
	log := l.agent.log.Warn
	if l.planned {
		log = l.agent.log.Info
	}
	log("worker ended", "worker", l.id, "name", l.rec.Name, "pid", l.rec.PID, "reason", exit.Reason, "text", exit.String())
	l.ended(l.rec.Name, exit.String(), exit)
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), l.agent.cfg.Times.Place)
	defer cancel()
	if err := l.p.Release(bounded); err != nil {
		l.agent.log.Warn("worker not cleanly removed, will be swept", "worker", l.id, "error", err)
	}
	l.agent.cfg.State.forget(l.rec)
}
