package cgroups

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"time"
)

// killLimit bounds the wait for killed processes to end. Only one in
// uninterruptible sleep takes longer than some milliseconds.
const killLimit = 5 * time.Second

// Kill kills all processes in the cgroup and below it, and returns when there
// are none. After 5 s it returns an error that wraps ErrBusy. That the cgroup is
// not there is no error.
func (g Group) Kill(ctx context.Context) error {
	if populated, err := g.Populated(); err == nil && !populated {
		return nil // nobody is there to fork
	}
	err := g.write("cgroup.kill", "1")
	if errors.Is(err, errors.ErrUnsupported) {
		return g.killEach(ctx)
	}
	if errors.Is(err, ErrGone) {
		return nil
	}
	if err != nil {
		return err
	}
	return g.awaitEmpty(ctx, nil)
}

// killEach is Kill before Linux 5.14. It freezes the cgroup, so that no process
// forks on while the list of them is read; the signal is fatal all the same.
func (g Group) killEach(ctx context.Context) error {
	frozen := g.write("cgroup.freeze", "1") == nil
	err := g.awaitEmpty(ctx, g.signalEach)
	if frozen {
		if thawErr := g.write("cgroup.freeze", "0"); !errors.Is(thawErr, ErrGone) {
			err = errors.Join(err, thawErr)
		}
	}
	return err
}

func (g Group) signalEach() error { return g.Signal(syscall.SIGKILL) }

// signalRounds bounds how often Signal looks for processes forked meanwhile.
const signalRounds = 16

// Signal sends signals, in this order, to every process in the cgroup and below
// it, those included that are forked meanwhile, and to no other. That the cgroup
// or a process is not there is no error.
func (g Group) Signal(signals ...syscall.Signal) error {
	told := make(map[int]bool)
	for range signalRounds {
		before := len(told)
		pids, err := g.PIDs()
		if err != nil {
			return err
		}
		for _, pid := range pids {
			if told[pid] {
				continue
			}
			told[pid] = true
			if err := g.signal(pid, signals); err != nil {
				return fmt.Errorf("signal process %d of %s: %w", pid, g, err)
			}
		}
		if len(told) == before {
			break
		}
	}
	return nil
}

// signal looks where the process is once it has a hold of it: by then the PID
// that was listed may be another's.
func (g Group) signal(pid int, signals []syscall.Signal) error {
	if pid <= 1 {
		return errors.New("it is init")
	}
	process, err := os.FindProcess(pid)
	if err != nil {
		return err
	}
	defer process.Release()
	if in, err := g.holds(pid); err != nil || !in {
		return err
	}
	for _, sig := range signals {
		if err := process.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return err
		}
	}
	return nil
}

// holds says whether a process is in the cgroup or below it.
func (g Group) holds(pid int) (bool, error) {
	path, err := PathOf(pid)
	if errors.Is(err, os.ErrProcessDone) || errors.Is(err, ErrGone) {
		return false, nil
	}
	// What is before g.path is the part of the tree that is not mounted.
	return strings.HasSuffix(path, g.path) || strings.Contains(path, g.path+"/"), err
}

// AwaitRemoval waits until somebody else has removed the cgroup. After limit it
// returns an error that wraps ErrBusy.
func (g Group) AwaitRemoval(ctx context.Context, limit time.Duration) error {
	err := retry(ctx, limit, func() (bool, error) {
		_, err := os.Lstat(g.Dir())
		if err == nil {
			return false, ErrBusy
		}
		if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
		return true, err
	})
	if err != nil {
		return fmt.Errorf("await removal of cgroup %s: %w", g, err)
	}
	return nil
}

// awaitEmpty waits until the cgroup has no process, at most killLimit, and
// calls again, if any, before each look.
func (g Group) awaitEmpty(ctx context.Context, again func() error) error {
	populated := true
	err := retry(ctx, killLimit, func() (bool, error) {
		if again != nil {
			if err := again(); err != nil {
				return true, err
			}
		}
		var err error
		populated, err = g.Populated()
		return !populated || err != nil, err
	})
	if err == nil && populated {
		err = ErrBusy
	}
	if err != nil {
		return fmt.Errorf("kill cgroup %s: %w", g, err)
	}
	return nil
}
