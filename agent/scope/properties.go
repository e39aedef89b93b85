package scope

import (
	"math"

	"github.com/sfu-agent/sfu-agent/agent"
	"github.com/sfu-agent/sfu-agent/cgroups"
	"github.com/sfu-agent/sfu-agent/dbusx/systemd1"
)

// properties are those of a new scope.
func (p *Placer) properties(rec agent.Record, limits cgroups.Limits) (systemd1.Properties, error) {
	var props systemd1.Properties
	props.Description("SFU worker " + rec.Name)
	props.Slice(p.slice)
	props.PIDs(rec.PID)
	props.Delegate(true)
	props.DefaultDependencies(false) // the agent stops its workers before the host shuts down
	props.CollectMode("inactive")    // a failed scope stays to tell why, until Release or a Sweep
	props.TimeoutStop(stopTimeout)
	props.OOMPolicy("kill") // a worker in part is no worker
	props.Accounting(true)
	if limits.CPUWeight != 0 {
		props.CPUWeight(limits.CPUWeight)
	}
	if limits.CPUQuota != 0 {
		props.CPUQuota(limits.CPUQuota)
	}
	if limits.AllowedCPUs != "" {
		props.AllowedCPUs(limits.AllowedCPUs)
	}
	if limits.MemoryHigh != 0 {
		props.MemoryHigh(limits.MemoryHigh)
	}
	if limits.MemoryMax != 0 {
		props.MemoryMax(limits.MemoryMax)
	}
	if limits.TasksMax != 0 {
		props.TasksMax(limits.TasksMax)
	}
	if limits.IOWeight != 0 {
		props.IOWeight(limits.IOWeight)
	}
	if limits.IOMax == "" {
		return props, nil
	}
	err := setIOMax(&props, limits)
	return props, err
}

// change are the properties that bring a running scope to limits; those of zero
// are taken away.
func change(limits cgroups.Limits) (systemd1.Properties, error) {
	var props systemd1.Properties
	props.CPUWeight(orNone(limits.CPUWeight))
	props.CPUQuota(orNone(limits.CPUQuota))
	props.AllowedCPUs(limits.AllowedCPUs)
	props.MemoryHigh(orNone(limits.MemoryHigh))
	props.MemoryMax(orNone(limits.MemoryMax))
	props.TasksMax(orNone(limits.TasksMax))
	props.IOWeight(orNone(limits.IOWeight))
	err := setIOMax(&props, limits)
	return props, err
}

func setIOMax(props *systemd1.Properties, limits cgroups.Limits) error {
	devices, err := limits.IODevices()
	var list []systemd1.IOLimits
	for _, d := range devices {
		list = append(list, systemd1.IOLimits{
			Path:          d.Path,
			ReadBandwidth: orNone(d.ReadBytes), WriteBandwidth: orNone(d.WriteBytes),
			ReadIOPS: orNone(d.ReadOps), WriteIOPS: orNone(d.WriteOps),
		})
	}
	props.IOMax(list...)
	return err
}

// orNone is a limit as systemd has it, where the greatest number means none.
func orNone(limit uint64) uint64 {
	if limit == 0 {
		return math.MaxUint64
	}
	return limit
}
