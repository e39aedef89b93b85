package agent

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/sfu-agent/sfu-agent/agent/control"
	"github.com/sfu-agent/sfu-agent/cgroups"
)

// Control is the agent's line to one worker; *control.Client implements it.
type Control interface {
	Status(ctx context.Context) (control.Status, error)
	Drain(ctx context.Context) error
	Undrain(ctx context.Context) error
	Close() error
}

// Config says what to keep running. Placer, Control, State, Exe and WorkerArgs
// are required.
type Config struct {
	Placer     Placer
	PlacerName string // as in Record.Placer
	Control    func(socket string) Control
	State      *StateDir

	Workers int
	// Exe is the worker's program, WorkerArgs its arguments for a slot and an
	// incarnation's name.
	Exe         string
	WorkerArgs  func(index int, name string) []string
	User, Group uint32
	Limits      cgroups.Limits

	// Times has sane defaults for every zero field.
	Times Times

	// Hurry, when closed, ends the draining of a stopping agent at once.
	Hurry <-chan struct{}

	Log *slog.Logger
}

// Times bound a worker's life.
type Times struct {
	Place    time.Duration // to place a worker, default 15 s
	Start    time.Duration // from placed to ready, default 10 s
	Poll     time.Duration // between two looks at a worker, default 500 ms
	Hang     time.Duration // silence after which a worker is killed, default 4 s
	Drain    time.Duration // a stopping agent waits for sessions to end, default 5 s
	Stop     time.Duration // from SIGTERM to SIGKILL, default 3 s
	Sweep    time.Duration // between two searches for leftovers, default 1 min
	Stable   time.Duration // a worker that lived this long did not crash at start, default 1 min
	MinDelay time.Duration // first back-off of a worker that did, default 100 ms
	MaxDelay time.Duration // last back-off, default 30 s
	Failed   time.Duration // between tries once the start limit is reached, default 5 min
}

// startLimit is how many short lives in a row make a slot StateFailed.
const startLimit = 10

// Agent keeps Config.Workers workers running.
type Agent struct {
	cfg   Config
	log   *slog.Logger
	slots []*slot
	rooms routes

	mu       sync.Mutex
	stopping bool
}

// ErrHandover as the cause of Run's context leaves the workers running for the
// next agent to adopt.
var ErrHandover = errors.New("hand the workers over")

// New makes an agent that Run brings to life.
func New(cfg Config) *Agent {
	cfg.Times = cfg.Times.withDefaults()
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	a := &Agent{cfg: cfg, log: cfg.Log}
	for i := range cfg.Workers {
		a.slots = append(a.slots, newSlot(a, i))
	}
	return a
}

// Run adopts the workers that an earlier agent left, places the missing ones
// and keeps them all until ctx ends. Then it drains and stops them, unless the
// context's cause is ErrHandover. It returns when everything is quiet.
func (a *Agent) Run(ctx context.Context) error {
	adopted, err := a.adopt(ctx)
	if err != nil {
		return err
	}
	a.sweep(ctx)
	var wg sync.WaitGroup
	for _, s := range a.slots {
		wg.Go(func() { s.run(ctx, adopted[s.index]) })
	}
	wg.Go(func() { a.sweepEvery(ctx) })
	<-ctx.Done()
	a.mu.Lock()
	a.stopping = true
	a.mu.Unlock()
	wg.Wait()
	if errors.Is(context.Cause(ctx), ErrHandover) {
		return nil
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), a.cfg.Times.Place)
	defer cancel()
	a.sweep(last)
	return nil
}

// adopt takes over what the records name: one placement per slot at most. What
// belongs to no slot is stopped.
func (a *Agent) adopt(ctx context.Context) (map[int]Placement, error) {
	records, err := a.cfg.State.records()
	if err != nil {
		return nil, err
	}
	adopted := make(map[int]Placement)
	for _, rec := range records {
		if rec.Placer != a.cfg.PlacerName {
			return nil, fmt.Errorf("worker %s was placed by %q, not %q: run with --placer %s, or stop it first (%s)",
				rec.Name, rec.Placer, a.cfg.PlacerName, rec.Placer, stopHint(rec))
		}
		p, err := a.cfg.Placer.Adopt(ctx, rec)
		if err != nil {
			if !errors.Is(err, ErrGone) {
				a.log.Warn("worker not adopted, it will be removed", "worker", rec.Name, "error", err)
			}
			a.cfg.State.forget(rec)
			continue
		}
		i, ok := slotOf(rec.Name)
		if !ok || i >= len(a.slots) || adopted[i] != nil {
			a.log.Info("worker is surplus, stopping it", "worker", rec.Name)
			a.end(ctx, p)
			continue
		}
		adopted[i] = p
		a.slots[i].update(func(w *Worker) { w.Limits = rec.Limits }) // no goroutine has the slot yet
	}
	return adopted, nil
}

func stopHint(rec Record) string {
	if rec.Unit != "" {
		return "systemctl stop " + rec.Unit
	}
	return fmt.Sprintf("kill %d", rec.PID)
}

// end stops a placement and forgets it.
func (a *Agent) end(ctx context.Context, p Placement) {
	rec := p.Record()
	err := p.Stop(ctx, a.cfg.Times.Stop)
	err = errors.Join(err, p.Release(ctx))
	if err != nil {
		a.log.Warn("worker not cleanly removed, will be swept", "worker", rec.Name, "error", err)
	}
	a.cfg.State.forget(rec)
}

// sweep removes what no record names.
func (a *Agent) sweep(ctx context.Context) {
	keep, err := a.cfg.State.names()
	if err != nil {
		a.log.Warn("leftovers not looked for", "error", err)
		return
	}
	removed, err := a.cfg.Placer.Sweep(ctx, keep)
	for _, name := range removed {
		a.log.Info("removed a leftover", "what", name)
	}
	if err != nil && ctx.Err() == nil {
		a.log.Warn("leftovers not all removed, trying again later", "error", err)
	}
}

func (a *Agent) sweepEvery(ctx context.Context) {
	tick := time.NewTicker(a.cfg.Times.Sweep)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			bounded, cancel := context.WithTimeout(ctx, a.cfg.Times.Place)
			a.sweep(bounded)
			cancel()
		}
	}
}

// Workers is a snapshot of all slots, in the order of their IDs. It never blocks.
func (a *Agent) Workers() []Worker {
	all := make([]Worker, len(a.slots))
	for i, s := range a.slots {
		all[i] = s.worker()
	}
	return all
}

// Worker is a snapshot of one slot.
func (a *Agent) Worker(id string) (Worker, bool) {
	s := a.slot(id)
	if s == nil {
		return Worker{}, false
	}
	return s.worker(), true
}

func (a *Agent) slot(id string) *slot {
	for _, s := range a.slots {
		if s.id == id {
			return s
		}
	}
	return nil
}

// Ready is nil when every slot has a worker that is ready or draining.
func (a *Agent) Ready() error {
	a.mu.Lock()
	stopping := a.stopping
	a.mu.Unlock()
	if stopping {
		return errors.New("the agent is stopping")
	}
	var missing []error
	for _, w := range a.Workers() {
		if w.State != StateReady && w.State != StateDraining {
			missing = append(missing, fmt.Errorf("worker %s is %s", w.ID, w.State))
		}
	}
	return errors.Join(missing...)
}

// Drain lets a worker take no new rooms, and stops and replaces it when its
// last room is gone or, whatever it still holds, after deadline.
func (a *Agent) Drain(id string, deadline time.Duration) error {
	return a.request(id, request{drain: true, deadline: deadline})
}

// Undrain gives a draining worker back to service.
func (a *Agent) Undrain(id string) error {
	return a.request(id, request{})
}

// SetLimits changes the limits of a running worker and of its successors.
func (a *Agent) SetLimits(id string, limits cgroups.Limits) error {
	return a.request(id, request{limits: &limits})
}

func (a *Agent) request(id string, r request) error {
	s := a.slot(id)
	if s == nil {
		return fmt.Errorf("worker %q: %w", id, ErrNoWorker)
	}
	return s.ask(r)
}

func (t Times) withDefaults() Times {
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	def(&t.Place, 15*time.Second)
	def(&t.Start, 10*time.Second)
	def(&t.Poll, 500*time.Millisecond)
	def(&t.Hang, 4*time.Second)
	def(&t.Drain, 5*time.Second)
	def(&t.Stop, 3*time.Second)
	def(&t.Sweep, time.Minute)
	def(&t.Stable, time.Minute)
	def(&t.MinDelay, 100*time.Millisecond)
	def(&t.MaxDelay, 30*time.Second)
	def(&t.Failed, 5*time.Minute)
	return t
}

// nonce tells the incarnations of a slot apart.
func nonce() string {
	var b [4]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}
