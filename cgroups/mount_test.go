package cgroups

import (
	"errors"
	"os"
	"strings"
	"testing"
)

func TestC13Detect(t *testing.T) {
	for name, want := range map[string]struct {
		mode  Mode
		mount string
		own   string
		text  string // in the error of Unified
	}{
		"unified":   {mode: Unified, mount: "sys/fs/cgroup", own: "/system.slice/sfu-agent.service"},
		"hybrid":    {mode: Hybrid, mount: "sys/fs/cgroup/unified", own: "/system.slice/a.service", text: "memory at /sys/fs/cgroup/memory"},
		"v1":        {mode: Legacy, text: "cpu at /sys/fs/cgroup/cpu,cpuacct"},
		"none":      {mode: None, text: "no cgroup file system"},
		"container": {mode: Unified, mount: "run/my cgroups", own: "/inner"},
	} {
		t.Run(name, func(t *testing.T) {
			h, err := detect("testdata/" + name)
			if err != nil {
				t.Fatal(err)
			}
			mount := ""
			if want.mount != "" {
				mount = "testdata/" + name + "/" + want.mount
			}
			if h.Mode != want.mode || h.Mount != mount || h.Own.Path() != want.own {
				t.Errorf("got %+v, want %+v", h, want)
			}
			err = h.Unified()
			if want.text == "" && err != nil || want.text != "" && (!errors.Is(err, ErrNoUnified) || !strings.Contains(err.Error(), want.text)) {
				t.Errorf("unified: %v, want %q", err, want.text)
			}
			if err := h.HaveController("memory"); !errors.Is(err, errors.ErrUnsupported) && !errors.Is(err, ErrGone) {
				t.Errorf("have memory: %v", err)
			}
		})
	}
}

func TestC13DetectThisHost(t *testing.T) {
	h, err := Detect()
	if err != nil {
		t.Fatal(err)
	}
	if (h.Mode == Unified) != (h.Unified() == nil) {
		t.Errorf("mode %s, unified: %v", h.Mode, h.Unified())
	}
	if h.Mount == "" {
		if err := h.Own.Delegated(); !errors.Is(err, ErrNotDelegated) {
			t.Errorf("without cgroup2, delegated: %v", err)
		}
		return
	}
	if !h.Own.Exists() {
		t.Errorf("own cgroup %s is not there", h.Own.Dir())
	}
	own, err := h.GroupOf(os.Getpid())
	if err != nil || own != h.Own {
		t.Errorf("group of self %v, %v, want %v", own, err, h.Own)
	}
	for _, name := range []string{"cgroup.procs", "cgroup.kill", "memory.max", "no.such"} {
		if err := h.Own.Have(name); err != nil && !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("have %s: %v", name, err)
		}
	}
}

func TestC02RootIsNotDelegated(t *testing.T) {
	g := fakeGroup(t, map[string]string{"cgroup.procs": "", "cgroup.subtree_control": ""})
	err := g.Delegated()
	if !errors.Is(err, ErrNotDelegated) || !strings.Contains(err.Error(), "root of all") {
		t.Errorf("delegated: %v", err)
	}
	if err := (Group{}).Delegated(); !errors.Is(err, ErrNotDelegated) || !errors.Is(err, ErrNoUnified) {
		t.Errorf("zero group delegated: %v", err)
	}
}

func TestDetectWithoutProc(t *testing.T) {
	if h, err := detect(t.TempDir()); err == nil {
		t.Errorf("detected %+v", h)
	}
}

func TestParseMountinfo(t *testing.T) {
	for text, want := range map[string]Mode{
		"":                  None,
		"garbage":           None,
		"1 2 3 / /x rw - ":  None,
		"1 - cgroup2 c rw":  None,
		"\n\n - \n - - - -": None,
		"1 2 0:1 / /a rw - cgroup2 cgroup rw\n1 2 0:1 / /b rw - cgroup cgroup rw,name=systemd":    Unified,
		"1 2 0:1 / /a rw shared:1 master:2 - cgroup2 none ro\n1 2 0:1 / /b rw - cgroup c rw,pids": Hybrid,
	} {
		if h := hostOf(parseMountinfo([]byte(text))); h.Mode != want {
			t.Errorf("%q: %s, want %s", text, h.Mode, want)
		}
	}
}

func FuzzMountinfo(f *testing.F) {
	for _, name := range []string{"unified", "hybrid", "v1", "none", "container"} {
		data, err := os.ReadFile("testdata/" + name + "/proc/self/mountinfo")
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		h := hostOf(parseMountinfo(data))
		if (h.Mount == "") != (h.Mode == Legacy || h.Mode == None) && h.Mount != "" {
			t.Errorf("mode %s, mount %q", h.Mode, h.Mount)
		}
		h.Unified()
	})
}
