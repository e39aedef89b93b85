package agent

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/sfu-agent/sfu-agent/cgroups"
)

// A Placer puts worker processes somewhere the kernel can account for and
// bound them. The agent has one Placer; agent/scope, agent/subtree and their
// like implement it.
type Placer interface {
	// Place starts the worker that spec describes and returns once the process
	// is where it belongs and has been let go. On an error nothing of the
	// worker is left: no process, no unit, no cgroup.
	Place(ctx context.Context, spec Spec) (Placement, error)

	// Adopt takes over a worker that an earlier agent placed. It returns
	// ErrGone when no such process runs any more.
	Adopt(ctx context.Context, rec Record) (Placement, error)

	// Sweep stops and removes everything of this agent that the Placer finds
	// on the host and that keep does not list, and says what it removed. It leaves
	// alone what this Placer itself has placed or adopted and nobody has yet
	// stopped or released: a record may be younger than keep.
	Sweep(ctx context.Context, keep []Record) (removed []string, err error)
}

// A Placement is one placed worker process.
type Placement interface {
	// Record is what a later agent needs to Adopt the worker.
	Record() Record

	// Wait returns when the process has ended, and why. It may be called by
	// several goroutines and any number of times.
	Wait(ctx context.Context) (Exit, error)

	// Stop sends SIGTERM, waits up to grace for the process to end, then kills
	// all that is left. It returns when the worker has no process any more.
	// A second Stop, or a Stop of an ended worker, is no error.
	Stop(ctx context.Context, grace time.Duration) error

	// Release removes the unit and the cgroup of an ended worker.
	Release(ctx context.Context) error

	// SetLimits changes the limits of the running worker. It returns an error
	// that wraps errors.ErrUnsupported where this placement has none.
	SetLimits(ctx context.Context, limits cgroups.Limits) error
}

// ErrGone is returned by Placer.Adopt for a worker whose process has ended.
var ErrGone = fmt.Errorf("worker process is gone")

// Spec is what a Placer needs to start one worker.
type Spec struct {
	// Name identifies the worker on this host. It is unique over time and made
	// of [a-z0-9-], at most 64 bytes: AGENT-INDEX-NONCE, for example
	// "3f2a-0-1b2c3d4e". Unit and cgroup names are derived from it.
	Name string

	// Exe is the absolute path of the program, Args its arguments without the
	// program's name. The Placer adds --gate-fd and --control-fd.
	Exe  string
	Args []string
	Env  []string

	// Socket is the absolute path of the unix socket on which the worker
	// serves. The Placer creates it and passes the listener down.
	Socket string

	// User and Group are numeric IDs to run as; ignored unless the agent is root.
	User, Group uint32

	Limits cgroups.Limits

	// Log receives the worker's standard error where the worker cannot have the
	// agent's own. Nil means the agent's standard error is inherited. A Placer
	// whose workers are to outlive the agent takes an *os.File only.
	Log io.Writer
}

// Record is what survives of a placed worker on disk.
type Record struct {
	Name   string `json:"name"`
	Placer string `json:"placer"` // "scope", "subtree", "process"
	PID    int    `json:"pid"`
	// StartTime is field 22 of /proc/PID/stat (clock ticks since boot); it tells
	// the process from a later one of the same PID.
	StartTime uint64 `json:"start_time"`
	Unit      string `json:"unit,omitempty"`   // systemd unit, "sfu-worker-NAME.scope"
	Cgroup    string `json:"cgroup,omitempty"` // path below the cgroup2 mount, "/sfu.slice/..."
	Socket    string `json:"socket"`
	// Limits are those in force; the agent fills them in, not the Placer.
	Limits cgroups.Limits `json:"limits"`
}

// Reason says why a worker's process ended.
type Reason string

// The reasons. ReasonHang is given by the agent, the others by placements.
const (
	ReasonExit    Reason = "exit"    // it returned; Exit.Code
	ReasonSignal  Reason = "signal"  // a signal killed it; Exit.Signal
	ReasonOOM     Reason = "oom"     // the kernel killed it for want of memory
	ReasonHang    Reason = "hang"    // it stopped answering and was killed
	ReasonUnknown Reason = "unknown" // adopted, and the kernel no longer tells
)

// Exit is the end of a worker's process.
type Exit struct {
	Reason Reason `json:"reason"`
	Code   int    `json:"code"`             // exit status, where Reason is exit
	Signal string `json:"signal,omitempty"` // "SIGKILL", where Reason is signal or oom
}

func (e Exit) String() string {
	switch e.Reason {
	case ReasonExit:
		return fmt.Sprintf("exited with status %d", e.Code)
	case ReasonSignal:
		return "killed by " + e.Signal
	case ReasonOOM:
		return "killed by the kernel: out of memory"
	case ReasonHang:
		return "killed because it did not answer"
	}
	return "ended, cause unknown"
}
