package cgroups

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
)

// cpuPeriod is the period of cpu.max in microseconds: the kernel's own default.
const cpuPeriod = 100000

// setting is one limit as a file.
type setting struct {
	file  string
	value string
	unset bool // no limit: the file may be missing
	same  func(have, want string) bool
}

// settings is what l is in files of one value, in the order of writing.
func (l Limits) settings() []setting {
	return []setting{
		{"cpu.weight", decimal(orElse(l.CPUWeight, 100)), l.CPUWeight == 0, equal},
		{"cpu.max", cpuMax(l.CPUQuota), l.CPUQuota == 0, equal},
		{"cpuset.cpus", l.AllowedCPUs, l.AllowedCPUs == "", sameCPUs},
		{"memory.high", orMax(l.MemoryHigh), l.MemoryHigh == 0, samePages},
		{"memory.max", orMax(l.MemoryMax), l.MemoryMax == 0, samePages},
		{"pids.max", orMax(l.TasksMax), l.TasksMax == 0, equal},
		{"io.weight", "default " + decimal(orElse(l.IOWeight, 100)), l.IOWeight == 0, sameWeight},
	}
}

// Supported returns the part of l that the cgroup has the controllers for, and
// an error that wraps errors.ErrUnsupported for the rest.
func (g Group) Supported(l Limits) (Limits, error) {
	part := l
	var errs []error
	for _, limit := range []struct {
		file  string
		set   bool
		clear func()
	}{
		{"cpu.weight", l.CPUWeight != 0, func() { part.CPUWeight = 0 }},
		{"cpu.max", l.CPUQuota != 0, func() { part.CPUQuota = 0 }},
		{"cpuset.cpus", l.AllowedCPUs != "", func() { part.AllowedCPUs = "" }},
		{"memory.high", l.MemoryHigh != 0, func() { part.MemoryHigh = 0 }},
		{"memory.max", l.MemoryMax != 0, func() { part.MemoryMax = 0 }},
		{"pids.max", l.TasksMax != 0, func() { part.TasksMax = 0 }},
		{"io.weight", l.IOWeight != 0, func() { part.IOWeight = 0 }},
		{ioMaxFile, l.IOMax != "", func() { part.IOMax = "" }},
	} {
		if !limit.set {
			continue
		}
		if err := g.Have(limit.file); err != nil {
			limit.clear()
			errs = append(errs, err)
		}
	}
	return part, errors.Join(errs...)
}

// SetLimits writes all limits and reads them back. A limit of zero takes away
// one that was set before. The error wraps errors.ErrUnsupported for a limit
// whose controller the cgroup has not, and ErrNotApplied for one that reads
// back otherwise; limits after it are written all the same.
func (g Group) SetLimits(l Limits) error {
	l, err := g.FreeCPUs(l)
	if err != nil {
		return err
	}
	var errs []error
	for _, s := range l.settings() {
		err := g.set(s)
		if s.unset && errors.Is(err, errors.ErrUnsupported) {
			continue
		}
		errs = append(errs, err)
	}
	return errors.Join(append(errs, g.setIOMax(l))...)
}

func (g Group) set(s setting) error {
	if s.value == "" {
		return nil // of cpuset.cpus, see FreeCPUs
	}
	if err := g.write(s.file, s.value); err != nil {
		return err
	}
	return g.check(s)
}

// FreeCPUs is l with, in place of no AllowedCPUs, those of the parent where the
// cgroup has some set: with processes in it, it cannot go back to none.
func (g Group) FreeCPUs(l Limits) (Limits, error) {
	if l.AllowedCPUs != "" {
		return l, nil
	}
	have, err := g.read("cpuset.cpus")
	if errors.Is(err, errors.ErrUnsupported) || err == nil && len(bytes.TrimSpace(have)) == 0 {
		return l, nil
	}
	if err != nil {
		return l, err
	}
	all, err := g.Parent().read("cpuset.cpus.effective")
	l.AllowedCPUs = string(bytes.TrimSpace(all))
	return l, err
}

// CheckLimits reads whether l is in force; its errors are those of SetLimits.
// It does not look at limits of zero.
func (g Group) CheckLimits(l Limits) error {
	var errs []error
	for _, s := range l.settings() {
		if !s.unset {
			errs = append(errs, g.check(s))
		}
	}
	if l.IOMax != "" {
		errs = append(errs, g.checkIOMax(l))
	}
	return errors.Join(errs...)
}

func (g Group) check(s setting) error {
	data, err := g.read(s.file)
	if err != nil {
		return err
	}
	if have := string(bytes.TrimSpace(data)); !s.same(have, s.value) {
		return fmt.Errorf("limit %s of %s: is %q, not %q: %w", s.file, g, have, s.value, ErrNotApplied)
	}
	return nil
}

// KillTogether sets memory.oom.group: an out-of-memory kill ends all processes
// of the cgroup, for a worker in part is no worker.
func (g Group) KillTogether() error { return g.write("memory.oom.group", "1") }

func cpuMax(percent uint64) string {
	if percent == 0 {
		return fmt.Sprintf("max %d", cpuPeriod)
	}
	return fmt.Sprintf("%d %d", percent*cpuPeriod/100, cpuPeriod)
}

func decimal(n uint64) string { return strconv.FormatUint(n, 10) }

func orElse(n, otherwise uint64) uint64 {
	if n == 0 {
		return otherwise
	}
	return n
}

func orMax(n uint64) string {
	if n == 0 {
		return "max"
	}
	return decimal(n)
}

func equal(have, want string) bool { return have == want }

// samePages compares memory limits, which the kernel rounds down to whole pages.
func samePages(have, want string) bool {
	h, errH := strconv.ParseUint(have, 10, 64)
	w, errW := strconv.ParseUint(want, 10, 64)
	if errH != nil || errW != nil {
		return have == want
	}
	page := uint64(os.Getpagesize())
	return h/page == w/page
}

// sameCPUs compares CPU lists, which the kernel writes in its own way.
func sameCPUs(have, want string) bool {
	h, errH := parseCPUs(have)
	w, errW := parseCPUs(want)
	return errH == nil && errW == nil && slices.Equal(h, w)
}

// maxCPU bounds the CPU numbers of a list; Linux has at most 8192.
const maxCPU = 8191

// parseCPUs returns which CPUs a list such as "0-1,3" names, by number; the
// last one is set.
func parseCPUs(list string) ([]bool, error) {
	var cpus []bool
	list = strings.TrimSpace(list)
	if list == "" {
		return nil, nil
	}
	for part := range strings.SplitSeq(list, ",") {
		first, last, isRange := strings.Cut(part, "-")
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
			return nil, fmt.Errorf("CPUs %s: not within 0-%d in order", part, maxCPU)
		}
		for uint64(len(cpus)) <= to {
			cpus = append(cpus, false)
		}
		for cpu := from; cpu <= to; cpu++ {
			cpus[cpu] = true
		}
	}
	return cpus, nil
}
