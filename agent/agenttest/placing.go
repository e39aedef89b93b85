package agenttest

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sfu-agent/sfu-agent/agent"
)

func testPlace(t *testing.T, b *bench) {
	placement := b.place(t)
	info, rec := b.info(t, placement), placement.Record()
	if rec.Placer != b.subject.Name || rec.PID != info.PID || rec.StartTime == 0 {
		t.Errorf("record %+v of worker %+v", rec, info)
	}
	if !strings.HasPrefix(rec.Name, b.prefix) || filepath.Base(rec.Socket) != rec.Name {
		t.Errorf("record %+v", rec)
	}
	if rec.Cgroup != "" && rec.Cgroup != info.CgroupAtGate {
		t.Errorf("the gate opened in cgroup %q, the record says %q", info.CgroupAtGate, rec.Cgroup)
	}
	if info.Session != info.PID || info.NoNewPrivs != "1" {
		t.Errorf("session %d, no_new_privs %s of process %d", info.Session, info.NoNewPrivs, info.PID)
	}
	if slices.ContainsFunc(info.Env, func(v string) bool { return strings.HasPrefix(v, "PATH=") }) {
		t.Errorf("inherited environment %q", info.Env)
	}
}

func testMany(t *testing.T, b *bench, n int) {
	specs := make([]agent.Spec, n)
	for i := range specs {
		specs[i] = b.spec()
	}
	placements := make([]agent.Placement, n)
	errs := make([]error, n)
	ctx := b.context(t)
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() { placements[i], errs[i] = b.placer.Place(ctx, specs[i]) })
	}
	all.Wait()
	cgroups := map[string]bool{}
	for i, placement := range placements {
		if errs[i] != nil {
			t.Error(errs[i])
			continue
		}
		rec := placement.Record()
		info := b.info(t, placement)
		if info.PID != rec.PID || rec.Cgroup != "" && info.CgroupAtGate != rec.Cgroup {
			t.Errorf("record %+v of worker %+v", rec, info)
		}
		if rec.Cgroup != "" && cgroups[rec.Cgroup] {
			t.Errorf("two workers in cgroup %s", rec.Cgroup)
		}
		cgroups[rec.Cgroup] = true
	}
	for _, placement := range placements {
		if placement != nil {
			all.Go(func() { b.end(t, placement) })
		}
	}
	all.Wait()
}

func testBadName(t *testing.T, b *bench) {
	for _, name := range []string{"", "../up", "a/../../b", "A", "a b", "a.b", strings.Repeat("a", 65)} {
		spec := b.spec()
		spec.Name = name
		if _, err := b.placer.Place(b.context(t), spec); err == nil {
			t.Errorf("placed %q", name)
		}
	}
	spec := b.spec()
	spec.Name += strings.Repeat("-", 64-len(spec.Name))
	placement, err := b.placer.Place(b.context(t), spec)
	if err != nil {
		t.Fatal(err)
	}
	b.end(t, placement)
}

func testBadExe(t *testing.T, b *bench) {
	for _, exe := range []string{"/nonexistent", os.DevNull, b.dir} {
		spec := b.spec()
		spec.Exe = exe
		if _, err := b.placer.Place(b.context(t), spec); err == nil || !strings.Contains(err.Error(), spec.Name) {
			t.Errorf("place %s: %v, want an error that names the worker", exe, err)
		}
		b.checkNothingLeft(t)
	}
}

func testBadSocket(t *testing.T, b *bench) {
	spec := b.spec()
	for _, socket := range []string{"", "relative", b.dir, b.dir + "/none/socket", b.dir + "/" + strings.Repeat("s", 107)} {
		spec.Socket = socket
		if _, err := b.placer.Place(b.context(t), spec); err == nil || !strings.Contains(err.Error(), spec.Name) {
			t.Errorf("place with socket %s: %v, want an error that names the worker", socket, err)
		}
		b.checkNothingLeft(t)
	}
}

// testNoGate places a program that ends without a look at its gate.
func testNoGate(t *testing.T, b *bench) {
	for range 10 {
		spec := b.spec()
		spec.Exe = "/bin/true"
		placement, err := b.placer.Place(b.context(t), spec)
		if err != nil {
			continue // it was gone before it was where it belongs
		}
		if exit := b.wait(t, placement); exit.Reason != agent.ReasonExit || exit.Code != 0 {
			t.Errorf("exit %+v", exit)
		}
		b.end(t, placement)
	}
}

// testCancelled cancels Place at moments spread over the time that it takes.
func testCancelled(t *testing.T, b *bench) {
	start := time.Now()
	b.end(t, b.place(t))
	whole := time.Since(start)
	const steps = 40
	placed := 0
	for i := range steps {
		ctx, cancel := context.WithTimeout(context.Background(), whole*time.Duration(i)/steps)
		placement, err := b.placer.Place(ctx, b.spec())
		if err == nil {
			placed++
			b.end(t, placement)
		}
		cancel()
		b.checkNothingLeft(t)
	}
	t.Logf("%d of %d placed, longest limit %v", placed, steps, whole)
	if placed == steps {
		t.Error("a context that had ended before the start was ignored")
	}
}
