package cgroups

import (
	"errors"
	"testing"
	"time"
)

const (
	cpuStat = "usage_usec 3000000\nuser_usec 2000000\nsystem_usec 1000000\nnice_usec 0\n" +
		"nr_periods 10\nnr_throttled 4\nthrottled_usec 500000\nnr_bursts 0\nburst_usec 0\n"
	memoryStat = "anon 4096\nfile 8192\nkernel 1000\nkernel_stack 16\nsock 20480\nnew_in_some_kernel 7\nworkingset 1 2 3\n"
)

func TestStat(t *testing.T) {
	g := fakeGroup(t, map[string]string{
		"cpu.stat": cpuStat, "memory.stat": memoryStat, "memory.current": "65536\n", "memory.peak": "70000\n",
		"memory.swap.current": "5\n", "pids.current": "12\n", "pids.events": "max 3\n",
	})
	want := Stat{
		CPU: CPUStat{
			Usage: 3 * time.Second, User: 2 * time.Second, System: time.Second,
			Periods: 10, Throttled: 4, ThrottledTime: 500 * time.Millisecond,
		},
		Memory: MemoryStat{Current: 65536, Peak: 70000, Swap: 5, Anon: 4096, File: 8192, Kernel: 1000, Sock: 20480},
		Tasks:  12, TaskMax: 3,
	}
	if got, err := g.Stat(); err != nil || got != want {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
}

func TestStatWithoutControllers(t *testing.T) {
	g := fakeGroup(t, map[string]string{"cpu.stat": "usage_usec 7\n"})
	if got, err := g.Stat(); err != nil || got != (Stat{CPU: CPUStat{Usage: 7 * time.Microsecond}}) {
		t.Errorf("got %+v, %v", got, err)
	}
	set(t, g, "pids.current", "many")
	if _, err := g.Stat(); err == nil {
		t.Error("took a malformed number")
	}
	if _, err := g.Child("none").Stat(); !errors.Is(err, ErrGone) {
		t.Errorf("stat of no cgroup: %v", err)
	}
}

func FuzzKeyed(f *testing.F) {
	for _, seed := range []string{cpuStat, memoryStat, memoryEvents, "populated 1\nfrozen 0\n", "max 3", "a\nb c\n\n -1"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		parseCPUStat(data)
		var m MemoryStat
		parseMemoryStat(data, &m)
		parseEvents(data, data)
		parseMax(data)
		for _, pid := range parsePIDs(data) {
			if pid <= 0 {
				t.Errorf("process %d", pid)
			}
		}
	})
}
