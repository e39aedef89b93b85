package systemd1

import (
	"context"
	"errors"
	"time"

	"github.com/godbus/dbus/v5"
	"github.com/sfu-agent/sfu-agent/dbusx"
)

const stopOp = "stop"

// Result is how a unit was stopped.
type Result string

// The results of Stop.
const (
	ResultNone    Result = "none"    // there was no such unit
	ResultClean   Result = "clean"   // its processes ended, by themselves or on SIGTERM
	ResultKilled  Result = "killed"  // they did not within TimeoutStop and got SIGKILL
	ResultTimeout Result = "timeout" // not even SIGKILL ended them in time
)

// Stop stops unit and returns when it is. No such unit is no error.
func (s *Systemd) Stop(ctx context.Context, unit string) (Result, error) {
	st := &stop{s: s, unit: unit, result: ResultNone}
	for pause := s.pauses(); ; {
		done, err := st.attempt(ctx)
		if done || err != nil && !again(err) {
			return st.result, of(stopOp, unit, err)
		}
		if !pause.wait(ctx) {
			return st.result, of(stopOp, unit, expired(ctx, err))
		}
	}
}

// stop is one Stop on its way.
type stop struct {
	s      *Systemd
	unit   string
	result Result
	limit  time.Duration // TimeoutStop, once looked up
	began  time.Time
}

// attempt asks once and waits for the job. Stopping twice does no harm.
func (st *stop) attempt(ctx context.Context) (done bool, _ error) {
	w := st.s.watchJobs(st.unit)
	defer st.s.unwatch(w)
	var job dbus.ObjectPath
	err := of(stopOp, st.unit, st.s.call(ctx, "StopUnit", []any{&job}, st.unit, "replace"))
	if errors.Is(err, ErrNoUnit) {
		return true, nil
	}
	if err != nil {
		if dbusx.Unknown(err) {
			st.result = ResultClean
		}
		return false, err
	}
	st.result, st.began = ResultClean, time.Now()
	out, err := st.s.wait(ctx, w, job, func(Unit) { st.slow(ctx) })
	if err != nil {
		return false, err
	}
	return st.over(out), nil
}

// slow looks up, once, how long the unit's processes may take.
func (st *stop) slow(ctx context.Context) {
	if st.limit != 0 {
		return
	}
	if u, err := st.s.Unit(ctx, st.unit); err == nil {
		st.limit = u.TimeoutStop
	}
}

// over reads the end of the job.
func (st *stop) over(out outcome) (done bool) {
	took := time.Since(st.began)
	switch {
	case out.result == "timeout", st.limit > 0 && took >= 2*st.limit:
		st.result = ResultTimeout
	case st.limit > 0 && took >= st.limit:
		st.result = ResultKilled
	}
	return out.result != "canceled" && (out.result != "" || out.unit.Name == "" || out.unit.dead())
}
