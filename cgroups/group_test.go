package cgroups

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

func TestGroupPaths(t *testing.T) {
	g := Group{"/sys/fs/cgroup", "/"}.Child("sfu.slice").Child("a.scope")
	if g.Path() != "/sfu.slice/a.scope" || g.Dir() != "/sys/fs/cgroup/sfu.slice/a.scope" || g.Parent().Path() != "/sfu.slice" {
		t.Errorf("group %v in %s, parent %v", g, g.Dir(), g.Parent())
	}
}

func TestRemoveNested(t *testing.T) {
	g := fakeGroup(t, nil)
	if err := os.MkdirAll(filepath.Join(g.Dir(), "a/b/c"), 0o755); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := g.Remove(t.Context()); err != nil || g.Exists() {
			t.Errorf("remove: %v", err)
		}
	}
}

func TestPIDsOfTree(t *testing.T) {
	g := fakeGroup(t, map[string]string{"cgroup.procs": "10\n0\n11\n"})
	child := g.Child("inner")
	if err := child.Create(); err != nil {
		t.Fatal(err)
	}
	set(t, child, "cgroup.procs", "12\n")
	if pids, err := g.PIDs(); err != nil || !slices.Equal(pids, []int{10, 11, 12}) {
		t.Errorf("processes %v, %v", pids, err)
	}
	if pids, err := g.Child("none").PIDs(); err != nil || pids != nil {
		t.Errorf("processes of no cgroup %v, %v", pids, err)
	}
}

func TestMoveAllIsBounded(t *testing.T) {
	g := fakeGroup(t, map[string]string{"cgroup.procs": "10\n11\n"}) // which does not empty
	to := g.Child("to")
	if err := to.Create(); err != nil {
		t.Fatal(err)
	}
	set(t, to, "cgroup.procs", "")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := g.MoveAll(ctx, to); !errors.Is(err, context.DeadlineExceeded) || content(t, to, "cgroup.procs") != "11" {
		t.Errorf("move: %v", err)
	}
}

func TestKillEmpty(t *testing.T) {
	if err := (Group{t.TempDir(), "/none"}).Kill(t.Context()); err != nil {
		t.Errorf("kill of no cgroup: %v", err)
	}
	g := fakeGroup(t, map[string]string{"cgroup.kill": "", "cgroup.events": "populated 0\n"})
	if err := g.Kill(t.Context()); err != nil || content(t, g, "cgroup.kill") != "" {
		t.Errorf("kill of an empty one: %v", err)
	}
}

func TestC04KillIsBounded(t *testing.T) {
	for name, files := range map[string]map[string]string{
		"cgroup.kill":    {"cgroup.kill": "", "cgroup.events": "populated 1\n"},
		"freeze":         {"cgroup.freeze": "0", "cgroup.procs": "", "cgroup.events": "populated 1\n"},
		"without freeze": {"cgroup.procs": "", "cgroup.events": "populated 1\n"},
	} {
		synctest.Test(t, func(t *testing.T) {
			g := fakeGroup(t, files)
			start := time.Now()
			if err := g.Kill(t.Context()); !errors.Is(err, ErrBusy) {
				t.Errorf("%s: %v", name, err)
			}
			if took := time.Since(start); took < killLimit || took > killLimit+time.Second {
				t.Errorf("%s took %v", name, took)
			}
			if _, ok := files["cgroup.freeze"]; ok && content(t, g, "cgroup.freeze") != "0" {
				t.Errorf("%s: left frozen", name)
			}
		})
	}
}
