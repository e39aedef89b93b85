package systemd1

import (
	"context"
	"errors"
	"path"
	"syscall"
	"time"

	"github.com/sfu-agent/sfu-agent/cgroups"
)

// releaseLimit is how long systemd may take to remove the cgroup of a scope
// that has lost its last process. It needs some 10 ms, the kernel's limit for
// telling it so, unless it is busy with itself.
const releaseLimit = time.Second

// StopScope stops a scope, of which group is the cgroup, as Stop does, but
// without a job and so without the bus: it sends SIGTERM and SIGCONT to its
// processes and, after timeout, SIGKILL. systemd then lets go of the scope by
// itself, which the removal of the cgroup shows; from then on its name is free.
// Where any of that does not work, StopScope does what Stop does.
func (s *Systemd) StopScope(ctx context.Context, unit string, group cgroups.Group, timeout time.Duration) (Result, error) {
	e := &ending{group: group, timeout: timeout, result: ResultNone}
	if path.Base(group.Path()) == unit && e.run(ctx) == nil {
		return e.result, nil
	}
	if ctx.Err() != nil {
		return e.result, of(stopOp, unit, expired(ctx, nil))
	}
	result, err := s.Stop(ctx, unit)
	if e.result == ResultKilled && result != ResultTimeout {
		result = e.result
	}
	return result, err
}

// ending is one StopScope without systemd.
type ending struct {
	group   cgroups.Group
	timeout time.Duration
	result  Result
}

var errLingers = errors.New("cgroup has no process and is not removed")

// run returns nil when the cgroup has been removed.
func (e *ending) run(ctx context.Context) error {
	state, err := e.group.Events()
	switch {
	case errors.Is(err, cgroups.ErrGone):
		return nil
	case err != nil:
		return err
	case state.Frozen:
		return errors.New("cgroup is frozen") // systemd knows if it is its own doing
	}
	e.result = ResultClean
	if err := e.group.Signal(syscall.SIGTERM, syscall.SIGCONT); err != nil {
		return err
	}
	if err := e.released(ctx, e.timeout); !errors.Is(err, cgroups.ErrBusy) {
		return err
	}
	e.result = ResultKilled
	if err := e.group.Kill(ctx); err != nil {
		return err
	}
	return e.released(ctx, releaseLimit)
}

// released waits until the cgroup has been removed: at most limit, then the
// error wraps ErrBusy, and, as soon as it has no process, at most releaseLimit.
func (e *ending) released(ctx context.Context, limit time.Duration) error {
	for end := time.Now().Add(limit); ; {
		err := e.group.AwaitRemoval(ctx, min(releaseLimit, time.Until(end)))
		if !errors.Is(err, cgroups.ErrBusy) {
			return err
		}
		if populated, popErr := e.group.Populated(); popErr != nil || !populated {
			return errors.Join(popErr, errLingers)
		}
		if !time.Now().Before(end) {
			return err
		}
	}
}
