//go:build native

package systemd1_test

import (
	"syscall"
	"testing"
	"time"

	"github.com/sfu-agent/sfu-agent/cgroups"
	"github.com/sfu-agent/sfu-agent/dbusx"
	"github.com/sfu-agent/sfu-agent/dbusx/systemd1"
)

func groupOf(t *testing.T, pid int) cgroups.Group {
	t.Helper()
	host, err := cgroups.Detect()
	if err != nil {
		t.Fatal(err)
	}
	group, err := host.GroupOf(pid)
	if err != nil {
		t.Fatal(err)
	}
	return group
}

// The name of a scope that was stopped is free at once, and no job was needed.
func TestStopScopeAndAgain(t *testing.T) {
	s := connect(t, dbusx.Options{})
	unit := unitName()
	const times = 200
	for range times {
		cmd := process(t)
		if err := s.StartScope(ctxOf(t, 5*time.Second), unit, workerProps(cmd.Process.Pid)); err != nil {
			t.Fatal(err)
		}
		group := groupOf(t, cmd.Process.Pid)
		r, err := s.StopScope(ctxOf(t, 5*time.Second), unit, group, timeoutStop)
		if r != systemd1.ResultClean || err != nil || group.Exists() {
			t.Fatalf("got %s, %v, cgroup there: %t", r, err, group.Exists())
		}
		end(cmd)
		r, err = s.StopScope(ctxOf(t, 5*time.Second), unit, group, timeoutStop)
		if r != systemd1.ResultNone || err != nil {
			t.Fatalf("once more: got %s, %v", r, err)
		}
	}
	if n := s.Stats(); n.JobsBySight+n.JobsBySignal+n.JobsByPoll != times {
		t.Errorf("%d starts, jobs: %+v", times, n)
	}
	leftovers(t, s)
}

func TestStopScopeIgnoringSIGTERM(t *testing.T) {
	s := connect(t, dbusx.Options{})
	unit := unitName()
	cmd := deaf(t)
	t.Cleanup(func() { end(cmd) })
	p := workerProps(cmd.Process.Pid)
	p.TimeoutStop(time.Minute) // systemd's, which is not to be waited for
	if err := s.StartScope(ctxOf(t, 5*time.Second), unit, p); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	r, err := s.StopScope(ctxOf(t, 10*time.Second), unit, groupOf(t, cmd.Process.Pid), timeoutStop)
	if took := time.Since(began); r != systemd1.ResultKilled || err != nil || took < timeoutStop || took > timeoutStop+time.Second {
		t.Errorf("got %s, %v after %v", r, err, took)
	}
	leftovers(t, s)
}

// Nothing of this needs the bus.
func TestStopScopeWhileTheBusIsStopped(t *testing.T) {
	requireRaw(t)
	whole(t)
	defer whole(t)
	s := connect(t, dbusx.Options{})
	unit := unitName()
	cmd := process(t)
	defer end(cmd)
	if err := s.StartScope(ctxOf(t, 5*time.Second), unit, workerProps(cmd.Process.Pid)); err != nil {
		t.Fatal(err)
	}
	group := groupOf(t, cmd.Process.Pid)
	bus, err := busPID()
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(bus, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := syscall.Kill(bus, syscall.SIGCONT); err != nil {
			t.Error(err)
		}
	}()
	r, err := s.StopScope(ctxOf(t, 900*time.Millisecond), unit, group, timeoutStop)
	if r != systemd1.ResultClean || err != nil {
		t.Errorf("got %s, %v", r, err)
	}
}

// A cgroup that is another's, or that cannot be signalled, is left to systemd.
func TestStopScopeByJob(t *testing.T) {
	s := connect(t, dbusx.Options{})
	other := process(t)
	defer end(other)
	otherUnit := unitName()
	if err := s.StartScope(ctxOf(t, 5*time.Second), otherUnit, workerProps(other.Process.Pid)); err != nil {
		t.Fatal(err)
	}
	frozen := func(t *testing.T, group cgroups.Group) cgroups.Group {
		if err := group.Freeze(ctxOf(t, 5*time.Second)); err != nil {
			t.Fatal(err)
		}
		return group
	}
	for name, group := range map[string]func(*testing.T, cgroups.Group) cgroups.Group{
		"none":      func(*testing.T, cgroups.Group) cgroups.Group { return cgroups.Group{} },
		"another's": func(t *testing.T, _ cgroups.Group) cgroups.Group { return groupOf(t, other.Process.Pid) },
		"frozen":    frozen,
	} {
		t.Run(name, func(t *testing.T) {
			cmd := process(t)
			defer end(cmd)
			unit := unitName()
			if err := s.StartScope(ctxOf(t, 5*time.Second), unit, workerProps(cmd.Process.Pid)); err != nil {
				t.Fatal(err)
			}
			r, err := s.StopScope(ctxOf(t, 10*time.Second), unit, group(t, groupOf(t, cmd.Process.Pid)), timeoutStop)
			if r != systemd1.ResultClean || err != nil {
				t.Errorf("got %s, %v", r, err)
			}
			if inScope(cmd.Process.Pid, unit) && !zombie(cmd.Process.Pid) {
				t.Error("the process runs")
			}
		})
	}
	if !inScope(other.Process.Pid, otherUnit) || zombie(other.Process.Pid) {
		t.Error("another's process was ended")
	}
	if _, err := s.Stop(ctxOf(t, 5*time.Second), otherUnit); err != nil {
		t.Error(err)
	}
	leftovers(t, s)
}
