package systemd1

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/godbus/dbus/v5"
	"github.com/sfu-agent/sfu-agent/dbusx"
)

const startOp = "start scope"

// maxResets bounds how often one start clears away what has its name.
const maxResets = 2

// StartScope makes a transient scope of the processes in p and returns when
// they are in its cgroup. The processes must be the caller's own and not waited
// for until StartScope has returned, so that no PID can become another's.
//
// A unit of that name that already holds the processes is taken as started; one
// that failed is reset; any other is left alone: ErrExists. After any other
// error systemd is made to forget the unit, in the background if need be.
func (s *Systemd) StartScope(ctx context.Context, unit string, p Properties) error {
	st := &start{s: s, unit: unit, pids: p.pids}
	if err := st.check(p); err != nil {
		return &dbusx.Error{Op: startOp, Unit: unit, Kind: ErrProperty, Err: err}
	}
	err := s.withOptional(p, func(p Properties) error { return st.run(ctx, p) })
	if err != nil && (st.made || st.unknown) {
		s.undo.add(unit, p.pids, st.made)
	}
	return err
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

// run makes attempts until the unit is there, refused, or ctx ends.
func (st *start) run(ctx context.Context, p Properties) error {
	pause := minPause
	for {
		err := st.attempt(ctx, p)
		if err == nil {
			return nil
		}
		retry, err := st.after(ctx, err)
		if !retry {
			return of(startOp, st.unit, err)
		}
		if !sleep(ctx, pause) {
			return &dbusx.Error{Op: startOp, Unit: st.unit, Kind: dbusx.ErrTimeout, Sent: true, Err: errors.Join(context.Cause(ctx), err)}
		}
		pause = min(2*pause, maxPause)
	}
}

// attempt asks once and waits for the job.
func (st *start) attempt(ctx context.Context, p Properties) error {
	w := st.s.watchJobs(st.unit)
	defer st.s.unwatch(w)
	var job dbus.ObjectPath
	aux := []struct {
		Name       string
		Properties []property
	}{}
	err := st.s.call(ctx, "StartTransientUnit", []any{&job}, st.unit, "fail", p.list, aux)
	if err != nil {
		st.unknown = st.unknown || dbusx.Unknown(err)
		return of(startOp, st.unit, err)
	}
	st.made = true
	out, err := st.s.wait(ctx, w, job, nil)
	if err != nil {
		return st.timeout(err)
	}
	return st.confirm(out)
}

// confirm checks that the end of the job was the start of the scope: systemd
// calls a scope active, too, whose process died before it was attached.
func (st *start) confirm(out outcome) error {
	in, err := st.s.allIn(st.pids, st.unit)
	switch {
	case err != nil:
		return &dbusx.Error{Op: startOp, Unit: st.unit, Kind: dbusx.ErrReply, Sent: true, Err: err}
	case in && (out.result == "done" || out.unit.ActiveState == "active"):
		return nil
	case out.result == "done" || out.unit.ActiveState == "active" || st.gone():
		return &dbusx.Error{Op: startOp, Unit: st.unit, Kind: ErrProcessGone, Sent: true}
	}
	result := out.result
	if result == "" {
		result = "failed"
	}
	return &dbusx.Error{Op: startOp, Unit: st.unit, Kind: ErrJob, Sent: true, Err: &JobError{result}}
}

// after decides what an attempt that failed with err means: another attempt,
// success (false, nil) or an error.
func (st *start) after(ctx context.Context, err error) (retry bool, _ error) {
	switch {
	case ctx.Err() != nil:
		return false, err
	case errors.Is(err, ErrExists):
		return st.taken(ctx, err)
	case dbusx.Unknown(err):
		return st.taken(ctx, err)
	case again(err):
		return true, err
	}
	return false, err
}

// taken decides when a unit of our name exists or may exist, because a request
// of ours was carried out or because it is somebody else's.
func (st *start) taken(ctx context.Context, cause error) (retry bool, _ error) {
	u, err := st.s.settle(ctx, st.unit, st.unknown)
	if errors.Is(err, ErrNoUnit) {
		return true, cause
	}
	if err != nil {
		return false, err
	}
	in, err := st.s.allIn(st.pids, st.unit)
	if err != nil {
		return false, err
	}
	switch {
	case in && u.ActiveState == "active":
		st.made = true
		return false, nil
	case u.dead():
		return st.reset(ctx, cause)
	case !st.unknown:
		return false, st.foreign()
	}
	pids, err := st.s.processes(ctx, st.unit)
	if err != nil {
		return false, err
	}
	if len(pids) > 0 {
		return false, st.foreign()
	}
	_, err = st.s.Stop(ctx, st.unit)
	return err == nil, errors.Join(err, cause)
}

func (st *start) reset(ctx context.Context, cause error) (retry bool, _ error) {
	if st.resets++; st.resets > maxResets {
		return false, cause
	}
	err := st.s.ResetFailed(ctx, st.unit)
	if err != nil && !errors.Is(err, ErrNoUnit) && !again(err) {
		return false, err
	}
	return true, cause
}

// foreign says that the unit is not ours, and so not ours to undo.
func (st *start) foreign() error {
	st.unknown = false
	return &dbusx.Error{Op: startOp, Unit: st.unit, Kind: ErrExists}
}

func (st *start) timeout(err error) error {
	return &dbusx.Error{Op: startOp, Unit: st.unit, Kind: dbusx.ErrTimeout, Sent: true, Err: err}
}

// gone reports whether any of the processes has ended.
func (st *start) gone() bool {
	return slices.ContainsFunc(st.pids, st.s.ended)
}
