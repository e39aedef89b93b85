package systemd1_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sfu-agent/sfu-agent/dbusx"
	"github.com/sfu-agent/sfu-agent/dbusx/dbustest"
	"github.com/sfu-agent/sfu-agent/dbusx/systemd1"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	unit = "sfu-a-0-1b2c3d4e.scope"
	pid  = 4242
)

// host is a fake systemd and a client on it.
type host struct {
	*systemd1.Systemd
	fake *dbustest.Systemd
	bus  *dbustest.Bus
	c    *dbusx.Client
}

// onHost runs test in a bubble of fake time; nothing may be left afterwards.
func onHost(t *testing.T, fake *dbustest.Systemd, test func(*testing.T, *host)) {
	t.Helper()
	proc := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		fake.Proc = proc
		addProcess(t, proc, pid)
		h := &host{fake: fake, bus: new(dbustest.Bus)}
		fake.Offer(h.bus)
		defer h.bus.Close()
		c, err := dbusx.Open(t.Context(), dbusx.Options{Dial: h.bus.Dial})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		h.c = c
		h.Systemd = systemd1.New(c, systemd1.Options{ProcRoot: proc})
		defer h.Close()
		test(t, h)
	})
}

func addProcess(t *testing.T, proc string, pid int) {
	t.Helper()
	dir := filepath.Join(proc, strconv.Itoa(pid))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"cgroup": "1:name=systemd:/\n0::/user.slice\n",
		"stat":   strconv.Itoa(pid) + " (worker) S 1",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func props() systemd1.Properties {
	var p systemd1.Properties
	p.Slice("sfu.slice")
	p.PIDs(pid)
	return p
}

func (h *host) start(ctx context.Context) error { return h.StartScope(ctx, unit, props()) }

// undone waits until nothing is left to undo.
func (h *host) undone(t *testing.T) {
	t.Helper()
	for began := time.Now(); h.Stats().UndoPending > 0; time.Sleep(10 * time.Millisecond) {
		if time.Since(began) > time.Minute {
			t.Fatalf("stats %+v, units %v", h.Stats(), h.fake.Units())
		}
	}
}

func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func want(t *testing.T, err, kind error) {
	t.Helper()
	if !errors.Is(err, kind) {
		t.Errorf("got error %v, want %v", err, kind)
	}
	var e *dbusx.Error
	if errors.As(err, &e) && e.Unit != unit {
		t.Errorf("error %q is about unit %q", err, e.Unit)
	}
}

func TestD09_JobRemoved(t *testing.T) {
	for name, tt := range map[string]struct {
		signals dbustest.Signals
		within  time.Duration
	}{
		"after the reply":           {dbustest.After, 0},
		"before the reply":          {dbustest.Before, 0},
		"twice":                     {dbustest.Twice, 0},
		"other unit, other job":     {dbustest.Confusing, 0},
		"never, unit is looked at":  {dbustest.Never, 200 * time.Millisecond},
		"from somebody else, never": {dbustest.Forged, 200 * time.Millisecond},
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
				if took := time.Since(began); took != 2*tt.within {
					t.Errorf("start and stop took %v", took)
				}
				s := h.Stats()
				if s.JobsBySignal+s.JobsByPoll != 2 || (s.JobsByPoll > 0) != (tt.within > 0) {
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

func TestD17_UnitExistsAfterUnknownOutcome(t *testing.T) {
	// The first request gets no answer; meanwhile the unit is put there.
	lost := func() *dbustest.Systemd {
		return &dbustest.Systemd{Fault: func(method string, n int) dbustest.Fault {
			if method == "StartTransientUnit" && n == 1 {
				return dbustest.CutRequest
			}
			return dbustest.None
		}}
	}
	t.Run("own PID", func(t *testing.T) {
		fake := lost()
		onHost(t, fake, func(t *testing.T, h *host) {
			h.fake.Put(unit, dbustest.Unit{Active: "active", Sub: "running", PIDs: []uint32{pid}})
			h.fake.Attach(unit)
			if err := h.start(within(t, 10*time.Second)); err != nil {
				t.Error(err)
			}
			if n := h.fake.Calls("StopUnit"); n > 0 {
				t.Errorf("%d stops", n)
			}
		})
	})
	t.Run("foreign PID", func(t *testing.T) {
		fake := lost()
		onHost(t, fake, func(t *testing.T, h *host) {
			h.fake.Put(unit, dbustest.Unit{Active: "active", Sub: "running", PIDs: []uint32{99}})
			want(t, h.start(within(t, 10*time.Second)), systemd1.ErrExists)
			h.undone(t)
			if _, there := h.fake.Unit(unit); !there || h.fake.Calls("StopUnit") > 0 {
				t.Errorf("foreign unit stopped")
			}
		})
	})
	t.Run("foreign PID, found by the undo", func(t *testing.T) {
		fake := &dbustest.Systemd{Fault: func(method string, _ int) dbustest.Fault {
			if method == "StartTransientUnit" {
				return dbustest.LostRequest
			}
			return dbustest.None
		}}
		onHost(t, fake, func(t *testing.T, h *host) {
			h.fake.Put(unit, dbustest.Unit{Active: "active", Sub: "running", PIDs: []uint32{99}})
			want(t, h.start(within(t, time.Second)), dbusx.ErrTimeout)
			h.undone(t)
			if _, there := h.fake.Unit(unit); !there || h.fake.Calls("StopUnit") > 0 {
				t.Errorf("foreign unit stopped")
			}
			if n := h.Stats().UndoGivenUp; n != 1 {
				t.Errorf("%d undos given up", n)
			}
		})
	})
	t.Run("no PID", func(t *testing.T) {
		fake := lost()
		onHost(t, fake, func(t *testing.T, h *host) {
			h.fake.Put(unit, dbustest.Unit{Active: "active", Sub: "running"})
			if err := h.start(within(t, 10*time.Second)); err != nil {
				t.Error(err)
			}
			if u, _ := h.fake.Unit(unit); !slices.Equal(u.PIDs, []uint32{pid}) {
				t.Errorf("unit %+v", u)
			}
			if n := h.fake.Calls("StopUnit"); n != 1 {
				t.Errorf("%d stops", n)
			}
		})
	})
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

// The same name: without an unknown outcome nothing of somebody else's is
// touched, and what has failed is cleared away.
func TestStartScopeNameTaken(t *testing.T) {
	t.Run("foreign", func(t *testing.T) {
		onHost(t, &dbustest.Systemd{}, func(t *testing.T, h *host) {
			h.fake.Put(unit, dbustest.Unit{Active: "active", Sub: "running", PIDs: []uint32{99}})
			want(t, h.start(within(t, 10*time.Second)), systemd1.ErrExists)
			if h.fake.Calls("StopUnit")+h.fake.Calls("ResetFailedUnit") > 0 || h.Stats().UndoPending > 0 {
				t.Error("foreign unit touched")
			}
		})
	})
	t.Run("failed", func(t *testing.T) {
		onHost(t, &dbustest.Systemd{}, func(t *testing.T, h *host) {
			h.fake.Put(unit, dbustest.Unit{Active: "failed", Sub: "failed"})
			if err := h.start(within(t, 10*time.Second)); err != nil {
				t.Error(err)
			}
		})
	})
	t.Run("own", func(t *testing.T) {
		onHost(t, &dbustest.Systemd{}, func(t *testing.T, h *host) {
			for range 2 {
				if err := h.start(within(t, 10*time.Second)); err != nil {
					t.Error(err)
				}
			}
		})
	})
	t.Run("being undone", func(t *testing.T) {
		onHost(t, &dbustest.Systemd{NoAttach: true}, func(t *testing.T, h *host) {
			want(t, h.start(within(t, 10*time.Second)), systemd1.ErrProcessGone)
			h.fake.NoAttach = false
			if err := h.start(within(t, 10*time.Second)); err != nil {
				t.Error(err)
			}
			h.undone(t)
			if _, there := h.fake.Unit(unit); !there {
				t.Error("the undo of the first start stopped the second")
			}
		})
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

func TestStop(t *testing.T) {
	t.Run("no such unit", func(t *testing.T) {
		onHost(t, &dbustest.Systemd{}, func(t *testing.T, h *host) {
			if r, err := h.Stop(t.Context(), unit); r != systemd1.ResultNone || err != nil {
				t.Errorf("got %s, %v", r, err)
			}
		})
	})
	t.Run("never ends", func(t *testing.T) {
		onHost(t, &dbustest.Systemd{}, func(t *testing.T, h *host) {
			h.fake.Put(unit, dbustest.Unit{Active: "active", Sub: "running", Stays: true})
			began := time.Now()
			_, err := h.Stop(within(t, 5*time.Second), unit)
			want(t, err, dbusx.ErrTimeout)
			if took := time.Since(began); took != 5*time.Second {
				t.Errorf("took %v", took)
			}
		})
	})
	for name, tt := range map[string]struct {
		after time.Duration
		want  systemd1.Result
	}{
		"clean":   {time.Second, systemd1.ResultClean},
		"killed":  {1600 * time.Millisecond, systemd1.ResultKilled},
		"timeout": {3100 * time.Millisecond, systemd1.ResultTimeout},
	} {
		t.Run(name, func(t *testing.T) {
			onHost(t, &dbustest.Systemd{}, func(t *testing.T, h *host) {
				h.fake.Put(unit, dbustest.Unit{Active: "active", Sub: "running", Stays: true})
				time.AfterFunc(tt.after, func() { h.fake.End(unit) })
				if r, err := h.Stop(within(t, 5*time.Second), unit); r != tt.want || err != nil {
					t.Errorf("got %s, %v, want %s", r, err, tt.want)
				}
			})
		})
	}
}

func TestUnitAndList(t *testing.T) {
	onHost(t, &dbustest.Systemd{}, func(t *testing.T, h *host) {
		if err := h.start(t.Context()); err != nil {
			t.Fatal(err)
		}
		u, err := h.Unit(t.Context(), unit)
		if err != nil {
			t.Fatal(err)
		}
		wantUnit := systemd1.Unit{Name: unit, LoadState: "loaded", ActiveState: "active", SubState: "running",
			Result: "success", ControlGroup: "/sfu.slice/" + unit, InvocationID: "abcd", TimeoutStop: 1500 * time.Millisecond}
		if u != wantUnit {
			t.Errorf("got %+v\nwant %+v", u, wantUnit)
		}
		_, err = h.Unit(t.Context(), "other.scope")
		if !errors.Is(err, systemd1.ErrNoUnit) {
			t.Errorf("got %v", err)
		}
		list, err := h.List(t.Context(), "sfu-*.scope")
		if err != nil || len(list) != 1 || list[0].Name != unit || list[0].ActiveState != "active" {
			t.Errorf("got %+v, %v", list, err)
		}
		if v, err := h.Version(t.Context()); v != "252.39-1" || err != nil {
			t.Errorf("version %q, %v", v, err)
		}
		var p systemd1.Properties
		p.MemoryMax(1 << 30)
		for name, err := range map[string]error{
			"kill":   h.Kill(t.Context(), unit, 9),
			"freeze": h.Freeze(t.Context(), unit),
			"thaw":   h.Thaw(t.Context(), unit),
			"set":    h.SetProperties(t.Context(), unit, p),
			"reset":  h.ResetFailed(t.Context(), unit),
			"ref":    h.Ref(t.Context(), unit),
			"unref":  h.Unref(t.Context(), unit),
		} {
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}

func TestCloseWithUndoPending(t *testing.T) {
	onHost(t, &dbustest.Systemd{NoAttach: true}, func(t *testing.T, h *host) {
		want(t, h.start(within(t, 10*time.Second)), systemd1.ErrProcessGone)
		if err := h.Close(); err == nil {
			t.Error("no error with an undo pending")
		}
	})
}
