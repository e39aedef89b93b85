package agenttest

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sfu-agent/sfu-agent/agent"
	"github.com/sfu-agent/sfu-agent/cgroups"
)

const mib = 1 << 20

// Limits tests a kind of Placer that can limit its workers, on a host where
// cgroup v2 has the controllers. The package's TestMain must be Main.
func Limits(t *testing.T, subject Subject) {
	for _, test := range []struct {
		name string
		run  func(*testing.T, *bench)
	}{
		{"limits are in the files", testLimitFiles},
		{"limits change", testLimitChange},
		{"limits are refused", testLimitRefused},
		{"tasks", testTasks},
		{"out of memory", testOOM},
		{"out of memory at once", testOOMAtOnce},
		{"out of memory in two", testOOMInTwo},
		{"out of memory of a child", testOOMOfChild},
		{"out of memory when adopted", testOOMAdopted},
		{"killed is not out of memory", testKilledIsNotOOM},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, newBench(t, subject)) })
	}
}

// placeLimited places a worker with limits.
func (b *bench) placeLimited(t *testing.T, limits cgroups.Limits, args ...string) agent.Placement {
	t.Helper()
	spec := b.spec()
	spec.Limits, spec.Args = limits, args
	placement, err := b.placer.Place(b.context(t), spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.end(t, placement) })
	return placement
}

// expectFiles checks files of a worker's cgroup.
func expectFiles(t *testing.T, placement agent.Placement, want map[string]string) {
	t.Helper()
	host, err := cgroups.Detect()
	if err != nil {
		t.Fatal(err)
	}
	for file, value := range want {
		data, err := os.ReadFile(filepath.Join(host.Mount, placement.Record().Cgroup, file))
		if have := strings.TrimSpace(string(data)); err != nil || have != value {
			t.Errorf("%s is %q, %v, want %q", file, have, err, value)
		}
	}
}

func testLimitFiles(t *testing.T, b *bench) {
	placement := b.placeLimited(t, cgroups.Limits{
		CPUWeight: 250, CPUQuota: 150, AllowedCPUs: "0", MemoryHigh: 64 * mib, MemoryMax: 128 * mib, TasksMax: 77,
		IOWeight: 50, IOMax: "/dev/vda rbps=10M wiops=70",
	})
	expectFiles(t, placement, map[string]string{
		"cpu.weight": "250", "cpu.max": "150000 100000", "cpuset.cpus": "0",
		"memory.high": "67108864", "memory.max": "134217728", "pids.max": "77", "memory.oom.group": "1",
		"io.weight": "default 50", "io.max": diskNumber(t, "vda") + " rbps=10000000 wbps=max riops=max wiops=70",
	})
	b.info(t, placement)
}

// diskNumber is a disk's MAJOR:MINOR.
func diskNumber(t *testing.T, name string) string {
	t.Helper()
	number, err := os.ReadFile("/sys/block/" + name + "/dev")
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(number))
}

// allCPUs are those that a worker's cgroup has when it is not limited.
func allCPUs(t *testing.T, placement agent.Placement) string {
	t.Helper()
	host, err := cgroups.Detect()
	if err != nil {
		t.Fatal(err)
	}
	parent := filepath.Dir(placement.Record().Cgroup)
	data, err := os.ReadFile(filepath.Join(host.Mount, parent, "cpuset.cpus.effective"))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(data))
}

func testLimitChange(t *testing.T, b *bench) {
	placement := b.placeLimited(t, cgroups.Limits{MemoryMax: 128 * mib, TasksMax: 77, IOMax: "/dev/vda rbps=10M"})
	for _, step := range []struct {
		limits cgroups.Limits
		want   map[string]string
	}{
		{
			cgroups.Limits{CPUWeight: 50, CPUQuota: 20, AllowedCPUs: "0", MemoryHigh: 100 * mib, MemoryMax: 200 * mib, TasksMax: 99, IOWeight: 30, IOMax: "/dev/loop0 wbps=5M riops=60"},
			map[string]string{
				"io.weight": "default 30", "io.max": diskNumber(t, "loop0") + " rbps=max wbps=5000000 riops=60 wiops=max",
				"cpu.weight": "50", "cpu.max": "20000 100000", "cpuset.cpus": "0",
				"memory.high": "104857600", "memory.max": "209715200", "pids.max": "99",
			},
		},
		{
			cgroups.Limits{MemoryMax: 300 * mib},
			map[string]string{
				"io.weight": "default 100", "io.max": "",
				"cpu.weight": "100", "cpu.max": "max 100000", "cpuset.cpus": allCPUs(t, placement),
				"memory.high": "max", "memory.max": "314572800", "pids.max": "max",
			},
		},
	} {
		if err := placement.SetLimits(b.context(t), step.limits); err != nil {
			t.Errorf("%+v: %v", step.limits, err)
		}
		expectFiles(t, placement, step.want)
	}
	b.info(t, placement)
}

func testLimitRefused(t *testing.T, b *bench) {
	bad := []cgroups.Limits{{CPUWeight: 20000}, {IOWeight: 20000}, {IOMax: "/dev/none rbps=1M"}}
	for _, limits := range bad {
		spec := b.spec()
		spec.Limits = limits
		if _, err := b.placer.Place(b.context(t), spec); err == nil {
			t.Errorf("placed with %+v", limits)
		}
		b.checkNothingLeft(t)
	}
	placement := b.place(t)
	for _, limits := range bad {
		if err := placement.SetLimits(b.context(t), limits); err == nil {
			t.Errorf("set %+v", limits)
		}
	}
	b.info(t, placement)
}

func testTasks(t *testing.T, b *bench) {
	placement := b.placeLimited(t, cgroups.Limits{TasksMax: 30})
	for range 30 {
		if answer := b.ask(t, placement, "fork"); strings.Contains(answer, syscall.EAGAIN.Error()) {
			return
		}
	}
	t.Error("30 children of a worker with 30 tasks")
}

var outOfMemory = agent.Exit{Reason: agent.ReasonOOM, Signal: "SIGKILL"}

func (b *bench) expectOOM(t *testing.T, placement agent.Placement) {
	t.Helper()
	if exit := b.wait(t, placement); exit != outOfMemory {
		t.Errorf("exit %+v", exit)
	}
}

func testOOM(t *testing.T, b *bench) {
	placement := b.placeLimited(t, cgroups.Limits{MemoryMax: 48 * mib})
	b.ask(t, placement, "alloc 268435456")
	start := time.Now()
	b.expectOOM(t, placement)
	t.Logf("told after %v", time.Since(start))
	if err := placement.Release(b.context(t)); err != nil {
		t.Error(err)
	}
	b.expectOOM(t, placement) // also after the release
}

// testOOMAtOnce has workers that run out of memory as their first act, so that
// the cgroup may be gone before anybody looks.
func testOOMAtOnce(t *testing.T, b *bench) {
	for range 10 {
		placement := b.placeLimited(t, cgroups.Limits{MemoryMax: 24 * mib}, "--alloc", "268435456")
		b.expectOOM(t, placement)
		b.end(t, placement)
	}
}

// testOOMInTwo has two workers run out of memory while a third does not.
func testOOMInTwo(t *testing.T, b *bench) {
	limits := cgroups.Limits{MemoryMax: 48 * mib}
	first, second, third := b.placeLimited(t, limits), b.placeLimited(t, limits), b.placeLimited(t, limits)
	b.ask(t, first, "alloc 268435456")
	b.ask(t, second, "alloc 268435456")
	b.expectOOM(t, first)
	b.expectOOM(t, second)
	b.info(t, third)
	if err := third.Stop(b.context(t), limit); err != nil {
		t.Error(err)
	}
	if exit := b.wait(t, third); exit.Reason == agent.ReasonOOM {
		t.Errorf("exit %+v of one that had memory", exit)
	}
}

// testOOMOfChild: a worker goes with a child of it that is killed.
func testOOMOfChild(t *testing.T, b *bench) {
	placement := b.placeLimited(t, cgroups.Limits{MemoryMax: 64 * mib})
	b.ask(t, placement, "fork-alloc 268435456")
	b.expectOOM(t, placement)
}

func testOOMAdopted(t *testing.T, b *bench) {
	for _, rec := range b.crash(t, 2) {
		adopted, err := b.placer.Adopt(b.context(t), rec)
		if err != nil {
			t.Fatal(err)
		}
		if err := adopted.SetLimits(b.context(t), cgroups.Limits{MemoryMax: 48 * mib}); err != nil {
			t.Error(err)
		}
		b.ask(t, adopted, "alloc 268435456")
		b.expectOOM(t, adopted)
		b.end(t, adopted)
	}
}

func testKilledIsNotOOM(t *testing.T, b *bench) {
	placement := b.placeLimited(t, cgroups.Limits{MemoryMax: 48 * mib})
	if err := syscall.Kill(placement.Record().PID, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		t.Fatal(err)
	}
	if exit := b.wait(t, placement); exit != (agent.Exit{Reason: agent.ReasonSignal, Signal: "SIGKILL"}) {
		t.Errorf("exit %+v", exit)
	}
}
