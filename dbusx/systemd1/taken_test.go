package systemd1_test

import (
	"slices"
	"testing"
	"time"

	"github.com/sfu-agent/sfu-agent/dbusx"
	"github.com/sfu-agent/sfu-agent/dbusx/dbustest"
	"github.com/sfu-agent/sfu-agent/dbusx/systemd1"
)

func TestD17_UnitExistsAfterUnknownOutcome(t *testing.T) {
	// The first request gets no answer; meanwhile the unit is put there.
	lost := func() *dbustest.Systemd {
		return &dbustest.Systemd{Fault: func(method string, n int) dbustest.Fault {
			if method == "StartTransientUnit" && n == 1 {
				return dbustest.CutRequest
			}
			return dbustest.None
		}}
	}
	t.Run("own PID", func(t *testing.T) {
		fake := lost()
		onHost(t, fake, func(t *testing.T, h *host) {
			h.fake.Put(unit, dbustest.Unit{Active: "active", Sub: "running", PIDs: []uint32{pid}})
			h.fake.Attach(unit)
			if err := h.start(within(t, 10*time.Second)); err != nil {
				t.Error(err)
			}
			if n := h.fake.Calls("StopUnit"); n > 0 {
				t.Errorf("%d stops", n)
			}
		})
	})
	t.Run("foreign PID", func(t *testing.T) {
		fake := lost()
		onHost(t, fake, func(t *testing.T, h *host) {
			h.fake.Put(unit, dbustest.Unit{Active: "active", Sub: "running", PIDs: []uint32{99}})
			want(t, h.start(within(t, 10*time.Second)), systemd1.ErrExists)
			h.undone(t)
			if _, there := h.fake.Unit(unit); !there || h.fake.Calls("StopUnit") > 0 {
				t.Errorf("foreign unit stopped")
			}
		})
	})
	t.Run("foreign PID, found by the undo", func(t *testing.T) {
		fake := &dbustest.Systemd{Fault: func(method string, _ int) dbustest.Fault {
			if method == "StartTransientUnit" {
				return dbustest.LostRequest
			}
			return dbustest.None
		}}
		onHost(t, fake, func(t *testing.T, h *host) {
			h.fake.Put(unit, dbustest.Unit{Active: "active", Sub: "running", PIDs: []uint32{99}})
			want(t, h.start(within(t, time.Second)), dbusx.ErrTimeout)
			h.undone(t)
			if _, there := h.fake.Unit(unit); !there || h.fake.Calls("StopUnit") > 0 {
				t.Errorf("foreign unit stopped")
			}
			if n := h.Stats().UndoGivenUp; n != 1 {
				t.Errorf("%d undos given up", n)
			}
		})
	})
	t.Run("no PID", func(t *testing.T) {
		fake := lost()
		onHost(t, fake, func(t *testing.T, h *host) {
			h.fake.Put(unit, dbustest.Unit{Active: "active", Sub: "running"})
			if err := h.start(within(t, 10*time.Second)); err != nil {
				t.Error(err)
			}
			if u, _ := h.fake.Unit(unit); !slices.Equal(u.PIDs, []uint32{pid}) {
				t.Errorf("unit %+v", u)
			}
			if n := h.fake.Calls("StopUnit"); n != 1 {
				t.Errorf("%d stops", n)
			}
		})
	})
}

// The same name: without an unknown outcome nothing of somebody else's is
// touched, and what has failed is cleared away.
func TestStartScopeNameTaken(t *testing.T) {
	t.Run("foreign", func(t *testing.T) {
		onHost(t, &dbustest.Systemd{}, func(t *testing.T, h *host) {
			h.fake.Put(unit, dbustest.Unit{Active: "active", Sub: "running", PIDs: []uint32{99}})
			want(t, h.start(within(t, 10*time.Second)), systemd1.ErrExists)
			if h.fake.Calls("StopUnit")+h.fake.Calls("ResetFailedUnit") > 0 || h.Stats().UndoPending > 0 {
				t.Error("foreign unit touched")
			}
		})
	})
	t.Run("failed", func(t *testing.T) {
		onHost(t, &dbustest.Systemd{}, func(t *testing.T, h *host) {
			h.fake.Put(unit, dbustest.Unit{Active: "failed", Sub: "failed"})
			if err := h.start(within(t, 10*time.Second)); err != nil {
				t.Error(err)
			}
		})
	})
	t.Run("own", func(t *testing.T) {
		onHost(t, &dbustest.Systemd{}, func(t *testing.T, h *host) {
			for range 2 {
				if err := h.start(within(t, 10*time.Second)); err != nil {
					t.Error(err)
				}
			}
		})
	})
	t.Run("being undone", func(t *testing.T) {
		onHost(t, &dbustest.Systemd{NoAttach: true}, func(t *testing.T, h *host) {
			want(t, h.start(within(t, 10*time.Second)), systemd1.ErrProcessGone)
			h.fake.NoAttach = false
			if err := h.start(within(t, 10*time.Second)); err != nil {
				t.Error(err)
			}
			h.undone(t)
			if _, there := h.fake.Unit(unit); !there {
				t.Error("the undo of the first start stopped the second")
			}
		})
	})
}
