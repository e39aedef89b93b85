package cgroups

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

const ioMaxFile = "io.max"

// ioKeys are the keys of io.max, in the kernel's order.
var ioKeys = []string{"rbps", "wbps", "riops", "wiops"}

// An IODevice is what a worker may read and write on one disk in a second.
// Zero is no limit.
type IODevice struct {
	Path                  string // "/dev/vda"
	Number                string // "254:0"
	ReadBytes, WriteBytes uint64
	ReadOps, WriteOps     uint64
}

// IODevices are those that IOMax names. It returns an error for a device that
// this host has not.
func (l Limits) IODevices() ([]IODevice, error) { return parseIOMax(l.IOMax, diskNumber) }

// parseIOMax parses "/dev/vda rbps=10M wiops=100,/dev/vdb wbps=1G".
func parseIOMax(text string, number func(path string) (string, error)) ([]IODevice, error) {
	var devices []IODevice
	if strings.TrimSpace(text) == "" {
		return nil, nil
	}
	for part := range strings.SplitSeq(text, ",") {
		fields := strings.Fields(part)
		if len(fields) < 2 {
			return nil, fmt.Errorf("%q: want a device and its limits", part)
		}
		device := IODevice{Path: fields[0]}
		for _, field := range fields[1:] {
			if err := device.set(field); err != nil {
				return nil, fmt.Errorf("%s: %w", device.Path, err)
			}
		}
		var err error
		if device.Number, err = number(device.Path); err != nil {
			return nil, err
		}
		if slices.ContainsFunc(devices, func(d IODevice) bool { return d.Number == device.Number }) {
			return nil, fmt.Errorf("%s is named twice", device.Path)
		}
		devices = append(devices, device)
	}
	return devices, nil
}

// set takes over a limit, "rbps=10M".
func (d *IODevice) set(field string) error {
	key, value, _ := strings.Cut(field, "=")
	i := slices.Index(ioKeys, key)
	if i < 0 {
		return fmt.Errorf("%q: want %s=NUMBER", field, strings.Join(ioKeys, ", "))
	}
	limit := []*uint64{&d.ReadBytes, &d.WriteBytes, &d.ReadOps, &d.WriteOps}[i]
	if *limit != 0 {
		return fmt.Errorf("%s is set twice", key)
	}
	factor := uint64(1)
	if n := len(value); n > 0 {
		if unit := strings.IndexByte("KMGT", value[n-1]); unit >= 0 {
			value = value[:n-1]
			for range unit + 1 {
				factor *= 1000 // as in systemd.resource-control(5)
			}
		}
	}
	n, err := strconv.ParseUint(value, 10, 50)
	if err != nil || n*factor < 2 || n*factor/factor != n { // as the kernel wants it
		return fmt.Errorf("%q: want a number from 2, also with K, M, G or T", field)
	}
	*limit = n * factor
	return nil
}

// diskNumber is the MAJOR:MINOR of a whole disk. It asks sysfs, because a
// sandbox may have no such file in /dev.
func diskNumber(path string) (string, error) {
	name, ok := strings.CutPrefix(path, "/dev/")
	if !ok || name != filepath.Base(name) {
		return "", fmt.Errorf("%s is no disk: want one of /sys/block, as /dev/NAME", path)
	}
	number, err := os.ReadFile(filepath.Join("/sys/block", name, "dev"))
	if err != nil {
		return "", fmt.Errorf("%s is no disk of this host (partitions have no limits): %w", path, err)
	}
	return strings.TrimSpace(string(number)), nil
}

// line is d in io.max.
func (d IODevice) line() string {
	return fmt.Sprintf("%s rbps=%s wbps=%s riops=%s wiops=%s", d.Number,
		orMax(d.ReadBytes), orMax(d.WriteBytes), orMax(d.ReadOps), orMax(d.WriteOps))
}

// ioLines are the lines of io.max by device; those without any limit are none.
func ioLines(text string) map[string]string {
	lines := map[string]string{}
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		number, _, _ := strings.Cut(line, " ")
		if line != (IODevice{Number: number}).line() {
			lines[number] = line
		}
	}
	delete(lines, "")
	return lines
}

func (g Group) ioMax() (map[string]string, error) {
	data, err := g.read(ioMaxFile)
	return ioLines(string(data)), err
}

// setIOMax limits the devices and no other.
func (g Group) setIOMax(l Limits) error {
	devices, err := l.IODevices()
	if err != nil {
		return err
	}
	have, err := g.ioMax()
	if l.IOMax == "" && errors.Is(err, errors.ErrUnsupported) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, d := range devices {
		delete(have, d.Number)
	}
	for number := range have {
		devices = append(devices, IODevice{Number: number})
	}
	for _, d := range devices { // the kernel takes one with each write
		if err := g.write(ioMaxFile, d.line()); err != nil {
			return err
		}
	}
	return g.checkIOMax(l)
}

// checkIOMax reads whether the devices are limited, and no other.
func (g Group) checkIOMax(l Limits) error {
	devices, err := l.IODevices()
	if err != nil {
		return err
	}
	have, err := g.ioMax()
	if err != nil {
		return err
	}
	want := map[string]string{}
	for _, d := range devices {
		want[d.Number] = d.line()
	}
	if !maps.Equal(have, want) {
		return fmt.Errorf("limit %s of %s: is %q, not %q: %w", ioMaxFile, g,
			slices.Sorted(maps.Values(have)), slices.Sorted(maps.Values(want)), ErrNotApplied)
	}
	return nil
}

// sameWeight compares io.weight by its first line, "default 100"; those of
// devices may follow.
func sameWeight(have, want string) bool {
	first, _, _ := strings.Cut(have, "\n")
	return first == want
}
