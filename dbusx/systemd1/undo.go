package systemd1

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/sfu-agent/sfu-agent/dbusx"
)

const (
	undoEvery   = 250 * time.Millisecond // between two looks at what is to be undone
	undoCall    = 3 * time.Second        // for one call
	undoLimit   = 30 * time.Second       // for one unit, from the first answer on
	undoMost    = 1024                   // units waiting
	undoAbsence = 500 * time.Millisecond // without the unit: a request may be under way still
)

// undo stops the units of failed starts, one goroutine for all.
type undo struct {
	s      *Systemd
	cancel context.CancelFunc
	wake   chan struct{}
	done   chan struct{}

	mu      sync.Mutex
	units   map[string]*undoing
	givenUp uint64
}

// undoing is one unit to be undone. Only the goroutine changes it.
type undoing struct {
	pids   []int
	made   bool // ours for certain
	over   chan struct{}
	since  time.Time // first look
	absent time.Time // first of the looks in a row that found no unit
}

func newUndo(s *Systemd) *undo {
	ctx, cancel := context.WithCancel(context.Background())
	u := &undo{
		s:      s,
		cancel: cancel,
		wake:   make(chan struct{}, 1),
		done:   make(chan struct{}),
		units:  make(map[string]*undoing),
	}
	go u.run(ctx)
	return u
}

func (u *undo) close() error {
	u.cancel()
	<-u.done
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.units) == 0 {
		return nil
	}
	return fmt.Errorf("undo failed starts: not finished: %v", slices.Sorted(maps.Keys(u.units)))
}

func (u *undo) stats() (pending int, givenUp uint64) {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.units), u.givenUp
}

// add queues a unit. made says that it is ours whatever it holds.
func (u *undo) add(unit string, pids []int, made bool) {
	if !u.queue(unit, pids, made) {
		u.giveUp(unit, "too many failed starts", nil)
	}
	u.poke()
}

func (u *undo) queue(unit string, pids []int, made bool) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	it := u.units[unit]
	switch {
	case it != nil:
		u.units[unit] = &undoing{pids: slices.Concat(it.pids, pids), made: it.made || made, over: it.over}
	case len(u.units) < undoMost:
		u.units[unit] = &undoing{pids: slices.Clone(pids), made: made, over: make(chan struct{})}
	default:
		return false
	}
	return true
}

func (u *undo) poke() {
	select {
	case u.wake <- struct{}{}:
	default:
	}
}

func (u *undo) run(ctx context.Context) {
	defer close(u.done)
	for ctx.Err() == nil {
		var next <-chan time.Time // nothing to do: never
		if u.round(ctx) {
			next = time.After(undoEvery)
		}
		select {
		case <-next:
		case <-u.wake:
		case <-ctx.Done():
		}
	}
}

// round takes every unit a step further; it returns false if there is none.
func (u *undo) round(ctx context.Context) bool {
	u.mu.Lock()
	units := maps.Clone(u.units)
	u.mu.Unlock()
	if len(units) == 0 {
		return false
	}
	ctx, stop := context.WithTimeout(ctx, undoCall)
	defer stop()
	found, err := u.s.list(ctx, slices.Sorted(maps.Keys(units))...)
	if err != nil {
		return true
	}
	state := make(map[string]Unit)
	for _, f := range found {
		state[f.Name] = f
	}
	for name, it := range units {
		if u.step(ctx, name, it, state[name]) {
			u.remove(name, it)
		}
	}
	return true
}

func (u *undo) remove(name string, it *undoing) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.units[name] == it { // else another start of that name has failed meanwhile
		delete(u.units, name)
		close(it.over)
	}
}

// over waits until nothing of unit is to be undone; it returns false if ctx
// ends first.
func (u *undo) over(ctx context.Context, unit string) bool {
	u.mu.Lock()
	it := u.units[unit]
	u.mu.Unlock()
	if it == nil {
		return true
	}
	select {
	case <-it.over:
		return true
	case <-u.done:
		return true
	case <-ctx.Done():
		return false
	}
}

// step does what the state of one unit calls for and reports whether that was
// the last of it.
func (u *undo) step(ctx context.Context, name string, it *undoing, state Unit) (done bool) {
	now := time.Now()
	if it.since.IsZero() {
		it.since = now
	}
	if !state.gone() {
		it.absent = time.Time{}
	} else if it.absent.IsZero() {
		it.absent = now
	}
	switch {
	case state.gone():
		return now.Sub(it.absent) >= undoAbsence
	case now.Sub(it.since) > undoLimit:
		return u.giveUp(name, "unit still there", nil)
	case state.ActiveState == "failed" && state.Job == 0:
		return u.failed(name, u.s.ResetFailed(ctx, name))
	case !state.settled() && !it.made:
		return false // whose it is shows when it is settled
	case state.ActiveState == "deactivating":
		return false
	}
	if !it.made {
		if ours, err := u.ours(ctx, name, it.pids); err != nil {
			return u.failed(name, err)
		} else if !ours {
			return u.giveUp(name, "unit is not ours", nil)
		}
	}
	return u.failed(name, u.s.call(ctx, "StopUnit", nil, name, "replace"))
}

// ours reports whether the unit holds one of our processes or none at all.
func (u *undo) ours(ctx context.Context, name string, pids []int) (bool, error) {
	found, err := u.s.processes(ctx, name)
	if err != nil || len(found) == 0 {
		return err == nil, err
	}
	return slices.ContainsFunc(found, func(pid int) bool { return slices.Contains(pids, pid) }), nil
}

// failed gives a unit up on an error that time does not cure.
func (u *undo) failed(name string, err error) (done bool) {
	err = of(stopOp, name, err)
	if err == nil || again(err) || errors.Is(err, ErrNoUnit) || errors.Is(err, dbusx.ErrClosed) {
		return false
	}
	return u.giveUp(name, "systemd refuses", err)
}

func (u *undo) giveUp(name, why string, err error) bool {
	u.mu.Lock()
	u.givenUp++
	u.mu.Unlock()
	u.s.log.Error("failed start not undone", "unit", name, "why", why, "error", err)
	return true
}
