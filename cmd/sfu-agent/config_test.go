package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

func flagsOf(t *testing.T, args ...string) (*runOptions, *pflag.FlagSet) {
	t.Helper()
	var o runOptions
	f := pflag.NewFlagSet("run", pflag.ContinueOnError)
	o.register(f)
	if err := f.Parse(args); err != nil {
		t.Fatal(err)
	}
	return &o, f
}

func writeConfig(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestConfigFile(t *testing.T) {
	o, f := flagsOf(t, "--workers", "3")
	path := writeConfig(t, `
# comment
http: "127.0.0.1:9999"
workers: 7
advertise: [192.0.2.1, "2001:db8::1"]
memory-max: 512M
cpu-quota: 150%
drain: 1m30s
`)
	if err := loadConfig(path, f); err != nil {
		t.Fatal(err)
	}
	if o.http != "127.0.0.1:9999" || o.workers != 3 || len(o.advertise) != 2 || o.memoryMax != 512<<20 || o.cpuQuota != 150 || o.drain.Seconds() != 90 {
		t.Errorf("got %+v", o)
	}
}

func TestConfigFileRefused(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"unknown key", "http: a\nwrokers: 3\n", `config.yaml:2: unknown key "wrokers" (known: `},
		{"bad value", "workers: many\n", "config.yaml:1: workers: "},
		{"bad size", "\nmemory-max: 12Q\n", `config.yaml:2: memory-max: "12Q" is no size`},
		{"twice", "workers: 1\nworkers: 2\n", "config.yaml"},
		{"no value", "workers:\n", "config.yaml:1: workers: has no value"},
		{"nested", "http:\n  port: 3\n", "config.yaml:1: http: want a single value or a list"},
		{"list at top", "- a\n", "want \"key: value\" lines"},
		{"syntax", "http: [\n", "config.yaml"},
		{"config in config", "config: x\n", "unknown key"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, f := flagsOf(t)
			err := loadConfig(writeConfig(t, c.text), f)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
	if _, f := flagsOf(t); loadConfig(filepath.Join(t.TempDir(), "none"), f) == nil {
		t.Error("a missing file was taken")
	}
}

func TestEmptyConfigFile(t *testing.T) {
	for _, text := range []string{"", "# nothing\n", "---\n"} {
		if _, f := flagsOf(t); loadConfig(writeConfig(t, text), f) != nil {
			t.Errorf("%q was refused", text)
		}
	}
}

func FuzzConfigFile(f *testing.F) {
	for _, seed := range []string{"http: a", "workers: 3\n", "- a", "a: {b: [1]}", "\t", "&a *a", "? x\n: y", "<<: {a: b}", "!!binary x"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var o runOptions
		flags := pflag.NewFlagSet("run", pflag.ContinueOnError)
		o.register(flags)
		path := filepath.Join(t.TempDir(), "c")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_ = loadConfig(path, flags) // must not panic
	})
}

func TestSize(t *testing.T) {
	for _, c := range []struct {
		text string
		want size
		back string
	}{
		{"0", 0, "0"}, {"1023", 1023, "1023"}, {"1K", 1 << 10, "1K"}, {"512M", 512 << 20, "512M"},
		{"2048M", 2 << 30, "2G"}, {"3T", 3 << 40, "3T"},
	} {
		var s size
		if err := s.Set(c.text); err != nil || s != c.want || s.String() != c.back {
			t.Errorf("%s: %d %q %v", c.text, s, s.String(), err)
		}
	}
	for _, bad := range []string{"", "M", "-1", "1.5G", "1k", "99999999999T", "1 M"} {
		var s size
		if s.Set(bad) == nil {
			t.Errorf("%q was taken for %d", bad, s)
		}
	}
}

func TestResolveRefuses(t *testing.T) {
	short := writeConfig(t, "short")
	for _, c := range []struct {
		name string
		args []string
		want string
	}{
		{"no workers", []string{"--workers", "0"}, "--workers 0: want 1 to 512"},
		{"port range", []string{"--udp-port", "65535", "--workers", "2"}, "the ports must lie"},
		{"low port", []string{"--udp-port", "80"}, "the ports must lie"},
		{"open without token", []string{"--http", "0.0.0.0:8080"}, "--token-file"},
		{"open by name", []string{"--http", ":8080"}, "--token-file"},
		{"advertise", []string{"--advertise", "example.org"}, "is no IP address"},
		{"advertise any", []string{"--advertise", "0.0.0.0"}, "is no IP address"},
		{"weight", []string{"--cpu-weight", "10001"}, "CPU weight 10001"},
		{"cpus", []string{"--allowed-cpus", "3-1"}, "allowed CPUs"},
		{"I/O weight", []string{"--io-weight", "10001"}, "IO weight 10001"},
		{"I/O", []string{"--io-max", "/dev/none rbps=1M"}, "/dev/none is no disk"},
		{"memory", []string{"--memory-max", "1M"}, "at least 32M"},
		{"rung", []string{"--rung", "fastest"}, "want auto or one of gso"},
		{"hold", []string{"--max-hold", "1s"}, "want 0 to 100ms"},
		{"short token", []string{"--token-file", short}, "16 characters"},
		{"no token file", []string{"--token-file", "/nonexistent"}, "--token-file"},
		{"user", []string{"--user", "no-such-user"}, "--user"},
	} {
		t.Run(c.name, func(t *testing.T) {
			o, _ := flagsOf(t, c.args...)
			_, err := o.resolve()
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

// TestExampleConfig: what packaging ships names every key, and no other.
func TestExampleConfig(t *testing.T) {
	text, err := os.ReadFile("../../packaging/config.yaml")
	if err != nil {
		t.Fatal(err)
	}
	commented := regexp.MustCompile(`(?m)^# ([a-z0-9-]+: .*)$`)
	_, f := flagsOf(t)
	if err := loadConfig(writeConfig(t, commented.ReplaceAllString(string(text), "$1")), f); err != nil {
		t.Error(err)
	}
	for _, key := range keys(f) {
		if !strings.Contains(string(text), "\n# "+key+": ") {
			t.Errorf("no %s in the example configuration", key)
		}
	}
}
