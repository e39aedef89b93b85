package systemd1

import (
	"context"
	"encoding/hex"
	"errors"
	"path"
	"time"

	"github.com/godbus/dbus/v5"
	"github.com/sfu-agent/sfu-agent/dbusx"
)

// Unit is a snapshot of one unit. The words of its states are systemd's
// (org.freedesktop.systemd1(5)).
type Unit struct {
	Name        string
	Description string
	LoadState   string // "loaded", "not-found", ...
	ActiveState string // "active", "activating", "deactivating", "inactive", "failed", ...
	SubState    string // of a scope: "running", "abandoned", "stop-sigterm", "stop-sigkill", "dead", "failed"
	Job         uint32 // pending job, 0 if none

	jobPath dbus.ObjectPath // filled in by list only

	// The rest is filled in by Systemd.Unit only.
	Result       string // how it ended: "success", "oom-kill", "timeout", "resources"
	ControlGroup string // below the cgroup2 mount
	InvocationID string // 32 hexadecimal digits, new with every start
	TimeoutStop  time.Duration
}

// settled reports whether nothing will change by itself.
func (u Unit) settled() bool {
	return u.Job == 0 && u.ActiveState != "activating" && u.ActiveState != "deactivating"
}

// gone reports whether there is nothing to stop or to reset.
func (u Unit) gone() bool {
	return u.Name == "" || u.LoadState == "not-found" || u.ActiveState == "inactive" && u.Job == 0
}

func (u Unit) dead() bool { return u.ActiveState == "inactive" || u.ActiveState == "failed" }

// Unit returns the state of a unit that systemd has loaded, or ErrNoUnit.
func (s *Systemd) Unit(ctx context.Context, unit string) (Unit, error) {
	const op = "read unit"
	var path dbus.ObjectPath
	if err := s.repeat(ctx, "GetUnit", []any{&path}, unit); err != nil {
		return Unit{}, of(op, unit, err)
	}
	var props map[string]dbus.Variant
	err := s.repeatAt(ctx, path, properties+".GetAll", []any{&props}, "")
	if err != nil {
		return Unit{}, of(op, unit, err)
	}
	u := unitOf(props)
	if u.LoadState == "not-found" { // it went between the calls
		return Unit{}, &dbusx.Error{Op: op, Unit: unit, Kind: ErrNoUnit}
	}
	return u, nil
}

// unitOf picks what Unit holds from the properties of all interfaces; what is
// missing or of another type stays empty.
func unitOf(props map[string]dbus.Variant) Unit {
	text := func(name string) string {
		v, _ := props[name].Value().(string)
		return v
	}
	u := Unit{
		Name:         text("Id"),
		Description:  text("Description"),
		LoadState:    text("LoadState"),
		ActiveState:  text("ActiveState"),
		SubState:     text("SubState"),
		Result:       text("Result"),
		ControlGroup: text("ControlGroup"),
	}
	if job, ok := props["Job"].Value().([]any); ok && len(job) > 0 {
		u.Job, _ = job[0].(uint32)
	}
	if id, ok := props["InvocationID"].Value().([]byte); ok {
		u.InvocationID = hex.EncodeToString(id)
	}
	if usec, ok := props["TimeoutStopUSec"].Value().(uint64); ok {
		u.TimeoutStop = duration(usec)
	}
	return u
}

// duration converts microseconds, of which systemd's "infinity" is the most.
func duration(usec uint64) time.Duration {
	const longest = 1<<63 - 1
	if usec > longest/1000 {
		return longest
	}
	return time.Duration(usec) * time.Microsecond
}

// List returns the loaded units whose name matches pattern, a glob(7).
func (s *Systemd) List(ctx context.Context, pattern string) ([]Unit, error) {
	units, err := s.list(ctx, pattern)
	return units, of("list units", pattern, err)
}

// listed is one element of ListUnitsByPatterns' reply, a(ssssssouso).
type listed struct {
	Name, Description, LoadState, ActiveState, SubState, Following string
	Path                                                           dbus.ObjectPath
	Job                                                            uint32
	JobType                                                        string
	JobPath                                                        dbus.ObjectPath
}

// list asks by pattern, which unlike asking by name loads no units.
func (s *Systemd) list(ctx context.Context, patterns ...string) ([]Unit, error) {
	var all []listed
	err := s.repeat(ctx, "ListUnitsByPatterns", []any{&all}, []string{}, patterns)
	if err != nil {
		return nil, err
	}
	units := make([]Unit, 0, len(all))
	for _, l := range all {
		units = append(units, Unit{
			Name:        l.Name,
			Description: l.Description,
			LoadState:   l.LoadState,
			ActiveState: l.ActiveState,
			SubState:    l.SubState,
			Job:         l.Job,
			jobPath:     l.JobPath,
		})
	}
	return units, nil
}

// state returns the listed state of one unit, or ErrNoUnit.
func (s *Systemd) state(ctx context.Context, unit string) (Unit, error) {
	units, err := s.list(ctx, unit)
	if err != nil {
		return Unit{}, err
	}
	for _, u := range units {
		if u.Name == unit && u.LoadState != "not-found" {
			return u, nil
		}
	}
	return Unit{}, &dbusx.Error{Op: "read unit", Unit: unit, Kind: ErrNoUnit}
}

// processes returns the PIDs in the cgroup of unit and below.
func (s *Systemd) processes(ctx context.Context, unit string) ([]int, error) {
	var list []struct {
		Cgroup  string
		PID     uint32
		Command string
	}
	err := s.repeat(ctx, "GetUnitProcesses", []any{&list}, unit)
	if errors.Is(of("", unit, err), ErrNoUnit) {
		return nil, nil
	}
	pids := make([]int, 0, len(list))
	for _, p := range list {
		pids = append(pids, int(p.PID))
	}
	return pids, err
}

// validScope reports whether name can be a scope's (systemd.unit(5)).
func validScope(name string) bool {
	if len(name) > 255 || path.Ext(name) != ".scope" || len(name) == len(".scope") {
		return false
	}
	for _, c := range []byte(name) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case c == ':', c == '-', c == '_', c == '.', c == '\\':
		default:
			return false
		}
	}
	return true
}
