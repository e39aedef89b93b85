package dbusx

import (
	"context"
	"fmt"
	"sync"

	"github.com/godbus/dbus/v5"
)

// A Watch asks for one signal of one service, over all connections to come.
// Its functions run in the goroutine that reads the connection: they must not
// block and must not make calls.
type Watch struct {
	Name      string // well-known name of the sender
	Interface string
	Member    string
	// Signal is called for every such signal, in the order of the wire.
	Signal func(*dbus.Signal)
	// Changed is called when signals may be missed: the connection has ended,
	// there is a new one, or Name has another owner.
	Changed func()
}

// signals receives the signals of one link; it is godbus's SignalHandler.
type signals struct {
	bus bool

	mu       sync.Mutex
	watches  []Watch
	followed int               // how many of watches miss no signal
	owners   map[string]string // by watched name: unique name, "" if none
	ended    bool
	telling  sync.WaitGroup // calls of a Watch's functions
}

const driver = "org.freedesktop.DBus" // the bus itself

// follow adds watches and, where there is a bus, their match rules.
func (s *signals) follow(ctx context.Context, conn *dbus.Conn, watches []Watch) error {
	for _, w := range watches {
		s.mu.Lock()
		s.watches = append(s.watches, w)
		s.mu.Unlock()
		if s.bus {
			if err := s.match(ctx, conn, w); err != nil {
				return err
			}
		}
		s.mu.Lock()
		s.followed++
		s.mu.Unlock()
	}
	return nil
}

func (s *signals) match(ctx context.Context, conn *dbus.Conn, w Watch) error {
	rules := []string{
		fmt.Sprintf("type='signal',sender='%s',member='NameOwnerChanged',arg0='%s'", driver, w.Name),
		fmt.Sprintf("type='signal',sender='%s',interface='%s',member='%s'", w.Name, w.Interface, w.Member),
	}
	bus := conn.BusObject()
	for _, rule := range rules {
		if err := bus.CallWithContext(ctx, driver+".AddMatch", 0, rule).Err; err != nil {
			return fmt.Errorf("add match rule for %s: %w", w.Member, err)
		}
	}
	var owner string
	if err := bus.CallWithContext(ctx, driver+".GetNameOwner", 0, w.Name).Store(&owner); err != nil {
		owner = "" // NameOwnerChanged tells when there is one
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, known := s.owners[w.Name]; !known { // a signal is newer than this reply
		s.owners[w.Name] = owner
	}
	return nil
}

// count returns how many watches the link follows.
func (s *signals) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.followed
}

// DeliverSignal hands a signal to whoever watches for it. On a bus the sender
// counts: anybody may send us a signal of that name, without a match rule.
func (s *signals) DeliverSignal(iface, member string, sig *dbus.Signal) {
	if s.bus && iface == driver && member == "NameOwnerChanged" && sig.Sender == driver {
		s.ownerChanged(sig)
		return
	}
	s.tell(func(w Watch) bool {
		return w.Interface == iface && w.Member == member && (!s.bus || sig.Sender == s.owners[w.Name])
	}, func(w Watch) { w.Signal(sig) })
}

// tell runs f, without the lock, for every watch that which picks.
func (s *signals) tell(which func(Watch) bool, f func(Watch)) {
	var picked []Watch
	s.mu.Lock()
	if s.ended {
		s.mu.Unlock()
		return
	}
	for _, w := range s.watches {
		if which(w) {
			picked = append(picked, w)
		}
	}
	s.telling.Add(1)
	s.mu.Unlock()
	defer s.telling.Done()
	for _, w := range picked {
		f(w)
	}
}

// end makes sure that no function of a Watch runs any more.
func (s *signals) end() {
	s.mu.Lock()
	s.ended = true
	s.mu.Unlock()
	s.telling.Wait()
}

func (s *signals) ownerChanged(sig *dbus.Signal) {
	var name, before, owner string
	if dbus.Store(sig.Body, &name, &before, &owner) != nil {
		return
	}
	s.mu.Lock()
	s.owners[name] = owner
	s.mu.Unlock()
	if owner != "" {
		s.tell(func(w Watch) bool { return w.Name == name }, func(w Watch) { w.Changed() })
	}
}

// Terminate is called by godbus when the connection has ended.
func (s *signals) Terminate() {
	s.tell(func(Watch) bool { return true }, func(w Watch) { w.Changed() })
}

// sift takes out of the stream what godbus would answer or stumble on: calls to
// us, who offer nothing, and name signals without a name.
func sift(m *dbus.Message) {
	const ignored = dbus.Type(0)
	switch {
	case m.Type == dbus.TypeMethodCall:
		m.Type = ignored
	case m.Type == dbus.TypeSignal && m.Headers[dbus.FieldInterface].Value() == driver:
		if len(m.Body) == 0 {
			m.Type = ignored
		} else if _, ok := m.Body[0].(string); !ok {
			m.Type = ignored
		}
	}
}
