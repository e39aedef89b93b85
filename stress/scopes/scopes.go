// Package scopes churns systemd scopes with one D-Bus client or another, under
// one fault or another, and counts what goes wrong.
package scopes

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// Config of a Run.
type Config struct {
	Client   string        // one of Clients
	Fault    string        // one of Faults
	Cycles   int           // at most; 0 means until Duration
	Duration time.Duration // at most; 0 means until Cycles
	Parallel int
	Deadline time.Duration // of one start or stop

	// PID1Control is the file through which someone outside this PID namespace
	// is asked to stop and continue PID 1, for the fault pid1-stop.
	PID1Control string

	// Progress is told the number of each cycle that is done; may be nil.
	Progress func(cycle int)
}

// late is how much later than its deadline an operation may return before it
// counts as a hang; a write that the bus does not take may last 2 s more.
const (
	late      = 100 * time.Millisecond
	lateWrite = 2 * time.Second
	abandon   = 20 * time.Second // after the deadline, an operation is given up
)

// Run churns until Config's bounds or ctx end. The error says that it could not
// be done; what went wrong in the scopes is in the Report.
func Run(ctx context.Context, cfg Config) (*Report, error) {
	fault, ok := faults[cfg.Fault]
	if !ok {
		return nil, fmt.Errorf("unknown fault %q", cfg.Fault)
	}
	open, ok := clients[cfg.Client]
	if !ok {
		return nil, fmt.Errorf("unknown client %q", cfg.Client)
	}
	before := census{goroutines: runtime.NumGoroutine(), fds: countFDs()}
	if cfg.Duration > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, cfg.Duration)
		defer cancel()
	}
	c, err := open(ctx)
	if err != nil {
		return nil, fmt.Errorf("open client %s: %w", cfg.Client, err)
	}
	r := &churn{
		cfg: cfg, fault: fault, client: c,
		prefix: fmt.Sprintf("%s-%d-%08x", unitPrefix, os.Getpid(), rand.Uint32()),
		report: newReport(cfg),
	}
	stop, err := r.inject(ctx)
	if err != nil {
		c.close()
		return nil, fmt.Errorf("fault %s: %w", cfg.Fault, err)
	}
	began := time.Now()
	r.workers(ctx)
	r.report.elapsed(time.Since(began))
	if err := stop(); err != nil {
		r.report.FaultBroke = err.Error()
	}
	leftovers, err := r.leftovers(before)
	if err != nil {
		return nil, err
	}
	r.report.Leftovers, r.report.LeftoverNames = len(leftovers), leftovers
	return r.report, nil
}

// churn is one Run.
type churn struct {
	cfg     Config
	fault   fault
	client  client
	prefix  string
	serial  atomic.Int64
	report  *Report
	healthy atomic.Int64 // when the fault last ended, Unix ns; 0: nothing to recover from
	hung    sync.WaitGroup
}

// inject starts the fault; stop ends it and waits.
func (r *churn) inject(ctx context.Context) (stop func() error, err error) {
	if r.fault.loop == nil {
		return func() error { return nil }, nil
	}
	ctx, cancel := context.WithCancel(ctx)
	started, done := make(chan struct{}), make(chan error, 1)
	go func() {
		done <- r.fault.loop(ctx, faultRun{
			pid1:    r.cfg.PID1Control,
			started: sync.OnceFunc(func() { close(started) }),
			ended:   func() { r.healthy.Store(time.Now().UnixNano()) },
		})
	}()
	select {
	case <-started:
	case err := <-done:
		cancel()
		return nil, errors.Join(errors.New("did not start"), err)
	}
	return func() error {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
			return err
		}
		return nil
	}, nil
}

func (r *churn) workers(ctx context.Context) {
	var wg sync.WaitGroup
	for range r.cfg.Parallel {
		wg.Go(func() {
			for ctx.Err() == nil {
				n := int(r.serial.Add(1))
				if r.cfg.Cycles > 0 && n > r.cfg.Cycles {
					return
				}
				r.cycle(fmt.Sprintf("%s-%d.scope", r.prefix, n))
				if r.cfg.Progress != nil {
					r.cfg.Progress(n)
				}
			}
		})
	}
	wg.Wait()
}

// cycle is one scope from start to gone. It is not cut short by the end of the
// run: its own deadlines bound it.
func (r *churn) cycle(unit string) {
	p, err := startPayload(r.fault.payload)
	if err != nil {
		r.report.fail("payload: " + err.Error())
		return
	}
	defer p.end()
	if r.fault.kill != nil {
		r.fault.kill(p)
	}
	if !r.start(unit, p) {
		return
	}
	took, err := r.timed(func(ctx context.Context) error { return r.client.stop(ctx, unit) })
	r.report.stop(took, err)
	if err == nil && !p.gone() {
		r.report.wrong("stop: done, but the process runs")
	}
}

// start reports whether there is a scope to stop.
func (r *churn) start(unit string, p *payload) bool {
	took, err := r.timed(func(ctx context.Context) error {
		return r.client.start(ctx, unit, p.pid, r.fault.stopTimeout)
	})
	switch {
	case err == nil:
		r.recovered()
		r.report.start(took)
		switch {
		case r.fault.zombie:
			r.report.wrong("start: done with a process that had ended")
		case !p.in(unit) && p.alive(): // in this order: it may be dying
			r.report.wrong("start: done, but the process is not in the scope")
		}
		return true
	case r.fault.mayDie:
		r.report.start(took)
		return false
	default:
		r.report.startFailed(took, err)
		if p.staysIn(unit) {
			r.report.wrong("start: failed, but the process is in the scope")
			return true
		}
		return false
	}
}

// recovered notes how long after the end of a fault the first start was done.
func (r *churn) recovered() {
	if at := r.healthy.Swap(0); at != 0 {
		r.report.recovery(time.Since(time.Unix(0, at)))
	}
}

// timed runs one operation under its deadline. One that does not come back is
// counted and given up.
func (r *churn) timed(op func(context.Context) error) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(context.Background(), r.cfg.Deadline)
	began := time.Now()
	done := make(chan error, 1)
	r.hung.Add(1)
	go func() {
		defer r.hung.Done()
		defer cancel()
		done <- op(ctx)
	}()
	allowed := r.cfg.Deadline + late
	if r.fault.blocksWrites {
		allowed += lateWrite
	}
	giveUp := time.NewTimer(r.cfg.Deadline + abandon)
	defer giveUp.Stop()
	select {
	case err := <-done:
		took := time.Since(began)
		if took > allowed {
			r.report.hang()
		}
		return took, err
	case <-giveUp.C:
		r.report.hang()
		return time.Since(began), errors.New("did not return")
	}
}
