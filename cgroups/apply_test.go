package cgroups

import (
	"errors"
	"strings"
	"testing"
)

func TestSetLimitsWritesFiles(t *testing.T) {
	g := fakeGroup(t, map[string]string{
		"cpu.weight": "", "cpu.max": "", "cpuset.cpus": "", "memory.high": "", "memory.max": "", "pids.max": "", "memory.oom.group": "",
		"io.weight": "", "io.max": "",
	})
	set(t, g.Parent(), "cpuset.cpus.effective", "0-7\n")
	for _, test := range []struct {
		limits Limits
		want   map[string]string
	}{
		{
			Limits{},
			map[string]string{"cpu.weight": "100", "cpu.max": "max 100000", "cpuset.cpus": "", "memory.max": "max", "io.weight": "default 100", "io.max": ""},
		},
		{
			Limits{CPUWeight: 200, CPUQuota: 150, AllowedCPUs: "0-1,3", MemoryHigh: 1 << 20, MemoryMax: 1 << 21, TasksMax: 64, IOWeight: 50},
			map[string]string{
				"cpu.weight": "200", "cpu.max": "150000 100000", "cpuset.cpus": "0-1,3",
				"memory.high": "1048576", "memory.max": "2097152", "pids.max": "64", "io.weight": "default 50",
			},
		},
		{ // takes all away again
			Limits{},
			map[string]string{
				"cpu.weight": "100", "cpu.max": "max 100000", "cpuset.cpus": "0-7",
				"memory.high": "max", "memory.max": "max", "pids.max": "max", "io.weight": "default 100",
			},
		},
	} {
		if err := g.SetLimits(test.limits); err != nil {
			t.Fatal(err)
		}
		for file, want := range test.want {
			if have := content(t, g, file); have != want {
				t.Errorf("%s is %q, want %q", file, have, want)
			}
		}
		if err := g.CheckLimits(test.limits); err != nil {
			t.Errorf("check: %v", err)
		}
		if err := g.CheckLimits(Limits{CPUWeight: 7}); !errors.Is(err, ErrNotApplied) {
			t.Errorf("check of other limits: %v", err)
		}
	}
	if err := g.KillTogether(); err != nil || content(t, g, "memory.oom.group") != "1" {
		t.Errorf("kill together: %v", err)
	}
}

func TestSetLimitsWithoutControllers(t *testing.T) {
	g := fakeGroup(t, nil)
	if err := g.SetLimits(Limits{}); err != nil {
		t.Errorf("no limits: %v", err)
	}
	err := g.SetLimits(Limits{MemoryMax: 1 << 20})
	if !errors.Is(err, errors.ErrUnsupported) || !strings.Contains(err.Error(), "memory.max") || !strings.Contains(err.Error(), "memory controller") {
		t.Errorf("memory limit: %v", err)
	}
	set(t, g, "pids.max", "")
	part, err := g.Supported(Limits{CPUWeight: 1, CPUQuota: 1, AllowedCPUs: "0", MemoryHigh: 1, MemoryMax: 1, TasksMax: 5, IOWeight: 1, IOMax: "x"})
	if part != (Limits{TasksMax: 5}) || !errors.Is(err, errors.ErrUnsupported) || strings.Count(err.Error(), "needs") != 7 {
		t.Errorf("supported part %+v, %v", part, err)
	}
	if part, err := g.Supported(Limits{TasksMax: 5}); part != (Limits{TasksMax: 5}) || err != nil {
		t.Errorf("supported part %+v, %v", part, err)
	}
	if err := g.Child("none").SetLimits(Limits{TasksMax: 1}); !errors.Is(err, ErrGone) {
		t.Errorf("limit of no cgroup: %v", err)
	}
}

// A file that reads back otherwise is one whose value the kernel did not take.
func TestC12NotApplied(t *testing.T) {
	g := fakeGroup(t, nil)
	if err := g.write("memory.max", "x"); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("made a file that the kernel has not: %v", err)
	}
	set(t, g, "pids.max", "")
	other := func(have, want string) bool { return have == want+"0" }
	err := g.set(setting{file: "pids.max", value: "64", same: other})
	if !errors.Is(err, ErrNotApplied) || !strings.Contains(err.Error(), `is "64", not "64"`) {
		t.Errorf("set: %v", err)
	}
}

func TestSame(t *testing.T) {
	for _, test := range []struct {
		same       func(have, want string) bool
		have, want string
		yes        bool
	}{
		{samePages, "4096", "5000", true},
		{samePages, "max", "max", true},
		{samePages, "max", "4096", false},
		{samePages, "0", "8192", false},
		{sameCPUs, "0-1", "0,1", true},
		{sameCPUs, "0-3", "2-3,0-1", true},
		{sameCPUs, "", "", true},
		{sameCPUs, "", "0", false},
		{sameCPUs, "0", "0-1", false},
		{sameCPUs, "0", "x", false},
	} {
		if got := test.same(test.have, test.want); got != test.yes {
			t.Errorf("%q for %q: %v", test.have, test.want, got)
		}
	}
}

func FuzzValues(f *testing.F) {
	for _, seed := range []string{"max", "0", "18446744073709551615", "max 100000", "150000 100000", "0-1,3", "8191", "3-1", ""} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		parseNumber(data)
		if cpus, err := parseCPUs(string(data)); err == nil && len(cpus) > 0 && !cpus[len(cpus)-1] {
			t.Errorf("%q: the last of %v is not set", data, cpus)
		}
		sameCPUs(string(data), string(data))
		samePages(string(data), string(data))
	})
}
