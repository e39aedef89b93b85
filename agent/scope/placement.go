package scope

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/sfu-agent/sfu-agent/agent"
	"github.com/sfu-agent/sfu-agent/agent/process"
	"github.com/sfu-agent/sfu-agent/cgroups"
)

// applyLimit bounds the wait for changed properties to reach the cgroup:
// systemd writes the files after it has answered.
const applyLimit = 2 * time.Second

// placement is a worker in a scope.
type placement struct {
	*process.Worker
	placer *Placer
	group  cgroups.Group

	own, slice *cgroups.Watch
	killed     atomic.Bool // by Stop

	done chan struct{}
	exit agent.Exit // when done
	err  error
}

var _ agent.Placement = (*placement)(nil)

// Record implements agent.Placement.
func (x *placement) Record() agent.Record {
	rec := x.Worker.Record()
	rec.Cgroup = x.group.Path()
	return rec
}

// Wait implements agent.Placement. Of an adopted worker the kernel tells only
// whether it ran out of memory.
func (x *placement) Wait(ctx context.Context) (agent.Exit, error) {
	select {
	case <-x.done:
		return x.exit, x.err
	case <-ctx.Done():
		return agent.Exit{}, fmt.Errorf("wait for worker %s: %w", x.Record().Name, ctx.Err())
	}
}

// Stop implements agent.Placement. No process of the scope is left.
func (x *placement) Stop(ctx context.Context, grace time.Duration) error {
	ended, err := x.Terminate(ctx, grace)
	if err != nil {
		return err
	}
	if !ended {
		x.killed.Store(true)
	}
	if err := x.kill(ctx); err != nil {
		return fmt.Errorf("stop worker %s: %w", x.Record().Name, err)
	}
	return x.AwaitEnd(ctx)
}

// kill kills all processes of the scope, or has systemd do it.
func (x *placement) kill(ctx context.Context) error {
	err := x.group.Kill(ctx)
	if err == nil {
		return nil
	}
	if killErr := x.placer.systemd.Kill(ctx, x.Record().Unit, syscall.SIGKILL); killErr != nil {
		return errors.Join(err, killErr)
	}
	return nil
}

// Release implements agent.Placement.
func (x *placement) Release(ctx context.Context) error {
	unit := x.Record().Unit
	_, err := x.placer.systemd.StopScope(ctx, unit, x.group, stopTimeout)
	if err == nil && x.unitMayFail() {
		err = x.placer.reset(ctx, unit)
	}
	if err == nil {
		err = x.group.Remove(ctx)
	}
	if err != nil {
		err = fmt.Errorf("release worker %s: %w", x.Record().Name, err)
	}
	return errors.Join(err, x.Worker.Release(ctx))
}

// unitMayFail reports whether systemd may call the scope failed and so keep it:
// after an out-of-memory kill, or when it killed the worker itself.
func (x *placement) unitMayFail() bool {
	select {
	case <-x.done:
		return x.err != nil || x.exit.Reason == agent.ReasonOOM || x.exit.Reason == agent.ReasonUnknown ||
			x.exit.Signal == "SIGKILL" && !x.killed.Load()
	default:
		return true
	}
}

// undo ends and releases a worker whose placing came to nothing.
func (x *placement) undo(ctx context.Context) error {
	err := x.Stop(context.WithoutCancel(ctx), 0) // bounded by itself
	ctx, cancel := undoContext(ctx)
	defer cancel()
	return errors.Join(err, x.Release(ctx))
}

// SetLimits implements agent.Placement. It returns when the kernel has taken
// the limits over. A limit that this host cannot enforce gives an error that
// wraps errors.ErrUnsupported; the others are set all the same.
func (x *placement) SetLimits(ctx context.Context, limits cgroups.Limits) error {
	if err := x.setLimits(ctx, limits); err != nil {
		return fmt.Errorf("set limits of worker %s: %w", x.Record().Name, err)
	}
	return nil
}

func (x *placement) setLimits(ctx context.Context, limits cgroups.Limits) error {
	limits, err := x.group.FreeCPUs(limits)
	if err != nil {
		return err
	}
	props, err := change(limits)
	if err != nil {
		return err
	}
	possible, unsupported := x.group.Supported(limits)
	if err = x.placer.systemd.SetProperties(ctx, x.Record().Unit, props); err == nil {
		err = x.awaitLimits(ctx, possible)
	}
	return errors.Join(err, unsupported)
}

func (x *placement) awaitLimits(ctx context.Context, limits cgroups.Limits) error {
	end := time.Now().Add(applyLimit)
	for {
		err := x.group.CheckLimits(limits)
		if !errors.Is(err, cgroups.ErrNotApplied) || time.Now().After(end) {
			return err
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		}
	}
}
