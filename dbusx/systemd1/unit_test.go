package systemd1_test

import (
	"errors"
	"testing"
	"time"

	"github.com/sfu-agent/sfu-agent/dbusx"
	"github.com/sfu-agent/sfu-agent/dbusx/dbustest"
	"github.com/sfu-agent/sfu-agent/dbusx/systemd1"
)

func TestStop(t *testing.T) {
	t.Run("no such unit", func(t *testing.T) {
		onHost(t, &dbustest.Systemd{}, func(t *testing.T, h *host) {
			if r, err := h.Stop(t.Context(), unit); r != systemd1.ResultNone || err != nil {
				t.Errorf("got %s, %v", r, err)
			}
		})
	})
	t.Run("never ends", func(t *testing.T) {
		onHost(t, &dbustest.Systemd{}, func(t *testing.T, h *host) {
			h.fake.Put(unit, dbustest.Unit{Active: "active", Sub: "running", Stays: true})
			began := time.Now()
			_, err := h.Stop(within(t, 5*time.Second), unit)
			want(t, err, dbusx.ErrTimeout)
			if took := time.Since(began); took != 5*time.Second {
				t.Errorf("took %v", took)
			}
		})
	})
	for name, tt := range map[string]struct {
		after time.Duration
		want  systemd1.Result
	}{
		"clean":   {time.Second, systemd1.ResultClean},
		"killed":  {1600 * time.Millisecond, systemd1.ResultKilled},
		"timeout": {3100 * time.Millisecond, systemd1.ResultTimeout},
	} {
		t.Run(name, func(t *testing.T) {
			onHost(t, &dbustest.Systemd{}, func(t *testing.T, h *host) {
				h.fake.Put(unit, dbustest.Unit{Active: "active", Sub: "running", Stays: true})
				time.AfterFunc(tt.after, func() { h.fake.End(unit) })
				if r, err := h.Stop(within(t, 5*time.Second), unit); r != tt.want || err != nil {
					t.Errorf("got %s, %v, want %s", r, err, tt.want)
				}
			})
		})
	}
}

func TestUnitAndList(t *testing.T) {
	onHost(t, &dbustest.Systemd{}, func(t *testing.T, h *host) {
		if err := h.start(t.Context()); err != nil {
			t.Fatal(err)
		}
		u, err := h.Unit(t.Context(), unit)
		if err != nil {
			t.Fatal(err)
		}
		wantUnit := systemd1.Unit{Name: unit, LoadState: "loaded", ActiveState: "active", SubState: "running",
			Result: "success", ControlGroup: "/sfu.slice/" + unit, InvocationID: "abcd", TimeoutStop: 1500 * time.Millisecond}
		if u != wantUnit {
			t.Errorf("got %+v\nwant %+v", u, wantUnit)
		}
		_, err = h.Unit(t.Context(), "other.scope")
		if !errors.Is(err, systemd1.ErrNoUnit) {
			t.Errorf("got %v", err)
		}
		list, err := h.List(t.Context(), "sfu-*.scope")
		if err != nil || len(list) != 1 || list[0].Name != unit || list[0].ActiveState != "active" {
			t.Errorf("got %+v, %v", list, err)
		}
		if v, err := h.Version(t.Context()); v != "252.39-1" || err != nil {
			t.Errorf("version %q, %v", v, err)
		}
		var p systemd1.Properties
		p.MemoryMax(1 << 30)
		for name, err := range map[string]error{
			"kill":   h.Kill(t.Context(), unit, 9),
			"freeze": h.Freeze(t.Context(), unit),
			"thaw":   h.Thaw(t.Context(), unit),
			"set":    h.SetProperties(t.Context(), unit, p),
			"reset":  h.ResetFailed(t.Context(), unit),
			"ref":    h.Ref(t.Context(), unit),
			"unref":  h.Unref(t.Context(), unit),
		} {
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}

func TestCloseWithUndoPending(t *testing.T) {
	fake := &dbustest.Systemd{NoAttach: true, Fault: func(method string, _ int) dbustest.Fault {
		if method == "StopUnit" {
			return dbustest.ServiceUnknown
		}
		return dbustest.None
	}}
	onHost(t, fake, func(t *testing.T, h *host) {
		want(t, h.start(within(t, 500*time.Millisecond)), systemd1.ErrProcessGone)
		if err := h.Close(); err == nil {
			t.Error("no error with an undo pending")
		}
	})
}
