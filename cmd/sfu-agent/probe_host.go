package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"

	"github.com/sfu-agent/sfu-agent/cgroups"
	"github.com/sfu-agent/sfu-agent/dbusx"
	"github.com/sfu-agent/sfu-agent/dbusx/systemd1"
)

// probeSystemd tries the bus, and systemd over it.
func probeSystemd(ctx context.Context) []capability {
	found := []capability{{Area: "dbus", Name: "bus", Tried: "connected to the system bus, as root else to systemd's own socket", Verdict: "yes"},
		{Area: "systemd", Name: "scopes", Tried: "asked systemd for its version over D-Bus", Verdict: "yes"}}
	connected, answered := &found[0], &found[1]
	bus, err := dbusx.Open(ctx, dbusx.Options{})
	if err != nil {
		connected.Verdict, connected.Cause, connected.Detail = "no", "not-found", oneLine(err)
		answered.Verdict, answered.Cause, answered.Detail = "no", "no-bus", "no D-Bus connection"
		for i := range found {
			found[i].Remedy = "boot with systemd and D-Bus to keep workers over restarts of the agent; not required"
		}
		return found
	}
	defer bus.Close()
	systemd := systemd1.New(bus, systemd1.Options{})
	defer systemd.Close()
	version, err := systemd.Version(ctx)
	if err != nil {
		answered.Verdict, answered.Detail = "unknown", oneLine(err)
		return found
	}
	answered.Detail = "systemd " + version
	return found
}

func probeCgroups(context.Context) []capability {
	const area, read = "cgroups", "read mountinfo and the cgroup of this process"
	host, err := cgroups.Detect()
	if err != nil {
		return []capability{{Area: area, Name: "cgroup v2", Verdict: "unknown", Tried: read, Detail: err.Error()}}
	}
	all := []capability{verdict(area, "cgroup v2", read, host.Unified(), "boot with systemd.unified_cgroup_hierarchy=1 for limits per worker")}
	for _, controller := range []string{"cpu", "cpuset", "memory", "pids", "io"} {
		all = append(all, verdict(area, controller+" controller", "read cgroup.controllers", host.HaveController(controller),
			"without it that limit of a worker has no effect; on a v1 or hybrid host boot with systemd.unified_cgroup_hierarchy=1"))
	}
	return append(all, verdict(area, "delegated cgroup", "made and removed a cgroup below our own", host.Own.Delegated(),
		"Delegate=yes in the agent's unit lets it place workers without D-Bus; not required"))
}

// probeLimits tries what is enough for one worker, and gives it back.
func probeLimits() []capability {
	return []capability{probeOpenFiles(), probeLockedMemory()}
}

func probeOpenFiles() capability {
	const many = 64
	c := capability{Area: "limits", Name: "open files", Tried: fmt.Sprintf("opened %d files at once", many), Verdict: "yes"}
	for range many {
		file, err := os.Open(os.DevNull)
		if err == nil {
			defer file.Close()
			continue
		}
		c.Verdict, c.Detail = "unknown", err.Error()
		if errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) {
			c.Verdict, c.Cause = "no", "files"
			c.Remedy = "raise LimitNOFILE of the unit (ulimit -n, docker --ulimit nofile=1024); EMFILE is of the process, ENFILE of the host: fs.file-max"
		}
		break
	}
	return c
}

func probeLockedMemory() capability {
	const bytes = 1 << 20
	c := capability{Area: "limits", Name: "locked memory", Tried: fmt.Sprintf("mlock(2) of %d bytes", bytes), Verdict: "yes"}
	memory, err := syscall.Mmap(-1, 0, bytes, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_PRIVATE|syscall.MAP_ANONYMOUS)
	if err != nil {
		c.Verdict, c.Detail = "unknown", os.NewSyscallError("mmap", err).Error()
		return c
	}
	defer syscall.Munmap(memory) // unlocks it too
	if err := syscall.Mlock(memory); err != nil {
		c.Verdict, c.Detail = "unknown", os.NewSyscallError("mlock", err).Error()
		if errors.Is(err, syscall.ENOMEM) || errors.Is(err, syscall.EPERM) {
			c.Verdict, c.Cause = "no", "memory"
			c.Remedy = "LimitMEMLOCK=infinity in the unit (docker --ulimit memlock=-1); only io_uring before Linux 5.12 wants it, not required"
		}
	}
	return c
}

// verdict is a probe's error in the three words.
func verdict(area, name, tried string, err error, remedy string) capability {
	c := capability{Area: area, Name: name, Verdict: "yes", Tried: tried}
	if err == nil {
		return c
	}
	c.Verdict, c.Detail, c.Remedy = "unknown", oneLine(err), remedy
	for _, conclusive := range []struct {
		err   error
		cause string
	}{
		{cgroups.ErrNotDelegated, "not-delegated"}, {cgroups.ErrNoUnified, "no-unified"}, {errors.ErrUnsupported, "no-controller"},
	} {
		if errors.Is(err, conclusive.err) {
			c.Verdict, c.Cause = "no", conclusive.cause
			break
		}
	}
	return c
}
