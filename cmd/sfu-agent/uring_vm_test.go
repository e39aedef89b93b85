//go:build vm

package main_test

import (
	"os"
	"path/filepath"
	"testing"
)

// TestUringSysctl: kernel.io_uring_disabled as root, as another user, and as one
// of kernel.io_uring_group.
func TestUringSysctl(t *testing.T) {
	program := builtProgram(t)
	const denied = "io_uring: sysctl: io_uring_setup: operation not permitted"
	for name, c := range map[string]struct {
		disabled, group string
		profile
	}{
		"1, root":            {"1", "-1", profile{}},
		"1, user":            {"1", "-1", profile{confined{UID: nobody}, denied, "sysctl", "needs CAP_SYS_ADMIN, or a group of this process as kernel.io_uring_group"}},
		"1, user, its group": {"1", "65534", profile{confined: confined{UID: nobody}}},
		"2, root":            {"2", "-1", profile{confined{}, denied, "sysctl", "kernel.io_uring_disabled=2"}},
		"2, user":            {"2", "-1", profile{confined{UID: nobody}, denied, "sysctl", "kernel.io_uring_disabled=2"}},
	} {
		t.Run(name, func(t *testing.T) {
			setSysctl(t, "io_uring_group", c.group)
			setSysctl(t, "io_uring_disabled", c.disabled)
			c.test(t, program)
		})
	}
}

// setSysctl sets one of kernel until the test ends.
func setSysctl(t *testing.T, name, value string) {
	t.Helper()
	path := filepath.Join("/proc/sys/kernel", name)
	before, err := os.ReadFile(path)
	if err == nil {
		err = os.WriteFile(path, []byte(value), 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.WriteFile(path, before, 0); err != nil {
			t.Error(err)
		}
	})
}

// builtProgram is what 'make build' made, where any user reaches it.
func builtProgram(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../../build/sfu-agent")
	if err != nil {
		t.Fatalf("%v (run 'make build' first)", err)
	}
	program := filepath.Join(publicDir(t), "sfu-agent")
	if err := os.WriteFile(program, text, 0o755); err != nil {
		t.Fatal(err)
	}
	return program
}
