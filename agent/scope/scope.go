// Package scope places each worker in a transient systemd scope, where it
// outlives the agent and has its limits as unit properties.
package scope

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path"
	"sync"
	"time"

	"github.com/sfu-agent/sfu-agent/agent"
	"github.com/sfu-agent/sfu-agent/agent/process"
	"github.com/sfu-agent/sfu-agent/cgroups"
	"github.com/sfu-agent/sfu-agent/dbusx/systemd1"
)

// Name is what this Placer calls itself in an agent.Record.
const Name = "scope"

const (
	unitPrefix = "sfu-worker-" // and a worker's name
	unitSuffix = ".scope"

	// stopTimeout is what systemd itself gives a worker between SIGTERM and
	// SIGKILL, when it stops the scope and not the agent the worker.
	stopTimeout = 5 * time.Second

	// undoLimit bounds the clean-up after a placing that came to nothing.
	undoLimit = 5 * time.Second
	// undoEnded is the same when the caller's context has ended.
	undoEnded = 80 * time.Millisecond
)

// Config of a Placer.
type Config struct {
	Prefix string       // first part of the names of this agent's workers, "3f2a"
	Slice  string       // unit in which the scopes are; "sfu.slice"
	Log    *slog.Logger // nil discards
}

// Placer is an agent.Placer.
type Placer struct {
	prefix  string
	slice   string
	log     *slog.Logger
	systemd *systemd1.Systemd
	plain   *process.Placer
	host    cgroups.Host
	watcher *cgroups.Watcher

	life context.Context // of the goroutines that follow placements
	end  context.CancelFunc

	mu      sync.Mutex
	closed  bool
	follows sync.WaitGroup
}

var _ agent.Placer = (*Placer)(nil)

// New returns a Placer that uses systemd, which stays the caller's to close,
// after Close of the Placer. It returns an error that wraps
// cgroups.ErrNoUnified where no cgroup v2 is mounted.
func New(systemd *systemd1.Systemd, config Config) (*Placer, error) {
	host, err := cgroups.Detect()
	if err == nil && host.Mount == "" {
		err = host.Unified()
	}
	if err != nil {
		return nil, fmt.Errorf("use scopes: %w", err)
	}
	p := &Placer{
		prefix: config.Prefix, slice: config.Slice, log: config.Log,
		systemd: systemd, host: host,
	}
	p.life, p.end = context.WithCancel(context.Background())
	if p.slice == "" {
		p.slice = "sfu.slice"
	}
	if p.log == nil {
		p.log = slog.New(slog.DiscardHandler)
	}
	p.plain = process.New(process.Config{Prefix: p.prefix, Log: p.log})
	p.watcher = cgroups.NewWatcher(p.log)
	return p, nil
}

// Close ends the watching of workers, which go on.
func (p *Placer) Close() error {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.end()
	err := p.plain.Close()
	p.follows.Wait()
	p.watcher.Close()
	return err
}

// Place implements agent.Placer.
func (p *Placer) Place(ctx context.Context, spec agent.Spec) (agent.Placement, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("place worker %s: %w", spec.Name, err)
	}
	unit := unitPrefix + spec.Name + unitSuffix
	w, err := p.plain.Start(agent.Record{Placer: Name, Unit: unit}, spec, nil)
	if err != nil {
		return nil, err
	}
	placed, err := p.start(ctx, w, spec.Limits)
	if err != nil {
		err = errors.Join(err, w.Undo())
		if !errors.Is(err, systemd1.ErrExists) {
			err = errors.Join(err, p.forget(ctx, unit))
		}
		return nil, fmt.Errorf("place worker %s: %w", spec.Name, err)
	}
	if err := placed.group.CheckLimits(spec.Limits); err != nil {
		p.log.Warn("limits not applied", "unit", unit, "error", err)
	}
	if err := errors.Join(ctx.Err(), w.Open()); err != nil {
		return nil, fmt.Errorf("place worker %s: %w", spec.Name, errors.Join(err, placed.undo(ctx)))
	}
	return placed, nil
}

// start puts a worker into its scope.
func (p *Placer) start(ctx context.Context, w *process.Worker, limits cgroups.Limits) (*placement, error) {
	rec := w.Record()
	props, err := p.properties(rec, limits)
	if err != nil {
		return nil, err
	}
	if err := p.systemd.StartScope(ctx, rec.Unit, props); err != nil {
		return nil, err
	}
	return p.attend(w)
}

// forget removes the unit of a killed worker whose start failed, if systemd
// made it. Where that takes too long systemd1 goes on in the background. A unit
// that holds processes is another's.
func (p *Placer) forget(ctx context.Context, unit string) error {
	ctx, cancel := undoContext(ctx)
	defer cancel()
	state, err := p.systemd.Unit(ctx, unit)
	if errors.Is(err, systemd1.ErrNoUnit) {
		return nil
	}
	if err != nil {
		return err
	}
	if state.ControlGroup != "" {
		if pids, err := p.host.Group(state.ControlGroup).PIDs(); err != nil || len(pids) > 0 {
			return err
		}
	}
	return p.remove(ctx, unit)
}

// undoContext bounds a clean-up: shortly where ctx has ended and its owner
// wants to be gone.
func undoContext(ctx context.Context) (context.Context, context.CancelFunc) {
	limit := undoLimit
	if ctx.Err() != nil {
		limit = undoEnded
	}
	return context.WithTimeout(context.WithoutCancel(ctx), limit)
}

// remove stops a unit and resets its failed state. That there is none is no error.
func (p *Placer) remove(ctx context.Context, unit string) error {
	if _, err := p.systemd.Stop(ctx, unit); err != nil {
		return err
	}
	return p.reset(ctx, unit)
}

// reset makes systemd forget a unit that failed. That there is none is no error.
func (p *Placer) reset(ctx context.Context, unit string) error {
	if err := p.systemd.ResetFailed(ctx, unit); !errors.Is(err, systemd1.ErrNoUnit) {
		return err
	}
	return nil
}

// Adopt implements agent.Placer. It needs no answer from systemd.
func (p *Placer) Adopt(_ context.Context, rec agent.Record) (agent.Placement, error) {
	if rec.Placer != Name {
		return nil, fmt.Errorf("adopt worker %s: it was placed by placer %s", rec.Name, rec.Placer)
	}
	w, err := p.plain.Find(rec)
	if err != nil {
		return nil, err
	}
	placed, err := p.attend(w)
	if err != nil {
		w.LetGo()
		return nil, fmt.Errorf("adopt worker %s: %w", rec.Name, err)
	}
	return placed, nil
}

// attend makes the placement of a worker that is in its scope.
func (p *Placer) attend(w *process.Worker) (*placement, error) {
	rec := w.Record()
	group, err := p.host.GroupOf(rec.PID)
	if err != nil {
		return nil, err
	}
	if path.Base(group.Path()) != rec.Unit {
		return nil, fmt.Errorf("process %d is in cgroup %s, not in unit %s", rec.PID, group, rec.Unit)
	}
	x := &placement{Worker: w, placer: p, group: group, done: make(chan struct{})}
	if x.own, err = p.watcher.Watch(group); err != nil {
		return nil, err
	}
	if x.slice, err = p.watcher.Watch(group.Parent()); err == nil {
		err = p.follow(x)
	}
	if err != nil {
		x.unwatch()
		return nil, err
	}
	return x, nil
}

// follow starts the goroutine that finds out how x ends.
func (p *Placer) follow(x *placement) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return os.ErrClosed
	}
	p.follows.Go(x.follow)
	return nil
}
