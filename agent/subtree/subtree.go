// Package subtree places each worker in a cgroup of its own below the agent's,
// where that is delegated to the agent: without systemd, in under a millisecond.
//
// Workers outlive an agent that is killed, but not the stop of its unit, whose
// cgroup they are part of: with KillMode=mixed or control-group systemd kills
// them then, also before it restarts a failed agent. With KillMode=process they
// go on; for the next agent to start beside them the unit needs
// DelegateSubgroup=agent (systemd 254), because processes must not be in a
// cgroup that has controllers enabled for its children.
package subtree

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path"
	"slices"
	"strings"

	"github.com/sfu-agent/sfu-agent/agent"
	"github.com/sfu-agent/sfu-agent/agent/process"
	"github.com/sfu-agent/sfu-agent/cgroups"
)

// Name is what this Placer calls itself in an agent.Record.
const Name = "subtree"

const (
	agentGroup   = "agent"   // for the agent itself
	workerPrefix = "worker-" // and a worker's name
)

// Config of a Placer.
type Config struct {
	Prefix string       // first part of the names of this agent's workers, "3f2a"
	Log    *slog.Logger // nil discards
}

// Placer is an agent.Placer.
type Placer struct {
	prefix string
	log    *slog.Logger
	plain  *process.Placer
	root   cgroups.Group // the delegated one
}

var _ agent.Placer = (*Placer)(nil)

// New makes a Placer for the cgroup of this process, which it moves, with all
// processes beside it, to the cgroup "agent" below. It returns an error that
// wraps cgroups.ErrNotDelegated or cgroups.ErrNoUnified where that cannot be.
func New(ctx context.Context, config Config) (*Placer, error) {
	log := config.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	host, err := cgroups.Detect()
	if err == nil && host.Mount == "" {
		err = host.Unified()
	}
	if err != nil {
		return nil, fmt.Errorf("use delegated cgroup: %w", err)
	}
	p := &Placer{prefix: config.Prefix, log: log, root: host.Own}
	if err := p.settle(ctx); err != nil {
		return nil, fmt.Errorf("use delegated cgroup: %w", err)
	}
	p.plain = process.New(process.Config{Prefix: config.Prefix, Log: log})
	return p, nil
}

// Close ends the watching of workers, which go on.
func (p *Placer) Close() error { return p.plain.Close() }

// settle moves the agent out of the delegated cgroup and enables controllers there.
func (p *Placer) settle(ctx context.Context) error {
	if path.Base(p.root.Path()) == agentGroup && p.root.Parent().Delegated() == nil {
		p.root = p.root.Parent() // an agent has been here
	}
	if err := p.root.Delegated(); err != nil {
		return err
	}
	own := p.root.Child(agentGroup)
	if !own.Exists() {
		if err := own.Create(); err != nil {
			return err
		}
	}
	if err := p.root.MoveAll(ctx, own); err != nil {
		return err
	}
	available, err := p.root.Controllers()
	if err != nil {
		return err
	}
	for _, controller := range []string{"cpu", "cpuset", "io", "memory", "pids"} {
		if !slices.Contains(available, controller) {
			p.log.Warn("no limits of this kind for workers: controller not delegated", "controller", controller, "cgroup", p.root)
		} else if err := p.root.Enable(controller); err != nil {
			return err
		}
	}
	return nil
}

// Place implements agent.Placer. A limit whose controller is not delegated is
// not applied, which is logged.
func (p *Placer) Place(ctx context.Context, spec agent.Spec) (agent.Placement, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("place worker %s: %w", spec.Name, err)
	}
	if err := process.CheckName(spec.Name); err != nil {
		return nil, err
	}
	defer p.plain.Hold(spec.Name)() // its cgroup is there before it
	group := p.group(spec.Name)
	if err := p.prepare(group, spec.Limits); err != nil {
		return nil, fmt.Errorf("place worker %s: %w", spec.Name, errors.Join(err, group.Remove(context.WithoutCancel(ctx))))
	}
	w, err := p.start(group, spec)
	if err != nil {
		return nil, errors.Join(err, group.Remove(context.WithoutCancel(ctx)))
	}
	placed := &placement{Worker: w, group: group}
	if err := errors.Join(ctx.Err(), w.Open()); err != nil {
		return nil, errors.Join(fmt.Errorf("place worker %s: %w", spec.Name, err), placed.undo())
	}
	return placed, nil
}

func (p *Placer) group(worker string) cgroups.Group { return p.root.Child(workerPrefix + worker) }

func (p *Placer) prepare(group cgroups.Group, limits cgroups.Limits) error {
	if err := group.Create(); err != nil {
		return err
	}
	if err := group.KillTogether(); err != nil && !errors.Is(err, errors.ErrUnsupported) {
		return err
	}
	if limits == (cgroups.Limits{}) {
		return nil // a new cgroup has none
	}
	limits, err := group.Supported(limits)
	if err != nil {
		p.log.Warn("limits not applied", "cgroup", group, "error", err)
	}
	return group.SetLimits(limits)
}

func (p *Placer) start(group cgroups.Group, spec agent.Spec) (*process.Worker, error) {
	dir, err := group.Open()
	if err != nil {
		return nil, fmt.Errorf("start worker %s: %w", spec.Name, err)
	}
	defer dir.Close()
	return p.plain.Start(agent.Record{Placer: Name, Cgroup: group.Path()}, spec, dir)
}

// Adopt implements agent.Placer.
func (p *Placer) Adopt(_ context.Context, rec agent.Record) (agent.Placement, error) {
	if group := p.group(rec.Name); rec.Placer != Name || rec.Cgroup != group.Path() {
		return nil, fmt.Errorf("adopt worker %s: it is in cgroup %s of placer %s, not in %s", rec.Name, rec.Cgroup, rec.Placer, group)
	}
	w, err := p.plain.Find(rec)
	if err != nil {
		return nil, err
	}
	return &placement{Worker: w, group: p.group(rec.Name)}, nil
}

// Sweep implements agent.Placer. It looks for cgroups and for processes.
func (p *Placer) Sweep(ctx context.Context, keep []agent.Record) ([]string, error) {
	removed, err := p.plain.Sweep(ctx, keep)
	children, listErr := p.root.Children()
	errs := []error{err, listErr}
	for _, group := range children {
		name, ours := strings.CutPrefix(path.Base(group.Path()), workerPrefix)
		if !ours || !strings.HasPrefix(name, p.prefix+"-") || p.plain.Kept(keep, name) {
			continue
		}
		errs = append(errs, group.Kill(ctx), group.Remove(ctx))
		if !slices.Contains(removed, name) {
			removed = append(removed, name)
		}
	}
	return removed, errors.Join(errs...)
}
