//go:build vm

package scope

import (
	"context"
	"fmt"
	"testing"

	"github.com/sfu-agent/sfu-agent/agent"
	"github.com/sfu-agent/sfu-agent/agent/agenttest"
	"github.com/sfu-agent/sfu-agent/cgroups"
	"github.com/sfu-agent/sfu-agent/dbusx"
	"github.com/sfu-agent/sfu-agent/dbusx/systemd1"
)

// Each witness of an out-of-memory kill that is to speak when the one before it
// is gone does tell the truth, of the killed and of the others.
func TestWitnesses(t *testing.T) {
	client, err := dbusx.Open(t.Context(), dbusx.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	systemd := systemd1.New(client, systemd1.Options{})
	defer systemd.Close()
	placer, err := New(systemd, Config{Prefix: "witness", Slice: "sfu-test.slice"})
	if err != nil {
		t.Fatal(err)
	}
	defer placer.Close()
	for i := range 5 {
		worker := place(t, placer, fmt.Sprintf("witness-%d-x", i), "--alloc", "268435456")
		if exit, err := worker.Wait(t.Context()); err != nil || exit.Reason != agent.ReasonOOM {
			t.Errorf("exit %+v, %v", exit, err)
		}
		if !worker.sliceKilled() {
			t.Error("the slice does not know")
		}
		if !worker.endedByOOM() {
			t.Error("systemd does not know")
		}
		if err := worker.Release(t.Context()); err != nil {
			t.Error(err)
		}
		if worker.endedByOOM() {
			t.Error("the unit is left")
		}
	}
	worker := place(t, placer, "witness-9-x")
	if err := worker.Stop(t.Context(), 0); err != nil {
		t.Error(err)
	}
	if worker.endedByOOM() {
		t.Error("systemd blames memory for a kill")
	}
	if err := worker.Release(t.Context()); err != nil {
		t.Error(err)
	}
}

func place(t *testing.T, placer *Placer, name string, args ...string) *placement {
	t.Helper()
	spec := agenttest.NewSpec(name, t.TempDir())
	spec.Args, spec.Limits = args, cgroups.Limits{MemoryMax: 24 << 20}
	worker, err := placer.Place(context.Background(), spec)
	if err != nil {
		t.Fatal(err)
	}
	return worker.(*placement)
}
