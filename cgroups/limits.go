package cgroups

import "fmt"

// Limits bound one worker. Zero values mean "as the parent".
type Limits struct {
	// CPUWeight is cpu.weight, 1 to 10000.
	CPUWeight uint64 `json:"cpu_weight,omitempty"`
	// CPUQuota is CPU time per wall-clock time in per cent; 150 is one and a half cores.
	CPUQuota uint64 `json:"cpu_quota_percent,omitempty"`
	// AllowedCPUs is cpuset.cpus, a list in the kernel's format: "0-1,3".
	AllowedCPUs string `json:"allowed_cpus,omitempty"`
	// MemoryHigh and MemoryMax are memory.high and memory.max in bytes.
	MemoryHigh uint64 `json:"memory_high,omitempty"`
	MemoryMax  uint64 `json:"memory_max,omitempty"`
	// TasksMax is pids.max.
	TasksMax uint64 `json:"tasks_max,omitempty"`
	// IOWeight is io.weight, 1 to 10000.
	IOWeight uint64 `json:"io_weight,omitempty"`
	// IOMax is io.max, by disk: bytes and operations, read and written, in a
	// second: "/dev/vda rbps=10M wbps=5M riops=500 wiops=100,/dev/vdb wbps=1M".
	// K, M, G and T are powers of 1000.
	IOMax string `json:"io_max,omitempty"`
}

// Check says what of the limits this host's kernel would not take; nil if nothing.
func (l Limits) Check() error {
	if l.CPUWeight > 10000 {
		return fmt.Errorf("CPU weight %d is not within 1-10000", l.CPUWeight)
	}
	if l.IOWeight > 10000 {
		return fmt.Errorf("IO weight %d is not within 1-10000", l.IOWeight)
	}
	if _, err := parseCPUs(l.AllowedCPUs); err != nil {
		return fmt.Errorf("allowed CPUs %q: want a list like 0-1,3: %w", l.AllowedCPUs, err)
	}
	if _, err := l.IODevices(); err != nil {
		return fmt.Errorf("IO limits %q: want a list like /dev/vda rbps=10M wiops=100: %w", l.IOMax, err)
	}
	return nil
}
