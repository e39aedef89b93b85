package cgroups

import (
	"os"
	"path/filepath"
	"testing"
)

// fakeGroup is a directory of ordinary files that looks like a cgroup.
func fakeGroup(t testing.TB, files map[string]string) Group {
	t.Helper()
	g := Group{t.TempDir(), "/fake"}
	if err := g.Create(); err != nil {
		t.Fatal(err)
	}
	for name, content := range files {
		set(t, g, name, content)
	}
	return g
}

func set(t testing.TB, g Group, name, content string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(g.Dir(), name), []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func content(t testing.TB, g Group, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(g.Dir(), name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
