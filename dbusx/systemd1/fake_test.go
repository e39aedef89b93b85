package systemd1_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sfu-agent/sfu-agent/dbusx"
	"github.com/sfu-agent/sfu-agent/dbusx/dbustest"
	"github.com/sfu-agent/sfu-agent/dbusx/systemd1"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	unit = "sfu-a-0-1b2c3d4e.scope"
	pid  = 4242
)

// host is a fake systemd and a client on it.
type host struct {
	*systemd1.Systemd
	fake *dbustest.Systemd
	bus  *dbustest.Bus
	c    *dbusx.Client
}

// onHost runs test in a bubble of fake time; nothing may be left afterwards.
func onHost(t *testing.T, fake *dbustest.Systemd, test func(*testing.T, *host)) {
	t.Helper()
	proc := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		fake.Proc = proc
		addProcess(t, proc, pid)
		h := &host{fake: fake, bus: new(dbustest.Bus)}
		fake.Offer(h.bus)
		defer h.bus.Close()
		c, err := dbusx.Open(t.Context(), dbusx.Options{Dial: h.bus.Dial})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		h.c = c
		h.Systemd = systemd1.New(c, systemd1.Options{ProcRoot: proc})
		defer h.Close()
		test(t, h)
	})
}

func addProcess(t *testing.T, proc string, pid int) {
	t.Helper()
	dir := filepath.Join(proc, strconv.Itoa(pid))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"cgroup": "1:name=systemd:/\n0::/user.slice\n",
		"stat":   strconv.Itoa(pid) + " (worker) S 1",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func props() systemd1.Properties {
	var p systemd1.Properties
	p.Slice("sfu.slice")
	p.PIDs(pid)
	return p
}

func (h *host) start(ctx context.Context) error { return h.StartScope(ctx, unit, props()) }

// undone waits until nothing is left to undo.
func (h *host) undone(t *testing.T) {
	t.Helper()
	for began := time.Now(); h.Stats().UndoPending > 0; time.Sleep(10 * time.Millisecond) {
		if time.Since(began) > time.Minute {
			t.Fatalf("stats %+v, units %v", h.Stats(), h.fake.Units())
		}
	}
}

func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func want(t *testing.T, err, kind error) {
	t.Helper()
	if !errors.Is(err, kind) {
		t.Errorf("got error %v, want %v", err, kind)
	}
	var e *dbusx.Error
	if errors.As(err, &e) && e.Unit != unit {
		t.Errorf("error %q is about unit %q", err, e.Unit)
	}
}
