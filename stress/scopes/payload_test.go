package scopes

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

func newPayload(t *testing.T) *payload {
	t.Helper()
	p, err := startPayload(sleeper)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.end)
	return p
}

// ownUnit is what a payload of the test is in, as a scope; "" without cgroup v2.
func ownUnit(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	_, path, _ := strings.Cut("\n"+string(text), "\n0::")
	path, _, _ = strings.Cut(path, "\n")
	if path == "" {
		return ""
	}
	return filepath.Base(path)
}

func TestPayload(t *testing.T) {
	p := newPayload(t)
	unit := ownUnit(t)
	if !p.alive() || p.in(unit) != (unit != "") || p.in("other.scope") || p.staysIn("other.scope") {
		t.Errorf("alive %v, in %q %v", p.alive(), unit, p.in(unit))
	}
	p.kill()
	if !p.gone() {
		t.Error("runs on")
	}
	if err := syscall.Kill(p.pid, 0); err != nil {
		t.Errorf("no zombie: %v", err)
	}
	p.wait()
	p.wait()
	if err := syscall.Kill(p.pid, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("not reaped: %v", err)
	}
	if p.alive() || p.in(unit) || p.staysIn(unit) {
		t.Error("a process that is gone is somewhere")
	}
	if _, err := startPayload([]string{"/no/such/program"}); err == nil {
		t.Error("started nothing")
	}
}

func TestUntil(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		if !until(time.Second, func() bool { return time.Since(start) >= 300*time.Millisecond }) {
			t.Error("held and was not seen")
		}
		if took := time.Since(start); took > 310*time.Millisecond {
			t.Errorf("seen after %v", took)
		}
		start = time.Now()
		if until(time.Second, func() bool { return false }) {
			t.Error("saw what never held")
		}
		if took := time.Since(start); took < time.Second || took > 1010*time.Millisecond {
			t.Errorf("gave up after %v", took)
		}
	})
}
