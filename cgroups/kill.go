package cgroups

import (
	"context"
	"errors"
	"fmt"
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

func (g Group) signalEach() error {
	pids, err := g.PIDs()
	if err != nil {
		return err
	}
	for _, pid := range pids {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("kill process %d of %s: %w", pid, g, err)
		}
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
