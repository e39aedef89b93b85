//go:build native

package systemd1_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/sfu-agent/sfu-agent/dbusx/systemd1"
)

// churn counts cycles of start and stop and what went wrong with them.
type churn struct {
	s     *systemd1.Systemd
	limit time.Duration // of the context of a start or stop

	cycles, failed, wrong, late atomic.Int64
	mu                          sync.Mutex
	first                       error
	worst                       time.Duration
}

func (c *churn) note(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.first == nil {
		c.first = err
	}
}

// timed runs f with the limit and notes how long it took.
func (c *churn) timed(t *testing.T, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(t.Context(), c.limit)
	defer cancel()
	began := time.Now()
	err := f(ctx)
	took := time.Since(began)
	if took > c.limit+2100*time.Millisecond {
		c.late.Add(1)
	}
	c.mu.Lock()
	c.worst = max(c.worst, took)
	c.mu.Unlock()
	return err
}

func (c *churn) cycle(t *testing.T) {
	cmd := process(t)
	defer end(cmd)
	unit, pid := unitName(), cmd.Process.Pid
	err := c.timed(t, func(ctx context.Context) error { return c.s.StartScope(ctx, unit, workerProps(pid)) })
	if in := inScope(pid, unit); err == nil && !in {
		c.wrong.Add(1)
		c.note(fmt.Errorf("started, but process %d is not in %s", pid, unit))
	}
	if err == nil {
		err = c.timed(t, func(ctx context.Context) error { _, err := c.s.Stop(ctx, unit); return err })
		if err == nil && cmd.Process.Signal(syscall.Signal(0)) == nil && inScope(pid, unit) && !zombie(pid) {
			c.wrong.Add(1)
			c.note(fmt.Errorf("stopped, but process %d is still in %s", pid, unit))
		}
	}
	if err != nil {
		c.failed.Add(1)
		c.note(err)
	}
	c.cycles.Add(1)
}

// run churns with so many workers until more says no.
func (c *churn) run(t *testing.T, workers int, more func() bool) {
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for more() {
				c.cycle(t)
			}
		})
	}
	wg.Wait()
}

// times says yes n times, to any number of workers.
func (c *churn) times(n int) func() bool {
	var asked atomic.Int64
	return func() bool { return asked.Add(1) <= int64(n) }
}

// verdict wants all cycles to have succeeded.
func (c *churn) verdict(t *testing.T) {
	t.Helper()
	t.Logf("%d cycles, worst %v", c.cycles.Load(), c.worst)
	if c.cycles.Load() == 0 {
		t.Error("no cycle at all")
	}
	if f, w, l := c.failed.Load(), c.wrong.Load(), c.late.Load(); f+w+l > 0 {
		t.Errorf("%d failed, %d wrong, %d late; first: %v", f, w, l, c.first)
	}
	leftovers(t, c.s)
}
