//go:build native

package systemd1_test

import (
	"bufio"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sfu-agent/sfu-agent/dbusx"
	"github.com/sfu-agent/sfu-agent/dbusx/systemd1"
)

// deaf is a process that ignores SIGTERM. It returns when it does.
func deaf(t *testing.T) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("sh", "-c", `trap "" TERM; echo; exec sleep 1000`)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := bufio.NewReader(out).ReadByte(); err != nil {
		t.Fatal(err)
	}
	return cmd
}

const timeoutStop = 1500 * time.Millisecond

// startDeaf puts a process that ignores SIGTERM into a scope.
func startDeaf(t *testing.T, s *systemd1.Systemd, unit string) {
	t.Helper()
	cmd := deaf(t)
	t.Cleanup(func() { end(cmd) })
	p := workerProps(cmd.Process.Pid)
	p.TimeoutStop(timeoutStop)
	if err := s.StartScope(ctxOf(t, 10*time.Second), unit, p); err != nil {
		t.Fatal(err)
	}
}

func TestS13_StopPendingAtFault(t *testing.T) {
	requireRaw(t)
	faults := map[string]func() error{"reload": reload, "reexec": reexec, "restart": restartBus, "kill": killBus}
	for name, fault := range faults {
		t.Run(name, func(t *testing.T) {
			whole(t)
			var wg sync.WaitGroup
			for _, private := range []bool{false, true} {
				s := connect(t, dbusx.Options{Private: private})
				unit := unitName()
				startDeaf(t, s, unit)
				wg.Go(func() {
					began := time.Now()
					r, err := s.Stop(ctxOf(t, 10*time.Second), unit)
					if took := time.Since(began); err != nil || r != systemd1.ResultKilled || took < timeoutStop-200*time.Millisecond || took > timeoutStop+3*time.Second {
						t.Errorf("private %t: stop after %v: %s, %v", private, took, r, err)
					}
					leftovers(t, s)
				})
			}
			time.Sleep(300 * time.Millisecond) // both stops are pending
			if err := fault(); err != nil {
				t.Error(err)
			}
			wg.Wait()
			whole(t)
		})
	}
}

func TestS17_SIGTERMIgnored(t *testing.T) {
	for name, o := range map[string]dbusx.Options{"bus": {}, "private socket": {Private: true}} {
		t.Run(name, func(t *testing.T) {
			s := connect(t, o)
			unit := unitName()
			for range 2 {
				startDeaf(t, s, unit)
				if r, err := s.Stop(ctxOf(t, 10*time.Second), unit); r != systemd1.ResultKilled || err != nil {
					t.Errorf("got %s, %v", r, err)
				}
			}
			cmd := process(t)
			defer end(cmd)
			if err := s.StartScope(ctxOf(t, 5*time.Second), unit, workerProps(cmd.Process.Pid)); err != nil {
				t.Fatal(err)
			}
			if r, err := s.Stop(ctxOf(t, 10*time.Second), unit); r != systemd1.ResultClean || err != nil {
				t.Errorf("got %s, %v", r, err)
			}
			if r, err := s.Stop(ctxOf(t, 10*time.Second), unit); r != systemd1.ResultNone || err != nil {
				t.Errorf("got %s, %v", r, err)
			}
			leftovers(t, s)
		})
	}
}
