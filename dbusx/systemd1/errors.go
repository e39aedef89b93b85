package systemd1

import (
	"errors"
	"strings"

	"github.com/sfu-agent/sfu-agent/dbusx"
)

// What systemd can object to, beside the errors of dbusx; errors.Is tells them
// apart.
var (
	ErrExists      = errors.New("unit exists and is not ours")
	ErrNoUnit      = errors.New("no such unit")
	ErrProperty    = errors.New("property not accepted")
	ErrProcessGone = errors.New("process is gone or not in the unit")
	ErrJob         = errors.New("job not done") // a *JobError has the result
)

// JobError is the result of a job that did not end as "done".
type JobError struct {
	Result string // "failed", "canceled", "timeout", "dependency", "skipped", ...
}

func (e *JobError) Error() string { return "job result " + e.Result }

// of says of what unit err is, and of what kind if systemd said so.
func of(op, unit string, err error) error {
	if err == nil {
		return nil
	}
	var e *dbusx.Error
	if !errors.As(err, &e) {
		return &dbusx.Error{Op: op, Unit: unit, Kind: dbusx.ErrReply, Err: err}
	}
	f := *e
	f.Op, f.Unit = op, unit
	if kind := kindOf(e); kind != nil {
		f.Kind = kind
	}
	return &f
}

func kindOf(e *dbusx.Error) error {
	name, ours := strings.CutPrefix(e.Name, "org.freedesktop.systemd1.")
	if ours {
		switch name {
		case "UnitExists":
			return ErrExists
		case "NoSuchUnit":
			return ErrNoUnit
		}
		return nil
	}
	switch strings.TrimPrefix(e.Name, "org.freedesktop.DBus.Error.") {
	case "UnixProcessIdUnknown":
		return ErrProcessGone
	case "PropertyReadOnly", "InvalidArgs":
		return ErrProperty
	}
	return nil
}
