package agenttest

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sfu-agent/sfu-agent/agent"
	"github.com/sfu-agent/sfu-agent/cgroups"
)

func testExit(t *testing.T, b *bench) {
	for _, code := range []int{0, 3, 255} {
		placement := b.place(t)
		Ask(b.context(t), placement.Record().Socket, "exit "+strconv.Itoa(code))
		if exit := b.wait(t, placement); exit != (agent.Exit{Reason: agent.ReasonExit, Code: code}) {
			t.Errorf("exit %+v, want code %d", exit, code)
		}
	}
}

func testSignal(t *testing.T, b *bench) {
	for signal, name := range map[syscall.Signal]string{syscall.SIGKILL: "SIGKILL", syscall.SIGTERM: "SIGTERM"} {
		placement := b.place(t)
		if err := syscall.Kill(placement.Record().PID, signal); err != nil {
			t.Fatal(err)
		}
		if exit := b.wait(t, placement); exit != (agent.Exit{Reason: agent.ReasonSignal, Signal: name}) {
			t.Errorf("exit %+v, want %s", exit, name)
		}
	}
}

func testWaiters(t *testing.T, b *bench) {
	placement := b.place(t)
	impatient, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := placement.Wait(impatient); !errors.Is(err, context.Canceled) {
		t.Errorf("wait with a cancelled context: %v", err)
	}
	var waiters sync.WaitGroup
	exits := make([]agent.Exit, 8)
	for i := range exits {
		waiters.Go(func() { exits[i], _ = placement.Wait(b.context(t)) })
	}
	Ask(b.context(t), placement.Record().Socket, "exit 7")
	waiters.Wait()
	for _, exit := range append(exits, b.wait(t, placement)) {
		if exit.Code != 7 {
			t.Errorf("exit %+v", exit)
		}
	}
}

func testStop(t *testing.T, b *bench) {
	placement := b.place(t)
	b.info(t, placement)
	for range 2 {
		if err := placement.Stop(b.context(t), limit); err != nil {
			t.Error(err)
		}
	}
	if exit := b.wait(t, placement); exit != (agent.Exit{Reason: agent.ReasonSignal, Signal: "SIGTERM"}) {
		t.Errorf("exit %+v", exit)
	}
	for range 2 {
		if err := placement.Release(b.context(t)); err != nil {
			t.Error(err)
		}
	}
}

func testStopStubborn(t *testing.T, b *bench) {
	const grace = 300 * time.Millisecond
	placement := b.place(t)
	b.ask(t, placement, "ignore")
	start := time.Now()
	if err := placement.Stop(b.context(t), grace); err != nil {
		t.Error(err)
	}
	if took := time.Since(start); took < grace || took > grace+5*time.Second {
		t.Errorf("stop took %v with a grace of %v", took, grace)
	}
	if exit := b.wait(t, placement); exit != (agent.Exit{Reason: agent.ReasonSignal, Signal: "SIGKILL"}) {
		t.Errorf("exit %+v", exit)
	}
}

func testStopChildren(t *testing.T, b *bench) {
	b.stopWithChild(t, "fork")
}

func testStopEscaped(t *testing.T, b *bench) {
	if b.subject.Contains {
		b.stopWithChild(t, "escape")
		return
	}
	placement := b.place(t)
	child := atoi(t, b.ask(t, placement, "escape"))
	b.end(t, placement)
	if ended(child) {
		t.Error("the child was stopped: the Placer does contain it")
	}
	syscall.Kill(child, syscall.SIGKILL)
	eventually(t, "the child has ended", func() bool { return ended(child) })
}

// stopWithChild stops a worker that obeys SIGTERM and has a child that does not.
func (b *bench) stopWithChild(t *testing.T, how string) {
	for _, grace := range []time.Duration{0, limit} {
		placement := b.place(t)
		child := atoi(t, b.ask(t, placement, how))
		if err := placement.Stop(b.context(t), grace); err != nil {
			t.Error(err)
		}
		if !ended(child) {
			t.Errorf("a child is left after a stop with grace %v", grace)
		}
	}
}

func testStopCancelled(t *testing.T, b *bench) {
	placement := b.place(t)
	b.ask(t, placement, "ignore")
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if err := placement.Stop(ctx, limit); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("stop: %v", err)
	}
	b.info(t, placement) // it still serves
}

func testSetLimits(t *testing.T, b *bench) {
	placement := b.place(t)
	err := placement.SetLimits(b.context(t), cgroups.Limits{})
	if err != nil && !errors.Is(err, errors.ErrUnsupported) {
		t.Error(err)
	}
	b.info(t, placement)
}

func testClose(t *testing.T, b *bench) {
	placement, err := b.placer.Place(b.context(t), b.spec())
	if err != nil {
		t.Fatal(err)
	}
	if err := b.placer.Close(); err != nil {
		t.Error(err)
	}
	if _, err := placement.Wait(b.context(t)); err == nil {
		t.Error("a closed Placer says that a running worker ended")
	}
	b.info(t, placement)
	placer, err := b.subject.Open(b.context(t), b.prefix)
	if err != nil {
		t.Fatal(err)
	}
	b.placer = placer
	adopted, err := placer.Adopt(b.context(t), placement.Record())
	if err != nil {
		t.Fatal(err)
	}
	b.end(t, adopted)
	reap(placement.Record().PID)
}
