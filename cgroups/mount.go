package cgroups

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// A Mode is how the host has mounted cgroups.
type Mode string

// The modes.
const (
	Unified Mode = "unified" // cgroup v2 alone
	Hybrid  Mode = "hybrid"  // cgroup v2 beside v1 hierarchies that hold controllers
	Legacy  Mode = "v1"      // cgroup v1 alone
	None    Mode = "none"    // neither
)

// A Host is what Detect found.
type Host struct {
	Mode  Mode
	Mount string // where cgroup2 is mounted, "" where it is not
	Own   Group  // the cgroup of this process; zero without cgroup2

	root string            // of the cgroup2 mount within the file system
	held map[string]string // controllers of cgroup v1, with their mount points
}

// Detect looks at the mounts and the cgroup of this process.
func Detect() (Host, error) { return detect("/") }

func detect(root string) (Host, error) {
	mountinfo, err := os.ReadFile(filepath.Join(root, "proc/self/mountinfo"))
	if err != nil {
		return Host{}, fmt.Errorf("detect cgroups: %w", err)
	}
	h := hostOf(parseMountinfo(mountinfo))
	if h.Mount == "" {
		return h, nil
	}
	h.Mount = filepath.Join(root, h.Mount)
	data, err := os.ReadFile(filepath.Join(root, "proc/self/cgroup"))
	if err != nil {
		return Host{}, fmt.Errorf("detect cgroups: %w", err)
	}
	own, err := parsePath(data)
	if err != nil {
		return Host{}, fmt.Errorf("detect cgroups: own cgroup: %w", err)
	}
	h.Own = h.Group(own)
	return h, nil
}

func hostOf(mounts []mount) Host {
	h := Host{Mode: None, held: map[string]string{}}
	for _, m := range mounts {
		switch {
		case m.fstype == "cgroup2" && (h.Mount == "" || m.point == h.Mount): // a later mount covers an earlier one
			h.Mount, h.root = m.point, m.root
		case m.fstype == "cgroup":
			for _, controller := range m.controllers {
				h.held[controller] = m.point
			}
		}
	}
	switch {
	case h.Mount != "" && len(h.held) == 0:
		h.Mode = Unified
	case h.Mount != "":
		h.Mode = Hybrid
	case len(h.held) > 0:
		h.Mode = Legacy
	}
	return h
}

// Group is the cgroup of a path as /proc/PID/cgroup and systemd's ControlGroup
// have it.
func (h Host) Group(path string) Group {
	if h.root != "/" {
		path = strings.TrimPrefix(path, h.root)
	}
	return Group{h.Mount, filepath.Join("/", path)}
}

// GroupOf is the cgroup of a process.
func (h Host) GroupOf(pid int) (Group, error) {
	path, err := PathOf(pid)
	if err != nil {
		return Group{}, err
	}
	return h.Group(path), nil
}

// Unified says whether cgroup v2 holds all controllers: nil, or ErrNoUnified in
// an error that says what is mounted where.
func (h Host) Unified() error {
	switch h.Mode {
	case Unified:
		return nil
	case Hybrid:
		return fmt.Errorf("%w: cgroup v2 at %s is there, but v1 holds %s", ErrNoUnified, h.Mount, h.heldText())
	case Legacy:
		return fmt.Errorf("%w: v1 holds %s", ErrNoUnified, h.heldText())
	}
	return fmt.Errorf("%w: no cgroup file system is mounted", ErrNoUnified)
}

func (h Host) heldText() string {
	var held []string
	for controller, point := range h.held {
		held = append(held, controller+" at "+point)
	}
	slices.Sort(held)
	return strings.Join(held, ", ")
}

// HaveController says whether processes below this process's cgroup can be put
// under a controller: nil, or an error that wraps errors.ErrUnsupported.
func (h Host) HaveController(name string) error {
	if point, ok := h.held[name]; ok {
		return fmt.Errorf("use controller %s: cgroup v1 holds it at %s: %w", name, point, errors.ErrUnsupported)
	}
	if h.Mount == "" {
		return fmt.Errorf("use controller %s: %w: %w", name, ErrNoUnified, errors.ErrUnsupported)
	}
	have, err := h.Own.Controllers()
	if err != nil {
		return err
	}
	if !slices.Contains(have, name) {
		return fmt.Errorf("use controller %s: cgroup %s has only %q: %w", name, h.Own, have, errors.ErrUnsupported)
	}
	return nil
}

// Delegated says whether this process may make cgroups below g: nil, or an
// error that wraps ErrNotDelegated. It makes one and removes it.
func (g Group) Delegated() error {
	if err := g.delegated(); err != nil {
		return fmt.Errorf("cgroup %s: %w: %w", g, ErrNotDelegated, err)
	}
	return nil
}

func (g Group) delegated() error {
	if g.mount == "" {
		return ErrNoUnified
	}
	if g.Have("cgroup.events") != nil {
		return errors.New("it is the root of all")
	}
	if _, err := os.Stat("/run/systemd/system"); err == nil && !g.marked() {
		return errors.New("systemd manages it: set Delegate=yes in the unit")
	}
	probe := g.Child(fmt.Sprintf("sfu-probe-%d", os.Getpid()))
	if err := probe.Create(); err != nil {
		return err
	}
	if err := os.Remove(probe.Dir()); err != nil {
		return err
	}
	for _, name := range []string{"cgroup.procs", "cgroup.subtree_control"} {
		if err := unix.Access(filepath.Join(g.Dir(), name), unix.W_OK); err != nil {
			return fmt.Errorf("write %s: %w", name, err)
		}
	}
	return nil
}

// marked says whether systemd has marked the cgroup as delegated
// (systemd's CGROUP_DELEGATION document).
func (g Group) marked() bool {
	for _, name := range []string{"user.delegate", "trusted.delegate"} {
		var value [8]byte
		n, err := unix.Getxattr(g.Dir(), name, value[:])
		if err == nil && string(value[:n]) == "1" {
			return true
		}
	}
	return false
}

// mount is a cgroup line of /proc/PID/mountinfo.
type mount struct {
	fstype      string
	root, point string
	controllers []string // of cgroup v1
}

// parseMountinfo returns the mounts of cgroup file systems (proc_pid_mountinfo(5)).
func parseMountinfo(data []byte) []mount {
	var mounts []mount
	lines := bufio.NewScanner(bytes.NewReader(data))
	lines.Buffer(nil, maxFile)
	for lines.Scan() {
		before, after, ok := strings.Cut(lines.Text(), " - ")
		left, right := strings.Fields(before), strings.Fields(after)
		if !ok || len(left) < 6 || len(right) < 3 {
			continue
		}
		m := mount{fstype: right[0], root: unescape(left[3]), point: unescape(left[4])}
		switch m.fstype {
		case "cgroup2":
			mounts = append(mounts, m)
		case "cgroup":
			m.controllers = v1Controllers(right[2])
			mounts = append(mounts, m)
		}
	}
	return mounts
}

// v1Controllers takes the controllers out of the super options of a v1
// hierarchy. One with a name only, systemd's own, holds none.
func v1Controllers(options string) []string {
	var controllers []string
	for option := range strings.SplitSeq(options, ",") {
		switch option {
		case "rw", "ro", "xattr", "clone_children", "noprefix", "cpuset_v2_mode":
		default:
			if !strings.Contains(option, "=") {
				controllers = append(controllers, option)
			}
		}
	}
	return controllers
}

// unescape undoes the octal escapes of mountinfo.
func unescape(field string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(field)
}
