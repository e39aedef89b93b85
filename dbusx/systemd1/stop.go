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

// Stop stops unit and returns when it is. No such unit is no error. That its
// processes were killed is known of those that were given a TimeoutStop of at
// least 500 ms.
func (s *Systemd) Stop(ctx context.Context, unit string) (Result, error) {
	st := &stop{s: s, unit: unit, began: time.Now()}
	for pause := s.pauses(); ; {
		done, err := st.attempt(ctx)
		if done || err != nil && !again(err) {
			return st.result(), of(stopOp, unit, err)
		}
		if !pause.wait(ctx) {
			return st.result(), of(stopOp, unit, expired(ctx, err))
		}
	}
}

// stop is one Stop on its way.
type stop struct {
	s        *Systemd
	unit     string
	began    time.Time
	asked    bool          // systemd may have been asked to stop an existing unit
	timedOut bool          // systemd gave up
	limit    time.Duration // TimeoutStop, looked up when it takes long
}

// attempt asks once and waits for the job. Asking twice does no harm.
func (st *stop) attempt(ctx context.Context) (done bool, _ error) {
	w := st.s.watchJobs(st.unit)
	defer st.s.unwatch(w)
	var job dbus.ObjectPath
	err := of(stopOp, st.unit, st.s.call(ctx, "StopUnit", []any{&job}, st.unit, "replace"))
	if errors.Is(err, ErrNoUnit) {
		return true, nil
	}
	st.asked = st.asked || err == nil || dbusx.Unknown(err)
	if err != nil {
		return false, err
	}
	out, err := st.s.wait(ctx, w, job, sight{look: func() { st.slow(ctx) }})
	if err != nil {
		return false, err
	}
	st.timedOut = out.result == "timeout"
	return out.result != "canceled" && (out.result != "" || out.unit.Name == "" || out.unit.dead()), nil
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

// result tells by the time it took: systemd's own account of the unit is often
// gone with it, and its job is "done" in every case.
func (st *stop) result() Result {
	took := time.Since(st.began)
	switch {
	case !st.asked:
		return ResultNone
	case st.timedOut, st.limit > 0 && took/2 >= st.limit:
		return ResultTimeout
	case st.limit > 0 && took >= st.limit:
		return ResultKilled
	}
	return ResultClean
}
