//go:build !native && !vm

package cgroups

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sfu-agent/sfu-agent/internal/testenv"
)

// The kernel grants a limited number of instances to each user of a user
// namespace. The test binary runs itself in a namespace of which it holds all.
func TestC08InotifyInstancesExhausted(t *testing.T) {
	const inside, limit = "SFU_CGROUPS_TEST_INSIDE", "/proc/sys/user/max_inotify_instances"
	if os.Getenv(inside) != "" {
		if err := os.WriteFile(limit, []byte("128"), 0); err != nil {
			testenv.Skip(t, "userns", err)
		}
		holdInstances(t)
		var log bytes.Buffer
		w := NewWatcher(slog.New(slog.NewTextHandler(&log, nil)))
		if !errors.Is(w.Polling(), unix.EMFILE) || strings.Count(log.String(), "cgroup events by polling") != 1 {
			t.Errorf("polling: %v, log %s", w.Polling(), &log)
		}
		checkWatcher(t, w)
		return
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestC08InotifyInstancesExhausted$", "-test.v")
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
	}
	out, err := cmd.CombinedOutput()
	if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.ENOSPC) {
		testenv.Skip(t, "userns", err)
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if bytes.Contains(out, []byte("--- SKIP")) {
		testenv.Skip(t, "userns", string(out))
	}
}

// holdInstances holds the 128 inotify instances of this user namespace, or
// fewer where the user has not so many left outside of it.
func holdInstances(t *testing.T) {
	t.Helper()
	for range 128 {
		fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
		if errors.Is(err, unix.EMFILE) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(fd) })
	}
}
