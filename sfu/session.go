package sfu

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/webrtc/v4"
)

// Why a session ended.
var (
	errLeft       = errors.New("the client left")
	errEvicted    = errors.New("replaced by a new publisher")
	errHandshake  = errors.New("ICE and DTLS did not complete in time")
	errTransport  = errors.New("the client is gone")
	errOtherCodec = errors.New("the new publisher uses another codec")
)

// A Session is one client in one room. Its goroutines end with it.
type Session struct {
	server *Server
	id     string
	room   string
	role   Role
	began  time.Time // arrival of the offer

	pc     *webrtc.PeerConnection
	offer  *offer
	chosen []format // of each m-section
	downs  []*downTrack

	transportSeq atomic.Uint32 // transport-wide sequence number of the last packet to a viewer

	ctx       context.Context // ends, with the cause, when the session is to end
	end       context.CancelCauseFunc
	connected chan struct{}
	once      sync.Once // decides whether the session was ever connected
	done      chan struct{}

	// The current ICE session; update has its changes wait for each other.
	update sync.Mutex
	local  ICE
	remote ICE

	mu      sync.Mutex // guards the next three, and that work is not added to once closed
	ups     []*upTrack
	inboxes map[uint32]*inbox // of a publisher's SSRCs
	closed  bool
	work    sync.WaitGroup
}

func newSession(server *Server, room string, role Role, o *offer, began time.Time) *Session {
	s := &Session{
		server: server, id: server.prefix + rand.Text(), room: room, role: role, began: began, offer: o, remote: o.ice,
		inboxes: map[uint32]*inbox{}, connected: make(chan struct{}), done: make(chan struct{}),
	}
	s.ctx, s.end = context.WithCancelCause(context.Background())
	return s
}

// ID is unguessable and unique over all servers with different SessionPrefix.
func (s *Session) ID() string { return s.id }

// Room is the name of the session's room.
func (s *Session) Room() string { return s.room }

// Role is what the client does in the room.
func (s *Session) Role() Role { return s.role }

// Done is closed when nothing of the session is left.
func (s *Session) Done() <-chan struct{} { return s.done }

// Close ends the session and returns when nothing of it is left.
func (s *Session) Close() {
	s.end(errLeft)
	<-s.done
}

// negotiate makes the PeerConnection and answers the offer.
func (s *Session) negotiate(ctx context.Context) (string, error) {
	settings := s.server.settings
	if s.role == Viewer {
		settings.BufferFactory = s.newBuffer
	} else {
		settings.BufferFactory = s.newInbox
	}
	pc, err := newPeerConnection(s.role, s.chosen, settings, s.server.certificate)
	if err != nil {
		return "", err
	}
	s.pc = pc
	pc.OnTrack(s.onTrack)
	pc.OnConnectionStateChange(s.onState)
	for _, d := range s.downs {
		if _, err := pc.AddTransceiverFromTrack(d, webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionSendonly}); err != nil {
			return "", fmt.Errorf("add track: %w", err)
		}
	}
	description, err := s.offer.describe(s.role, s.chosen, s.offer.ice)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrUnusable, err)
	}
	d, err := answer(ctx, pc, description)
	if err != nil {
		return "", err
	}
	s.update.Lock()
	s.local = iceOf(d)
	s.update.Unlock()
	for i := range s.offer.media {
		s.offer.media[i].formats = nil // chosen has what is left of them
	}
	text, err := d.Marshal()
	return string(text), err
}

func (s *Session) onState(state webrtc.PeerConnectionState) {
	switch state {
	case webrtc.PeerConnectionStateConnected:
		s.once.Do(s.connect)
	case webrtc.PeerConnectionStateFailed, webrtc.PeerConnectionStateClosed:
		s.end(errTransport)
	}
}

// onTrack starts the reading of a publisher's track. A second one of the same
// kind, or one of other payload types, is none that was negotiated.
func (s *Session) onTrack(remote *webrtc.TrackRemote, receiver *webrtc.RTPReceiver) {
	in := s.inbox(remote.SSRC())
	if in == nil {
		return
	}
	for _, u := range s.upTracks() {
		if u.format.pt == remote.PayloadType() && u.ssrc.CompareAndSwap(0, uint32(remote.SSRC())) {
			s.start(func() { u.read(remote, in) })
			s.start(func() { u.readRTCP(receiver) })
			return
		}
	}
}

func (s *Session) setUps(ups []*upTrack) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ups = ups
}

func (s *Session) upTracks() []*upTrack {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ups
}

// startUps runs what asks a connected publisher for key frames.
func (s *Session) startUps() {
	for _, u := range s.upTracks() {
		if u.keyFrames != nil {
			s.start(func() { u.keyFrames.run(s.ctx) })
		}
	}
}

// start runs f in a goroutine of the session, unless the session is closing.
func (s *Session) start(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.work.Go(f)
	}
}

// begin lets a session live whose offer has been answered. There is no goroutine
// that waits for what becomes of it: each takes memory.
func (s *Session) begin() {
	timeout := time.AfterFunc(s.server.handshake, func() {
		select {
		case <-s.connected:
		default:
			s.end(errHandshake)
		}
	})
	context.AfterFunc(s.ctx, func() {
		timeout.Stop()
		s.finish()
	})
}

// connect begins what the session is for. pion says that it is connected before
// it can send SRTP and drops what is written until then, but all that under the
// lock that guards the state of DTLS: State returns when packets can be sent.
func (s *Session) connect() {
	_ = s.pc.SCTP().Transport().State()
	s.server.count.joins[joinOK].Add(1)
	close(s.connected)
	s.server.attach(s)
}

func (s *Session) finish() {
	defer close(s.done)
	s.once.Do(func() { s.server.count.joins[joinFailed].Add(1) })
	s.tearDown()
	s.server.log.Info("session ended", "session", s.id, "room", s.room, "role", s.role, "cause", context.Cause(s.ctx))
}

// tearDown leaves the room and waits for all that the session started.
func (s *Session) tearDown() {
	s.server.detach(s)
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	if s.pc != nil {
		if err := s.pc.GracefulClose(); err != nil {
			s.server.log.Debug("close PeerConnection", "session", s.id, "error", err)
		}
	}
	s.work.Wait()
	s.server.forget(s)
}

// stale says whether the client was silent for long enough to lose its place.
func (s *Session) stale() bool {
	select {
	case <-s.connected:
		return s.pc.ICEConnectionState() == webrtc.ICEConnectionStateDisconnected
	default:
		return false
	}
}

func (s *Session) writeRTCP(packets ...rtcp.Packet) {
	// An error is a transport that is closing; there is no one to tell.
	_ = s.pc.WriteRTCP(packets)
}
