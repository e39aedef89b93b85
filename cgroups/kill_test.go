package cgroups

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"
)

// A list of processes is old when it is read: what is elsewhere by now, is gone,
// or is init gets no signal.
func TestSignalSparesOthers(t *testing.T) {
	other := exec.Command("sleep", "1000")
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	gone := exec.Command("true")
	if err := gone.Run(); err != nil {
		t.Fatal(err)
	}
	g := fakeGroup(t, map[string]string{"cgroup.procs": fmt.Sprintf("%d\n%d\n", gone.Process.Pid, other.Process.Pid)})
	if err := g.Signal(syscall.SIGKILL); err != nil {
		t.Error(err)
	}
	if err := other.Process.Signal(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	_ = other.Wait()
	if status := other.ProcessState.Sys().(syscall.WaitStatus); status.Signal() != syscall.SIGTERM {
		t.Errorf("the other process: %v", other.ProcessState)
	}
	set(t, g, "cgroup.procs", "1\n")
	if err := g.Signal(syscall.SIGCONT); err == nil {
		t.Error("init was signalled")
	}
	if err := g.Child("none").Signal(syscall.SIGKILL); err != nil {
		t.Errorf("no cgroup: %v", err)
	}
}

func TestAwaitRemoval(t *testing.T) {
	g := fakeGroup(t, nil)
	if err := g.AwaitRemoval(t.Context(), 5*time.Millisecond); !errors.Is(err, ErrBusy) {
		t.Errorf("still there: %v", err)
	}
	removed := make(chan error, 1)
	go func() { removed <- os.Remove(g.Dir()) }()
	if err := g.AwaitRemoval(t.Context(), 10*time.Second); err != nil {
		t.Error(err)
	}
	if err := <-removed; err != nil {
		t.Error(err)
	}
}
