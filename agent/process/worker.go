package process

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/sfu-agent/sfu-agent/agent"
	"github.com/sfu-agent/sfu-agent/agent/launch"
	"github.com/sfu-agent/sfu-agent/cgroups"
)

// killLimit bounds the wait for a killed process to end. Only one in
// uninterruptible sleep takes longer than some milliseconds.
const killLimit = 5 * time.Second

// A Worker is a worker's process: an agent.Placement, and what the Placers with
// cgroups build theirs on.
type Worker struct {
	rec   agent.Record
	proc  *launch.Process
	letGo func() // it may be swept
}

var _ agent.Placement = (*Worker)(nil)

// Start starts the worker that spec describes, behind its gate, and completes
// its record, in which the caller has put what it knows. A cgroup is where the
// worker is born; nil means the agent's own. Until Terminate or Release the
// worker is held; so is one that Find has found.
func (p *Placer) Start(rec agent.Record, spec agent.Spec, cgroup *os.File) (*Worker, error) {
	if err := CheckName(spec.Name); err != nil {
		return nil, err
	}
	log, ok := spec.Log.(*os.File)
	if spec.Log != nil && !ok {
		return nil, fmt.Errorf("start worker %s: log is a %T, not a file: the worker could not outlive the agent", spec.Name, spec.Log)
	}
	letGo := p.Hold(spec.Name)
	proc, err := p.launcher.Start(launch.Spec{
		Name: spec.Name, Exe: spec.Exe, Args: spec.Args, Env: spec.Env, Socket: spec.Socket,
		User: spec.User, Group: spec.Group, Log: log, Cgroup: cgroup,
	})
	if err != nil {
		letGo()
		return nil, fmt.Errorf("start worker %s: %w", spec.Name, err)
	}
	rec.Name, rec.PID, rec.StartTime, rec.Socket = spec.Name, proc.PID(), proc.StartTime(), spec.Socket
	return &Worker{rec: rec, proc: proc, letGo: letGo}, nil
}

// CheckName says whether agent.Spec allows a name, from which those of units and
// cgroups are made.
func CheckName(name string) error {
	other := func(r rune) bool { return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' }
	if len(name) < 1 || len(name) > 64 || strings.ContainsFunc(name, other) {
		return fmt.Errorf("start worker %q: name is not made of 1 to 64 of a-z, 0-9 and -", name)
	}
	return nil
}

// Find returns the running worker of a record, or agent.ErrGone.
func (p *Placer) Find(rec agent.Record) (*Worker, error) {
	proc, err := p.launcher.Find(rec.PID, rec.StartTime)
	if errors.Is(err, os.ErrProcessDone) {
		err = agent.ErrGone
	}
	if err != nil {
		return nil, fmt.Errorf("find worker %s: %w", rec.Name, err)
	}
	return &Worker{rec: rec, proc: proc, letGo: p.Hold(rec.Name)}, nil
}

// Open lets the worker through its gate.
func (w *Worker) Open() error {
	if err := w.proc.Open(); err != nil {
		return fmt.Errorf("start worker %s: %w", w.rec.Name, err)
	}
	return nil
}

// Undo kills a worker whose placing came to nothing, waits for its end and
// removes its socket.
func (w *Worker) Undo() error {
	return errors.Join(w.Stop(context.Background(), 0), w.Release(context.Background()))
}

// LetGo leaves a worker that was found, and that nobody wants, to a Sweep.
func (w *Worker) LetGo() { w.letGo() }

// Record implements agent.Placement.
func (w *Worker) Record() agent.Record { return w.rec }

// Wait implements agent.Placement. Before Linux 6.15 the reason of the end of an
// adopted worker that is no child is unknown.
func (w *Worker) Wait(ctx context.Context) (agent.Exit, error) {
	status, err := w.proc.Wait(ctx)
	if err != nil {
		return agent.Exit{}, fmt.Errorf("wait for worker %s: %w", w.rec.Name, err)
	}
	return exitOf(status), nil
}

// Stop implements agent.Placement. It does not reach a process that the worker
// forked and that left its process group.
func (w *Worker) Stop(ctx context.Context, grace time.Duration) error {
	ended, err := w.Terminate(ctx, grace)
	if ended || err != nil {
		return err
	}
	if err := w.proc.Kill(); err != nil {
		return fmt.Errorf("stop worker %s: %w", w.rec.Name, err)
	}
	return w.AwaitEnd(ctx)
}

// Terminate sends SIGTERM, waits up to grace for the process to end and says
// whether it has.
func (w *Worker) Terminate(ctx context.Context, grace time.Duration) (ended bool, err error) {
	w.letGo()
	err = w.proc.Signal(syscall.SIGTERM)
	if err != nil && !errors.Is(err, os.ErrProcessDone) {
		return false, fmt.Errorf("stop worker %s: %w", w.rec.Name, err)
	}
	inTime, cancel := context.WithTimeout(ctx, grace)
	defer cancel()
	if _, err = w.proc.Wait(inTime); err == nil {
		return true, nil
	}
	if inTime.Err() != nil && ctx.Err() == nil {
		return false, nil
	}
	return false, fmt.Errorf("stop worker %s: %w", w.rec.Name, err)
}

// AwaitEnd waits, no longer than a killed process can need, for the process to end.
func (w *Worker) AwaitEnd(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, killLimit)
	defer cancel()
	if _, err := w.proc.Wait(ctx); err != nil {
		return fmt.Errorf("stop worker %s: killed, but not ended: %w", w.rec.Name, err)
	}
	return nil
}

// Release implements agent.Placement: it removes the worker's socket.
func (w *Worker) Release(context.Context) error {
	w.letGo()
	if w.rec.Socket == "" {
		return nil
	}
	if err := os.Remove(w.rec.Socket); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("release worker %s: %w", w.rec.Name, err)
	}
	return nil
}

// SetLimits implements agent.Placement; a plain process has none.
func (w *Worker) SetLimits(context.Context, cgroups.Limits) error {
	return fmt.Errorf("set limits of worker %s: a plain process has no cgroup: %w", w.rec.Name, errors.ErrUnsupported)
}
