package agent

import (
	"errors"
	"time"

	"github.com/sfu-agent/sfu-agent/agent/control"
	"github.com/sfu-agent/sfu-agent/cgroups"
)

// State of a worker as the agent sees it.
type State string

// The states, in the order of a worker's life.
const (
	StatePlacing  State = "placing"  // being put where it belongs
	StateStarting State = "starting" // placed, not yet ready
	StateReady    State = "ready"    // takes new rooms
	StateDraining State = "draining" // takes no new rooms, ends when the last one does
	StateStopping State = "stopping" // told to end
	StateBackoff  State = "backoff"  // ended, waits to be replaced
	StateFailed   State = "failed"   // ended too often, not replaced any more
)

// Worker is a snapshot of one worker.
type Worker struct {
	ID       string         `json:"id"`   // the slot, "0" to "N-1"; stays the same over replacements
	Name     string         `json:"name"` // this incarnation
	State    State          `json:"state"`
	Since    time.Time      `json:"since"` // of State
	PID      int            `json:"pid,omitempty"`
	Placer   string         `json:"placer"` // "scope", "subtree", "process"
	Unit     string         `json:"unit,omitempty"`
	Cgroup   string         `json:"cgroup,omitempty"`
	Socket   string         `json:"-"`
	Limits   cgroups.Limits `json:"limits"`
	Adopted  bool           `json:"adopted,omitempty"`
	Restarts int            `json:"restarts"` // replacements of this slot since the agent started
	LastExit *LastExit      `json:"last_exit,omitempty"`
	// DrainDeadline is when a draining worker is stopped whatever it still holds.
	DrainDeadline *time.Time `json:"drain_deadline,omitempty"`
	// Status is the worker's own last account; nil until it first answered.
	Status *control.Status `json:"status,omitempty"`
}

// MinMemoryMax is the least MemoryMax in bytes with which a worker starts.
const MinMemoryMax = 32 << 20

// LastExit is how the slot's previous incarnation ended.
type LastExit struct {
	Exit
	Name string    `json:"name"`
	Time time.Time `json:"time"`
	Text string    `json:"text"` // Exit in words
}

// What Agent's methods return where the caller branches.
var (
	ErrNoWorker = errors.New("no such worker")                   // unknown worker ID
	ErrNotReady = errors.New("no worker is ready for new rooms") // try again later
)
