//go:build vm

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sfu-agent/sfu-agent/agent"
)

// vmAgent is the built program as an agent in this VM.
type vmAgent struct{ url string }

func startVMAgent(t *testing.T, args ...string) vmAgent {
	t.Helper()
	program, err := filepath.Abs("../../build/sfu-agent")
	if err != nil {
		t.Fatal(err)
	}
	all := append([]string{"run", "--http", "127.0.0.1:8089", "--state-dir", filepath.Join(t.TempDir(), "s")}, args...)
	cmd := exec.Command(program, all...)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatalf("%v (run 'make build' first)", err)
	}
	t.Cleanup(func() {
		cmd.Process.Signal(os.Interrupt)
		if err := cmd.Wait(); err != nil {
			t.Errorf("agent: %v", err)
		}
		if out, err := exec.Command("systemctl", "list-units", "--plain", "--no-legend", "sfu-worker-*").CombinedOutput(); err != nil || len(out) > 0 {
			t.Errorf("units left: %s %v", out, err)
		}
	})
	a := vmAgent{url: "http://127.0.0.1:8089"}
	a.until(t, 60*time.Second, "ready", func() bool {
		resp, err := http.Get(a.url + "/readyz")
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
	return a
}

func (a vmAgent) until(t *testing.T, limit time.Duration, what string, holds func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-ctx.Done():
			t.Fatalf("not within %s: %s", limit, what)
		case <-tick.C:
		}
	}
}

func (a vmAgent) worker(t *testing.T) agent.Worker {
	t.Helper()
	resp, err := http.Get(a.url + "/api/v1/workers/0")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var w agent.Worker
	if err := json.NewDecoder(resp.Body).Decode(&w); err != nil {
		t.Fatal(err)
	}
	return w
}

// limit changes limits of worker 0.
func (a vmAgent) limit(t *testing.T, change string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPatch, a.url+"/api/v1/workers/0", strings.NewReader(`{"limits":`+change+`}`))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, _ := io.ReadAll(resp.Body); resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s %s", change, resp.Status, body)
	}
}

func readCgroup(t *testing.T, w agent.Worker, file string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("/sys/fs/cgroup", w.Cgroup, file))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(text))
}

// TestLimitsAndOOM: what the configuration says is in force in the kernel, and
// a worker that goes over it is replaced and the reason told.
func TestLimitsAndOOM(t *testing.T) {
	number, err := os.ReadFile("/sys/block/vda/dev")
	if err != nil {
		t.Fatal(err)
	}
	vda := strings.TrimSpace(string(number))
	for _, placer := range []string{"scope", "subtree"} {
		t.Run(placer, func(t *testing.T) {
			a := startVMAgent(t, "--workers", "1", "--placer", placer,
				"--memory-max", "192M", "--memory-high", "160M", "--cpu-quota", "50%", "--cpu-weight", "200", "--tasks-max", "77", "--allowed-cpus", "1",
				"--io-weight", "50", "--io-max", "/dev/vda rbps=10M wiops=70")
			w := a.worker(t)
			for file, want := range map[string]string{
				"memory.max": fmt.Sprint(192 << 20), "memory.high": fmt.Sprint(160 << 20),
				"cpu.max": "50000 100000", "cpu.weight": "200", "pids.max": "77", "cpuset.cpus": "1",
				"io.weight": "default 50", "io.max": vda + " rbps=10000000 wbps=max riops=max wiops=70",
			} {
				if got := readCgroup(t, w, file); got != want {
					t.Errorf("%s is %q, want %q", file, got, want)
				}
			}
			a.limit(t, `{"io_weight": 0, "io_max": "/dev/vda rbps=1M"}`)
			for file, want := range map[string]string{
				"io.weight": "default 100", "io.max": vda + " rbps=1000000 wbps=max riops=max wiops=max", "pids.max": "77",
			} {
				if got := readCgroup(t, w, file); got != want {
					t.Errorf("changed %s is %q, want %q", file, got, want)
				}
			}
			exhaust(t, w)
			a.until(t, 20*time.Second, "the worker is replaced", func() bool {
				now := a.worker(t)
				return now.PID != w.PID && now.State == agent.StateReady
			})
			now := a.worker(t)
			if now.LastExit == nil || now.LastExit.Reason != agent.ReasonOOM {
				t.Errorf("last exit: %+v, want reason oom", now.LastExit)
			}
			if got := readCgroup(t, now, "memory.max"); got != fmt.Sprint(192<<20) {
				t.Errorf("the successor's memory.max is %q", got)
			}
		})
	}
}

// exhaust takes away the memory that the worker already uses: the kernel kills
// it just as if it had asked for more than its limit.
func exhaust(t *testing.T, w agent.Worker) {
	t.Helper()
	dir := filepath.Join("/sys/fs/cgroup", w.Cgroup)
	for _, file := range []string{"memory.swap.max", "memory.max"} {
		if err := os.WriteFile(filepath.Join(dir, file), []byte("0"), 0); err != nil && file == "memory.max" {
			t.Fatal(err)
		}
	}
}
