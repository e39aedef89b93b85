package dbustest

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/godbus/dbus/v5"
)

// job is a job that is over.
type job struct {
	id     uint32
	unit   string
	result string
}

func jobPath(id uint32) dbus.ObjectPath {
	return dbus.ObjectPath(fmt.Sprintf("/org/freedesktop/systemd1/job/%d", id))
}

// method carries out a call and returns the reply and the job it made, if any.
type method func(*Call) (*dbus.Message, *job)

func (s *Systemd) methods() map[string]method {
	return map[string]method{
		"StartTransientUnit":  s.start,
		"StopUnit":            s.stop,
		"ResetFailedUnit":     s.resetFailed,
		"KillUnit":            s.known,
		"FreezeUnit":          s.known,
		"ThawUnit":            s.known,
		"SetUnitProperties":   s.known,
		"RefUnit":             s.known,
		"UnrefUnit":           s.known,
		"GetUnit":             s.getUnit,
		"GetUnitProcesses":    s.getProcesses,
		"ListUnitsByPatterns": s.list,
		"Get":                 s.version,
		"GetAll":              s.getAll,
	}
}

type property struct {
	Name  string
	Value dbus.Variant
}

func (s *Systemd) start(c *Call) (*dbus.Message, *job) {
	var name, mode string
	var props []property
	var aux []any
	if err := dbus.Store(c.Body, &name, &mode, &props, &aux); err != nil {
		return Failure(c.Serial(), Driver+".Error.InvalidArgs", err.Error()), nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.units[name] != nil {
		return Failure(c.Serial(), systemd1+".UnitExists", "Unit "+name+" was already loaded or has a fragment file."), nil
	}
	u := &Unit{Active: "active", Sub: "running", Result: "success"}
	for _, p := range props {
		if slices.Contains(s.Refuse, p.Name) {
			return Failure(c.Serial(), Driver+".Error.PropertyReadOnly", "Cannot set property "+p.Name+", or unknown property."), nil
		}
		if p.Name == "PIDs" {
			u.PIDs, _ = p.Value.Value().([]uint32)
		}
	}
	result := "done"
	if s.JobResult != "" && s.JobResult != "done" {
		result, u = s.JobResult, &Unit{Active: "failed", Sub: "failed", Result: "resources"}
	}
	s.units[name] = u
	if !s.NoAttach {
		s.attach(name, u.PIDs)
	}
	return s.job(c, name, result)
}

// attach writes what the kernel would show of the processes.
func (s *Systemd) attach(unit string, pids []uint32) {
	for _, pid := range pids {
		dir := filepath.Join(s.Proc, strconv.Itoa(int(pid)))
		if _, err := os.Stat(dir); err != nil {
			continue // the process is gone
		}
		_ = os.WriteFile(filepath.Join(dir, "cgroup"), []byte("0::/sfu.slice/"+unit+"\n"), 0o644)
	}
}

// job returns the reply with the path of a new job.
func (s *Systemd) job(c *Call, unit, result string) (*dbus.Message, *job) {
	s.jobs++
	return Reply(c.Serial(), jobPath(s.jobs)), &job{s.jobs, unit, result}
}

func (s *Systemd) stop(c *Call) (*dbus.Message, *job) {
	s.mu.Lock()
	defer s.mu.Unlock()
	name, u := s.named(c)
	if u == nil {
		return noUnit(c, name), nil
	}
	reply, j := s.job(c, name, "done")
	if u.Stays {
		u.Active, u.Sub, u.Job = "deactivating", "stop-sigterm", j.id
		return reply, nil
	}
	delete(s.units, name)
	return reply, j
}

func (s *Systemd) resetFailed(c *Call) (*dbus.Message, *job) {
	s.mu.Lock()
	defer s.mu.Unlock()
	name, u := s.named(c)
	if u == nil {
		return noUnit(c, name), nil
	}
	if u.Active == "failed" {
		delete(s.units, name)
	}
	return Reply(c.Serial()), nil
}

// known answers calls whose effect nobody looks at.
func (s *Systemd) known(c *Call) (*dbus.Message, *job) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if name, u := s.named(c); u == nil {
		return noUnit(c, name), nil
	}
	return Reply(c.Serial()), nil
}

func (s *Systemd) getUnit(c *Call) (*dbus.Message, *job) {
	s.mu.Lock()
	defer s.mu.Unlock()
	name, u := s.named(c)
	if u == nil {
		return noUnit(c, name), nil
	}
	return Reply(c.Serial(), unitPath(name)), nil
}

func (s *Systemd) getProcesses(c *Call) (*dbus.Message, *job) {
	type process struct {
		Cgroup  string
		PID     uint32
		Command string
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	name, u := s.named(c)
	if u == nil {
		return noUnit(c, name), nil
	}
	list := []process{}
	for _, pid := range u.PIDs {
		list = append(list, process{"/sfu.slice/" + name, pid, "worker"})
	}
	return Reply(c.Serial(), list), nil
}

func (s *Systemd) list(c *Call) (*dbus.Message, *job) {
	type listed struct {
		Name, Description, Load, Active, Sub, Following string
		Path                                            dbus.ObjectPath
		Job                                             uint32
		JobType                                         string
		JobPath                                         dbus.ObjectPath
	}
	var states, patterns []string
	if err := dbus.Store(c.Body, &states, &patterns); err != nil {
		return Failure(c.Serial(), Driver+".Error.InvalidArgs", err.Error()), nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	list := []listed{}
	for name, u := range s.units {
		matches := func(p string) bool { ok, _ := path.Match(p, name); return ok }
		if slices.ContainsFunc(patterns, matches) {
			list = append(list, listed{name, name, "loaded", u.Active, u.Sub, "", unitPath(name), u.Job, "", jobPath(u.Job)})
		}
	}
	return Reply(c.Serial(), list), nil
}

func (s *Systemd) version(c *Call) (*dbus.Message, *job) {
	return Reply(c.Serial(), dbus.MakeVariant("252.39-1")), nil
}

func (s *Systemd) getAll(c *Call) (*dbus.Message, *job) {
	at, _ := c.Headers[dbus.FieldPath].Value().(dbus.ObjectPath)
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, u := range s.units {
		if unitPath(name) != at {
			continue
		}
		return Reply(c.Serial(), map[string]dbus.Variant{
			"Id":              dbus.MakeVariant(name),
			"LoadState":       dbus.MakeVariant("loaded"),
			"ActiveState":     dbus.MakeVariant(u.Active),
			"SubState":        dbus.MakeVariant(u.Sub),
			"Result":          dbus.MakeVariant(u.Result),
			"ControlGroup":    dbus.MakeVariant("/sfu.slice/" + name),
			"InvocationID":    dbus.MakeVariant([]byte{0xab, 0xcd}),
			"TimeoutStopUSec": dbus.MakeVariant(uint64(1_500_000)),
			"Job": dbus.MakeVariant(struct {
				ID   uint32
				Path dbus.ObjectPath
			}{u.Job, jobPath(u.Job)}),
		}), nil
	}
	return Reply(c.Serial(), map[string]dbus.Variant{"LoadState": dbus.MakeVariant("not-found")}), nil
}

// named returns the unit that the call's first argument names.
func (s *Systemd) named(c *Call) (string, *Unit) {
	name, _ := c.Body[0].(string)
	return name, s.units[name]
}

func unitPath(name string) dbus.ObjectPath {
	escaped := strings.NewReplacer("-", "_2d", ".", "_2e").Replace(name)
	return dbus.ObjectPath("/org/freedesktop/systemd1/unit/" + escaped)
}

func noUnit(c *Call, name string) *dbus.Message {
	return Failure(c.Serial(), systemd1+".NoSuchUnit", "Unit "+name+" not loaded.")
}
