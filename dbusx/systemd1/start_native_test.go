//go:build native

package systemd1_test

import (
	"bufio"
	"errors"
	"fmt"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sfu-agent/sfu-agent/dbusx"
	"github.com/sfu-agent/sfu-agent/dbusx/systemd1"
)

func TestS14_ProcessGone(t *testing.T) {
	s := connect(t, dbusx.Options{})
	start := func(pid int) error { return s.StartScope(ctxOf(t, 5*time.Second), unitName(), workerProps(pid)) }
	t.Run("zombie", func(t *testing.T) {
		cmd := process(t, "true")
		defer end(cmd)
		eventually(t, 5*time.Second, func() error {
			if !zombie(cmd.Process.Pid) {
				return errors.New("not yet a zombie")
			}
			return nil
		})
		if err := start(cmd.Process.Pid); !errors.Is(err, systemd1.ErrProcessGone) {
			t.Errorf("got %v", err)
		}
		leftovers(t, s)
	})
	t.Run("reaped", func(t *testing.T) {
		cmd := process(t)
		end(cmd)
		if err := start(cmd.Process.Pid); !errors.Is(err, systemd1.ErrProcessGone) {
			t.Errorf("got %v", err)
		}
	})
	for _, pid := range []int{0, 1, -1} {
		if err := start(pid); !errors.Is(err, systemd1.ErrProperty) {
			t.Errorf("PID %d: got %v", pid, err)
		}
	}
	t.Run("dies meanwhile", func(t *testing.T) {
		var wg sync.WaitGroup
		results := make(map[string]int)
		var mu sync.Mutex
		for w := range 4 {
			wg.Go(func() {
				for i := range *cycles / 4 {
					cmd := process(t)
					kill := time.AfterFunc(time.Duration((i*4+w)%16)*100*time.Microsecond, func() { _ = cmd.Process.Kill() })
					err := start(cmd.Process.Pid)
					kill.Stop()
					end(cmd)
					mu.Lock()
					switch {
					case err == nil:
						results["started"]++
					case errors.Is(err, systemd1.ErrProcessGone):
						results["gone"]++
					default:
						t.Error(err)
					}
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		t.Log(results)
		leftovers(t, s)
	})
}

// Children that a process had before stay where they are: StartScope says so.
func TestS15_ForkedEarly(t *testing.T) {
	s := connect(t, dbusx.Options{})
	cmd := exec.Command("sh", "-c", "sleep 1000 & echo $!; read line; sleep 1001 & echo $!; wait")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	in, _ := cmd.StdinPipe()
	out, _ := cmd.StdoutPipe()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		_ = cmd.Wait()
	}()
	lines := bufio.NewReader(out)
	child := func() (pid int) {
		if _, err := fmt.Fscan(lines, &pid); err != nil {
			t.Fatal(err)
		}
		return pid
	}
	before := child()
	unit := unitName()
	if err := s.StartScope(ctxOf(t, 5*time.Second), unit, workerProps(cmd.Process.Pid)); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(in)
	after := child()
	if inScope(before, unit) || !inScope(after, unit) {
		t.Errorf("child from before in the scope: %t, child from after: %t", inScope(before, unit), inScope(after, unit))
	}
	if _, err := s.Stop(ctxOf(t, 10*time.Second), unit); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(after, 0); err == nil && !zombie(after) {
		t.Errorf("child %d is alive after Stop", after)
	}
	leftovers(t, s)
}

func TestS16_SameName(t *testing.T) {
	s := connect(t, dbusx.Options{})
	t.Run("active", func(t *testing.T) {
		own, other := process(t), process(t)
		defer end(own)
		defer end(other)
		unit := unitName()
		for range 2 {
			if err := s.StartScope(ctxOf(t, 5*time.Second), unit, workerProps(own.Process.Pid)); err != nil {
				t.Errorf("own: %v", err)
			}
		}
		if err := s.StartScope(ctxOf(t, 5*time.Second), unit, workerProps(other.Process.Pid)); !errors.Is(err, systemd1.ErrExists) {
			t.Errorf("foreign: got %v", err)
		}
		if !inScope(own.Process.Pid, unit) || inScope(other.Process.Pid, unit) {
			t.Error("the unit has changed hands")
		}
		if _, err := s.Stop(ctxOf(t, 5*time.Second), unit); err != nil {
			t.Error(err)
		}
		leftovers(t, s)
	})
	t.Run("failed", func(t *testing.T) {
		cmd := deaf(t)
		defer end(cmd)
		unit := unitName()
		p := workerProps(cmd.Process.Pid)
		p.CollectMode("inactive")
		p.TimeoutStop(200 * time.Millisecond)
		if err := s.StartScope(ctxOf(t, 5*time.Second), unit, p); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Stop(ctxOf(t, 5*time.Second), unit); err != nil {
			t.Fatal(err)
		}
		u, err := s.Unit(ctxOf(t, 5*time.Second), unit)
		if err != nil || u.ActiveState != "failed" || u.Result != "timeout" {
			t.Fatalf("got %+v, %v", u, err)
		}
		next := process(t)
		defer end(next)
		if err := s.StartScope(ctxOf(t, 5*time.Second), unit, workerProps(next.Process.Pid)); err != nil {
			t.Error(err)
		}
		if _, err := s.Stop(ctxOf(t, 5*time.Second), unit); err != nil {
			t.Error(err)
		}
		leftovers(t, s)
	})
	t.Run("16 at once", func(t *testing.T) {
		unit := unitName()
		var wg sync.WaitGroup
		errs := make(chan error, 16)
		for range cap(errs) {
			wg.Go(func() {
				cmd := process(t)
				err := s.StartScope(ctxOf(t, 5*time.Second), unit, workerProps(cmd.Process.Pid))
				if in := inScope(cmd.Process.Pid, unit); in != (err == nil) {
					t.Errorf("in the scope: %t, error: %v", in, err)
				}
				if err != nil {
					end(cmd)
				} else {
					t.Cleanup(func() { end(cmd) })
				}
				errs <- err
			})
		}
		wg.Wait()
		close(errs)
		winners := 0
		for err := range errs {
			if err == nil {
				winners++
			} else if !errors.Is(err, systemd1.ErrExists) {
				t.Error(err)
			}
		}
		if winners != 1 {
			t.Errorf("%d winners", winners)
		}
		if _, err := s.Stop(ctxOf(t, 5*time.Second), unit); err != nil {
			t.Error(err)
		}
		leftovers(t, s)
	})
}
