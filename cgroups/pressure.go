package cgroups

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"time"
)

// A Resource is what processes wait for.
type Resource string

// The resources of pressure stall information.
const (
	CPU    Resource = "cpu"
	Memory Resource = "memory"
	IO     Resource = "io"
)

func (r Resource) file() string { return string(r) + ".pressure" }

// Pressure is pressure stall information: how long processes waited for a
// resource (Documentation/accounting/psi.rst).
type Pressure struct {
	Some Stall // at least one waited
	Full Stall // all waited at once; zero for the CPU before Linux 5.13
}

// A Stall is time lost.
type Stall struct {
	Avg10, Avg60, Avg300 float64       // per cent of the last seconds
	Total                time.Duration // since the cgroup was made
}

// Pressure reads a resource's pressure. It returns an error that wraps
// errors.ErrUnsupported where the kernel does not account for it.
func (g Group) Pressure(r Resource) (Pressure, error) {
	data, err := g.read(r.file())
	if err != nil {
		return Pressure{}, err
	}
	p, err := parsePressure(data)
	if err != nil {
		return Pressure{}, fmt.Errorf("read %s of %s: %w", r.file(), g, err)
	}
	return p, nil
}

func parsePressure(data []byte) (Pressure, error) {
	var p Pressure
	for line := range bytes.Lines(data) {
		kind, rest, _ := bytes.Cut(bytes.TrimSpace(line), []byte(" "))
		var err error
		switch string(kind) {
		case "some":
			p.Some, err = parseStall(rest)
		case "full":
			p.Full, err = parseStall(rest)
		}
		if err != nil {
			return Pressure{}, err
		}
	}
	return p, nil
}

// parseStall parses "avg10=0.00 avg60=0.00 avg300=0.00 total=0".
func parseStall(data []byte) (Stall, error) {
	var s Stall
	for field := range bytes.FieldsSeq(data) {
		key, value, ok := bytes.Cut(field, []byte("="))
		if !ok {
			return Stall{}, errors.New("malformed pressure")
		}
		var err error
		switch string(key) {
		case "avg10":
			s.Avg10, err = strconv.ParseFloat(string(value), 64)
		case "avg60":
			s.Avg60, err = strconv.ParseFloat(string(value), 64)
		case "avg300":
			s.Avg300, err = strconv.ParseFloat(string(value), 64)
		case "total":
			var total uint64
			total, err = strconv.ParseUint(string(value), 10, 63)
			s.Total = microseconds(total)
		}
		if err != nil {
			return Stall{}, fmt.Errorf("malformed pressure: %w", err)
		}
	}
	return s, nil
}
