//go:build native

package scope_test

import (
	"testing"

	"github.com/sfu-agent/sfu-agent/agent"
)

// A process that is not in the unit of its record is no worker to adopt, but one
// to sweep.
func TestAdoptOutsideItsUnit(t *testing.T) {
	first := newPlacer(t, "outside", nil)
	placement, err := first.Place(t.Context(), shell(t, "outside-0-x", `read gate <&3; exec sleep 60`))
	if err != nil {
		t.Fatal(err)
	}
	rec := placement.Record()
	rec.Unit = "sfu-worker-outside-1-x.scope"
	next := newPlacer(t, "outside", nil)
	if _, err := next.Adopt(t.Context(), rec); err == nil {
		t.Error("adopted")
	}
	if removed, err := next.Sweep(t.Context(), []agent.Record{}); err != nil || len(removed) != 1 {
		t.Errorf("swept %q, %v", removed, err)
	}
	if _, err := placement.Wait(t.Context()); err != nil {
		t.Error(err)
	}
	end(t, placement)
}
