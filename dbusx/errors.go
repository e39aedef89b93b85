package dbusx

import (
	"errors"
	"strings"
)

// What can go wrong with a call; errors.Is tells them apart.
var (
	ErrTimeout      = errors.New("no answer in time")
	ErrLost         = errors.New("connection or service lost, outcome unknown")
	ErrClosed       = errors.New("client closed")
	ErrConnect      = errors.New("bus connection not established")
	ErrNoSystemd    = errors.New("neither system bus nor systemd's private socket is there")
	ErrLimits       = errors.New("a limit of the bus is reached")
	ErrAccessDenied = errors.New("access denied")
	ErrRefused      = errors.New("refused")
	ErrReply        = errors.New("unexpected reply")
)

// Error says which operation failed, on what, and whether it may have been
// carried out all the same.
type Error struct {
	Op   string // method, or what was attempted with it
	Unit string // systemd unit concerned, if any
	Kind error  // one of the Err variables of this package or one above it
	Name string // D-Bus error name, if the peer sent one
	Sent bool   // the request may have reached the peer
	Err  error  // cause
}

func (e *Error) Error() string {
	s := e.Op
	if e.Unit != "" {
		s += " " + e.Unit
	}
	s += ": " + e.Kind.Error()
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap makes errors.Is find both the kind and the cause.
func (e *Error) Unwrap() []error {
	if e.Err == nil {
		return []error{e.Kind}
	}
	return []error{e.Kind, e.Err}
}

// Unknown reports whether err leaves it open if the request was carried out.
func Unknown(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.Sent &&
		(e.Kind == ErrTimeout || e.Kind == ErrLost || e.Kind == ErrClosed)
}

const dbusError = "org.freedesktop.DBus.Error."

// kindOf maps the name of a D-Bus error to its kind.
func kindOf(name string) error {
	name, _ = strings.CutPrefix(name, dbusError)
	switch name {
	case "NoReply", "ServiceUnknown", "NameHasNoOwner", "Disconnected", "Timeout", "TimedOut":
		return ErrLost
	case "LimitsExceeded", "NoMemory":
		return ErrLimits
	case "AccessDenied", "AuthFailed", "InteractiveAuthorizationRequired":
		return ErrAccessDenied
	}
	return ErrRefused
}
