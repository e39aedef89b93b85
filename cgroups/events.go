package cgroups

import "errors"

// Events is what happened in a cgroup and below it, by cgroup.events and
// memory.events. The counters only grow.
type Events struct {
	Populated bool // a process is there
	Frozen    bool

	High         uint64 // memory.high was exceeded
	Max          uint64 // memory.max was about to be exceeded
	OOM          uint64 // memory could not be had
	OOMKill      uint64 // processes that the kernel killed for it
	OOMGroupKill uint64 // kills of the whole cgroup, of which OOMKill may count one process twice; Linux 5.17
}

// Events reads what has happened so far. Without the memory controller its
// counters are zero. It returns ErrGone where the cgroup has been removed.
func (g Group) Events() (Events, error) {
	state, err := g.read("cgroup.events")
	if err != nil {
		return Events{}, err
	}
	memory, err := g.read("memory.events")
	if err != nil && !errors.Is(err, errors.ErrUnsupported) {
		return Events{}, err
	}
	return parseEvents(state, memory), nil
}

// atLeast is e with no counter below that of before.
func (e Events) atLeast(before Events) Events {
	e.High = max(e.High, before.High)
	e.Max = max(e.Max, before.Max)
	e.OOM = max(e.OOM, before.OOM)
	e.OOMKill = max(e.OOMKill, before.OOMKill)
	e.OOMGroupKill = max(e.OOMGroupKill, before.OOMGroupKill)
	return e
}

// Populated says whether there is a process in the cgroup or below it. A cgroup
// that is not there has none.
func (g Group) Populated() (bool, error) {
	data, err := g.read("cgroup.events")
	if errors.Is(err, ErrGone) {
		return false, nil
	}
	return parseEvents(data, nil).Populated, err
}

func parseEvents(state, memory []byte) Events {
	var e Events
	parseKeyed(state, func(key string, value uint64) {
		switch key {
		case "populated":
			e.Populated = value != 0
		case "frozen":
			e.Frozen = value != 0
		}
	})
	parseKeyed(memory, func(key string, value uint64) {
		switch key {
		case "high":
			e.High = value
		case "max":
			e.Max = value
		case "oom":
			e.OOM = value
		case "oom_kill":
			e.OOMKill = value
		case "oom_group_kill":
			e.OOMGroupKill = value
		}
	})
	return e
}
