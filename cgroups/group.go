package cgroups

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// What callers branch on.
var (
	ErrGone          = errors.New("cgroup is gone")
	ErrBusy          = errors.New("cgroup is still in use")
	ErrNotApplied    = errors.New("the kernel did not take the value over")
	ErrFreezeTimeout = errors.New("cgroup did not freeze in time")
	ErrNoUnified     = errors.New("no unified cgroup v2 hierarchy")
	ErrNotDelegated  = errors.New("cgroup is not delegated to this process")
)

// removeLimit bounds the wait for a cgroup that has just lost its last process.
const removeLimit = 2 * time.Second

// A Group is one cgroup, there or not; it holds nothing open.
type Group struct {
	mount string // of cgroup2
	path  string // below it
}

// Path is the cgroup's path below the mount point, "/sfu.slice/a.scope".
func (g Group) Path() string { return g.path }

// Dir is the cgroup's directory.
func (g Group) Dir() string { return filepath.Join(g.mount, g.path) }

func (g Group) String() string { return g.path }

// Child is the cgroup of that name below g.
func (g Group) Child(name string) Group { return Group{g.mount, path.Join(g.path, name)} }

// Parent is the cgroup above g.
func (g Group) Parent() Group { return Group{g.mount, path.Dir(g.path)} }

// Exists says whether the cgroup is there.
func (g Group) Exists() bool {
	info, err := os.Lstat(g.Dir())
	return err == nil && info.IsDir()
}

// Create makes the cgroup; its parent must be there.
func (g Group) Create() error {
	if err := os.Mkdir(g.Dir(), 0o755); err != nil {
		return fmt.Errorf("create cgroup %s: %w", g, err)
	}
	return nil
}

// Remove removes the cgroup and those below it. One that has just lost its last
// process is waited for, at most 2 s, then the error wraps ErrBusy. That the
// cgroup is not there is no error.
func (g Group) Remove(ctx context.Context) error {
	err := retry(ctx, removeLimit, func() (bool, error) {
		err := removeTree(g.Dir())
		return !errors.Is(err, syscall.EBUSY), err
	})
	if errors.Is(err, syscall.EBUSY) {
		err = ErrBusy
	}
	if err != nil {
		return fmt.Errorf("remove cgroup %s: %w", g, err)
	}
	return nil
}

// removeTree removes directories, from the innermost outwards. The files of a
// cgroup vanish with it.
func removeTree(dir string) error {
	err := syscall.Rmdir(dir)
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	entries, readErr := os.ReadDir(dir)
	if readErr != nil {
		return errors.Join(err, readErr)
	}
	inner := false
	for _, entry := range entries {
		if !entry.IsDir() {
			continue
		}
		inner = true
		if err := removeTree(filepath.Join(dir, entry.Name())); err != nil {
			return err
		}
	}
	if !inner {
		return err
	}
	if err := syscall.Rmdir(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Children lists the cgroups directly below g.
func (g Group) Children() ([]Group, error) {
	entries, err := os.ReadDir(g.Dir())
	if err != nil {
		return nil, g.fileError("list", "children", err)
	}
	var children []Group
	for _, entry := range entries {
		if entry.IsDir() {
			children = append(children, g.Child(entry.Name()))
		}
	}
	return children, nil
}

// PIDs lists the processes in the cgroup and below it. Of a cgroup that is not
// there it lists none.
func (g Group) PIDs() ([]int, error) {
	pids, err := g.OwnPIDs()
	if err != nil {
		return nil, err
	}
	children, err := g.Children()
	if err != nil && !errors.Is(err, ErrGone) {
		return nil, err
	}
	for _, child := range children {
		below, err := child.PIDs()
		if err != nil {
			return nil, err
		}
		pids = append(pids, below...)
	}
	return pids, nil
}

// OwnPIDs is PIDs without the cgroups below.
func (g Group) OwnPIDs() ([]int, error) {
	data, err := g.read("cgroup.procs")
	if errors.Is(err, ErrGone) {
		return nil, nil
	}
	return parsePIDs(data), err
}

// parsePIDs parses cgroup.procs. Processes of another PID namespace read as 0
// and are left out.
func parsePIDs(data []byte) []int {
	var pids []int
	for line := range bytes.Lines(data) {
		pid, err := strconv.Atoi(string(bytes.TrimSpace(line)))
		if err == nil && pid > 0 {
			pids = append(pids, pid)
		}
	}
	return pids
}

// Move moves a process with all its threads into the cgroup. It returns
// os.ErrProcessDone where there is no such process.
func (g Group) Move(pid int) error {
	err := g.write("cgroup.procs", strconv.Itoa(pid))
	if errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("move process %d to cgroup %s: %w", pid, g, os.ErrProcessDone)
	}
	return err
}

// MoveAll moves all processes of the cgroup, but not those of cgroups below it,
// to another. What they fork meanwhile takes another round.
func (g Group) MoveAll(ctx context.Context, to Group) error {
	for ctx.Err() == nil {
		pids, err := g.OwnPIDs()
		if err != nil || len(pids) == 0 {
			return err
		}
		for _, pid := range pids {
			if err := to.Move(pid); err != nil && !errors.Is(err, os.ErrProcessDone) {
				return err
			}
		}
	}
	return fmt.Errorf("move processes of cgroup %s: %w", g, ctx.Err())
}

// Open opens the cgroup's directory, for CLONE_INTO_CGROUP.
func (g Group) Open() (*os.File, error) {
	dir, err := os.Open(g.Dir())
	if err != nil {
		return nil, fmt.Errorf("open cgroup %s: %w", g, err)
	}
	return dir, nil
}

// Controllers lists the controllers that the cgroup can enable for its children.
func (g Group) Controllers() ([]string, error) {
	data, err := g.read("cgroup.controllers")
	return strings.Fields(string(data)), err
}

// Enable enables a controller for the children of the cgroup.
func (g Group) Enable(controller string) error {
	return g.write("cgroup.subtree_control", "+"+controller)
}

// retry calls try until it is done, the limit has passed or ctx has ended,
// first after a millisecond, then ever more rarely. It returns what the last
// try returned, or ctx's error.
func retry(ctx context.Context, limit time.Duration, try func() (done bool, err error)) error {
	const longest = 20 * time.Millisecond
	end := time.Now().Add(limit)
	for pause := time.Millisecond; ; pause = min(2*pause, longest) {
		done, err := try()
		if done || time.Now().After(end) {
			return err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
