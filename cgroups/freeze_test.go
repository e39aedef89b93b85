package cgroups

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestC05FreezeThatCannotFinishIsUndone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := fakeGroup(t, map[string]string{"cgroup.freeze": "0", "cgroup.events": "populated 1\nfrozen 0\n"})
		start := time.Now()
		if err := g.Freeze(t.Context()); !errors.Is(err, ErrFreezeTimeout) {
			t.Errorf("freeze: %v", err)
		}
		if took := time.Since(start); took < freezeLimit || took > freezeLimit+time.Second {
			t.Errorf("took %v", took)
		}
		if state := content(t, g, "cgroup.freeze"); state != "0" {
			t.Errorf("left frozen: %q", state)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		if err := g.Freeze(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("freeze: %v", err)
		}
		if state := content(t, g, "cgroup.freeze"); state != "0" {
			t.Errorf("left frozen: %q", state)
		}
	})
}

func TestFreezeAndThaw(t *testing.T) {
	g := fakeGroup(t, map[string]string{"cgroup.freeze": "0", "cgroup.events": "populated 1\nfrozen 1\n"})
	if err := g.Freeze(t.Context()); err != nil || content(t, g, "cgroup.freeze") != "1" {
		t.Errorf("freeze: %v", err)
	}
	set(t, g, "cgroup.events", "populated 1\nfrozen 0\n")
	if err := g.Thaw(t.Context()); err != nil || content(t, g, "cgroup.freeze") != "0" {
		t.Errorf("thaw: %v", err)
	}
	if err := fakeGroup(t, nil).Freeze(t.Context()); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("freeze before Linux 5.2: %v", err)
	}
}
