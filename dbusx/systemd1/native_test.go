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
	"strconv"
	"strings"
	"sync"
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

// inScope reports whether the kernel has pid in the cgroup of unit.
func inScope(pid int, unit string) bool {
	data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	return bytes.Contains(data, []byte("/"+unit+"\n"))
}

// churn counts cycles of start and stop and what went wrong with them.
type churn struct {
	s     *systemd1.Systemd
	limit time.Duration // of the context of a start or stop

	cycles, failed, wrong, late atomic.Int64
	mu                          sync.Mutex
	first                       error
	worst                       time.Duration
}

func (c *churn) note(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.first == nil {
		c.first = err
	}
}

// timed runs f with the limit and notes how long it took.
func (c *churn) timed(t *testing.T, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(t.Context(), c.limit)
	defer cancel()
	began := time.Now()
	err := f(ctx)
	took := time.Since(began)
	if took > c.limit+2100*time.Millisecond {
		c.late.Add(1)
	}
	c.mu.Lock()
	c.worst = max(c.worst, took)
	c.mu.Unlock()
	return err
}

func (c *churn) cycle(t *testing.T) {
	cmd := process(t)
	defer end(cmd)
	unit, pid := unitName(), cmd.Process.Pid
	err := c.timed(t, func(ctx context.Context) error { return c.s.StartScope(ctx, unit, workerProps(pid)) })
	if in := inScope(pid, unit); err == nil && !in {
		c.wrong.Add(1)
		c.note(fmt.Errorf("started, but process %d is not in %s", pid, unit))
	}
	if err == nil {
		err = c.timed(t, func(ctx context.Context) error { _, err := c.s.Stop(ctx, unit); return err })
		if err == nil && cmd.Process.Signal(syscall.Signal(0)) == nil && inScope(pid, unit) && !zombie(pid) {
			c.wrong.Add(1)
			c.note(fmt.Errorf("stopped, but process %d is still in %s", pid, unit))
		}
	}
	if err != nil {
		c.failed.Add(1)
		c.note(err)
	}
	c.cycles.Add(1)
}

func zombie(pid int) bool {
	data, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return bytes.Contains(data, []byte(") Z "))
}

// run churns with so many workers until more says no.
func (c *churn) run(t *testing.T, workers int, more func() bool) {
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for more() {
				c.cycle(t)
			}
		})
	}
	wg.Wait()
}

// times says yes n times, to any number of workers.
func (c *churn) times(n int) func() bool {
	var asked atomic.Int64
	return func() bool { return asked.Add(1) <= int64(n) }
}

// verdict wants all cycles to have succeeded.
func (c *churn) verdict(t *testing.T) {
	t.Helper()
	t.Logf("%d cycles, worst %v", c.cycles.Load(), c.worst)
	if c.cycles.Load() == 0 {
		t.Error("no cycle at all")
	}
	if f, w, l := c.failed.Load(), c.wrong.Load(), c.late.Load(); f+w+l > 0 {
		t.Errorf("%d failed, %d wrong, %d late; first: %v", f, w, l, c.first)
	}
	leftovers(t, c.s)
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

// --- faults -----------------------------------------------------------------

func sh(command string) error {
	out, err := exec.Command("sh", "-c", command).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", command, err, out)
	}
	return nil
}

// every runs f again and again, pausing in between, until the test is told to
// stop the fault; f must leave the host whole.
func every(t *testing.T, pause time.Duration, f func() error) (stop func()) {
	done := make(chan struct{})
	var wg sync.WaitGroup
	n := 0
	wg.Go(func() {
		for {
			if err := f(); err != nil {
				t.Error(err)
				return
			}
			n++
			select {
			case <-done:
				return
			case <-time.After(pause):
			}
		}
	})
	return sync.OnceFunc(func() {
		close(done)
		wg.Wait()
		t.Logf("fault happened %d times", n)
	})
}

func reload() error { return sh("systemctl daemon-reload") }
func reexec() error { return sh("systemctl daemon-reexec") }

// restartBus restarts the bus; systemd must not count it as a crash loop.
func restartBus() error {
	return sh("systemctl reset-failed dbus.service dbus.socket; systemctl restart dbus.service")
}

func killBus() error {
	pid, err := busPID()
	if err != nil {
		return err
	}
	if err := sh("systemctl reset-failed dbus.service dbus.socket"); err != nil {
		return err
	}
	return syscall.Kill(pid, syscall.SIGKILL)
}

// busPID finds the process that is the system bus.
func busPID() (int, error) {
	files, err := filepath.Glob("/proc/[0-9]*/comm")
	if err != nil {
		return 0, err
	}
	for _, f := range files {
		comm, _ := os.ReadFile(f)
		if c := string(comm); c == "dbus-daemon\n" || c == "dbus-broker\n" {
			return strconv.Atoi(filepath.Base(filepath.Dir(f)))
		}
	}
	return 0, fmt.Errorf("no bus runs")
}

// stopBus suspends the bus for d.
func stopBus(d time.Duration) error {
	pid, err := busPID()
	if err != nil {
		return err
	}
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		return err
	}
	time.Sleep(d)
	return syscall.Kill(pid, syscall.SIGCONT)
}

// stopSystemd suspends PID 1 for d: it takes no SIGSTOP from within its PID
// namespace, but the freezer does not ask.
func stopSystemd(d time.Duration) error {
	const freeze = "/sys/fs/cgroup/init.scope/cgroup.freeze"
	if err := os.WriteFile(freeze, []byte("1"), 0); err != nil {
		return err
	}
	time.Sleep(d)
	return os.WriteFile(freeze, []byte("0"), 0)
}

// whole waits until bus and systemd answer again.
func whole(t *testing.T) {
	t.Helper()
	eventually(t, 20*time.Second, func() error {
		return sh("timeout 5 busctl call org.freedesktop.systemd1 /org/freedesktop/systemd1 org.freedesktop.DBus.Peer Ping")
	})
}

func requireRaw(t *testing.T) {
	t.Helper()
	self, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(self), ".service") {
		t.Fatal("a service of the host would end with its bus: set SFU_NATIVE_RAW=1")
	}
}
