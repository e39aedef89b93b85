package systemd1_test

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sfu-agent/sfu-agent/dbusx"
	"github.com/sfu-agent/sfu-agent/dbusx/dbustest"
	"github.com/sfu-agent/sfu-agent/dbusx/systemd1"
)

func TestD09_JobRemoved(t *testing.T) {
	for name, tt := range map[string]struct {
		signals dbustest.Signals
		within  time.Duration
	}{
		"after the reply":           {dbustest.After, 0},
		"before the reply":          {dbustest.Before, 0},
		"twice":                     {dbustest.Twice, 0},
		"other unit, other job":     {dbustest.Confusing, 0},
		"never, looked for":         {dbustest.Never, 500*time.Millisecond + 500*time.Microsecond},
		"from somebody else, never": {dbustest.Forged, 500*time.Millisecond + 500*time.Microsecond},
	} {
		t.Run(name, func(t *testing.T) {
			onHost(t, &dbustest.Systemd{Signals: tt.signals}, func(t *testing.T, h *host) {
				began := time.Now()
				if err := h.start(within(t, 10*time.Second)); err != nil {
					t.Fatal(err)
				}
				if _, err := h.Stop(within(t, 10*time.Second), unit); err != nil {
					t.Fatal(err)
				}
				if took := time.Since(began); took != tt.within {
					t.Errorf("start and stop took %v", took)
				}
				ended := systemd1.Stats{JobsBySignal: 2}
				if tt.within > 0 {
					ended = systemd1.Stats{JobsBySight: 1, JobsByPoll: 1}
				}
				if s := h.Stats(); s != ended {
					t.Errorf("stats %+v", s)
				}
			})
		})
	}
}

func TestD10_JobResult(t *testing.T) {
	for _, result := range []string{"failed", "canceled", "timeout", "dependency", "skipped"} {
		t.Run(result, func(t *testing.T) {
			onHost(t, &dbustest.Systemd{JobResult: result, NoAttach: true}, func(t *testing.T, h *host) {
				err := h.start(within(t, 10*time.Second))
				want(t, err, systemd1.ErrJob)
				var job *systemd1.JobError
				if !errors.As(err, &job) || job.Result != result {
					t.Errorf("got %v", err)
				}
				h.undone(t)
				if left := h.fake.Units(); len(left) > 0 {
					t.Errorf("left: %v", left)
				}
			})
		})
	}
}

func TestD13_ServiceLost(t *testing.T) {
	for name, fault := range map[string]dbustest.Fault{
		"done, NoReply":       dbustest.NoReply,
		"done, connection":    dbustest.CutReply,
		"done, reply dropped": dbustest.LostReply,
		"not done, dropped":   dbustest.LostRequest,
		"not done, cut":       dbustest.CutRequest,
		"ServiceUnknown":      dbustest.ServiceUnknown,
		"NameHasNoOwner":      dbustest.NameHasNoOwner,
		"Disconnected":        dbustest.Disconnected,
	} {
		t.Run(name, func(t *testing.T) {
			fake := &dbustest.Systemd{Fault: func(_ string, n int) dbustest.Fault {
				if n == 1 { // the first call of every method
					return fault
				}
				return dbustest.None
			}}
			onHost(t, fake, func(t *testing.T, h *host) {
				began := time.Now()
				if err := h.start(within(t, 20*time.Second)); err != nil {
					t.Fatal(err)
				}
				if got := h.fake.Units(); !slices.Equal(got, []string{unit}) {
					t.Errorf("units %v", got)
				}
				if _, err := h.Unit(within(t, 20*time.Second), unit); err != nil {
					t.Error(err)
				}
				if _, err := h.Stop(within(t, 20*time.Second), unit); err != nil {
					t.Error(err)
				}
				if got := h.fake.Units(); len(got) > 0 {
					t.Errorf("left: %v", got)
				}
				t.Logf("%v, %d starts, %d stops", time.Since(began), h.fake.Calls("StartTransientUnit"), h.fake.Calls("StopUnit"))
			})
		})
	}
}

func TestD14_StartGivenUpInFlight(t *testing.T) {
	for name, fault := range map[string]dbustest.Fault{"done": dbustest.LostReply, "not done": dbustest.LostRequest} {
		t.Run(name, func(t *testing.T) {
			fake := &dbustest.Systemd{Fault: func(method string, _ int) dbustest.Fault {
				if method == "StartTransientUnit" {
					return fault
				}
				return dbustest.None
			}}
			onHost(t, fake, func(t *testing.T, h *host) {
				began := time.Now()
				want(t, h.start(within(t, time.Second)), dbusx.ErrTimeout)
				if took := time.Since(began); took != time.Second {
					t.Errorf("start took %v", took)
				}
				h.undone(t)
				if took := time.Since(began); took > 3*time.Second {
					t.Errorf("undone after %v", took)
				}
				if left := h.fake.Units(); len(left) > 0 {
					t.Errorf("left: %v", left)
				}
			})
		})
	}
}

func TestD18_NewOwnerOfSystemd(t *testing.T) {
	onHost(t, &dbustest.Systemd{Signals: dbustest.Never}, func(t *testing.T, h *host) {
		began := time.Now()
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := h.start(within(t, 10*time.Second)); err != nil {
				t.Error(err)
			}
		})
		synctest.Wait()
		h.bus.SetOwner("org.freedesktop.systemd1", ":1.0")
		wg.Wait()
		if took := time.Since(began); took > 0 {
			t.Errorf("start took %v", took)
		}
	})
}

// A systemd that re-executes itself again and again answers few calls each time
// and runs jobs when it has none left to answer. So what was lost is asked for
// again at once, without a question first.
func TestLostStartIsSentAgainAtOnce(t *testing.T) {
	fake := &dbustest.Systemd{Fault: func(method string, n int) dbustest.Fault {
		if method == "StartTransientUnit" && n == 1 {
			time.Sleep(time.Second)
			return dbustest.Disconnected
		}
		return dbustest.None
	}}
	onHost(t, fake, func(t *testing.T, h *host) {
		began := time.Now()
		time.AfterFunc(time.Second/2, func() { h.bus.SetOwner("org.freedesktop.systemd1", ":1.0") })
		if err := h.start(within(t, 10*time.Second)); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took > time.Second+time.Millisecond {
			t.Errorf("start took %v", took)
		}
		if n := h.fake.Calls("ListUnitsByPatterns"); n > 0 {
			t.Errorf("%d questions", n)
		}
	})
}

// A request that was carried out after all, with a job that takes its time.
func TestLostStartThatWasMade(t *testing.T) {
	for _, signals := range []dbustest.Signals{dbustest.After, dbustest.Never} {
		fake := &dbustest.Systemd{Signals: signals, Fault: func(method string, n int) dbustest.Fault {
			if method == "StartTransientUnit" && n == 1 {
				return dbustest.LostRequest
			}
			return dbustest.None
		}}
		onHost(t, fake, func(t *testing.T, h *host) {
			h.fake.Put(unit, dbustest.Unit{Active: "inactive", Sub: "dead", PIDs: []uint32{pid}, Job: 7})
			time.AfterFunc(5*time.Second, func() {
				h.fake.Attach(unit)
				h.fake.Finish(unit)
			})
			began := time.Now()
			if err := h.start(within(t, 10*time.Second)); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(began); took > 6*time.Second {
				t.Errorf("start took %v", took)
			}
			if n := h.fake.Calls("StopUnit"); n > 0 {
				t.Errorf("%d stops", n)
			}
		})
	}
}

// It is ours, too, when its start ends while we ask what has our name.
func TestLostStartThatEndsMeanwhile(t *testing.T) {
	fake := &dbustest.Systemd{}
	fake.Fault = func(method string, n int) dbustest.Fault {
		switch {
		case method == "StartTransientUnit" && n == 1:
			return dbustest.LostRequest
		case method == "ListUnitsByPatterns" && n == 1:
			fake.Attach(unit)
			fake.Finish(unit)
		}
		return dbustest.None
	}
	onHost(t, fake, func(t *testing.T, h *host) {
		h.fake.Put(unit, dbustest.Unit{Active: "inactive", Sub: "dead", PIDs: []uint32{pid}, Job: 7})
		if err := h.start(within(t, 10*time.Second)); err != nil {
			t.Fatal(err)
		}
	})
}

// All who wait for jobs are told by one question.
func TestOneLookForAll(t *testing.T) {
	onHost(t, &dbustest.Systemd{}, func(t *testing.T, h *host) {
		var wg sync.WaitGroup
		var names []string
		for i := range 8 {
			name := fmt.Sprintf("sfu-%d.scope", i)
			names = append(names, name)
			h.fake.Put(name, dbustest.Unit{Active: "active", Sub: "running", Stays: true})
			wg.Go(func() {
				if _, err := h.Stop(within(t, 10*time.Second), name); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		h.bus.SetOwner("org.freedesktop.systemd1", ":1.0")
		synctest.Wait()
		if n := h.fake.Calls("ListUnitsByPatterns"); n != 1 {
			t.Errorf("%d questions", n)
		}
		for _, name := range names {
			h.fake.End(name)
		}
		wg.Wait()
	})
}

func TestStartScopeProcessGone(t *testing.T) {
	onHost(t, &dbustest.Systemd{NoAttach: true}, func(t *testing.T, h *host) {
		want(t, h.start(within(t, 10*time.Second)), systemd1.ErrProcessGone)
		h.undone(t)
		if left := h.fake.Units(); len(left) > 0 {
			t.Errorf("left: %v", left)
		}
	})
}

func TestStartScopeRefusesLocally(t *testing.T) {
	onHost(t, &dbustest.Systemd{}, func(t *testing.T, h *host) {
		for _, pids := range [][]int{nil, {0}, {1}, {-1}, {pid, 0}} {
			var p systemd1.Properties
			p.PIDs(pids...)
			want(t, h.StartScope(t.Context(), unit, p), systemd1.ErrProperty)
		}
		p := props()
		p.AllowedCPUs("3-1")
		want(t, h.StartScope(t.Context(), unit, p), systemd1.ErrProperty)
		if n := h.fake.Calls("StartTransientUnit"); n > 0 {
			t.Errorf("%d calls", n)
		}
	})
}

func TestOptionalProperties(t *testing.T) {
	onHost(t, &dbustest.Systemd{Refuse: []string{"OOMPolicy", "AllowedCPUs"}}, func(t *testing.T, h *host) {
		for range 3 {
			p := props()
			p.OOMPolicy("continue")
			p.AllowedCPUs("0")
			if err := h.StartScope(t.Context(), unit, p); err != nil {
				t.Fatal(err)
			}
			if _, err := h.Stop(t.Context(), unit); err != nil {
				t.Fatal(err)
			}
		}
		if n := h.fake.Calls("StartTransientUnit"); n != 5 {
			t.Errorf("%d calls for 3 starts", n)
		}
	})
	onHost(t, &dbustest.Systemd{Refuse: []string{"Slice"}}, func(t *testing.T, h *host) {
		err := h.start(t.Context())
		want(t, err, systemd1.ErrProperty)
		var p *systemd1.PropertyError
		if !errors.As(err, &p) || p.Name != "Slice" {
			t.Errorf("got %v", err)
		}
	})
}

// The first calls make the client follow JobRemoved. None of them may be sent
// before it does.
func TestFirstStartsMissNoSignal(t *testing.T) {
	onHost(t, &dbustest.Systemd{}, func(t *testing.T, h *host) {
		h.bus.Handle(dbustest.Driver+".AddMatch", func(c *dbustest.Call) {
			time.AfterFunc(10*time.Millisecond, func() { c.Reply() })
		})
		var wg sync.WaitGroup
		for i := range 8 {
			addProcess(t, h.fake.Proc, pid+i)
			wg.Go(func() {
				var p systemd1.Properties
				p.PIDs(pid + i)
				if err := h.StartScope(within(t, 10*time.Second), fmt.Sprintf("sfu-%d.scope", i), p); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if s := h.Stats(); s.JobsByPoll > 0 {
			t.Errorf("stats %+v", s)
		}
	})
}
