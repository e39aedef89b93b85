//go:build native

package systemd1_test

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/sfu-agent/sfu-agent/dbusx"
	"github.com/sfu-agent/sfu-agent/dbusx/systemd1"
)

// Native tests break the bus and systemd of their host, so they must not be a
// service of it: run them with SFU_NATIVE_RAW=1.

var (
	soak   = flag.Duration("soak", 4*time.Second, "how long each fault goes on")
	cycles = flag.Int("cycles", 300, "cycles without faults, for each number of workers")
)

const slice = "sfutest.slice"

// connect opens the bus, or systemd's private socket.
func connect(t *testing.T, o dbusx.Options) *systemd1.Systemd {
	t.Helper()
	c, err := dbusx.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	s := systemd1.New(c, systemd1.Options{Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	t.Cleanup(func() {
		t.Logf("%+v %+v", c.Stats(), s.Stats())
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		began := time.Now()
		if c.Close(); time.Since(began) > 50*time.Millisecond {
			t.Errorf("Close took %v", time.Since(began))
		}
	})
	return s
}

// process starts a process that sleeps, or command.
func process(t testing.TB, command ...string) *exec.Cmd {
	if len(command) == 0 {
		command = []string{"sleep", "1000"}
	}
	cmd := exec.Command(command[0], command[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd
}

func end(cmd *exec.Cmd) {
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
}

var unitNumber atomic.Int64

func unitName() string {
	return fmt.Sprintf("sfutest-%d-%d.scope", os.Getpid(), unitNumber.Add(1))
}

// workerProps are the properties of a worker's scope.
func workerProps(pids ...int) systemd1.Properties {
	var p systemd1.Properties
	p.Slice(slice)
	p.PIDs(pids...)
	p.Delegate(true)
	p.DefaultDependencies(false)
	p.CollectMode("inactive-or-failed")
	p.TimeoutStop(5 * time.Second)
	p.OOMPolicy("continue")
	p.TasksMax(100)
	p.MemoryMax(1 << 30)
	p.CPUWeight(100)
	return p
}

func ctxOf(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// inScope reports whether the kernel has pid in the cgroup of unit.
func inScope(pid int, unit string) bool {
	data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	return bytes.Contains(data, []byte("/"+unit+"\n"))
}

func zombie(pid int) bool {
	data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return bytes.Contains(data, []byte(") Z "))
}

// leftovers wants no unit and no cgroup of the tests to be there in 5 s.
func leftovers(t *testing.T, s *systemd1.Systemd) {
	t.Helper()
	eventually(t, 5*time.Second, func() error {
		if st := s.Stats(); st.UndoPending > 0 || st.UndoGivenUp > 0 {
			return fmt.Errorf("%+v", st)
		}
		units, err := s.List(t.Context(), "sfutest-*")
		if err != nil || len(units) > 0 {
			return fmt.Errorf("left: %+v, %v", units, err)
		}
		dirs, _ := filepath.Glob("/sys/fs/cgroup/" + slice + "/*.scope")
		if len(dirs) > 0 {
			return fmt.Errorf("left: %v", dirs)
		}
		return nil
	})
}

func eventually(t *testing.T, limit time.Duration, check func() error) {
	t.Helper()
	began := time.Now()
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Since(began) > limit {
			t.Fatalf("after %v: %v", limit, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
