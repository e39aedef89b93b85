package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/sfu-agent/sfu-agent/"

// neverArrows are the imports that the architecture forbids: no package that
// matches from may import one that matches to. "x/..." is x and all below it.
// Our own packages are named without the module.
var neverArrows = []struct {
	from, to []string
	except   []string // of from
	why      string
}{
	{[]string{"sfu/..."}, []string{"agent/...", "dbusx/...", "cgroups/...", "seccompprofiles/..."}, nil, "the SFU runs alone"},
	{[]string{"agent/..."}, []string{"sfu/..."}, nil, "the agent speaks HTTP to workers"},
	{[]string{"agent"}, []string{"agent/scope", "agent/subtree", "agent/process", "agent/oci", "agent/containerd", "agent/front", "agent/cluster", "agent/agenttest"}, nil, "they import the agent, or nothing"},
	{[]string{"sfu"}, []string{"sfu/udpio/..."}, nil, "net.PacketConn is the seam"},
	{[]string{"sfu/udpio/..."}, []string{"sfu"}, nil, "net.PacketConn is the seam"},
	{[]string{"cgroups", "dbusx", "seccompprofiles", "sfu/codec", "sfu/rtpcache", "sfu/rtpmap", "agent/control", "agent/launch"}, []string{"..."}, nil, "leaves know nothing above them"},
	{[]string{"..."}, []string{"cmd/..."}, []string{"cmd/..."}, "cmd is the top"},
	{[]string{"..."}, []string{"internal/testenv"}, nil, "it is for tests alone"},
	{[]string{"..."}, []string{"stress/..."}, []string{"cmd/...", "stress/..."}, "load tools are no part of the product's packages"},
	{[]string{"..."}, []string{"golang.org/x/sys/unix"}, []string{"sfu/udpio/...", "cgroups", "seccompprofiles", "agent/scope", "agent/subtree", "agent/process", "stress/fanout"}, "raw system calls stay in few rooms"},
	{[]string{"..."}, []string{"github.com/pion/..."}, []string{"sfu/...", "stress/..."}, "WebRTC stays in sfu"},
	{[]string{"..."}, []string{"github.com/godbus/dbus/v5"}, []string{"dbusx/...", "stress/..."}, "D-Bus stays in dbusx"},
}

func TestNeverArrows(t *testing.T) {
	imports := ownImports(t)
	if len(imports) < 10 {
		t.Fatalf("found only %d packages", len(imports))
	}
	for pkg, list := range imports {
		for _, rule := range neverArrows {
			if !matches(pkg, rule.from) || matches(pkg, rule.except) {
				continue
			}
			for _, imported := range list {
				if matches(imported, rule.to) && imported != pkg {
					t.Errorf("%s imports %s: %s", pkg, imported, rule.why)
				}
			}
		}
	}
}

// ownImports maps each of our packages to what its code imports.
func ownImports(t *testing.T) map[string][]string {
	t.Helper()
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports", module+"...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	all := map[string][]string{}
	dec := json.NewDecoder(bytes.NewReader(out))
	for {
		var p struct {
			ImportPath string
			Imports    []string
		}
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all[p.ImportPath] = p.Imports
	}
}

func matches(pkg string, patterns []string) bool {
	return slices.ContainsFunc(patterns, func(pattern string) bool {
		if host, _, _ := strings.Cut(pattern, "/"); !strings.Contains(host, ".") || host == "..." {
			pattern = module + pattern
		}
		base, below := strings.CutSuffix(pattern, "/...")
		return pkg == base || below && strings.HasPrefix(pkg, base+"/")
	})
}

func TestMatches(t *testing.T) {
	for _, c := range []struct {
		pkg, pattern string
		want         bool
	}{
		{module + "sfu/codec", "sfu/...", true},
		{module + "sfu", "sfu/...", true},
		{module + "sfux", "sfu/...", false},
		{module + "sfu/codec", "sfu", false},
		{module + "agent", "...", true},
		{"fmt", "...", false},
		{"github.com/pion/webrtc/v4", "github.com/pion/...", true},
		{"golang.org/x/sys/unix", "golang.org/x/sys/unix", true},
	} {
		if got := matches(c.pkg, []string{c.pattern}); got != c.want {
			t.Errorf("matches(%q, %q) = %v", c.pkg, c.pattern, got)
		}
	}
}
