package sfu

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/pion/webrtc/v4"
)

// Config is what a Server needs. All but Conn may be left out.
type Config struct {
	// Conn is the one UDP socket of all sessions. Its writes must not block. It
	// is the Server's to close, once New has returned one. If it has methods Hold
	// and Release, the Server calls them around writes that soon have others
	// follow, so that these may be sent together.
	Conn net.PacketConn

	// Advertise are the addresses at which clients reach Conn, its port being
	// the same there. Without any it is Conn's own address or, where that is
	// unspecified, those of the interfaces.
	Advertise []netip.Addr

	// SessionPrefix begins every session's ID; characters of a URL path segment.
	SessionPrefix string

	Log *slog.Logger

	MaxRooms    int // 0: 1024
	MaxSessions int // of all rooms together, 0: 4096

	// HandshakeTimeout is the time from the answer to the end of ICE and DTLS,
	// after which the session is removed. 0: 15 s.
	HandshakeTimeout time.Duration
}

// A Server is one SFU on one UDP port.
type Server struct {
	prefix      string
	log         *slog.Logger
	maxRooms    int
	maxSessions int
	handshake   time.Duration
	mux         *udpMux
	holder      holder // nil where Conn is none
	settings    webrtc.SettingEngine
	certificate webrtc.Certificate
	count       counters

	mu       sync.Mutex
	rooms    map[string]*room
	sessions map[string]*Session
	draining bool
	closed   bool
	live     sync.WaitGroup // sessions, added under mu before closed is set
}

// New starts a Server on cfg.Conn.
func New(cfg Config) (*Server, error) {
	s := &Server{
		prefix: cfg.SessionPrefix, log: cmp.Or(cfg.Log, slog.New(slog.DiscardHandler)),
		maxRooms: cmp.Or(cfg.MaxRooms, 1024), maxSessions: cmp.Or(cfg.MaxSessions, 4096),
		handshake: cmp.Or(cfg.HandshakeTimeout, 15*time.Second),
		rooms:     map[string]*room{}, sessions: map[string]*Session{},
	}
	var err error
	if s.certificate, err = newCertificate(time.Now()); err != nil {
		return nil, err
	}
	s.holder, _ = cfg.Conn.(holder)
	log := pionLog{s.log}
	if s.mux, err = newUDPMux(cfg.Conn, cfg.Advertise, log.NewLogger("ice")); err != nil {
		return nil, err
	}
	s.settings = newSettings(s.mux, s.handshake, log)
	return s, nil
}

// Publish makes the client that sent offer the publisher of the room, which
// comes to be if need be, and returns the SDP answer, complete with candidates.
// The session ends by itself if the client does not connect, or is lost later.
func (s *Server) Publish(ctx context.Context, room, offer string) (*Session, string, error) {
	return s.join(ctx, room, offer, Publisher)
}

// Subscribe makes the client that sent offer a viewer of the room; the rest is
// as for Publish.
func (s *Server) Subscribe(ctx context.Context, room, offer string) (*Session, string, error) {
	return s.join(ctx, room, offer, Viewer)
}

func (s *Server) join(ctx context.Context, name, text string, role Role) (*Session, string, error) {
	session, answer, err := s.tryJoin(ctx, name, text, role)
	if err != nil {
		s.count.joins[joinRefused].Add(1)
		return nil, "", fmt.Errorf("join room %.64q as %s: %w", name, role, err)
	}
	s.log.Info("session started", "session", session.id, "room", name, "role", role)
	return session, answer, nil
}

func (s *Server) tryJoin(ctx context.Context, name, text string, role Role) (*Session, string, error) {
	began := time.Now()
	if err := ctx.Err(); err != nil {
		return nil, "", err
	}
	if !validRoom(name) {
		return nil, "", ErrRoomName
	}
	o, err := parseOffer(text, role)
	if err != nil {
		return nil, "", err
	}
	session := newSession(s, name, role, o, began)
	if err := s.admit(ctx, session); err != nil {
		return nil, "", err
	}
	answer, err := session.negotiate(ctx)
	if err == nil {
		err = s.seat(session)
	}
	if err != nil {
		session.end(err)
		session.tearDown()
		close(session.done)
		return nil, "", err
	}
	session.begin()
	return session, answer, nil
}

// Session returns a session of the Server, connected or not yet. It returns nil
// if there is none of that ID any more.
func (s *Server) Session(id string) *Session {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sessions[id]
}

// SetDraining has the Server refuse new rooms, or take them again. Rooms that
// are there go on and may be joined.
func (s *Server) SetDraining(draining bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.draining = draining
}

// Stats returns the rooms in the order of their names, and the counters.
func (s *Server) Stats() Stats {
	s.mu.Lock()
	stats := Stats{Rooms: []Room{}, Draining: s.draining}
	for _, r := range s.rooms {
		stats.Rooms = append(stats.Rooms, r.snapshot())
	}
	s.mu.Unlock()
	slices.SortFunc(stats.Rooms, func(a, b Room) int { return cmp.Compare(a.Name, b.Name) })
	stats.Counters, stats.FirstFrame = s.count.snapshot(), s.count.firstFrame.snapshot()
	return stats
}

// Close ends all sessions and closes the socket. It returns when nothing runs
// any more, or with ctx's error when that ends first; sessions then still end.
func (s *Server) Close(ctx context.Context) error {
	s.mu.Lock()
	s.closed = true
	for _, session := range s.sessions {
		session.end(ErrClosed)
	}
	s.mu.Unlock()
	quiet := make(chan struct{})
	go func() {
		s.live.Wait()
		close(quiet)
	}()
	var err error
	select {
	case <-quiet:
	case <-ctx.Done():
		err = fmt.Errorf("close sessions: %w", ctx.Err())
	}
	return errors.Join(err, s.mux.Close())
}
