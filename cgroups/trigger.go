package cgroups

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// A Trigger is an amount of pressure to be told of: Stall lost within Window.
type Trigger struct {
	Resource Resource
	Full     bool          // all processes waited, not only some
	Stall    time.Duration // less than Window
	Window   time.Duration // 500 ms to 10 s
}

// unprivilegedWindow is the window, and its multiples, that the kernel grants
// to a process without CAP_SYS_RESOURCE (Linux 6.1; before that none).
const unprivilegedWindow = 2 * time.Second

func (t Trigger) check() error {
	if t.Window < 500*time.Millisecond || t.Window > 10*time.Second || t.Stall <= 0 || t.Stall >= t.Window {
		return fmt.Errorf("watch pressure: stall %v of window %v: want less than a window of 500 ms to 10 s", t.Stall, t.Window)
	}
	return nil
}

// unprivileged is t stretched to a window that needs no capability.
func (t Trigger) unprivileged() Trigger {
	window := (t.Window + unprivilegedWindow - 1) / unprivilegedWindow * unprivilegedWindow
	t.Stall = time.Duration(float64(t.Stall) * float64(window) / float64(t.Window))
	t.Window = window
	return t
}

func (t Trigger) String() string {
	kind := "some"
	if t.Full {
		kind = "full"
	}
	return fmt.Sprintf("%s %d %d", kind, t.Stall.Microseconds(), t.Window.Microseconds())
}

// A TriggerMode is how pressure is watched.
type TriggerMode string

// The modes, best first.
const (
	TriggerExact     TriggerMode = "trigger"           // the kernel tells, with the window that was asked for
	TriggerStretched TriggerMode = "stretched trigger" // the kernel tells, with the window in whole 2 s
	TriggerPolling   TriggerMode = "polling"           // the totals are compared once a window
)

// WatchPressure calls reached whenever the trigger's pressure is reached, at
// most once a window, until ctx ends or the cgroup is removed: then it returns
// ctx's error or ErrGone. Before it waits it calls start with how it does. It
// returns an error that wraps errors.ErrUnsupported where the kernel does not
// account for pressure.
func (g Group) WatchPressure(ctx context.Context, t Trigger, start func(TriggerMode), reached func(Pressure)) error {
	if err := t.check(); err != nil {
		return err
	}
	if _, err := g.Pressure(t.Resource); err != nil {
		return err
	}
	for _, rung := range []struct {
		mode    TriggerMode
		trigger Trigger
	}{{TriggerExact, t}, {TriggerStretched, t.unprivileged()}} {
		fd, err := g.arm(rung.trigger)
		if err != nil {
			continue // refused: too few privileges, or too old a kernel
		}
		defer unix.Close(fd)
		start(rung.mode)
		return g.awaitTrigger(ctx, fd, t.Resource, reached)
	}
	start(TriggerPolling)
	return g.pollPressure(ctx, t, reached)
}

// arm opens the pressure file with a trigger, which lasts until it is closed.
func (g Group) arm(t Trigger) (fd int, err error) {
	fd, err = unix.Open(filepath.Join(g.Dir(), t.Resource.file()), unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	if _, err := unix.Write(fd, []byte(t.String()+"\x00")); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// awaitTrigger waits for the trigger (POLLPRI, which the runtime's poller does
// not know) or for ctx.
func (g Group) awaitTrigger(ctx context.Context, fd int, r Resource, reached func(Pressure)) error {
	end, wake, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("watch pressure of %s: %w", g, err)
	}
	defer end.Close()
	stop := context.AfterFunc(ctx, func() { wake.Close() })
	defer func() {
		if stop() {
			wake.Close()
		}
	}()
	poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLPRI}, {Fd: int32(end.Fd()), Events: unix.POLLIN}}
	for {
		_, err := unix.Poll(poll, -1)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return fmt.Errorf("watch pressure of %s: %w", g, err)
		case poll[1].Revents != 0:
			return ctx.Err()
		case poll[0].Revents&(unix.POLLERR|unix.POLLNVAL) != 0:
			return fmt.Errorf("watch pressure of %s: %w", g, ErrGone)
		}
		p, err := g.Pressure(r)
		if err != nil {
			return err
		}
		reached(p)
	}
}

// pollPressure compares the totals once a window.
func (g Group) pollPressure(ctx context.Context, t Trigger, reached func(Pressure)) error {
	ticker := time.NewTicker(t.Window)
	defer ticker.Stop()
	before, err := g.Pressure(t.Resource)
	if err != nil {
		return err
	}
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		now, err := g.Pressure(t.Resource)
		if err != nil {
			return err
		}
		if now.stall(t.Full)-before.stall(t.Full) >= t.Stall {
			reached(now)
		}
		before = now
	}
}

func (p Pressure) stall(full bool) time.Duration {
	if full {
		return p.Full.Total
	}
	return p.Some.Total
}
