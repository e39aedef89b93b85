package scope

import (
	"context"
	"time"

	"github.com/sfu-agent/sfu-agent/agent"
)

const (
	// askLimit bounds the question to systemd how a scope ended.
	askLimit = time.Second
	// sliceWindow is how long before a worker's end an out-of-memory kill in
	// the slice is taken for its cause.
	sliceWindow = time.Second
)

// follow waits for the worker's end and finds out its reason.
func (x *placement) follow() {
	defer close(x.done)
	defer x.unwatch()
	x.exit, x.err = x.Worker.Wait(context.Background()) // ends with the launcher
	if x.err != nil {
		return
	}
	mayBeOOM := x.exit.Reason == agent.ReasonUnknown || x.exit.Signal == "SIGKILL"
	if mayBeOOM && x.outOfMemory() {
		x.exit = agent.Exit{Reason: agent.ReasonOOM, Signal: "SIGKILL"}
	}
}

func (x *placement) unwatch() {
	if x.own != nil {
		x.own.Close()
	}
	if x.slice != nil {
		x.slice.Close()
	}
}

// outOfMemory says whether the kernel killed for want of memory in the scope.
// The scope's own counter is the best witness. But systemd removes the cgroup
// milliseconds after its last process, and perhaps before the counter was read.
func (x *placement) outOfMemory() bool {
	events, err := x.own.Look()
	if events.OOMKill > 0 {
		return true
	}
	if counted := err == nil && x.group.Have("memory.events") == nil; counted || x.killed.Load() {
		return false
	}
	return x.endedByOOM() || x.sliceKilled()
}

// endedByOOM asks systemd, which keeps a scope that failed.
func (x *placement) endedByOOM() bool {
	ctx, cancel := context.WithTimeout(x.placer.life, askLimit)
	defer cancel()
	unit, err := x.placer.systemd.Unit(ctx, x.Record().Unit)
	return err == nil && unit.Result == "oom-kill"
}

// sliceKilled is the last resort: an out-of-memory kill somewhere in the slice,
// just now.
func (x *placement) sliceKilled() bool {
	x.slice.Look()
	return time.Since(x.slice.OOMKilled()) < sliceWindow
}
