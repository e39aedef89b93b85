package systemd1

import "errors"

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
		var refused *PropertyError
		if !errors.As(err, &refused) || !optional[refused.Name] || !p.has(refused.Name) {
			return err
		}
		p = p.without(refused.Name)
		s.drop(refused.Name, err)
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
