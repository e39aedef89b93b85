package agent

import (
	"sync"
	"time"

	"github.com/sfu-agent/sfu-agent/agent/control"
)

// A room that was routed but that no worker reports yet is held for its worker
// this long, and this many of them at most.
const (
	reserveFor = 15 * time.Second
	maxReserve = 4096
)

// routes remembers where rooms were sent that the workers' own accounts do not
// list yet.
type routes struct {
	mu       sync.Mutex
	reserved map[string]reservation
}

type reservation struct {
	name  string // of the worker
	until time.Time
}

// Route is the worker for a request to a room: the one that has it, else the
// ready one with the least to do. It returns ErrNotReady when there is none.
func (a *Agent) Route(room string) (Worker, error) {
	workers := a.Workers()
	for _, w := range workers {
		if serves(w) && has(w.Status, room) {
			return w, nil
		}
	}
	return a.rooms.assign(room, workers, time.Now())
}

func (r *routes) assign(room string, workers []Worker, now time.Time) (Worker, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if held, ok := r.reserved[room]; ok && now.Before(held.until) {
		for _, w := range workers {
			if w.Name == held.name && serves(w) {
				return w, nil
			}
		}
	}
	best, ok := r.leastLoaded(workers, now)
	if !ok {
		return Worker{}, ErrNotReady
	}
	if r.reserved == nil {
		r.reserved = make(map[string]reservation)
	}
	if len(r.reserved) < maxReserve {
		r.reserved[room] = reservation{best.Name, now.Add(reserveFor)}
	}
	return best, nil
}

// leastLoaded drops what has run out on its way.
func (r *routes) leastLoaded(workers []Worker, now time.Time) (best Worker, ok bool) {
	pending := make(map[string]int)
	for room, held := range r.reserved {
		if !now.Before(held.until) {
			delete(r.reserved, room)
			continue
		}
		pending[held.name]++
	}
	least := 0
	for _, w := range workers {
		if w.State != StateReady {
			continue
		}
		load := sessions(w.Status) + pending[w.Name]
		if !ok || load < least {
			best, least, ok = w, load, true
		}
	}
	return best, ok
}

func serves(w Worker) bool { return w.State == StateReady || w.State == StateDraining }

func has(s *control.Status, room string) bool {
	if s == nil {
		return false
	}
	for _, r := range s.Rooms {
		if r.Name == room {
			return true
		}
	}
	return false
}

func sessions(s *control.Status) int {
	if s == nil {
		return 0
	}
	n := 0
	for _, r := range s.Rooms {
		n += r.Viewers + 1
	}
	return n
}
