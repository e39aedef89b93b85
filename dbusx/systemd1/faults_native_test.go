//go:build native

package systemd1_test

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"

	"github.com/sfu-agent/sfu-agent/dbusx"
)

// S11 is all of these tests on a host whose bus is dbus-broker.

func TestS01_Churn(t *testing.T) {
	for name, workers := range map[string]int{"1": 1, "8": 8, "64": 64} {
		t.Run(name, func(t *testing.T) {
			sameFiles(t)
			c := &churn{s: connect(t, dbusx.Options{}), limit: 10 * time.Second}
			c.run(t, workers, c.times(*cycles))
			c.verdict(t)
		})
	}
}

// sameFiles wants as many open files after the test as before.
func sameFiles(t *testing.T) {
	files := func() int {
		list, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(list)
	}
	before := files()
	t.Cleanup(func() {
		if n := files(); n > before {
			t.Errorf("%d open files, %d before", n, before)
		}
	})
}

// underFault churns with 8 workers while a fault happens again and again, and
// wants a start within 2 s of its end.
func underFault(t *testing.T, o dbusx.Options, pause time.Duration, fault func() error) {
	requireRaw(t)
	whole(t)
	c := &churn{s: connect(t, o), limit: 10 * time.Second}
	stop := every(t, pause, fault)
	defer whole(t)
	defer stop()
	deadline := time.Now().Add(*soak)
	c.run(t, 8, func() bool { return time.Now().Before(deadline) })
	stop()
	c.limit = 2 * time.Second
	c.cycle(t)
	c.verdict(t)
}

// breather is a time for jobs: a systemd that is told to reload or re-execute
// itself as soon as it is back runs none.
const breather = 50 * time.Millisecond

func TestS02_DaemonReload(t *testing.T) {
	underFault(t, dbusx.Options{}, breather, reload)
}

func TestS03_DaemonReexec(t *testing.T) {
	underFault(t, dbusx.Options{}, breather, reexec)
}

func TestS04_DaemonReexecPrivateSocket(t *testing.T) {
	underFault(t, dbusx.Options{Private: true}, breather, reexec)
}

func TestS05_BusRestart(t *testing.T) {
	underFault(t, dbusx.Options{}, 2*time.Second, restartBus)
}

func TestS06_BusKilled(t *testing.T) {
	underFault(t, dbusx.Options{}, 2*time.Second, killBus)
}

func TestS07_BusStopped(t *testing.T) {
	t.Run("10 s", func(t *testing.T) {
		underFault(t, dbusx.Options{}, 2*time.Second, func() error { return stopBus(2 * time.Second) })
	})
	t.Run("1 s", func(t *testing.T) { givenUp(t, stopBus) })
}

func TestS09_SystemdStopped(t *testing.T) {
	t.Run("10 s", func(t *testing.T) {
		underFault(t, dbusx.Options{}, 2*time.Second, func() error { return stopSystemd(2 * time.Second) })
	})
	t.Run("1 s", func(t *testing.T) { givenUp(t, stopSystemd) })
}

// givenUp starts scopes with a context that ends during the fault: that is a
// timeout, and nothing of them is there soon after the fault.
func givenUp(t *testing.T, fault func(time.Duration) error) {
	requireRaw(t)
	whole(t)
	defer whole(t)
	s := connect(t, dbusx.Options{})
	var failed chan error
	stopped := make(chan struct{})
	failed = make(chan error, 1)
	go func() {
		defer close(stopped)
		failed <- fault(3 * time.Second)
	}()
	time.Sleep(100 * time.Millisecond) // into the fault
	var timeouts int
	for range 8 {
		cmd := process(t)
		defer end(cmd)
		ctx, cancel := context.WithTimeout(t.Context(), 250*time.Millisecond)
		began := time.Now()
		err := s.StartScope(ctx, unitName(), workerProps(cmd.Process.Pid))
		cancel()
		if errors.Is(err, dbusx.ErrTimeout) {
			timeouts++
		} else {
			t.Errorf("got %v", err)
		}
		if took := time.Since(began); took > 350*time.Millisecond {
			t.Errorf("returned after %v", took)
		}
	}
	<-stopped
	if err := <-failed; err != nil {
		t.Fatal(err)
	}
	leftovers(t, s)
}

// A long stop: every call is back at its context's end, and the client works
// again at once when the bus does.
func TestS08_BusStoppedForLong(t *testing.T) { longStop(t, stopBus) }

func TestS09_SystemdStoppedForLong(t *testing.T) { longStop(t, stopSystemd) }

func longStop(t *testing.T, fault func(time.Duration) error) {
	requireRaw(t)
	whole(t)
	defer whole(t)
	s := connect(t, dbusx.Options{})
	length := max(8*time.Second, *soak)
	failed := make(chan error, 1)
	began := time.Now()
	go func() { failed <- fault(length) }()
	c := &churn{s: s, limit: 700 * time.Millisecond}
	c.run(t, 8, func() bool { return time.Since(began) < length-2*time.Second })
	if c.late.Load()+c.wrong.Load() > 0 {
		t.Errorf("%d late, %d wrong: %v", c.late.Load(), c.wrong.Load(), c.first)
	}
	if err := <-failed; err != nil {
		t.Fatal(err)
	}
	after := &churn{s: s, limit: 2 * time.Second}
	after.cycle(t)
	after.verdict(t)
}
