//go:build !native && !vm

package cgroups

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sfu-agent/sfu-agent/internal/testenv"
)

// The kernel grants a limited number of instances to each user of a user
// namespace. The test binary runs itself in a namespace that has none left.
func TestC08InotifyInstancesExhausted(t *testing.T) {
	const inside, limit = "SFU_CGROUPS_TEST_INSIDE", "/proc/sys/user/max_inotify_instances"
	if os.Getenv(inside) != "" {
		if err := os.WriteFile(limit, []byte("0"), 0); err != nil {
			testenv.Skip(t, "userns", err)
		}
		w := NewWatcher(nil)
		if !errors.Is(w.Polling(), unix.EMFILE) {
			t.Errorf("polling: %v", w.Polling())
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
