package systemd1

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/godbus/dbus/v5"
)

// Properties collects unit properties in the types that
// org.freedesktop.systemd1(5) wants. The zero value is empty, a copy is
// independent, and a property set twice keeps its last value.
type Properties struct {
	list []property
	pids []int
	err  error // first value that has no form on the bus
}

type property struct {
	Name  string
	Value dbus.Variant
}

// optional are the properties that an older systemd may not have; a start goes on
// without them.
var optional = map[string]bool{
	"OOMPolicy":      true, // of scopes: v253, distributions backport it
	"AllowedCPUs":    true, // v244
	"MemoryZSwapMax": true, // v253
}

// set keeps the copies of p as they are.
func (p *Properties) set(name string, value any) {
	*p = p.without(name)
	p.list = append(p.list, property{name, dbus.MakeVariant(value)})
}

func (p *Properties) has(name string) bool {
	return slices.ContainsFunc(p.list, func(v property) bool { return v.Name == name })
}

func (p *Properties) without(name string) Properties {
	q := Properties{pids: p.pids, err: p.err}
	for _, v := range p.list {
		if v.Name != name {
			q.list = append(q.list, v)
		}
	}
	return q
}

// Slice is the slice unit to put the unit in.
func (p *Properties) Slice(unit string) { p.set("Slice", unit) }

// Description is the human-readable title.
func (p *Properties) Description(text string) { p.set("Description", text) }

// PIDs are the processes that become the scope's.
func (p *Properties) PIDs(pids ...int) {
	list := make([]uint32, len(pids))
	for i, pid := range pids {
		list[i] = uint32(pid)
	}
	p.pids = pids
	p.set("PIDs", list)
}

// Delegate leaves the cgroup below the unit to its processes.
func (p *Properties) Delegate(yes bool) { p.set("Delegate", yes) }

// DefaultDependencies are those on shutdown.target and the like.
func (p *Properties) DefaultDependencies(yes bool) { p.set("DefaultDependencies", yes) }

// CollectMode is when systemd forgets the ended unit: "inactive" or
// "inactive-or-failed".
func (p *Properties) CollectMode(mode string) { p.set("CollectMode", mode) }

// TimeoutStop is the time between SIGTERM and SIGKILL.
func (p *Properties) TimeoutStop(d time.Duration) { p.set("TimeoutStopUSec", usec(d)) }

// KillMode is "control-group", "mixed", "process" or "none".
func (p *Properties) KillMode(mode string) { p.set("KillMode", mode) }

// SendSIGKILL says whether SIGKILL follows a SIGTERM that was ignored.
func (p *Properties) SendSIGKILL(yes bool) { p.set("SendSIGKILL", yes) }

// OOMPolicy is what follows an out-of-memory kill: "continue", "stop" or "kill".
// Optional: dropped where scopes do not have it.
func (p *Properties) OOMPolicy(policy string) { p.set("OOMPolicy", policy) }

// CPUWeight is cpu.weight, 1 to 10000.
func (p *Properties) CPUWeight(weight uint64) { p.set("CPUWeight", weight) }

// CPUQuota is CPU time per wall-clock time in per cent; 150 is one and a half
// cores and math.MaxUint64 no limit.
func (p *Properties) CPUQuota(percent uint64) {
	perSecond := uint64(math.MaxUint64)
	if percent <= math.MaxUint64/10000 {
		perSecond = percent * 10000
	}
	p.set("CPUQuotaPerSecUSec", perSecond)
}

// AllowedCPUs is a list in the kernel's format, "0-1,3"; empty means all.
// Optional.
func (p *Properties) AllowedCPUs(list string) {
	mask, err := cpuMask(list)
	if err != nil && p.err == nil {
		p.err = fmt.Errorf("AllowedCPUs=%s: %w", list, err)
	}
	p.set("AllowedCPUs", mask)
}

// MemoryHigh is memory.high in bytes, math.MaxUint64 is no limit.
func (p *Properties) MemoryHigh(bytes uint64) { p.set("MemoryHigh", bytes) }

// MemoryMax is memory.max in bytes, math.MaxUint64 is no limit.
func (p *Properties) MemoryMax(bytes uint64) { p.set("MemoryMax", bytes) }

// MemorySwapMax is memory.swap.max in bytes, math.MaxUint64 is no limit.
func (p *Properties) MemorySwapMax(bytes uint64) { p.set("MemorySwapMax", bytes) }

// MemoryZSwapMax is memory.zswap.max in bytes. Optional: systemd 253.
func (p *Properties) MemoryZSwapMax(bytes uint64) { p.set("MemoryZSwapMax", bytes) }

// TasksMax is pids.max, math.MaxUint64 is no limit.
func (p *Properties) TasksMax(n uint64) { p.set("TasksMax", n) }

// IOWeight is io.weight, 1 to 10000, math.MaxUint64 is no weight.
func (p *Properties) IOWeight(weight uint64) { p.set("IOWeight", weight) }

// IOLimits are io.max of one device, by its path: bytes and operations a second.
// math.MaxUint64 is no limit.
type IOLimits struct {
	Path                          string
	ReadBandwidth, WriteBandwidth uint64
	ReadIOPS, WriteIOPS           uint64
}

// IOMax is io.max of the devices, and of no others.
func (p *Properties) IOMax(devices ...IOLimits) {
	for _, max := range []struct {
		name string
		of   func(IOLimits) uint64
	}{
		{"IOReadBandwidthMax", func(d IOLimits) uint64 { return d.ReadBandwidth }},
		{"IOWriteBandwidthMax", func(d IOLimits) uint64 { return d.WriteBandwidth }},
		{"IOReadIOPSMax", func(d IOLimits) uint64 { return d.ReadIOPS }},
		{"IOWriteIOPSMax", func(d IOLimits) uint64 { return d.WriteIOPS }},
	} {
		type limit struct {
			Path  string
			Value uint64
		}
		limits := []limit{}
		p.set(max.name, limits) // takes away all there are: systemd only adds
		for _, d := range devices {
			limits = append(limits, limit{d.Path, max.of(d)})
		}
		if len(limits) > 0 {
			p.list = append(p.list, property{max.name, dbus.MakeVariant(limits)})
		}
	}
}

// Accounting turns CPU, memory, tasks and IO accounting on or off.
func (p *Properties) Accounting(yes bool) {
	for _, name := range []string{"CPUAccounting", "MemoryAccounting", "TasksAccounting", "IOAccounting"} {
		p.set(name, yes)
	}
}

func usec(d time.Duration) uint64 { return uint64(max(d, 0) / time.Microsecond) }

// maxCPU bounds the CPU numbers of a list; Linux has at most 8192.
const maxCPU = 8191

// cpuMask turns a CPU list into the bitmap of AllowedCPUs, least significant
// byte first.
func cpuMask(list string) ([]byte, error) {
	mask := []byte{}
	if list == "" {
		return mask, nil
	}
	for r := range strings.SplitSeq(list, ",") {
		first, last, isRange := strings.Cut(r, "-")
		if !isRange {
			last = first
		}
		from, err := strconv.ParseUint(first, 10, 16)
		if err != nil {
			return nil, err
		}
		to, err := strconv.ParseUint(last, 10, 16)
		if err != nil {
			return nil, err
		}
		if from > to || to > maxCPU {
			return nil, fmt.Errorf("range %s: not within 0-%d in order", r, maxCPU)
		}
		for len(mask) <= int(to)/8 {
			mask = append(mask, 0)
		}
		for cpu := from; cpu <= to; cpu++ {
			mask[cpu/8] |= 1 << (cpu % 8)
		}
	}
	return mask, nil
}
