package main_test

import (
	"encoding/json"
	"os/exec"
	"strings"
	"testing"

	"github.com/sfu-agent/sfu-agent/sfu/udpio"
)

// TestStressFanout runs a short one of each rung and load, and wants no loss and
// all that is promised in the JSON. It judges no time.
func TestStressFanout(t *testing.T) {
	t.Parallel()
	program := build(t)
	out := stress(t, program, "fanout", "--viewers", "6", "--rooms", "2", "--rate", "2M", "--seconds", "0.3", "--rounds", "1",
		"--load", "frames,paced", "--rung", "auto,gso,plain", "--strict", "--json")
	var report struct {
		Machine struct{ CPU, Kernel, Go string }
		Checks  []string
		Rows    []map[string]json.RawMessage
	}
	if err := json.Unmarshal(out, &report); err != nil {
		t.Fatal(err)
	}
	if len(report.Rows) != 6 || len(report.Checks) == 0 || report.Machine.Kernel == "" {
		t.Fatalf("%d rows of %s", len(report.Rows), out)
	}
	for _, row := range report.Rows {
		for _, key := range []string{
			"rung", "rung_in_use", "why", "viewers", "load", "sfu_cpu_seconds", "delivered", "lost", "checked", "corrupt",
			"latency_ms", "cpu_us_per_packet", "ceiling_us_per_packet", "ratio", "rss_per_viewer_kib", "packets_per_send", "packets_per_syscall",
			"publisher_sent_of_asked",
		} {
			if row[key] == nil {
				t.Errorf("no %s in %s", key, out)
			}
		}
		for _, key := range []string{"delivered", "checked", "sfu_cpu_seconds", "packets_per_send", "packets_per_syscall"} {
			var n float64
			if err := json.Unmarshal(row[key], &n); err != nil || n <= 0 {
				t.Errorf("%s is %s", key, row[key])
			}
		}
	}
}

// TestStressSoak runs one that is too short to judge memory.
func TestStressSoak(t *testing.T) {
	t.Parallel()
	program := build(t)
	var report struct {
		Joins   int
		Samples []struct{ Delivered, Goroutines, FDs int }
		Verdict string
	}
	if err := json.Unmarshal(stress(t, program, "soak", "--time", "10s", "--viewers", "4", "--json"), &report); err != nil {
		t.Fatal(err)
	}
	if report.Joins == 0 || len(report.Samples) < 4 || report.Verdict != "good" || report.Samples[0].Goroutines == 0 {
		t.Errorf("%+v", report)
	}
}

func stress(t *testing.T, program string, args ...string) []byte {
	t.Helper()
	var problems strings.Builder
	cmd := exec.CommandContext(t.Context(), program, append([]string{"stress"}, args...)...)
	cmd.Stderr = &problems
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s\n%s", err, &problems, out)
	}
	return out
}

func TestStressFanoutRefuses(t *testing.T) {
	t.Parallel()
	program := build(t)
	for _, test := range []struct{ args, want string }{
		{"fanout --viewers 0", "--viewers 0"}, {"fanout --viewers 2 --rooms 3", "one for each room"}, {"fanout --rooms 0", "--rooms"},
		{"fanout --rate 5k", "--rate 5k: want 10k to 1000M"}, {"fanout --rate fast", "want bit/s"}, {"fanout --frame 0", "--frame 0"},
		{"fanout --seconds 0", "--seconds"}, {"fanout --rounds 0", "--rounds"}, {"fanout --load bursts", `--load "bursts"`},
		{"fanout --rung fast", "all, auto or some of " + udpio.Rungs()[0]}, {"fanout --bind here", "--bind"},
		{"fanout --target http://127.0.0.1:1/{kind}/{room}", "needs --pid"}, {"fanout part drummer", `no part "drummer"`},
		{"soak --time 1s", "--time 5s to 72h"}, {"soak --viewers 0", "--viewers"}, {"fanout --max-hold 1s --viewers 1 --seconds 1", "--max-hold 1s"},
	} {
		out, err := exec.CommandContext(t.Context(), program, append([]string{"stress"}, strings.Fields(test.args)...)...).CombinedOutput()
		if err == nil || !strings.Contains(string(out), test.want) {
			t.Errorf("%s: %v, %s; want %q", test.args, err, out, test.want)
		}
	}
}
