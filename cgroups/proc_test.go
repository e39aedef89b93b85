package cgroups

import (
	"errors"
	"os"
	"strings"
	"testing"
)

func TestC15ParsePath(t *testing.T) {
	for name, test := range map[string]struct {
		text, want string
		err        error
	}{
		"unified":       {text: "0::/system.slice/a.service\n", want: "/system.slice/a.service"},
		"v1 first":      {text: "9:name=systemd:/\n4:memory:/x\n0::/sfu.slice/w.scope\n", want: "/sfu.slice/w.scope"},
		"v1 last":       {text: "0::/a\n1:cpu:/b\n", want: "/a"},
		"colon in path": {text: "0::/a:b/0::/c\n", want: "/a:b/0::/c"},
		"no newline":    {text: "0::/a", want: "/a"},
		"root":          {text: "0::/\n", want: "/"},
		"removed":       {text: "0::/a (deleted)\n", err: ErrGone},
		"v1 alone":      {text: "4:memory:/x\n", err: ErrNoUnified},
		"empty":         {err: ErrNoUnified},
	} {
		got, err := parsePath([]byte(test.text))
		if got != test.want || !errors.Is(err, test.err) {
			t.Errorf("%s: %q, %v, want %q, %v", name, got, err, test.want, test.err)
		}
	}
	if _, err := parsePath([]byte("0::relative\n")); err == nil {
		t.Error("took a relative path")
	}
}

func TestPathOf(t *testing.T) {
	if path, err := PathOf(os.Getpid()); err != nil && !errors.Is(err, ErrNoUnified) || err == nil && path[0] != '/' {
		t.Errorf("own path %q, %v", path, err)
	}
	if _, err := PathOf(1 << 30); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("path of no process: %v", err)
	}
}

func FuzzParsePath(f *testing.F) {
	f.Add([]byte("9:name=systemd:/\n4:memory:/x\n0::/sfu.slice/w.scope\n"))
	f.Add([]byte("0::/a (deleted)\n"))
	f.Add([]byte("0::"))
	f.Fuzz(func(t *testing.T, data []byte) {
		path, err := parsePath(data)
		if err == nil && (!strings.HasPrefix(path, "/") || strings.Contains(path, "\n")) {
			t.Errorf("path %q", path)
		}
	})
}
