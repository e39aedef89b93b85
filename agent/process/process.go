// Package process places workers as plain child processes: no limits, no
// accounting, for hosts without systemd and without a delegated cgroup. Workers
// outlive an agent that is killed.
package process

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/sfu-agent/sfu-agent/agent"
	"github.com/sfu-agent/sfu-agent/agent/launch"
	"github.com/sfu-agent/sfu-agent/cgroups"
)

// Name is what this Placer calls itself in an agent.Record.
const Name = "process"

// sweepGrace is what an orphan has between SIGTERM and SIGKILL.
const sweepGrace = 2 * time.Second

// Config of a Placer.
type Config struct {
	Prefix string       // first part of the names of this agent's workers, "3f2a"
	Log    *slog.Logger // nil discards
}

// Placer is an agent.Placer, and starts and finds the workers of Placers with cgroups.
type Placer struct {
	prefix   string
	log      *slog.Logger
	launcher *launch.Launcher

	mu   sync.Mutex
	held map[string]int // by name of worker, see Hold
}

var _ agent.Placer = (*Placer)(nil)

// New returns a Placer. Close it when no Placement is in use any more.
func New(config Config) *Placer {
	log := config.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Placer{prefix: config.Prefix, log: log, launcher: launch.New(), held: map[string]int{}}
}

// Close ends the watching of workers, which go on.
func (p *Placer) Close() error {
	p.launcher.Close()
	return nil
}

// Place implements agent.Placer. Limits are not applied, which is logged.
func (p *Placer) Place(ctx context.Context, spec agent.Spec) (agent.Placement, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("place worker %s: %w", spec.Name, err)
	}
	if spec.Limits != (cgroups.Limits{}) {
		p.log.Warn("limits not applied: a plain process has no cgroup", "worker", spec.Name)
	}
	w, err := p.Start(agent.Record{Placer: Name}, spec, nil)
	if err != nil {
		return nil, err
	}
	if err := w.Open(); err != nil {
		return nil, errors.Join(err, w.Undo())
	}
	return w, nil
}

// Adopt implements agent.Placer.
func (p *Placer) Adopt(_ context.Context, rec agent.Record) (agent.Placement, error) {
	if rec.Placer != Name {
		return nil, fmt.Errorf("adopt worker %s: it was placed by placer %s", rec.Name, rec.Placer)
	}
	return p.Find(rec)
}

// Sweep implements agent.Placer. It finds workers by their names in the process
// table, and does not know their sockets.
func (p *Placer) Sweep(ctx context.Context, keep []agent.Record) ([]string, error) {
	running, err := launch.List(p.prefix + "-")
	if err != nil {
		return nil, fmt.Errorf("sweep: %w", err)
	}
	running = slices.DeleteFunc(running, func(r launch.Running) bool { return p.Kept(keep, r.Name) })
	removed := make([]string, len(running))
	errs := make([]error, len(running))
	var sweeps sync.WaitGroup
	for i, r := range running {
		removed[i] = r.Name
		sweeps.Go(func() { errs[i] = p.end(ctx, r) })
	}
	sweeps.Wait()
	return removed, errors.Join(errs...)
}

func (p *Placer) end(ctx context.Context, r launch.Running) error {
	w, err := p.Find(agent.Record{Name: r.Name, PID: r.PID, StartTime: r.StartTime})
	if errors.Is(err, agent.ErrGone) {
		return nil
	}
	if err != nil {
		return err
	}
	return w.Stop(ctx, sweepGrace)
}

// Kept says whether a Sweep is to leave a worker alone: it is in keep, or this
// Placer holds it. The record of one that is just being placed may be younger
// than keep.
func (p *Placer) Kept(keep []agent.Record, name string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.held[name] > 0 || slices.ContainsFunc(keep, func(rec agent.Record) bool { return rec.Name == name })
}

// Hold keeps workers of a name from being swept until the returned function is
// called, once.
func (p *Placer) Hold(name string) (letGo func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.held[name]++
	return sync.OnceFunc(func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.held[name]--; p.held[name] == 0 {
			delete(p.held, name)
		}
	})
}
