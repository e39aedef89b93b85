package agenttest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/sfu-agent/sfu-agent/agent"
	"github.com/sfu-agent/sfu-agent/cgroups"
)

// A Script says what happens to one worker of a Placer. Its zero value places
// the worker at once and lets it run until it is stopped.
type Script struct {
	Err   error         // Place returns it
	Delay time.Duration // before Place returns, unless its context ends first

	Life time.Duration // the worker ends by itself after it; 0 means never
	Exit agent.Exit    // how

	Stubborn   bool  // SIGTERM has no effect, only the kill after the grace
	ReleaseErr error // the first Release returns it
	LimitsErr  error // SetLimits returns it
}

// Placer is an agent.Placer without processes. The nth Place follows the nth
// script; further ones the zero Script. Its methods may be called concurrently.
type Placer struct {
	mu      sync.Mutex
	scripts []Script
	nextPID int
	held    map[string]*Placement // placed and not released, by name
	specs   []agent.Spec
}

var _ agent.Placer = (*Placer)(nil)

// NewPlacer returns a Placer that follows scripts.
func NewPlacer(scripts ...Script) *Placer {
	return &Placer{scripts: scripts, nextPID: 1000, held: map[string]*Placement{}}
}

// Place implements agent.Placer.
func (p *Placer) Place(ctx context.Context, spec agent.Spec) (agent.Placement, error) {
	script := p.take(spec)
	select {
	case <-time.After(script.Delay):
	case <-ctx.Done():
		return nil, fmt.Errorf("place worker %s: %w", spec.Name, ctx.Err())
	}
	if script.Err != nil {
		return nil, script.Err
	}
	return p.hold(spec, script), nil
}

func (p *Placer) take(spec agent.Spec) Script {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.specs = append(p.specs, spec)
	if len(p.scripts) == 0 {
		return Script{}
	}
	script := p.scripts[0]
	p.scripts = p.scripts[1:]
	return script
}

func (p *Placer) hold(spec agent.Spec, script Script) *Placement {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.nextPID++
	placement := &Placement{
		placer: p, script: script, limits: spec.Limits, ended: make(chan struct{}),
		rec: agent.Record{Name: spec.Name, Placer: "agenttest", PID: p.nextPID, StartTime: 1, Socket: spec.Socket},
	}
	p.held[spec.Name] = placement
	if script.Life > 0 {
		placement.life = time.AfterFunc(script.Life, func() { placement.End(script.Exit) })
	}
	return placement
}

// Adopt implements agent.Placer: it finds workers of this Placer that still run.
func (p *Placer) Adopt(_ context.Context, rec agent.Record) (agent.Placement, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	placement, ok := p.held[rec.Name]
	if !ok || placement.rec.PID != rec.PID || placement.hasEnded() {
		return nil, fmt.Errorf("adopt worker %s: %w", rec.Name, agent.ErrGone)
	}
	return placement, nil
}

// Sweep implements agent.Placer.
func (p *Placer) Sweep(ctx context.Context, keep []agent.Record) (removed []string, err error) {
	kept := map[string]bool{}
	for _, rec := range keep {
		kept[rec.Name] = true
	}
	for _, placement := range p.Held() {
		if kept[placement.rec.Name] {
			continue
		}
		removed = append(removed, placement.rec.Name)
		err = errors.Join(err, placement.Stop(ctx, 0), placement.Release(ctx))
	}
	return removed, err
}

// Held returns what is placed and not yet released.
func (p *Placer) Held() []*Placement {
	p.mu.Lock()
	defer p.mu.Unlock()
	held := make([]*Placement, 0, len(p.held))
	for _, placement := range p.held {
		held = append(held, placement)
	}
	return held
}

// Specs returns what Place was asked, in order, failures included.
func (p *Placer) Specs() []agent.Spec {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]agent.Spec(nil), p.specs...)
}

// Placement is one worker of a Placer.
type Placement struct {
	placer *Placer
	rec    agent.Record
	script Script
	life   *time.Timer // nil without Script.Life

	mu     sync.Mutex
	limits cgroups.Limits
	exit   agent.Exit
	ended  chan struct{}
}

var _ agent.Placement = (*Placement)(nil)

// End ends the worker as if by itself. Only the first end counts.
func (p *Placement) End(exit agent.Exit) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.hasEnded() {
		p.exit = exit
		close(p.ended)
	}
}

func (p *Placement) hasEnded() bool {
	select {
	case <-p.ended:
		return true
	default:
		return false
	}
}

// Limits returns the limits the worker has now.
func (p *Placement) Limits() cgroups.Limits {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.limits
}

// Record implements agent.Placement.
func (p *Placement) Record() agent.Record { return p.rec }

// Wait implements agent.Placement.
func (p *Placement) Wait(ctx context.Context) (agent.Exit, error) {
	select {
	case <-p.ended:
		return p.exit, nil
	case <-ctx.Done():
		return agent.Exit{}, ctx.Err()
	}
}

// Stop implements agent.Placement.
func (p *Placement) Stop(ctx context.Context, grace time.Duration) error {
	if p.life != nil {
		p.life.Stop()
	}
	if !p.script.Stubborn {
		p.End(agent.Exit{Reason: agent.ReasonExit})
	}
	select {
	case <-p.ended:
	case <-time.After(grace):
		p.End(agent.Exit{Reason: agent.ReasonSignal, Signal: "SIGKILL"})
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

// Release implements agent.Placement.
func (p *Placement) Release(context.Context) error {
	p.mu.Lock()
	err := p.script.ReleaseErr
	p.script.ReleaseErr = nil
	p.mu.Unlock()
	if err != nil {
		return err
	}
	p.placer.mu.Lock()
	defer p.placer.mu.Unlock()
	if p.placer.held[p.rec.Name] == p {
		delete(p.placer.held, p.rec.Name)
	}
	return nil
}

// SetLimits implements agent.Placement.
func (p *Placement) SetLimits(_ context.Context, limits cgroups.Limits) error {
	if p.script.LimitsErr != nil {
		return p.script.LimitsErr
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.limits = limits
	return nil
}
