package cgroups

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
)

// numberOf stands in for sysfs.
func numberOf(path string) (string, error) {
	number, ok := map[string]string{"/dev/vda": "254:0", "/dev/vdb": "254:16"}[path]
	if !ok {
		return "", errors.New("no disk")
	}
	return number, nil
}

func TestParseIOMax(t *testing.T) {
	for text, want := range map[string][]IODevice{
		"":                nil,
		" ":               nil,
		"/dev/vda rbps=2": {{Path: "/dev/vda", Number: "254:0", ReadBytes: 2}},
		"/dev/vda rbps=1K wbps=2M  riops=3G wiops=4T, /dev/vdb wbps=1125899906842623": {
			{Path: "/dev/vda", Number: "254:0", ReadBytes: 1e3, WriteBytes: 2e6, ReadOps: 3e9, WriteOps: 4e12},
			{Path: "/dev/vdb", Number: "254:16", WriteBytes: 1<<50 - 1},
		},
	} {
		if got, err := parseIOMax(text, numberOf); err != nil || !slices.Equal(got, want) {
			t.Errorf("%q: %+v, %v, want %+v", text, got, err, want)
		}
	}
	for text, want := range map[string]string{
		"/dev/vda":                          "want a device and its limits",
		"/dev/vda rbps=2,":                  "want a device and its limits",
		"/dev/vda rbps":                     "want a number",
		"/dev/vda rbps=":                    "want a number",
		"/dev/vda rbps=K":                   "want a number",
		"/dev/vda rbps=0":                   "want a number from 2",
		"/dev/vda rbps=-1":                  "want a number",
		"/dev/vda rbps=2,/dev/vdb wbps=1":   "want a number from 2",
		"/dev/vda rbps=max":                 "want a number",
		"/dev/vda rbps=1k":                  "want a number",
		"/dev/vda rbps=1125899906842623T":   "want a number",
		"/dev/vda speed=1":                  "want rbps, wbps, riops, wiops=NUMBER",
		"/dev/vda rbps=2 rbps=3":            "rbps is set twice",
		"/dev/vda rbps=2,/dev/vda wbps=2":   "named twice",
		"/dev/vdc rbps=2":                   "no disk",
		"/dev/vda rbps=2 /dev/vdb riops=10": "want rbps",
	} {
		if got, err := parseIOMax(text, numberOf); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %+v, %v, want %q", text, got, err, want)
		}
	}
}

func TestDiskNumber(t *testing.T) {
	for _, path := range []string{"vda", "/dev/", "/dev/..", "/dev/mapper/x", "/dev/../etc/passwd", "/dev/none", "/dev/null"} {
		if number, err := diskNumber(path); err == nil {
			t.Errorf("%s: %s", path, number)
		}
	}
}

func TestIOLines(t *testing.T) {
	have := ioLines("254:0 rbps=1 wbps=max riops=max wiops=max\n254:16 rbps=max wbps=max riops=max wiops=max\n\n")
	want := map[string]string{"254:0": IODevice{Number: "254:0", ReadBytes: 1}.line()}
	if !maps.Equal(have, want) {
		t.Errorf("%v, want %v", have, want)
	}
}

func TestIOMaxOfFiles(t *testing.T) {
	g := fakeGroup(t, map[string]string{"io.max": "254:0 rbps=1 wbps=max riops=max wiops=max\n"})
	if err := g.checkIOMax(Limits{}); !errors.Is(err, ErrNotApplied) || !strings.Contains(err.Error(), "rbps=1") {
		t.Errorf("check: %v", err)
	}
	if err := g.setIOMax(Limits{}); err != nil {
		t.Error(err)
	}
	if text := content(t, g, "io.max"); text != "254:0 rbps=max wbps=max riops=max wiops=max" {
		t.Errorf("written: %q", text)
	}
	for _, l := range []Limits{{IOMax: "/dev/none rbps=1"}, {IOMax: "x"}} {
		if err := g.setIOMax(l); err == nil {
			t.Errorf("set %+v", l)
		}
		if err := g.checkIOMax(l); err == nil {
			t.Errorf("check %+v", l)
		}
		if err := l.Check(); err == nil || !strings.Contains(err.Error(), "IO limits") {
			t.Errorf("%+v: %v", l, err)
		}
	}
	if err := (Limits{IOWeight: 10001}).Check(); err == nil {
		t.Error("IO weight 10001")
	}
}

func FuzzIOMax(f *testing.F) {
	for _, seed := range []string{"", "/dev/vda rbps=10M wbps=5K riops=1 wiops=2", "/dev/vda rbps=1,/dev/vdb wbps=1T", "/dev/vda rbps=0", ",="} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		devices, err := parseIOMax(text, numberOf)
		if err == nil && len(devices) > 2 {
			t.Errorf("%q: %d devices of two", text, len(devices))
		}
		for _, d := range devices {
			if have := ioLines(d.line()); have[d.Number] != d.line() {
				t.Errorf("%q: %v limits nothing", text, d)
			}
		}
	})
}
