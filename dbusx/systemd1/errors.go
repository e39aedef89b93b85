package systemd1

import (
	"errors"
	"strings"
	"unicode"

	"github.com/sfu-agent/sfu-agent/dbusx"
)

// What systemd can object to, beside the errors of dbusx; errors.Is tells them
// apart.
var (
	ErrExists      = errors.New("unit exists and is not ours")
	ErrNoUnit      = errors.New("no such unit")
	ErrProperty    = errors.New("property not accepted") // a *PropertyError may say which
	ErrProcessGone = errors.New("process is gone or not in the unit")
	ErrJob         = errors.New("job not done") // a *JobError has the result
)

// JobError is the result of a job that did not end as "done".
type JobError struct {
	Result string // "failed", "canceled", "timeout", "dependency", "skipped", ...
}

func (e *JobError) Error() string { return "job result " + e.Result }

// PropertyError names the property that systemd refused.
type PropertyError struct {
	Name string
	Err  error
}

func (e *PropertyError) Error() string { return e.Err.Error() }

// Unwrap returns systemd's own error.
func (e *PropertyError) Unwrap() error { return e.Err }

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
	var known *PropertyError
	if f.Kind == ErrProperty && f.Err != nil && !errors.As(f.Err, &known) {
		if name := namedProperty(f.Err.Error()); name != "" {
			f.Err = &PropertyError{name, f.Err}
		}
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

// namedProperty returns the property that an error text of systemd names:
// "Cannot set property X, or unknown property." There is no other form of it.
func namedProperty(text string) string {
	_, rest, _ := strings.Cut(text, "property ")
	name, _, _ := strings.Cut(rest, ",")
	if strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) }) {
		return ""
	}
	return name
}
