package udpio

import (
	"context"
	"errors"
	"testing"
	"time"
)

func TestMeasure(t *testing.T) {
	for _, frame := range []int{1, 8} {
		costs, err := Measure(t.Context(), &Prober{}, frame, time.Millisecond)
		if err != nil {
			t.Fatal(err)
		}
		if len(costs) != len(Rungs()) {
			t.Fatalf("%d costs of %d rungs", len(costs), len(Rungs()))
		}
		for _, c := range costs {
			if measured := c.CPU > 0 && c.Turns > 0; measured != (c.Err == nil) || c.CPU > time.Millisecond {
				t.Errorf("%+v", c)
			}
		}
	}
}

// TestMeasureOfWhatIsMissing: what cannot be used has a reason, and is not
// measured as the one that stands in for it.
func TestMeasureOfWhatIsMissing(t *testing.T) {
	missing := errors.New("not here")
	p := &Prober{known: map[string]error{"UDP_SEGMENT": errors.Join(missing, errors.ErrUnsupported)}}
	costs, err := Measure(t.Context(), p, 1, 0)
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range rungs() {
		want := errors.Is(r.missing(p), missing)
		if got := costs[i].Err != nil; costs[i].Rung != r.name || costs[i].Named != r.wish || want && (!got || costs[i].Turns > 0) {
			t.Errorf("%+v", costs[i])
		}
	}
}

func TestMeasureEnds(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := Measure(ctx, &Prober{}, 1, time.Hour); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v, want a deadline exceeded", err)
	}
}
