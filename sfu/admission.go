package sfu

import (
	"context"
	"fmt"
)

// validRoom allows what needs no escaping in a URL path segment and in a=msid.
func validRoom(name string) bool {
	if len(name) == 0 || len(name) > 64 || name == "." || name == ".." {
		return false
	}
	for _, c := range []byte(name) {
		switch {
		case c >= 'A' && c <= 'Z', c >= 'a' && c <= 'z', c >= '0' && c <= '9', c == '.', c == '_', c == '~', c == '-':
		default:
			return false
		}
	}
	return true
}

// admit reserves the session's place in its room, with the formats it gets. A
// publisher that fell silent makes place for the next one.
func (s *Server) admit(ctx context.Context, session *Session) error {
	for {
		old, err := s.tryAdmit(session)
		if old == nil {
			return err
		}
		old.end(errEvicted)
		select {
		case <-old.done:
		case <-ctx.Done():
			return fmt.Errorf("wait for the silent publisher to go: %w", ctx.Err())
		}
	}
}

// tryAdmit returns the publisher that has to go first, if one has to.
func (s *Server) tryAdmit(session *Session) (old *Session, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, known := s.rooms[session.room]
	switch {
	case s.closed:
		return nil, ErrClosed
	case session.role == Viewer && (!known || len(r.slots) == 0):
		return nil, ErrNoRoom
	case known && session.role == Publisher && r.publisher != nil && r.publisher.stale():
		return r.publisher, nil
	case known && session.role == Publisher && r.publisher != nil:
		return nil, ErrPublisherExists
	case !known && s.draining:
		return nil, ErrDraining
	case len(s.sessions) >= s.maxSessions:
		return nil, fmt.Errorf("%w: %d sessions", ErrFull, len(s.sessions))
	case !known && len(s.rooms) >= s.maxRooms:
		return nil, fmt.Errorf("%w: %d rooms", ErrFull, len(s.rooms))
	case !known:
		r = &room{name: session.room, since: session.began, viewers: map[*Session]struct{}{}}
	}
	if err := r.admit(session); err != nil {
		return nil, err
	}
	s.rooms[r.name] = r
	s.sessions[session.id] = session
	s.live.Add(1)
	return nil, nil
}

// seat joins an answered publisher's tracks with the room's viewers.
func (s *Server) seat(session *Session) error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return ErrClosed
	}
	var stranded []*Session
	if session.role == Publisher {
		stranded = s.rooms[session.room].seat(session)
	}
	s.mu.Unlock()
	for _, v := range stranded {
		v.end(errOtherCodec)
	}
	return nil
}

// attach begins what a connected session is for: the sending to a viewer, the
// asking of a publisher for key frames.
func (s *Server) attach(session *Session) {
	s.mu.Lock()
	if session.ctx.Err() != nil { // or it would be attached behind its detach
		s.mu.Unlock()
		return
	}
	for _, d := range session.downs {
		d.slot.add(d)
	}
	s.mu.Unlock()
	for _, d := range session.downs {
		d.slot.wantKeyFrame()
	}
	session.startUps()
}

// detach ends the sending to a viewer.
func (s *Server) detach(session *Session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range session.downs {
		d.slot.remove(d)
	}
}

// forget gives back the session's place, when nothing of it runs any more, and
// removes the room if it was the last.
func (s *Server) forget(session *Session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.rooms[session.room]
	r.leave(session)
	if r.empty() {
		delete(s.rooms, r.name)
	}
	delete(s.sessions, session.id)
	s.live.Done()
}
