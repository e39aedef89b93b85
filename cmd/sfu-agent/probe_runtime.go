package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Limits of what is asked of others.
const (
	runtimeLimit  = 3 * time.Second
	runtimeOutput = 1 << 20 // bytes
	socketLimit   = 500 * time.Millisecond
)

// ociFeatures is the part of the OCI runtime-spec's Features structure that
// concerns workers (features.md and features-linux.md of runtime-spec 1.1).
type ociFeatures struct {
	Min   string `json:"ociVersionMin"`
	Max   string `json:"ociVersionMax"`
	Linux struct {
		Seccomp struct {
			Enabled *bool    `json:"enabled"`
			Actions []string `json:"actions"`
		} `json:"seccomp"`
		Cgroup struct {
			V2      *bool `json:"v2"`
			Systemd *bool `json:"systemd"`
		} `json:"cgroup"`
	} `json:"linux"`
}

func parseFeatures(text []byte) (ociFeatures, error) {
	var f ociFeatures
	if err := json.Unmarshal(text, &f); err != nil {
		return ociFeatures{}, fmt.Errorf("read its features: %w", err)
	}
	if f.Min == "" || f.Max == "" {
		return ociFeatures{}, errors.New("read its features: no ociVersionMin and ociVersionMax")
	}
	return f, nil
}

// runtimes are the OCI runtimes that workers can be run by, and the first version
// of each that answers "features", where that is known.
var runtimes = []struct{ name, since string }{{"runc", "runc 1.1.0"}, {"crun", "crun 1.8.6"}, {"youki", ""}}

// probeRuntimes asks the OCI runtimes of the PATH what they can do, all at once.
func probeRuntimes(ctx context.Context) []capability {
	answers := make([][]capability, len(runtimes))
	var all sync.WaitGroup
	for i, r := range runtimes {
		all.Go(func() { answers[i] = probeRuntime(ctx, r.name, r.since) })
	}
	all.Wait()
	var found []capability
	for _, a := range answers {
		found = append(found, a...)
	}
	return found
}

func probeRuntime(ctx context.Context, name, since string) []capability {
	c := capability{Area: "oci", Name: name, Tried: "looked for in PATH", Verdict: "no"}
	path, err := exec.LookPath(name)
	if err != nil {
		c.Cause, c.Detail = "not-found", err.Error()
		c.Remedy = "install runc, crun or youki to run workers as OCI containers; not required"
		return []capability{c}
	}
	c.Tried = path + " features"
	out, err := outputOf(ctx, path, "features")
	if err != nil {
		c.Verdict, c.Detail = "unknown", err.Error()
		version, versionErr := outputOf(ctx, path, "--version")
		if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.Exited() && versionErr == nil { // it works, but for that
			first, _, _ := strings.Cut(string(version), "\n")
			c.Verdict, c.Cause, c.Detail = "no", "too-old", printable(first)+": "+err.Error()
			c.Remedy = "install " + cmp.Or(since, name) + " or a later version"
		}
		return []capability{c}
	}
	f, err := parseFeatures(out)
	if err != nil {
		c.Verdict, c.Detail = "unknown", err.Error()
		return []capability{c}
	}
	c.Verdict, c.Detail = "yes", fmt.Sprintf("OCI runtime-spec %s to %s", f.Min, f.Max)
	return []capability{
		c,
		feature(c, "seccomp", f.Linux.Seccomp.Enabled, fmt.Sprintf("%d actions", len(f.Linux.Seccomp.Actions)),
			"take a "+name+" that is built with libseccomp"),
		feature(c, "cgroup v2", f.Linux.Cgroup.V2, "", "take a newer "+name),
		feature(c, "systemd cgroup", f.Linux.Cgroup.Systemd, "", "take a "+name+" that is built with systemd support"),
	}
}

// feature is one of a runtime's features; one that it does not name is unknown.
func feature(runtime capability, name string, has *bool, detail, remedy string) capability {
	c := capability{Area: runtime.Area, Name: runtime.Name + " " + name, Tried: runtime.Tried, Verdict: "yes", Detail: detail}
	switch {
	case has == nil:
		c.Verdict, c.Detail = "unknown", "it does not say"
	case !*has:
		c.Verdict, c.Cause, c.Detail, c.Remedy = "no", "not-built-in", "", remedy
	}
	return c
}

// printable is at most 80 characters of foreign text, on one line.
func printable(text string) string {
	clean := strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == '\ufffd' {
			return -1
		}
		return r
	}, text)
	if runes := []rune(clean); len(runes) > 80 {
		clean = string(runes[:80])
	}
	return strings.TrimSpace(clean)
}

// outputOf runs a program in a process group of its own, which is killed when
// its time is over, and returns its standard output. An error has the first line
// of its other one.
func outputOf(ctx context.Context, path string, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, runtimeLimit, fmt.Errorf("no answer within %s", runtimeLimit))
	defer cancel()
	var out, complaint bounded
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Stdout, cmd.Stderr = &out, &complaint
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	err := cmd.Run()
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	if err != nil {
		first, _, _ := strings.Cut(complaint.String(), "\n")
		return nil, fmt.Errorf("%s %s: %w: %s", path, strings.Join(args, " "), err, printable(first))
	}
	return out.Bytes(), nil
}

// bounded keeps the first runtimeOutput bytes and refuses more.
type bounded struct{ bytes.Buffer }

func (b *bounded) Write(p []byte) (int, error) {
	if b.Len()+len(p) > runtimeOutput {
		return 0, fmt.Errorf("more than %d bytes of output", runtimeOutput)
	}
	return b.Buffer.Write(p)
}

// containerdSockets are where containerd listens: its own default, and that of
// the one which k3s brings.
var containerdSockets = []string{"/run/containerd/containerd.sock", "/run/k3s/containerd/containerd.sock"}

// probeContainerd looks for containerd and for nerdctl, which talks to it.
func probeContainerd(ctx context.Context) []capability {
	sockets := containerdSockets
	if named := strings.TrimPrefix(os.Getenv("CONTAINERD_ADDRESS"), "unix://"); named != "" { // as ctr and nerdctl take it
		sockets = []string{named}
	}
	return []capability{probeDaemon(ctx, sockets), probeNerdctl()}
}

func probeDaemon(ctx context.Context, sockets []string) capability {
	c := capability{Area: "containerd", Name: "containerd", Tried: "connected to " + strings.Join(sockets, ", ")}
	var all error
	for _, path := range sockets {
		err := dialUnix(ctx, path)
		if err == nil {
			c.Verdict, c.Detail = "yes", path
			return c
		}
		all = errors.Join(all, err)
	}
	c.Detail = oneLine(all)
	c.Verdict, c.Cause, c.Remedy = "no", "not-found", "start containerd to run workers in its containers; not required"
	if errors.Is(all, fs.ErrPermission) {
		c.Verdict, c.Cause, c.Remedy = "unknown", "permission", "run the probe as a user who may connect to containerd"
	}
	return c
}

func probeNerdctl() capability {
	c := capability{Area: "containerd", Name: "nerdctl", Tried: "looked for in PATH", Verdict: "yes"}
	path, err := exec.LookPath("nerdctl")
	if c.Detail = path; err != nil {
		c.Verdict, c.Cause, c.Detail = "no", "not-found", err.Error()
		c.Remedy = "install nerdctl to look at containerd's containers; not required"
	}
	return c
}

func dialUnix(ctx context.Context, path string) error {
	dialer := net.Dialer{Timeout: socketLimit}
	conn, err := dialer.DialContext(ctx, "unix", path)
	if err != nil {
		return err
	}
	return conn.Close()
}
