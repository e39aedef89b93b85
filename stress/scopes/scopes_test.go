package scopes

import (
	"context"
	"errors"
	"maps"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// scripted is a client that answers as it is told.
type scripted struct {
	started, stopped error
	kills            bool // a stop ends the process
	pid              atomic.Int64
}

func (c *scripted) start(_ context.Context, _ string, pid int, _ time.Duration) error {
	c.pid.Store(int64(pid))
	return c.started
}

func (c *scripted) stop(context.Context, string) error {
	if c.kills {
		syscall.Kill(int(c.pid.Load()), syscall.SIGKILL)
	}
	return c.stopped
}

func (c *scripted) close() error { return nil }

func newChurn(fault string, c client) *churn {
	cfg := Config{Fault: fault, Parallel: 1, Deadline: 10 * time.Second}
	return &churn{cfg: cfg, fault: faults[fault], client: c, report: newReport(cfg)}
}

// No scope is made here, so each "done" is a wrong answer, and is to be found out.
func TestAnswersAreChecked(t *testing.T) {
	refused := errors.New("refused")
	for name, test := range map[string]struct {
		fault           string
		client          *scripted
		failures, wrong map[string]int
	}{
		"start done, nothing done": {
			"none", &scripted{kills: true}, nil,
			map[string]int{"start: done, but the process is not in the scope": 1},
		},
		"stop done, nothing done": {
			"none", &scripted{}, nil,
			map[string]int{"start: done, but the process is not in the scope": 1, "stop: done, but the process runs": 1},
		},
		"start refused":       {"none", &scripted{started: refused}, map[string]int{"start: refused": 1}, nil},
		"zombie started":      {"zombie", &scripted{}, nil, map[string]int{"start: done with a process that had ended": 1}},
		"zombie refused":      {"zombie", &scripted{started: refused}, nil, nil},
		"stop refused":        {"zombie", &scripted{stopped: refused}, map[string]int{"stop: refused": 1}, map[string]int{"start: done with a process that had ended": 1}},
		"ignores, and is not": {"term-ignore", &scripted{started: refused}, map[string]int{"start: refused": 1}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			r := newChurn(test.fault, test.client)
			r.cycle("sfustress-1.scope")
			if !maps.Equal(r.report.FailuresBy, test.failures) || !maps.Equal(r.report.WrongBy, test.wrong) || r.report.Cycles != 1 {
				t.Errorf("failures %v, want %v; wrong %v, want %v; %d cycles",
					r.report.FailuresBy, test.failures, r.report.WrongBy, test.wrong, r.report.Cycles)
			}
			if err := syscall.Kill(int(test.client.pid.Load()), 0); !errors.Is(err, syscall.ESRCH) {
				t.Errorf("the process is left: %v", err)
			}
		})
	}
}

// A start that failed and yet was done is wrong, and there is a scope to stop.
func TestFailedAndYetDone(t *testing.T) {
	unit := ownUnit(t)
	p := newPayload(t)
	synctest.Test(t, func(t *testing.T) {
		r := newChurn("none", &scripted{started: errors.New("refused")})
		stop := r.start(unit, p)
		if wrong := r.report.WrongBy["start: failed, but the process is in the scope"]; stop != (unit != "") || (wrong == 1) != stop {
			t.Errorf("stop %v, %d wrong, in unit %q", stop, wrong, unit)
		}
	})
}

func TestHangs(t *testing.T) {
	for name, test := range map[string]struct {
		fault string
		takes time.Duration
		hangs int
	}{
		"in time":                      {"none", 10 * time.Second, 0},
		"a little late":                {"none", 10*time.Second + 50*time.Millisecond, 0},
		"late":                         {"none", 10*time.Second + 200*time.Millisecond, 1},
		"late where writes block":      {"bus-stop", 12 * time.Second, 0},
		"too late where writes block":  {"bus-stop", 12*time.Second + 200*time.Millisecond, 1},
		"given up":                     {"none", time.Hour, 1},
		"given up where writes block ": {"bus-stop", time.Hour, 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newChurn(test.fault, nil)
				took, err := r.timed(func(context.Context) error {
					time.Sleep(test.takes)
					return nil
				})
				gaveUp := test.takes == time.Hour
				if r.report.Hangs != test.hangs || (err != nil) != gaveUp || took > 30*time.Second {
					t.Errorf("%d hangs, want %d; %v after %v", r.report.Hangs, test.hangs, err, took)
				}
				r.hung.Wait()
			})
		})
	}
}

func TestCyclesAreBounded(t *testing.T) {
	r := newChurn("zombie", &scripted{started: errors.New("refused")})
	r.cfg.Cycles, r.cfg.Parallel = 10, 4
	told := make(chan int, 100)
	r.cfg.Progress = func(n int) { told <- n }
	r.workers(t.Context())
	if r.report.Cycles != 10 || len(told) != 10 {
		t.Errorf("%d cycles, %d told of", r.report.Cycles, len(told))
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	r = newChurn("zombie", &scripted{})
	r.workers(ended)
	if r.report.Cycles != 0 {
		t.Errorf("%d cycles after the end", r.report.Cycles)
	}
}

func TestInject(t *testing.T) {
	broken := errors.New("broken")
	r := newChurn("none", nil)
	r.fault.loop = func(context.Context, faultRun) error { return broken }
	if _, err := r.inject(t.Context()); !errors.Is(err, broken) || !strings.Contains(err.Error(), "did not start") {
		t.Errorf("a fault that cannot be done: %v", err)
	}
	for _, end := range []error{nil, broken} {
		r.fault.loop = func(ctx context.Context, run faultRun) error {
			run.started()
			run.ended()
			run.started()
			<-ctx.Done()
			if end != nil {
				return end
			}
			return ctx.Err()
		}
		stop, err := r.inject(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := stop(); !errors.Is(err, end) {
			t.Errorf("stop: %v, want %v", err, end)
		}
	}
	r.recovered()
	if r.report.RecoveryMaxMS <= 0 {
		t.Error("no recovery after the end of a fault")
	}
	before := r.report.RecoveryMaxMS
	r.recovered()
	if r.report.RecoveryMaxMS != before {
		t.Error("a second recovery from one fault")
	}
}

func TestRunRefuses(t *testing.T) {
	for _, cfg := range []Config{{Client: "ours", Fault: "flood"}, {Client: "other", Fault: "none"}} {
		if _, err := Run(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "unknown") {
			t.Errorf("%+v: %v", cfg, err)
		}
	}
}
