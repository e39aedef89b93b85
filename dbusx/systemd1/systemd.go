// Package systemd1 is the part of org.freedesktop.systemd1(5) that a supervisor
// of transient scopes uses.
package systemd1

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/godbus/dbus/v5"
	"github.com/sfu-agent/sfu-agent/dbusx"
)

const (
	service      = "org.freedesktop.systemd1"
	managerIface = service + ".Manager"
	managerPath  = dbus.ObjectPath("/org/freedesktop/systemd1")
	properties   = "org.freedesktop.DBus.Properties"

	minPause = 10 * time.Millisecond // between attempts, doubled
	maxPause = 500 * time.Millisecond
)

// Options of New; the zero value works.
type Options struct {
	ProcRoot string // where proc(5) is mounted; "/proc"
	Log      *slog.Logger
}

// Systemd speaks to the system's service manager. Its methods may be called
// from any goroutine. Each tries again, for as long as its context allows, what
// may be tried again while bus or systemd are away.
type Systemd struct {
	client *dbusx.Client
	proc   string
	log    *slog.Logger
	undo   *undo
	looks  *looks

	mu      sync.Mutex
	changed chan struct{}          // closed at the next change of connection or of systemd
	jobs    map[string][]*jobWatch // by unit
	dropped map[string]bool        // optional properties that this systemd does not have

	bySignal, bySight, byPoll atomic.Uint64
}

// Stats counts since New.
type Stats struct {
	JobsBySignal uint64 // jobs whose end systemd announced
	JobsBySight  uint64 // starts that were seen in the process's cgroup first
	JobsByPoll   uint64 // jobs whose end was seen in the unit's state
	UndoPending  int    // failed starts of which something may be left
	UndoGivenUp  uint64 // failed starts of which something was left
}

// New uses c, which stays the caller's to close, after Close of the Systemd.
func New(c *dbusx.Client, o Options) *Systemd {
	if o.ProcRoot == "" {
		o.ProcRoot = "/proc"
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	s := &Systemd{
		client:  c,
		proc:    o.ProcRoot,
		log:     o.Log,
		changed: make(chan struct{}),
		jobs:    make(map[string][]*jobWatch),
		dropped: make(map[string]bool),
	}
	s.undo, s.looks = newUndo(s), newLooks(s)
	c.Watch(dbusx.Watch{
		Name:      service,
		Interface: managerIface,
		Member:    "JobRemoved",
		Signal:    s.jobRemoved,
		Changed:   s.wake,
	})
	return s
}

// Close ends the clean-up after failed starts and waits until it is quiet. Its
// error names the units that may be left. It is to be the last call.
func (s *Systemd) Close() error {
	s.looks.close()
	return s.undo.close()
}

// Stats returns the counters.
func (s *Systemd) Stats() Stats {
	pending, givenUp := s.undo.stats()
	return Stats{
		JobsBySignal: s.bySignal.Load(),
		JobsBySight:  s.bySight.Load(),
		JobsByPoll:   s.byPoll.Load(),
		UndoPending:  pending,
		UndoGivenUp:  givenUp,
	}
}

// Version returns systemd's version, "252.39-1~deb12u1".
func (s *Systemd) Version(ctx context.Context) (string, error) {
	const op = "read systemd version"
	var v dbus.Variant
	if err := s.repeatAt(ctx, managerPath, properties+".Get", []any{&v}, managerIface, "Version"); err != nil {
		return "", of(op, "", err)
	}
	version, ok := v.Value().(string)
	if !ok {
		return "", &dbusx.Error{Op: op, Kind: dbusx.ErrReply, Err: fmt.Errorf("type %s", v.Signature())}
	}
	return version, nil
}

// Kill sends sig to all processes of unit.
func (s *Systemd) Kill(ctx context.Context, unit string, sig syscall.Signal) error {
	return of("kill", unit, s.call(ctx, "KillUnit", nil, unit, "all", int32(sig)))
}

// ResetFailed makes systemd forget that unit failed.
func (s *Systemd) ResetFailed(ctx context.Context, unit string) error {
	return of("reset", unit, s.repeat(ctx, "ResetFailedUnit", nil, unit))
}

// Freeze suspends all processes of unit; it returns when they are.
func (s *Systemd) Freeze(ctx context.Context, unit string) error {
	return of("freeze", unit, s.repeat(ctx, "FreezeUnit", nil, unit))
}

// Thaw resumes all processes of unit.
func (s *Systemd) Thaw(ctx context.Context, unit string) error {
	return of("thaw", unit, s.repeat(ctx, "ThawUnit", nil, unit))
}

// Ref keeps systemd from forgetting unit, so that Unit still tells its Result
// when it has ended, until Unref or the end of the connection. There is none
// over systemd's private socket.
func (s *Systemd) Ref(ctx context.Context, unit string) error {
	return of("ref", unit, s.call(ctx, "RefUnit", nil, unit))
}

// Unref undoes Ref.
func (s *Systemd) Unref(ctx context.Context, unit string) error {
	return of("unref", unit, s.call(ctx, "UnrefUnit", nil, unit))
}

// SetProperties changes properties of the running unit until it ends.
func (s *Systemd) SetProperties(ctx context.Context, unit string, p Properties) error {
	const op = "set properties"
	if p.err != nil {
		return &dbusx.Error{Op: op, Unit: unit, Kind: ErrProperty, Err: p.err}
	}
	return s.withOptional(p, func(p Properties) error {
		return of(op, unit, s.repeat(ctx, "SetUnitProperties", nil, unit, true, p.list))
	})
}

// call makes one call of the Manager interface.
func (s *Systemd) call(ctx context.Context, method string, ret []any, args ...any) error {
	return s.client.Call(ctx, dbusx.Object{Name: service, Path: managerPath}, managerIface+"."+method, ret, args...)
}

// repeat makes a call of the Manager interface that does no harm when made
// twice, until its outcome is known or ctx ends.
func (s *Systemd) repeat(ctx context.Context, method string, ret []any, args ...any) error {
	return s.repeatAt(ctx, managerPath, managerIface+"."+method, ret, args...)
}

func (s *Systemd) repeatAt(ctx context.Context, path dbus.ObjectPath, method string, ret []any, args ...any) error {
	for pause := s.pauses(); ; {
		err := s.client.Call(ctx, dbusx.Object{Name: service, Path: path}, method, ret, args...)
		if err == nil || !again(err) {
			return err
		}
		if !pause.wait(ctx) {
			return expired(ctx, err)
		}
	}
}

// again reports whether an error may be gone at the next attempt.
func again(err error) bool {
	return errors.Is(err, dbusx.ErrLost) || errors.Is(err, dbusx.ErrTimeout) || errors.Is(err, dbusx.ErrLimits)
}

// expired says that ctx has ended, and what was wrong until then.
func expired(ctx context.Context, last error) error {
	e := &dbusx.Error{Kind: dbusx.ErrTimeout, Err: context.Cause(ctx)}
	var before *dbusx.Error
	if errors.As(last, &before) {
		e.Sent = before.Sent
	}
	if last != nil && !errors.Is(last, e.Err) {
		e.Err = fmt.Errorf("%w; before that: %w", e.Err, last)
	}
	return e
}

// pauses are the times between attempts: each twice the one before, but cut
// short when the connection or systemd's place on the bus changes. Attempts begin
// at least minPause apart: what was lost with a systemd that re-executed itself
// is sent again at once, since the new one may not stay for long either.
type pauses struct {
	s       *Systemd
	changed chan struct{} // since the last attempt began
	begun   time.Time     // the last attempt
	next    time.Duration
}

func (s *Systemd) pauses() *pauses {
	return &pauses{s: s, changed: s.change(), begun: time.Now(), next: minPause}
}

// wait makes a pause; it returns false if ctx ends first.
func (p *pauses) wait(ctx context.Context) bool {
	least, most := time.NewTimer(minPause-time.Since(p.begun)), time.NewTimer(p.next)
	defer least.Stop()
	defer most.Stop()
	p.next = min(2*p.next, maxPause)
	select {
	case <-least.C:
	case <-ctx.Done():
		return false
	}
	select {
	case <-most.C:
	case <-p.changed:
	case <-ctx.Done():
		return false
	}
	p.changed, p.begun = p.s.change(), time.Now()
	return true
}

// change returns a channel that is closed at the next change.
func (s *Systemd) change() chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changed
}

// wake makes all who wait look again: signals may be missed.
func (s *Systemd) wake() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.changed)
	s.changed = make(chan struct{})
	s.looks.want()
}
