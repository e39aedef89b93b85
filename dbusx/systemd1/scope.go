package systemd1

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/godbus/dbus/v5"
	"github.com/sfu-agent/sfu-agent/dbusx"
)

const startOp = "start scope"

// maxResets bounds how often one start clears away what has its name.
const maxResets = 2

// StartScope makes a transient scope of the processes in p and returns when
// they are in its cgroup. The processes must be the caller's own and not waited
// for until StartScope has returned, so that no PID can become another's.
// Children that they had before stay where they are.
//
// A unit of that name that already holds the processes is taken as started; one
// that failed is reset; any other is left alone: ErrExists. After any other
// error systemd is made to forget the unit, in the background if need be.
func (s *Systemd) StartScope(ctx context.Context, unit string, p Properties) error {
	st := &start{s: s, unit: unit, pids: p.pids}
	if err := st.check(p); err != nil {
		return &dbusx.Error{Op: startOp, Unit: unit, Kind: ErrProperty, Err: err}
	}
	if !s.undo.over(ctx, unit) { // it would stop what we are about to start
		return of(startOp, unit, expired(ctx, nil))
	}
	err := s.withOptional(p, func(p Properties) error { return st.run(ctx, p) })
	if err != nil && st.sent() && !st.stopped(ctx) {
		s.undo.add(unit, p.pids, st.made)
	}
	return err
}

// stopped tries to undo a failed start at once: callers whose starts fail, one
// after the other, wait for the undoing and cannot outrun it.
func (st *start) stopped(ctx context.Context) bool {
	if !st.made || ctx.Err() != nil {
		return false
	}
	_, err := st.s.Stop(ctx, st.unit)
	return err == nil
}

// start is one StartScope on its way.
type start struct {
	s       *Systemd
	unit    string
	pids    []int
	made    bool // systemd said that it made the unit for us
	unknown bool // a request was sent and its outcome is not known
	resets  int
}

// sent reports whether there is, or may yet be, a unit of our making.
func (st *start) sent() bool { return st.made || st.unknown }

// check refuses what systemd would take for something else: PID 0 is the
// caller, 1 systemd itself.
func (st *start) check(p Properties) error {
	switch {
	case p.err != nil:
		return p.err
	case !validScope(st.unit):
		return errors.New("not a scope's name")
	case len(st.pids) == 0:
		return errors.New("no PIDs")
	}
	for _, pid := range st.pids {
		if pid <= 1 {
			return fmt.Errorf("PID %d", pid)
		}
	}
	return nil
}

// run makes attempts until the scope is there, refused, or ctx ends.
func (st *start) run(ctx context.Context, p Properties) error {
	for pause := st.s.pauses(); ; {
		err := st.attempt(ctx, p)
		if err == nil {
			return nil
		}
		verdict, err := st.judge(ctx, err)
		if verdict != retry {
			return st.result(err)
		}
		if !pause.wait(ctx) {
			return st.result(expired(ctx, err))
		}
	}
}

// result is what the caller gets; an Error says if there may be a unit of ours.
func (st *start) result(err error) error {
	err = of(startOp, st.unit, err)
	if e, ok := err.(*dbusx.Error); ok {
		e.Sent = st.sent()
	}
	return err
}

// attempt asks once and waits for the job.
func (st *start) attempt(ctx context.Context, p Properties) error {
	w := st.s.watchJobs(st.unit)
	defer st.s.unwatch(w)
	var job dbus.ObjectPath
	var aux []auxiliary
	asked := time.Now()
	err := st.s.call(ctx, "StartTransientUnit", []any{&job}, st.unit, "fail", p.list, aux)
	if err != nil {
		st.unknown = st.unknown || dbusx.Unknown(err)
		return of(startOp, st.unit, err)
	}
	st.made = true
	// That they are in the scope is the last thing of its start that can fail, and
	// is seen before the bus tells of it.
	at := st.s.places(st.pids)
	defer at.close()
	out, err := st.s.wait(ctx, w, job, sight{
		glance: func() bool { return at.allIn(st.unit) },
		every:  time.Since(asked) / 4, // a systemd that is slow to answer is slow to act
	})
	if err != nil || out.seen {
		return err
	}
	return st.confirm(out)
}

// auxiliary is a further unit to make; there are none.
type auxiliary struct {
	Name       string
	Properties []property
}

// confirm checks that the end of the job was the start of the scope: systemd
// calls a scope active, too, whose process died before it was attached.
func (st *start) confirm(out outcome) error {
	in, err := st.holds()
	if err != nil {
		return err
	}
	active := out.result == "done" || out.unit.ActiveState == "active"
	switch {
	case active && in:
		return nil
	case active || slices.ContainsFunc(st.pids, st.s.ended):
		return &dbusx.Error{Kind: ErrProcessGone}
	case out.result == "":
		out.result = "failed"
	}
	return &dbusx.Error{Kind: ErrJob, Err: &JobError{out.result}}
}

// verdict is what to do after an attempt that failed.
type verdict int

const (
	final verdict = iota // it is started or will never be
	retry                // the name is free, or may be soon
)

// judge decides what an attempt that failed with err means. A request whose
// outcome is not known is made again without asking: if it was carried out after
// all, the next one is told that the unit exists. A systemd that re-executes
// itself again and again may not be there for long enough to answer both.
func (st *start) judge(ctx context.Context, err error) (verdict, error) {
	switch {
	case ctx.Err() != nil:
		return final, expired(ctx, err)
	case errors.Is(err, ErrExists):
		return st.taken(ctx, err)
	case again(err):
		if in, inErr := st.holds(); st.unknown && (in || inErr != nil) {
			return final, inErr
		}
		return retry, err
	}
	return final, err
}

// holds reports whether the scope holds our processes.
func (st *start) holds() (bool, error) {
	in, err := st.s.allIn(st.pids, st.unit)
	if err != nil {
		return false, &dbusx.Error{Kind: dbusx.ErrReply, Err: err}
	}
	return in, nil
}

// taken decides when a unit of our name exists: because a request of ours was
// carried out after all, or because it is somebody else's. One that may be ours
// is given the time to settle.
func (st *start) taken(ctx context.Context, cause error) (verdict, error) {
	w := st.s.watchJobs(st.unit)
	defer st.s.unwatch(w)
	for {
		u, err := st.s.state(ctx, st.unit)
		in, inErr := st.holds() // not before: its start may end meanwhile
		switch {
		case in, inErr != nil:
			return final, inErr
		case errors.Is(err, ErrNoUnit):
			return retry, cause
		case err != nil:
			return final, err
		case st.unknown && !u.settled():
			if _, err := st.s.wait(ctx, w, u.jobPath, sight{}); err != nil {
				return final, err
			}
		case u.dead():
			return st.reset(ctx, cause)
		default:
			return st.clear(ctx, cause)
		}
	}
}

// clear stops the unit if it can only be a request of ours that came too late
// for its processes: a request is unaccounted for, and the unit is empty.
func (st *start) clear(ctx context.Context, cause error) (verdict, error) {
	foreign := &dbusx.Error{Kind: ErrExists}
	if !st.unknown {
		return final, foreign
	}
	pids, err := st.s.processes(ctx, st.unit)
	if err != nil {
		return final, err
	}
	if len(pids) > 0 {
		st.unknown = false // answered: it is not ours to undo
		return final, foreign
	}
	if _, err := st.s.Stop(ctx, st.unit); err != nil {
		return final, err
	}
	return retry, cause
}

// reset makes systemd forget a failed unit of our name.
func (st *start) reset(ctx context.Context, cause error) (verdict, error) {
	if st.resets++; st.resets > maxResets {
		return final, cause
	}
	if err := st.s.ResetFailed(ctx, st.unit); err != nil && !errors.Is(err, ErrNoUnit) {
		return final, err
	}
	return retry, cause
}
