//go:build native

package systemd1_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

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
