package dbustest

import (
	"maps"
	"slices"
	"sync"

	"github.com/godbus/dbus/v5"
)

const (
	systemd1    = "org.freedesktop.systemd1"
	managerPath = dbus.ObjectPath("/org/freedesktop/systemd1")
	unique      = ":1.0"
)

// Fault is what goes wrong with one call.
type Fault int

// The faults. A lost request or reply never arrives; at a cut the connection
// ends as well. The others are what a bus answers when systemd is not there:
// after NoReply, alone, the call has been carried out.
const (
	None Fault = iota
	LostRequest
	LostReply
	CutRequest
	CutReply
	NoReply
	ServiceUnknown
	NameHasNoOwner
	Disconnected
)

var faultNames = map[Fault]string{
	NoReply:        Driver + ".Error.NoReply",
	ServiceUnknown: Driver + ".Error.ServiceUnknown",
	NameHasNoOwner: Driver + ".Error.NameHasNoOwner",
	Disconnected:   Driver + ".Error.Disconnected",
}

// Signals is how JobRemoved is sent.
type Signals int

// After the reply, as systemd mostly does; before it; not at all; twice; with
// others before it that have the same job or the same unit; and not at all but
// by somebody who is not systemd.
const (
	After Signals = iota
	Before
	Never
	Twice
	Confusing
	Forged
)

// Unit is a unit of Systemd.
type Unit struct {
	Active, Sub, Result string
	PIDs                []uint32
	Job                 uint32
	Stays               bool // stopping it changes nothing: its job never ends
}

// Systemd is a service manager on a Bus. Its jobs are over at once. Set the
// fields before the first call.
type Systemd struct {
	// Proc is a directory where PID/cgroup is written for the PIDs of scopes.
	Proc string
	// Fault decides about the nth call (from 1) of a method, "StopUnit".
	Fault func(method string, n int) Fault
	// Signals says how jobs are announced.
	Signals Signals
	// JobResult is how the jobs of StartTransientUnit end; empty means done.
	JobResult string
	// Refuse makes StartTransientUnit refuse these properties.
	Refuse []string
	// NoAttach makes scopes start without any of their processes.
	NoAttach bool

	bus *Bus

	mu    sync.Mutex
	units map[string]*Unit
	calls map[string]int
	jobs  uint32
}

// Offer puts s on the bus.
func (s *Systemd) Offer(b *Bus) {
	s.bus, s.units, s.calls = b, make(map[string]*Unit), make(map[string]int)
	b.Owners = map[string]string{systemd1: unique}
	for name, f := range s.methods() {
		iface := systemd1 + ".Manager."
		if name == "Get" || name == "GetAll" {
			iface = "org.freedesktop.DBus.Properties."
		}
		b.Handle(iface+name, func(c *Call) { s.serve(name, c, f) })
	}
}

// serve answers one call, or not.
func (s *Systemd) serve(name string, c *Call, f method) {
	s.mu.Lock()
	s.calls[name]++
	n := s.calls[name]
	s.mu.Unlock()
	fault := None
	if s.Fault != nil {
		fault = s.Fault(name, n)
	}
	switch fault {
	case LostRequest:
		return
	case CutRequest:
		_ = c.Conn.Close()
		return
	case ServiceUnknown, NameHasNoOwner, Disconnected:
		c.Fail(faultNames[fault], "systemd is not there")
		return
	}
	reply, job := f(c)
	if s.Signals == Before {
		s.announce(job)
	}
	switch fault {
	case LostReply:
	case CutReply:
		_ = c.Conn.Close()
	case NoReply:
		c.Fail(faultNames[fault], "recipient disconnected from message bus without replying")
	default:
		_ = c.Conn.Send(reply)
	}
	if s.Signals != Before {
		s.announce(job)
	}
}

// announce sends JobRemoved the way Signals says.
func (s *Systemd) announce(j *job) {
	if j == nil {
		return
	}
	sender := unique
	send := func(id uint32, unit, result string) {
		s.bus.Signal(sender, managerPath, systemd1+".Manager.JobRemoved", id, jobPath(id), unit, result)
	}
	switch s.Signals {
	case Never:
		return
	case Twice:
		send(j.id, j.unit, j.result)
	case Forged:
		sender = ":1.666"
		j.result = "failed"
	case Confusing:
		send(j.id, "other-"+j.unit, "failed")
		send(j.id+1000, j.unit, "failed")
	}
	send(j.id, j.unit, j.result)
}

// Calls returns how often a method was called.
func (s *Systemd) Calls(method string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls[method]
}

// Put adds or replaces a unit.
func (s *Systemd) Put(name string, u Unit) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.units[name] = &u
}

// Attach makes the PIDs of a unit show up in its cgroup.
func (s *Systemd) Attach(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.attach(name, s.units[name].PIDs)
}

// End ends a unit that Stays, and its job.
func (s *Systemd) End(name string) {
	s.mu.Lock()
	id := s.units[name].Job
	delete(s.units, name)
	s.mu.Unlock()
	s.announce(&job{id, name, "done"})
}

// Finish has the job of a unit make it active.
func (s *Systemd) Finish(name string) {
	s.mu.Lock()
	u := s.units[name]
	id := u.Job
	u.Active, u.Sub, u.Job = "active", "running", 0
	s.mu.Unlock()
	s.announce(&job{id, name, "done"})
}

// Unit returns a copy of a unit, and whether there is one.
func (s *Systemd) Unit(name string) (Unit, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	u, ok := s.units[name]
	if !ok {
		return Unit{}, false
	}
	return *u, true
}

// Units returns the names of all units.
func (s *Systemd) Units() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.units))
}
