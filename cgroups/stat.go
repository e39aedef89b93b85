package cgroups

import (
	"errors"
	"fmt"
	"time"
)

// Stat is what a cgroup uses. Values whose controller the cgroup has not are zero.
type Stat struct {
	CPU     CPUStat
	Memory  MemoryStat
	Tasks   uint64 // pids.current: processes and threads
	TaskMax uint64 // pids.events max: forks that failed for TasksMax
}

// CPUStat is cpu.stat.
type CPUStat struct {
	Usage, User, System time.Duration

	Periods       uint64 // of cpu.max that passed
	Throttled     uint64 // of these, in which the quota was used up
	ThrottledTime time.Duration
}

// MemoryStat is memory.current and memory.stat, in bytes.
type MemoryStat struct {
	Current uint64 // all of it
	Peak    uint64 // highest Current; zero before Linux 5.19
	Swap    uint64
	Anon    uint64
	File    uint64 // page cache
	Kernel  uint64
	Sock    uint64 // network buffers
}

// Stat reads what the cgroup uses.
func (g Group) Stat() (Stat, error) {
	var s Stat
	for file, take := range map[string]func([]byte) error{
		"cpu.stat":            func(data []byte) error { s.CPU = parseCPUStat(data); return nil },
		"memory.stat":         func(data []byte) error { parseMemoryStat(data, &s.Memory); return nil },
		"memory.current":      into(&s.Memory.Current),
		"memory.peak":         into(&s.Memory.Peak),
		"memory.swap.current": into(&s.Memory.Swap),
		"pids.current":        into(&s.Tasks),
		"pids.events":         func(data []byte) error { s.TaskMax = parseMax(data); return nil },
	} {
		data, err := g.read(file)
		if errors.Is(err, errors.ErrUnsupported) {
			continue
		}
		if err == nil {
			err = take(data)
		}
		if err != nil {
			return Stat{}, fmt.Errorf("read usage of %s: %s: %w", g, file, err)
		}
	}
	return s, nil
}

func parseCPUStat(data []byte) CPUStat {
	values := map[string]uint64{}
	parseKeyed(data, func(key string, value uint64) { values[key] = value })
	return CPUStat{
		Usage:         microseconds(values["usage_usec"]),
		User:          microseconds(values["user_usec"]),
		System:        microseconds(values["system_usec"]),
		Periods:       values["nr_periods"],
		Throttled:     values["nr_throttled"],
		ThrottledTime: microseconds(values["throttled_usec"]),
	}
}

func parseMemoryStat(data []byte, m *MemoryStat) {
	parseKeyed(data, func(key string, value uint64) {
		switch key {
		case "anon":
			m.Anon = value
		case "file":
			m.File = value
		case "kernel":
			m.Kernel = value
		case "sock":
			m.Sock = value
		}
	})
}

func parseMax(data []byte) (n uint64) {
	parseKeyed(data, func(key string, value uint64) {
		if key == "max" {
			n = value
		}
	})
	return n
}

func microseconds(n uint64) time.Duration { return time.Duration(n) * time.Microsecond }

func into(number *uint64) func([]byte) error {
	return func(data []byte) (err error) {
		*number, err = parseNumber(data)
		return err
	}
}
