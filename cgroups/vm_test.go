//go:build vm

package cgroups

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"
)

const mib = 1 << 20

// limited makes a cgroup with limits.
func limited(t *testing.T, l Limits) Group {
	t.Helper()
	g := newGroup(t)
	if err := g.SetLimits(l); err != nil {
		t.Fatal(err)
	}
	return g
}

func TestC12LimitsAreWhatWasAsked(t *testing.T) {
	g := newGroup(t)
	for _, l := range []Limits{
		{CPUWeight: 1, CPUQuota: 1, AllowedCPUs: "0", MemoryHigh: 16 * mib, MemoryMax: 32*mib + 1, TasksMax: 1, IOWeight: 1, IOMax: "/dev/vda rbps=2,/dev/loop0 wiops=3"},
		{CPUWeight: 250, CPUQuota: 150, AllowedCPUs: "0,1", MemoryHigh: 1 << 40, MemoryMax: 1 << 41, TasksMax: 4194304, IOWeight: 10000, IOMax: "/dev/loop0 rbps=1T wbps=2G riops=3K wiops=4"},
		{CPUWeight: 10000, CPUQuota: 1000, AllowedCPUs: "1", TasksMax: 7},
		{},
	} {
		if err := g.SetLimits(l); err != nil {
			t.Errorf("%+v: %v", l, err)
		}
		if err := g.CheckLimits(l); err != nil {
			t.Errorf("%+v: %v", l, err)
		}
	}
	for _, bad := range []Limits{{CPUWeight: 10001}, {AllowedCPUs: "5000"}, {AllowedCPUs: "x"}, {IOWeight: 10001}, {IOMax: "/dev/none rbps=2"}} {
		if err := g.SetLimits(bad); err == nil || errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}

func TestC12LimitsAreInForce(t *testing.T) {
	g := limited(t, Limits{CPUQuota: 10, TasksMax: 10})
	burn(t, g)
	deadline := time.Now().Add(20 * time.Second)
	for {
		stat, err := g.Stat()
		if err != nil {
			t.Fatal(err)
		}
		if stat.CPU.Throttled > 0 && stat.CPU.ThrottledTime > 0 && stat.Tasks > 0 && stat.Memory.Current > 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("not throttled: %+v", stat)
		}
		time.Sleep(20 * time.Millisecond)
	}
	var refused error
	for range 10 {
		cmd, err := sleepIn(g)
		if err != nil {
			refused = err
			break
		}
		t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	}
	if !errors.Is(refused, syscall.EAGAIN) {
		t.Errorf("more than 10 tasks: %v", refused)
	}
	if stat, err := g.Stat(); err != nil || stat.TaskMax == 0 {
		t.Errorf("usage %+v, %v", stat, err)
	}
}

// allocIn runs a process in a cgroup that uses up to size bytes, and returns
// how it ended. With very little memory the kernel may refuse the fork or the
// execve, and not kill: then there is another.
func allocIn(t *testing.T, g Group, role string) syscall.WaitStatus {
	t.Helper()
	dir, err := g.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	for range 20 {
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = []string{roleEnv + "=" + role}
		cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
		err = cmd.Start()
		if err == nil {
			cmd.Wait()
			return cmd.ProcessState.Sys().(syscall.WaitStatus)
		}
		if !errors.Is(err, syscall.ENOMEM) {
			break
		}
	}
	t.Fatal(err)
	return 0
}

func TestC09OutOfMemory(t *testing.T) {
	w := NewWatcher(nil)
	defer w.Close()
	for name, test := range map[string]struct {
		role   string
		inner  bool // in a cgroup below the one with the limit
		group  bool // memory.oom.group
		max    uint64
		killed uint64 // processes
	}{
		"one process":        {role: "alloc=268435456", max: 32 * mib, killed: 1},
		"one process, group": {role: "alloc=268435456", max: 32 * mib, group: true, killed: 1},
		"with child, group":  {role: "alloc child=268435456", max: 48 * mib, group: true, killed: 2},
		"nested":             {role: "alloc=268435456", max: 32 * mib, inner: true, killed: 1},
		"at once":            {role: "alloc=268435456", max: mib / 4, killed: 1},
	} {
		t.Run(name, func(t *testing.T) {
			outer := limited(t, Limits{MemoryMax: test.max})
			place := outer
			if test.inner {
				if err := outer.Enable("memory"); err != nil {
					t.Fatal(err)
				}
				place = outer.Child("inner")
				if err := place.Create(); err != nil {
					t.Fatal(err)
				}
			}
			if test.group {
				if err := outer.KillTogether(); err != nil {
					t.Fatal(err)
				}
			}
			x, err := w.Watch(outer)
			if err != nil {
				t.Fatal(err)
			}
			defer x.Close()
			if status := allocIn(t, place, test.role); status.Signal() != syscall.SIGKILL {
				t.Errorf("ended with %v", status)
			}
			await(t, x, func(e Events, err error) bool { return err == nil && e.OOMKill >= test.killed && !e.Populated })
			events, err := outer.Events()
			exact := events.OOMKill == test.killed
			if test.group { // the kernel counts a process each time it tells it to die; OOMGroupKill is exact
				exact = events.OOMKill >= test.killed
			}
			if err != nil || events.OOM == 0 || !exact {
				t.Errorf("events %+v, %v, want %d killed", events, err, test.killed)
			}
			if once := events.OOMGroupKill == 1; once != test.group {
				t.Errorf("events %+v: kills of the whole cgroup", events)
			}
			if x.OOMKilled().IsZero() {
				t.Error("the watch does not know when")
			}
			if !test.inner {
				return
			}
			if below, err := place.Events(); err != nil || below.OOMKill != test.killed { // C10
				t.Errorf("events of the inner cgroup %+v, %v", below, err)
			}
		})
	}
}

// A cgroup without memory.oom.group loses the one process that used too much.
func TestC09ChildAlone(t *testing.T) {
	g := limited(t, Limits{MemoryMax: 48 * mib})
	start(t, g, "alloc child=268435456", 1) // says ready when its child is dead
	events, err := g.Events()
	if err != nil || events.OOMKill != 1 || !events.Populated {
		t.Errorf("events %+v, %v", events, err)
	}
}

// C10: of two siblings the kills of one are not the other's, and the parent has
// each once.
func TestC10ParentCountsOnce(t *testing.T) {
	parent := newGroup(t)
	if err := parent.Enable("memory"); err != nil {
		t.Fatal(err)
	}
	for i, name := range []string{"a", "b"} {
		child := parent.Child(name)
		if err := errors.Join(child.Create(), child.SetLimits(Limits{MemoryMax: 32 * mib})); err != nil {
			t.Fatal(err)
		}
		allocIn(t, child, "alloc=268435456")
		own, err := child.Events()
		if err != nil || own.OOMKill != 1 {
			t.Errorf("%s: %+v, %v", name, own, err)
		}
		all, err := parent.Events()
		if err != nil || all.OOMKill != uint64(i+1) {
			t.Errorf("parent after %s: %+v, %v", name, all, err)
		}
	}
}

// OOM within milliseconds after the start, and the cgroup removed at once:
// whoever looks after the death and before the removal knows.
func TestC09AtOnce(t *testing.T) {
	w := NewWatcher(nil)
	defer w.Close()
	const times = 20
	for range times {
		g := limited(t, Limits{MemoryMax: mib / 4})
		x, err := w.Watch(g)
		if err != nil {
			t.Fatal(err)
		}
		allocIn(t, g, "alloc=268435456")
		if events, err := x.Look(); err != nil || events.OOMKill != 1 {
			t.Errorf("events %+v, %v", events, err)
		}
		if err := g.Remove(context.Background()); err != nil {
			t.Error(err)
		}
		if events, err := x.Look(); !errors.Is(err, ErrGone) || events.OOMKill != 1 {
			t.Errorf("after the removal: events %+v, %v", events, err)
		}
		x.Close()
	}
}

func TestC11ExactTrigger(t *testing.T) {
	g := newGroup(t)
	fd, err := g.arm(Trigger{Resource: CPU, Stall: 50 * time.Millisecond, Window: 500 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	syscall.Close(fd)
}

// Pressure is accounted for, or not where the VM is booted with psi=0, as
// SFU_TEST_PSI=off says.
func TestC11PressureAccounting(t *testing.T) {
	g := newGroup(t)
	off := os.Getenv("SFU_TEST_PSI") == "off"
	for _, r := range []Resource{CPU, Memory, IO} {
		_, err := g.Pressure(r)
		if unsupported := errors.Is(err, errors.ErrUnsupported); unsupported != off || !off && err != nil {
			t.Errorf("%s: %v", r, err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		trigger := Trigger{Resource: r, Stall: time.Second, Window: 2 * time.Second}
		err = g.WatchPressure(ctx, trigger, func(TriggerMode) { cancel() }, func(Pressure) {})
		cancel()
		if unsupported := errors.Is(err, errors.ErrUnsupported); unsupported != off || !off && !errors.Is(err, context.Canceled) {
			t.Errorf("watch %s: %v", r, err)
		}
	}
}

func TestC13UnifiedWithControllers(t *testing.T) {
	host, err := Detect()
	if err != nil || host.Mode != Unified {
		t.Fatalf("%+v, %v", host, err)
	}
	for _, controller := range []string{"cpu", "cpuset", "io", "memory", "pids"} {
		if err := host.HaveController(controller); err != nil {
			t.Error(err)
		}
	}
}
