package launch

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
)

// A Process is a worker process: a child of this process, or one that an
// earlier agent started.
type Process struct {
	proc  *os.Process
	pid   int // os.Process forgets its own
	start uint64
	child bool
	found bool // child of an earlier program of this process, started before its execve(2)

	gateOnce sync.Once
	gate     *os.File // nil unless child
	gateErr  error
	left     chan struct{} // closed when the gate is opened or given up

	done   chan struct{}
	status *syscall.WaitStatus // of an ended process, nil where nobody tells
	err    error               // set when done and the process had not ended
}

// PID is the process ID.
func (p *Process) PID() int { return p.pid }

// StartTime is field 22 of /proc/PID/stat, clock ticks since boot.
func (p *Process) StartTime() uint64 { return p.start }

// Open lets the process through its gate. A second Open does nothing.
//
// Until Open or Kill a process that has ended is not reaped, so that its ID is
// not another's while it is being placed.
func (p *Process) Open() error {
	p.gateOnce.Do(func() {
		defer close(p.left)
		if p.gate == nil {
			return
		}
		_, err := p.gate.Write([]byte("g"))
		if err = errors.Join(err, p.gate.Close()); err != nil {
			p.gateErr = fmt.Errorf("open gate of process %d: %w", p.pid, err)
		}
	})
	return p.gateErr
}

// giveUp closes a gate that was never opened.
func (p *Process) giveUp() {
	p.gateOnce.Do(func() {
		defer close(p.left)
		if p.gate != nil {
			p.gate.Close()
			p.gateErr = fmt.Errorf("open gate of process %d: given up", p.pid)
		}
	})
}

// Signal sends a signal to the process alone. It returns os.ErrProcessDone when
// the process has ended.
func (p *Process) Signal(signal syscall.Signal) error {
	err := p.proc.Signal(signal)
	if err == nil || errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-p.done:
		return cmp.Or(p.err, os.ErrProcessDone)
	default:
		return fmt.Errorf("send %v to process %d: %w", signal, p.pid, err)
	}
}

// Kill kills the process and with it, in the moment it ends, all that is left
// of its process group. It does not wait, and killing an ended process is no error.
func (p *Process) Kill() error {
	p.giveUp()
	err := p.Signal(syscall.SIGKILL)
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	return err
}

// Wait returns when the process and its process group have ended, with its wait
// status; of a process that is not a child that is nil before Linux 6.15. It
// returns os.ErrClosed when the Launcher was closed first. Any number of
// goroutines may wait.
func (p *Process) Wait(ctx context.Context) (*syscall.WaitStatus, error) {
	select {
	case <-p.done:
		return p.status, p.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// watch starts the goroutine that waits for p's end, which end tells of.
func (l *Launcher) watch(p *Process, end *pidfd) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return fmt.Errorf("watch process %d: launcher: %w", p.pid, os.ErrClosed)
	}
	l.tasks.Go(func() { p.follow(l.life, end) })
	return nil
}

// follow waits for the end of the process and cleans up after it.
func (p *Process) follow(life context.Context, end *pidfd) {
	err := end.wait(life)
	if err == nil {
		err = p.reap(life, end)
	}
	end.Close()
	if err != nil {
		p.giveUp()
		p.err = fmt.Errorf("watch process %d: %w", p.pid, err)
	}
	close(p.done)
	p.proc.Release() // after done: see Signal
}

// reap ends what is left of an ended process.
func (p *Process) reap(life context.Context, end *pidfd) (err error) {
	if p.child {
		select {
		case <-p.left:
		case <-life.Done():
			return os.ErrClosed
		}
	}
	syscall.Kill(-p.pid, syscall.SIGKILL) // before the reaping: a zombie child keeps the group's ID
	switch {
	case p.child:
		var state *os.ProcessState
		state, err = p.proc.Wait()
		if err == nil {
			status := state.Sys().(syscall.WaitStatus)
			p.status = &status
		}
		if errors.Is(err, syscall.ECHILD) { // another Process for the same one was quicker
			err = nil
		}
	case p.found:
		p.status = collect(p.pid)
	}
	awaitGroup(p.pid)
	if p.status == nil && err == nil {
		p.status = end.status()
	}
	return err
}

// collect reaps a child that the os package does not know of; nil where another
// Process does that.
func collect(pid int) *syscall.WaitStatus {
	var status syscall.WaitStatus
	for {
		_, err := syscall.Wait4(pid, &status, 0, nil)
		switch err {
		case nil:
			return &status
		case syscall.EINTR:
		default:
			return nil
		}
	}
}
