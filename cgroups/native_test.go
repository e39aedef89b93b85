//go:build native

package cgroups

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestC03KillAll(t *testing.T) {
	type kill func(Group, context.Context) error
	for how, kill := range map[string]kill{"C03 cgroup.kill": Group.Kill, "C04 freeze and kill": Group.killEach} {
		for what, prepare := range map[string]func(*testing.T, Group){
			"running": func(t *testing.T, g Group) { start(t, g, "fork=5", 1) },
			"frozen": func(t *testing.T, g Group) {
				start(t, g, "fork=5", 1)
				if err := g.Freeze(t.Context()); err != nil {
					t.Fatal(err)
				}
			},
			"nested": func(t *testing.T, g Group) {
				for inner := g; ; inner = inner.Child("inner") {
					if inner.Exists() || inner.Create() == nil {
						start(t, inner, "fork=3", 1)
					}
					if strings.Count(inner.Path(), "inner") == 3 {
						return
					}
				}
			},
			"fork bomb": func(t *testing.T, g Group) { start(t, g, "bomb=6", 10) }, // of 127 processes
		} {
			t.Run(how+" "+what, func(t *testing.T) {
				g := newGroup(t)
				prepare(t, g)
				begin := time.Now()
				if err := kill(g, t.Context()); err != nil {
					t.Fatal(err)
				}
				took := time.Since(begin)
				if took > time.Second {
					t.Errorf("took %v", took)
				}
				if pids, err := g.PIDs(); err != nil || len(pids) > 0 {
					t.Errorf("left %v, %v", pids, err)
				}
				if err := g.Remove(t.Context()); err != nil || g.Exists() {
					t.Errorf("remove: %v", err)
				}
				t.Logf("%v", took)
			})
		}
	}
}

func TestFreezeProcesses(t *testing.T) {
	g := newGroup(t)
	start(t, g, "fork=3", 1)
	for range 3 {
		if err := g.Freeze(t.Context()); err != nil {
			t.Fatal(err)
		}
		if events, err := g.Events(); err != nil || !events.Frozen {
			t.Errorf("events %+v, %v", events, err)
		}
		if err := g.Thaw(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

func TestC06RemoveIsBounded(t *testing.T) {
	g := newGroup(t)
	start(t, g, "fork=0", 1)
	begin := time.Now()
	if err := g.Remove(t.Context()); !errors.Is(err, ErrBusy) {
		t.Errorf("remove: %v", err)
	}
	if took := time.Since(begin); took < removeLimit || took > removeLimit+time.Second {
		t.Errorf("took %v", took)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := g.Remove(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("remove: %v", err)
	}
}

func TestC06RemoveWaitsForTheDying(t *testing.T) {
	for range 100 {
		g := newGroup(t)
		start(t, g, "fork=2", 1)
		if err := g.write("cgroup.kill", "1"); err != nil {
			t.Fatal(err)
		}
		if err := g.Remove(t.Context()); err != nil { // the zombie is not reaped yet
			t.Fatal(err)
		}
	}
}

// 1000 deaths, each told of, with a removal at once after half of them.
func TestC07NoDeathIsMissed(t *testing.T) {
	defer goleak.VerifyNone(t)
	w := NewWatcher(nil)
	defer w.Close()
	if err := w.Polling(); err != nil {
		t.Fatal(err)
	}
	const deaths, parallel = 1000, 8
	slow := make(chan time.Duration, deaths)
	work := make(chan int)
	done := make(chan error)
	for range parallel {
		go func() {
			var err error
			for i := range work {
				err = errors.Join(err, die(w, i%2 == 0, slow))
			}
			done <- err
		}()
	}
	for i := range deaths {
		work <- i
	}
	close(work)
	for range parallel {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	close(slow)
	var late int
	var worst time.Duration
	for took := range slow {
		worst = max(worst, took)
		if took > recheck/2 {
			late++
		}
	}
	t.Logf("%d of %d told after more than %v, worst %v", late, deaths, recheck/2, worst)
	if worst > 2*time.Second {
		t.Errorf("worst %v", worst)
	}
	if len(w.byWD) != 0 {
		t.Errorf("%d descriptors left", len(w.byWD))
	}
}

// die starts a process in a cgroup, kills it and waits to be told that the
// cgroup is empty, or gone.
func die(w *Watcher, remove bool, took chan<- time.Duration) (err error) {
	g, err := makeGroup()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, endGroup(g)) }()
	cmd, err := sleepIn(g)
	if err != nil {
		return err
	}
	x, err := w.Watch(g)
	if err != nil {
		return err
	}
	defer x.Close()
	if events, err := x.Events(); err != nil || !events.Populated {
		return fmt.Errorf("%s: events %+v, %w", g, events, err)
	}
	cmd.Process.Kill()
	cmd.Wait()
	begin := time.Now()
	if remove {
		if err := g.Remove(context.Background()); err != nil {
			return err
		}
	}
	if err := awaitDeath(x, remove); err != nil {
		return err
	}
	took <- time.Since(begin)
	return nil
}

func awaitDeath(x *Watch, removed bool) error {
	limit := time.After(10 * time.Second)
	for {
		events, err := x.Events()
		if !events.Populated && (errors.Is(err, ErrGone) || !removed && err == nil) {
			return nil
		}
		select {
		case <-x.Changed():
		case <-limit:
			return fmt.Errorf("%s: death not told of: %+v, %w", x.group, events, err)
		}
	}
}

func TestC13DetectNative(t *testing.T) {
	host, err := Detect()
	if err != nil {
		t.Fatal(err)
	}
	if err := host.Unified(); err != nil {
		t.Error(err)
	}
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil || !strings.Contains(string(own), "0::"+host.Own.Path()+"\n") {
		t.Errorf("own %s in %q, %v", host.Own, own, err)
	}
	if host.Own.Path() == "/" {
		t.Errorf("own is %s", host.Own)
	}
	for _, name := range []string{"cgroup.kill", "cgroup.freeze", "cgroup.events", "memory.pressure"} {
		if err := host.Own.Have(name); err != nil {
			t.Error(err)
		}
	}
	unit := host.Own.Parent()
	if err := unit.Delegated(); err != nil {
		t.Error(err)
	}
	if err := unit.Parent().Delegated(); !errors.Is(err, ErrNotDelegated) || !strings.Contains(err.Error(), "Delegate=yes") {
		t.Errorf("%s delegated: %v", unit.Parent(), err)
	}
}

func TestC11Pressure(t *testing.T) {
	g := newGroup(t)
	for _, r := range []Resource{CPU, Memory, IO} {
		if _, err := g.Pressure(r); err != nil {
			t.Error(err)
		}
	}
	start(t, g, "fork=0", 1)
	modes := make(chan TriggerMode, 1)
	ended := make(chan error)
	reached := make(chan Pressure, 100)
	watch := func(ctx context.Context) {
		trigger := Trigger{Resource: CPU, Stall: 20 * time.Millisecond, Window: 500 * time.Millisecond}
		go func() {
			ended <- g.WatchPressure(ctx, trigger, func(m TriggerMode) { modes <- m }, func(p Pressure) { reached <- p })
		}()
	}
	ctx, cancel := context.WithCancel(t.Context())
	watch(ctx)
	t.Logf("watched by %s", <-modes)
	burn(t, g)
	select {
	case p := <-reached:
		t.Logf("reached: %+v", p.Some)
	case err := <-ended:
		t.Fatal(err)
	case <-time.After(20 * time.Second):
		t.Fatal("pressure was not told of")
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("ended: %v", err)
	}
	watch(t.Context())
	<-modes
	if err := errors.Join(g.Kill(t.Context()), g.Remove(t.Context())); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		if !errors.Is(err, ErrGone) {
			t.Errorf("cgroup removed: %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Error("the removal of the cgroup was not told of")
	}
}
