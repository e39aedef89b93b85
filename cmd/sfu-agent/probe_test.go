package main

import (
	"context"
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"
)

func readTestdata(tb testing.TB, name string) string {
	tb.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		tb.Fatal(err)
	}
	return string(text)
}

func TestFacts(t *testing.T) {
	for name, c := range map[string]struct {
		files fstest.MapFS
		want  hostFacts
	}{
		"nothing to read": {fstest.MapFS{}, hostFacts{}},
		"host": {fstest.MapFS{
			"proc/thread-self/status":             file("Name:\tx\nNoNewPrivs:\t0\nSeccomp:\t0\nCapEff:\t000001ffffffffff\n"),
			"proc/self/limits":                    file(readTestdata(t, "limits.txt")),
			"proc/sys/kernel/io_uring_disabled":   file("1\n"),
			"proc/sys/kernel/io_uring_group":      file("-1\n"),
			"proc/self/ns/pid":                    {Data: []byte(initialPIDNamespace), Mode: fs.ModeSymlink},
			"proc/self/cgroup":                    file("0::/system.slice/docker.service\n"),
			"proc/self/mountinfo":                 file(readTestdata(t, "mountinfo-docker-host.txt")),
			"var/lib/docker/overlay2/l/something": file(""),
		}, hostFacts{IOUringDisabled: "1", IOUringGroup: "-1", Seccomp: "0", NoNewPrivs: "0", CapEff: "000001ffffffffff", Memlock: "8388608", Nofile: "20000"}},
		"docker": {fstest.MapFS{
			".dockerenv":          file(""),
			"proc/self/cgroup":    file("0::/\n"),
			"proc/self/mountinfo": file(readTestdata(t, "mountinfo-docker.txt")),
			"proc/self/ns/pid":    {Data: []byte("pid:[4026532601]"), Mode: fs.ModeSymlink},
		}, hostFacts{Container: "docker", ContainerSigns: []string{"/.dockerenv", "/proc/self/mountinfo", "PID namespace pid:[4026532601]"}}},
		"podman": {fstest.MapFS{
			"run/.containerenv": file("engine=\"podman-4.9.3\"\nname=\"a\"\nid=\"b\"\n"),
		}, hostFacts{Container: "podman", ContainerSigns: []string{"/run/.containerenv"}}},
		"kubernetes on cgroup v1": {fstest.MapFS{
			"proc/self/cgroup": file("12:memory:/kubepods/burstable/pod1/2\n0::/\n"),
		}, hostFacts{Container: "kubernetes", ContainerSigns: []string{"/proc/self/cgroup"}}},
		"nspawn": {fstest.MapFS{
			"run/host/container-manager": file("systemd-nspawn\n"),
		}, hostFacts{Container: "systemd-nspawn", ContainerSigns: []string{"/run/host/container-manager"}}},
		"PID namespace": {fstest.MapFS{
			"proc/self/ns/pid": {Data: []byte("pid:[1]"), Mode: fs.ModeSymlink},
		}, hostFacts{Container: "unknown", ContainerSigns: []string{"PID namespace pid:[1]"}}},
	} {
		got, want := readFacts(c.files), c.want
		if got.String() != want.String() || got.IOUringGroup != want.IOUringGroup || !slices.Equal(got.ContainerSigns, want.ContainerSigns) {
			t.Errorf("%s:\ngot  %+v\nwant %+v", name, got, want)
		}
	}
}

func file(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text)} }

// FuzzFacts: whatever stands in these files, nothing breaks and the facts fit
// on one line.
func FuzzFacts(f *testing.F) {
	f.Add("Seccomp:\t2\nNoNewPrivs:\t1\nCapEff:\t0\n", readTestdata(f, "limits.txt"), "0::/\n", readTestdata(f, "mountinfo-docker.txt"), "engine=\"podman-5\"\n")
	f.Add("", "Max open files            \n", "0::/docker/\n", " \n", "engine=")
	f.Add("Seccomp", "Max locked memory unlimited", ":::", "1 2 3 4 / /kubepods", "engine=\"\"")
	f.Fuzz(func(t *testing.T, status, limits, cgroup, mountinfo, containerenv string) {
		facts := readFacts(fstest.MapFS{
			"proc/thread-self/status": file(status), "proc/self/limits": file(limits), "proc/self/cgroup": file(cgroup),
			"proc/self/mountinfo": file(mountinfo), "run/.containerenv": file(containerenv),
		})
		if facts.Container == "" || strings.Contains(facts.Container, "\n") {
			t.Errorf("container %q", facts.Container)
		}
		if columns := strings.Fields(facts.Nofile + " " + facts.Memlock); len(columns) > 2 {
			t.Errorf("limits %q, %q", facts.Nofile, facts.Memlock)
		}
	})
}

func TestFeatures(t *testing.T) {
	f, err := parseFeatures([]byte(readTestdata(t, "runc-1.1.5-features.json")))
	if err != nil || f.Min != "1.0.0" || f.Max != "1.0.2-dev" || f.Linux.Seccomp.Enabled == nil || !*f.Linux.Seccomp.Enabled ||
		len(f.Linux.Seccomp.Actions) != 9 || f.Linux.Cgroup.Systemd == nil || !*f.Linux.Cgroup.Systemd {
		t.Errorf("%+v, %v", f, err)
	}
	for _, bad := range []string{"", "{}", "[]", "null", "{", `{"ociVersionMin":1}`, `{"ociVersionMin":"1.0.0"}`} {
		if _, err := parseFeatures([]byte(bad)); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

func FuzzFeatures(f *testing.F) {
	f.Add([]byte(readTestdata(f, "runc-1.1.5-features.json")))
	f.Add([]byte(`{"ociVersionMin":"1.0.0","ociVersionMax":"1.1.0","linux":{"seccomp":{"enabled":false},"cgroup":{"v2":null}}}`))
	f.Add([]byte(`{"linux":[]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		if features, err := parseFeatures(text); err == nil && (features.Min == "" || features.Max == "") {
			t.Errorf("taken without versions: %q", text)
		}
	})
}

// TestRuntimes asks programs that answer as runtimes do, and as they should not.
func TestRuntimes(t *testing.T) {
	for name, c := range map[string]struct{ script, verdict, cause, detail, remedy string }{
		"good":       {`cat "$FEATURES"`, "yes", "", "OCI runtime-spec 1.0.0 to 1.0.2-dev", ""},
		"too old":    {`[ "$1" = --version ] && echo "crun version 1.8.1" || { echo "unknown command $1" >&2; exit 1; }`, "no", "too-old", "exit status 1: unknown command features", "install crun 1.8.6 or a later version"},
		"failing":    {`[ "$1" = --version ] && echo 1 || kill -TERM $$`, "unknown", "", "signal: terminated", ""},
		"broken":     {"echo no such library >&2; exit 127", "unknown", "", "exit status 127: no such library", ""},
		"killed":     {"kill -KILL $$", "unknown", "", "signal: killed", ""},
		"no JSON":    {"echo hello", "unknown", "", "read its features", ""},
		"too much":   {"head -c 2000000 /dev/zero; exit 1", "unknown", "", "exit status 1", ""},
		"no program": {"", "no", "not-found", "not found", "install runc, crun or youki to run workers as OCI containers; not required"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if c.script != "" {
				if err := os.WriteFile(filepath.Join(dir, "crun"), []byte("#!/bin/sh\n"+c.script+"\n"), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			features, err := filepath.Abs("testdata/runc-1.1.5-features.json")
			if err != nil {
				t.Fatal(err)
			}
			t.Setenv("FEATURES", features)
			t.Setenv("PATH", dir+":/usr/bin:/bin")
			got := probeRuntime(t.Context(), "crun", "crun 1.8.6")
			if g := got[0]; g.Verdict != c.verdict || g.Cause != c.cause || !strings.Contains(g.Detail, c.detail) || g.Remedy != c.remedy {
				t.Errorf("%+v", g)
			}
			if (len(got) == 4) != (c.verdict == "yes") {
				t.Errorf("%d answers: %+v", len(got), got)
			}
		})
	}
}

// TestRuntimeHangs: a runtime that does not answer is left, with its children.
func TestRuntimeHangs(t *testing.T) {
	dir := t.TempDir()
	pidFile := filepath.Join(dir, "pid")
	if err := os.WriteFile(filepath.Join(dir, "crun"), []byte("#!/bin/sh\nsleep 60 & echo $! >"+pidFile+"; wait\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":/usr/bin:/bin")
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if got := probeRuntime(ctx, "crun", ""); len(got) != 1 || got[0].Verdict != "unknown" || !strings.Contains(got[0].Detail, "deadline") {
		t.Errorf("%+v", got)
	}
	pid, err := os.ReadFile(pidFile)
	if err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		stat, err := os.ReadFile("/proc/" + strings.TrimSpace(string(pid)) + "/stat")
		if err != nil || strings.Contains(string(stat), ") Z ") {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("the runtime's child lives on: %s", stat)
		}
	}
}

// TestReportKeys: programs read these keys; docs/operator.md has them all.
func TestReportKeys(t *testing.T) {
	r := probeHost(t.Context(), nil)
	r.Bench = &rungBench{Rungs: []rungCost{{Frames: 1, Single: 1, Turns: 1, Error: "x"}}, Why: "x"}
	r.Placer, r.PlacerWhy = "process", "x"
	r.Capabilities = append(r.Capabilities, capability{Cause: "x", Detail: "x", Remedy: "x"})
	text, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	var tree any
	if err := json.Unmarshal(text, &tree); err != nil {
		t.Fatal(err)
	}
	manual, err := os.ReadFile("../../docs/operator.md")
	if err != nil {
		t.Fatal(err)
	}
	paths := map[string]bool{}
	keyPaths(tree, "", paths)
	for path := range paths {
		if !strings.Contains(string(manual), "`"+path+"`") {
			t.Errorf("docs/operator.md has no `%s`", path)
		}
	}
	for _, c := range r.Capabilities[:len(r.Capabilities)-1] {
		switch {
		case c.Area == "" || c.Name == "" || c.Tried == "":
			t.Errorf("incomplete: %+v", c)
		case !slices.Contains([]string{"yes", "no", "unknown"}, c.Verdict):
			t.Errorf("verdict: %+v", c)
		case c.Verdict == "no" && (c.Cause == "" || c.Remedy == ""):
			t.Errorf("a no without cause or remedy: %+v", c)
		case c.Verdict == "yes" && (c.Cause != "" || c.Remedy != ""):
			t.Errorf("a yes with cause or remedy: %+v", c)
		case strings.Contains(c.Detail+c.Remedy, "\n"):
			t.Errorf("more than a line: %+v", c)
		}
	}
}

// keyPaths collects a.b for {"a":{"b":1}}, and for {"a":[{"b":1}]}.
func keyPaths(tree any, prefix string, paths map[string]bool) {
	switch tree := tree.(type) {
	case []any:
		for _, v := range tree {
			keyPaths(v, prefix, paths)
		}
	case map[string]any:
		for key, v := range tree {
			path := strings.TrimPrefix(prefix+"."+key, ".")
			paths[path] = true
			keyPaths(v, path, paths)
		}
	}
}
