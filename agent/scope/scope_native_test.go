//go:build native

package scope_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"

	"github.com/sfu-agent/sfu-agent/agent"
	"github.com/sfu-agent/sfu-agent/agent/agenttest"
	"github.com/sfu-agent/sfu-agent/agent/launch"
	"github.com/sfu-agent/sfu-agent/dbusx"
	"github.com/sfu-agent/sfu-agent/dbusx/dbustest"
	"github.com/sfu-agent/sfu-agent/dbusx/systemd1"
)

const busSocket = "/run/dbus/system_bus_socket"

func TestConformance(t *testing.T) { agenttest.Conformance(t, subject) }

// Workers have units of their own and go on.
func TestS21AgentUnitStopped(t *testing.T) { agenttest.AgentUnit(t, subject, true) }

// newPlacer returns a Placer of which nothing may be left after the test.
func newPlacer(t *testing.T, prefix string, dial func(context.Context) (net.Conn, error)) agent.Placer {
	t.Helper()
	p, err := openWith(t.Context(), prefix, dial)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
		checkNothingLeft(t, prefix)
	})
	return p
}

func checkNothingLeft(t *testing.T, prefix string) {
	t.Helper()
	deadline := time.Now().Add(5 * time.Second)
	for {
		units, err := left(context.Background(), prefix)
		running, listErr := launch.List(prefix)
		if err == nil && listErr == nil && len(units) == 0 && len(running) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("left: %v, %v, %v", units, running, errors.Join(err, listErr))
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// shell describes a worker that runs a script in place of a program.
func shell(t *testing.T, name, script string, args ...string) agent.Spec {
	return agent.Spec{
		Name: name, Exe: "/bin/sh", Args: append([]string{"-c", script, name}, args...),
		Socket: t.TempDir() + "/s",
	}
}

// end stops and releases a worker.
func end(t *testing.T, placement agent.Placement) {
	t.Helper()
	ctx := context.Background()
	if err := errors.Join(placement.Stop(ctx, 0), placement.Release(ctx)); err != nil {
		t.Error(err)
	}
}

// S14: workers that die at any moment of their placing leave no unit.
func TestS14DieWhilePlaced(t *testing.T) {
	const deaths, parallel = 300, 8
	placer := newPlacer(t, "s14", nil)
	specs := make(chan agent.Spec)
	var placed, failed atomic.Int64
	var workers sync.WaitGroup
	for range parallel {
		workers.Go(func() {
			for spec := range specs {
				placement, err := placer.Place(t.Context(), spec)
				if err != nil {
					failed.Add(1)
					if errors.Is(err, dbusx.ErrTimeout) || errors.Is(err, dbusx.ErrLost) || !strings.Contains(err.Error(), spec.Name) {
						t.Error(err)
					}
					continue
				}
				placed.Add(1)
				if _, err := placement.Wait(t.Context()); err != nil {
					t.Error(err)
				}
				end(t, placement)
			}
		})
	}
	for i := range deaths {
		delay := fmt.Sprintf("0.%04d", rand.IntN(150))
		specs <- shell(t, fmt.Sprintf("s14-%d-die", i), `exec sleep "$1"`, delay)
	}
	close(specs)
	workers.Wait()
	t.Logf("%d died at their gate, %d after it", failed.Load(), placed.Load())
}

// S15: what a worker forks before it is in its scope stays outside, but is in its
// process group and ends with it.
func TestS15ForksBeforeGate(t *testing.T) {
	placer := newPlacer(t, "s15", nil)
	child := t.TempDir() + "/child"
	placement, err := placer.Place(t.Context(), shell(t, "s15-0-fork", `sleep 60 & echo $! >"$1"; read gate <&3; wait`, child))
	if err != nil {
		t.Fatal(err)
	}
	var pid int
	for deadline := time.Now().Add(5 * time.Second); pid == 0 && time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if text, err := os.ReadFile(child); err == nil {
			fmt.Sscan(string(text), &pid)
		}
	}
	end(t, placement)
	if err := syscall.Kill(pid, 0); pid == 0 || !errors.Is(err, syscall.ESRCH) {
		t.Errorf("child %d: %v", pid, err)
	}
}

// S16: of two workers of one name the first stays.
func TestS16SameName(t *testing.T) {
	placer := newPlacer(t, "s16", nil)
	const script = `read gate <&3; exec sleep 60`
	placements := make([]agent.Placement, 16)
	errs := make([]error, len(placements))
	var all sync.WaitGroup
	for i := range placements {
		spec := shell(t, "s16-0-same", script)
		all.Go(func() { placements[i], errs[i] = placer.Place(t.Context(), spec) })
	}
	all.Wait()
	var winner agent.Placement
	for i, err := range errs {
		switch {
		case err == nil && winner != nil:
			t.Error("two were placed")
		case err == nil:
			winner = placements[i]
		case !errors.Is(err, systemd1.ErrExists):
			t.Error(err)
		}
	}
	if winner == nil {
		t.Fatal("none was placed")
	}
	if err := syscall.Kill(winner.Record().PID, 0); err != nil {
		t.Errorf("the winner: %v", err)
	}
	end(t, winner)
	again, err := placer.Place(t.Context(), shell(t, "s16-0-same", script))
	if err != nil {
		t.Fatal(err)
	}
	end(t, again)
}

// S17: a name is free again after a worker that had to be killed.
func TestS17NameAfterKill(t *testing.T) {
	placer := newPlacer(t, "s17", nil)
	for range 3 {
		placement, err := placer.Place(t.Context(), shell(t, "s17-0-same", `trap "" TERM; read gate <&3; sleep 60; sleep 60`))
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		if err := placement.Stop(t.Context(), 100*time.Millisecond); err != nil {
			t.Error(err)
		}
		if took := time.Since(start); took > 2*time.Second {
			t.Errorf("stop took %v", took)
		}
		if err := placement.Release(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

// A bus that loses every announcement of a job and breaks the connection now
// and then makes a placing slower, no more.
func TestPlaceThroughFaults(t *testing.T) {
	proxy := &dbustest.Proxy{Target: busSocket, Spoil: func(n int, m *dbus.Message) dbustest.Verdict {
		switch {
		case dbustest.Member(m) == "JobRemoved":
			return dbustest.Drop
		case n%22 == 0:
			return dbustest.Cut
		}
		return dbustest.Pass
	}}
	defer proxy.Close()
	placer := newPlacer(t, "faults", proxy.Dial)
	for i := range 10 {
		placement, err := placer.Place(t.Context(), shell(t, fmt.Sprintf("faults-%d-x", i), `read gate <&3; exec sleep 60`))
		if err != nil {
			t.Fatal(err)
		}
		end(t, placement)
	}
}

// A bus that does not answer holds a placing no longer than its context allows.
func TestPlaceOnSilentBus(t *testing.T) {
	var silent atomic.Bool
	proxy := &dbustest.Proxy{Target: busSocket, Spoil: func(int, *dbus.Message) dbustest.Verdict {
		if silent.Load() {
			return dbustest.Stall
		}
		return dbustest.Pass
	}}
	t.Cleanup(proxy.Close)
	placer := newPlacer(t, "silent", proxy.Dial)
	running, err := placer.Place(t.Context(), shell(t, "silent-0-x", `read gate <&3; exec sleep 60`))
	if err != nil {
		t.Fatal(err)
	}
	silent.Store(true)
	const limit = 300 * time.Millisecond
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	start := time.Now()
	if _, err := placer.Place(ctx, shell(t, "silent-1-x", `read gate <&3; exec sleep 60`)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("place: %v", err)
	}
	if took := time.Since(start); took > limit+200*time.Millisecond {
		t.Errorf("took %v of %v", took, limit)
	}
	if workers, err := launch.List("silent-1"); err != nil || len(workers) > 0 {
		t.Errorf("left %v, %v", workers, err)
	}
	// What needs no bus goes on.
	if _, err := placer.Adopt(t.Context(), running.Record()); err != nil {
		t.Error(err)
	}
	if err := running.Stop(t.Context(), 0); err != nil {
		t.Error(err)
	}
	if exit, err := running.Wait(t.Context()); err != nil || exit.Reason != agent.ReasonSignal {
		t.Errorf("exit %+v, %v", exit, err)
	}
	if err := running.Release(t.Context()); err != nil {
		t.Error(err)
	}
	silent.Store(false)
	again, err := placer.Place(t.Context(), shell(t, "silent-1-x", `read gate <&3; exec sleep 60`))
	if err != nil {
		t.Fatal(err)
	}
	end(t, again)
}
