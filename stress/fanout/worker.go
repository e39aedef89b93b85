package fanout

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/sfu-agent/sfu-agent/agent/control"
)

// A worker is the SFU under test: one process on one UDP port of loopback.
type worker struct {
	cmd     *exec.Cmd
	dir     string
	control *control.Client
	exited  chan struct{}
}

// workerStart bounds the time until a worker is ready, workerStop that until it
// has ended.
const (
	workerStart = 15 * time.Second
	workerStop  = 10 * time.Second
)

// startWorker starts the process that command makes for a control socket, and
// waits until it is ready.
func startWorker(ctx context.Context, command func(socket string) *exec.Cmd) (*worker, error) {
	dir, err := os.MkdirTemp("", "sfu-fanout-")
	if err != nil {
		return nil, err
	}
	w := &worker{dir: dir, exited: make(chan struct{})}
	w.cmd = command(w.socket())
	w.cmd.Stderr = os.Stderr
	w.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM} // should this process be killed
	w.control = control.NewClient(w.socket())
	if err := w.cmd.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("start worker: %w", err), os.RemoveAll(dir))
	}
	go func() { w.cmd.Wait(); close(w.exited) }()
	if err := w.awaitReady(ctx); err != nil {
		return nil, errors.Join(err, w.close())
	}
	return w, nil
}

func (w *worker) socket() string { return filepath.Join(w.dir, "control.sock") }
func (w *worker) pid() int       { return w.cmd.Process.Pid }

func (w *worker) awaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, workerStart)
	defer cancel()
	for {
		s, err := w.control.Status(ctx)
		if err == nil && s.State == control.StateReady {
			return nil
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-w.exited:
			return fmt.Errorf("worker ended while it started: %s", w.cmd.ProcessState)
		case <-ctx.Done():
			return fmt.Errorf("worker is not ready: %w", errors.Join(err, ctx.Err()))
		}
	}
}

// close stops the worker and removes its socket.
func (w *worker) close() error {
	err := w.control.Close()
	w.cmd.Process.Signal(os.Interrupt)
	select {
	case <-w.exited:
	case <-time.After(workerStop):
		w.cmd.Process.Kill()
		<-w.exited
		err = errors.Join(err, fmt.Errorf("worker did not stop within %v", workerStop))
	}
	return errors.Join(err, os.RemoveAll(w.dir))
}
