package subtree

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/sfu-agent/sfu-agent/agent"
	"github.com/sfu-agent/sfu-agent/agent/process"
	"github.com/sfu-agent/sfu-agent/cgroups"
)

// placement is a worker with a cgroup of its own.
type placement struct {
	*process.Worker
	group cgroups.Group

	look sync.Once
	oom  bool
}

var _ agent.Placement = (*placement)(nil)

// Wait implements agent.Placement. Of an adopted worker the kernel tells only
// whether it ran out of memory.
func (p *placement) Wait(ctx context.Context) (agent.Exit, error) {
	exit, err := p.Worker.Wait(ctx)
	if err == nil && p.outOfMemory() && (exit.Reason == agent.ReasonUnknown || exit.Signal == "SIGKILL") {
		exit = agent.Exit{Reason: agent.ReasonOOM, Signal: "SIGKILL"}
	}
	return exit, err
}

// outOfMemory says, of an ended worker, whether the kernel killed in its
// cgroup. It looks once, before the cgroup is removed.
func (p *placement) outOfMemory() bool {
	p.look.Do(func() {
		events, err := p.group.Events()
		p.oom = err == nil && events.OOMKill > 0
	})
	return p.oom
}

// Stop implements agent.Placement. No process of the cgroup is left.
func (p *placement) Stop(ctx context.Context, grace time.Duration) error {
	if err := p.Worker.Stop(ctx, grace); err != nil {
		return err
	}
	if err := p.group.Kill(ctx); err != nil {
		return fmt.Errorf("stop worker %s: %w", p.Record().Name, err)
	}
	return nil
}

// Release implements agent.Placement.
func (p *placement) Release(ctx context.Context) error {
	p.outOfMemory()
	err := p.group.Kill(ctx) // what an ended worker has left running
	if err == nil {
		err = p.group.Remove(ctx)
	}
	if err != nil {
		err = fmt.Errorf("release worker %s: %w", p.Record().Name, err)
	}
	return errors.Join(err, p.Worker.Release(ctx))
}

func (p *placement) undo() error {
	return errors.Join(p.Stop(context.Background(), 0), p.Release(context.Background()))
}

// SetLimits implements agent.Placement. A limit whose controller is not
// delegated gives an error that wraps errors.ErrUnsupported.
func (p *placement) SetLimits(_ context.Context, limits cgroups.Limits) error {
	if err := p.group.SetLimits(limits); err != nil {
		return fmt.Errorf("set limits of worker %s: %w", p.Record().Name, err)
	}
	return nil
}
