package scopes

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sfu-agent/sfu-agent/dbusx/systemd1"
)

func TestPercentiles(t *testing.T) {
	r := newReport(Config{Client: "ours", Fault: "none", Parallel: 3})
	for ms := range 100 {
		r.start(time.Duration(ms+1) * time.Millisecond)
		r.stop(time.Duration(10*(ms+1))*time.Millisecond, nil)
	}
	r.elapsed(4 * time.Second)
	for what, c := range map[string]struct{ got, want float64 }{
		"rate":      {r.Rate, 25},
		"start p50": {r.StartMS.P50, 50}, "start p99": {r.StartMS.P99, 99}, "start max": {r.StartMS.Max, 100},
		"stop p50": {r.StopMS.P50, 500}, "stop p99": {r.StopMS.P99, 990}, "stop max": {r.StopMS.Max, 1000},
	} {
		if math.Abs(c.got-c.want) > c.want/500 { // three digits are kept
			t.Errorf("%s: %v, want %v", what, c.got, c.want)
		}
	}
	if err := r.Bad(); err != nil || r.Cycles != 100 {
		t.Errorf("%d cycles, %v", r.Cycles, err)
	}
}

// Who reads the JSON of a run counts on these names.
func TestReportJSON(t *testing.T) {
	r := newReport(Config{})
	r.startFailed(time.Second, errors.New("text"))
	r.wrong("kind")
	r.note("note")
	r.LeftoverNames = []string{"unit"}
	text, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	var fields map[string]any
	if err := json.Unmarshal(text, &fields); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"client", "cycles", "failures", "failures_by_kind", "fault", "hangs", "leftover_names", "leftovers",
		"notes", "parallel", "rate", "recovery_max_ms", "start_ms", "stop_ms", "wrong_answers", "wrong_answers_by_kind",
	}
	if got := slices.Sorted(maps.Keys(fields)); !slices.Equal(got, want) {
		t.Errorf("fields %q, want %q", got, want)
	}
	for _, name := range []string{"start_ms", "stop_ms"} {
		if got := slices.Sorted(maps.Keys(fields[name].(map[string]any))); !slices.Equal(got, []string{"max", "p50", "p99"}) {
			t.Errorf("%s has %q", name, got)
		}
	}
}

func TestBad(t *testing.T) {
	for want, spoil := range map[string]func(*Report){
		"1 failures":      func(r *Report) { r.fail("kind") },
		"1 hangs":         func(r *Report) { r.hang() },
		"1 wrong answers": func(r *Report) { r.wrong("kind") },
		"2 leftovers":     func(r *Report) { r.Leftovers = 2 },
		"no cycle":        func(r *Report) { r.Cycles = 0 },
		"broke off: why":  func(r *Report) { r.FaultBroke = "why" },
	} {
		r := newReport(Config{})
		r.start(time.Millisecond)
		spoil(r)
		if err := r.Bad(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

func TestFailuresByKind(t *testing.T) {
	r := newReport(Config{})
	r.startFailed(time.Second, fmt.Errorf("start scope a: %w", context.DeadlineExceeded))
	r.startFailed(time.Second, fmt.Errorf("start scope b: %w", context.DeadlineExceeded))
	r.startFailed(time.Second, systemd1.ErrExists)
	for i := range 3 {
		r.stop(time.Second, fmt.Errorf("unit %s-12-ab-%d.scope not loaded", unitPrefix, i))
	}
	r.stop(time.Second, fmt.Errorf("no unit %s-12-ab-1.scope", unitPrefix))
	want := map[string]int{
		"start: context deadline exceeded": 2, "start: " + systemd1.ErrExists.Error(): 1,
		"stop: unit UNIT not loaded": 3, "stop: no unit UNIT": 1,
	}
	if !maps.Equal(r.FailuresBy, want) || r.Failures != 7 || r.Cycles != 3 {
		t.Errorf("%d failures %v of %d cycles, want %v", r.Failures, r.FailuresBy, r.Cycles, want)
	}
}

func TestPrint(t *testing.T) {
	r := newReport(Config{Client: "ours", Fault: "bus-kill", Parallel: 8})
	r.start(2 * time.Millisecond)
	r.wrong("not there")
	r.recovery(5 * time.Millisecond)
	r.recovery(3 * time.Millisecond)
	r.note(strings.Repeat("n", 300))
	r.Leftovers, r.LeftoverNames = 7, []string{"a", "b", "c", "d", "e", "f", "g"}
	r.elapsed(time.Second)
	var b strings.Builder
	if err := Print(&b, []*Report{r}); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(b.String(), "\n")
	want := []string{"ours", "bus-kill", "8", "1", "0", "0", "1", "7", "1", "2.0", "2.0", "2", "0.0", "0.0", "0", "5"}
	if got := strings.Fields(lines[1]); !slices.Equal(got, want) {
		t.Errorf("row %q, want %q", got, want)
	}
	for _, want := range []string{"ours, bus-kill: 1 x not there", "ours, bus-kill: e\n", "and 2 more", strings.Repeat("n", 200) + "\n"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in\n%s", want, &b)
		}
	}
}
