package systemd1

import (
	"errors"
	"strings"
	"unicode"

	"github.com/sfu-agent/sfu-agent/dbusx"
)

// withOptional runs try with p less the optional properties that this systemd
// has refused so far, and again less each one that it refuses now.
func (s *Systemd) withOptional(p Properties, try func(Properties) error) error {
	s.mu.Lock()
	for name := range s.dropped {
		p = p.without(name)
	}
	s.mu.Unlock()
	for {
		err := try(p)
		name := refusedProperty(err)
		if !optional[name] || !p.has(name) {
			return err
		}
		p = p.without(name)
		s.drop(name, err)
	}
}

// drop remembers and reports, once, that name is not to be had.
func (s *Systemd) drop(name string, err error) {
	s.mu.Lock()
	known := s.dropped[name]
	s.dropped[name] = true
	s.mu.Unlock()
	if !known {
		s.log.Warn("systemd does not know property, going on without", "property", name, "error", err)
	}
}

// refusedProperty returns the property that an "unknown property" error names:
// "Cannot set property X, or unknown property." It has no other form than text.
func refusedProperty(err error) string {
	var e *dbusx.Error
	if !errors.As(err, &e) || e.Kind != ErrProperty || e.Err == nil {
		return ""
	}
	_, rest, ok := strings.Cut(e.Err.Error(), "property ")
	if !ok {
		return ""
	}
	name, _, _ := strings.Cut(rest, ",")
	notWord := func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) }
	if strings.ContainsFunc(name, notWord) {
		return ""
	}
	return name
}
