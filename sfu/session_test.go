package sfu

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pion/webrtc/v4"
)

func TestSecondPublisher(t *testing.T) {
	server, _ := newServer(t)
	publish(t, server, "r", clientConfig{})
	second := newClient(t, clientConfig{role: Publisher})
	if err := second.join(server, "r"); !errors.Is(err, ErrPublisherExists) {
		t.Errorf("second publisher: %v", err)
	}
	if n := server.Stats().Counters.Joins["refused"]; n != 1 {
		t.Errorf("%d joins refused, want 1", n)
	}
}

func TestViewerOfNoRoom(t *testing.T) {
	server, _ := newServer(t)
	v := newClient(t, clientConfig{role: Viewer})
	if err := v.join(server, "r"); !errors.Is(err, ErrNoRoom) {
		t.Errorf("viewer of no room: %v", err)
	}
	if s := server.Stats(); len(s.Rooms) != 0 {
		t.Errorf("rooms: %+v", s.Rooms)
	}
}

func TestRoomEndsWithItsLastSession(t *testing.T) {
	server, _ := newServer(t)
	p := publish(t, server, "r", clientConfig{})
	v := view(t, server, "r", clientConfig{})
	p.session.Close()
	if s := server.Stats(); len(s.Rooms) != 1 {
		t.Errorf("rooms with a viewer left: %+v", s.Rooms)
	}
	v.session.Close()
	if s := server.Stats(); len(s.Rooms) != 0 {
		t.Errorf("rooms with nobody left: %+v", s.Rooms)
	}
	if server.Session(v.session.ID()) != nil {
		t.Error("the session is still there")
	}
}

func TestClientLeavesByDTLS(t *testing.T) {
	server, _ := newServer(t)
	p := publish(t, server, "r", clientConfig{})
	must(t, p.pc.Close())
	waitFor(t, "the room to end", func() bool { return len(server.Stats().Rooms) == 0 })
}

func TestHalfOpenSessionIsRemoved(t *testing.T) {
	isDTLS := func(_ bool, b []byte) bool { return b[0] >= 20 && b[0] <= 63 }
	isSTUN := func(_ bool, b []byte) bool { return b[0] < 4 }
	for name, lose := range map[string]func(bool, []byte) bool{"without ICE": isSTUN, "without DTLS": isDTLS} {
		t.Run(name, func(t *testing.T) {
			server, conn := newServer(t, func(c *Config) { c.HandshakeTimeout = 500 * time.Millisecond })
			before := runtime.NumGoroutine()
			conn.lose.Store(&lose)
			c := newClient(t, clientConfig{role: Publisher})
			must(t, c.join(server, "r"))
			select {
			case <-c.session.Done():
			case <-time.After(timeout):
				t.Fatal("the session stays")
			}
			if s := server.Stats(); len(s.Rooms) != 0 || s.Counters.Joins["failed"] != 1 {
				t.Errorf("stats: %+v", s)
			}
			c.close()
			waitFor(t, "its goroutines to end", func() bool { return runtime.NumGoroutine() <= before })
		})
	}
}

func TestVanishedClientIsRemoved(t *testing.T) {
	server, conn := newServer(t)
	server.settings.SetICETimeouts(300*time.Millisecond, 300*time.Millisecond, 100*time.Millisecond)
	p := publish(t, server, "r", clientConfig{})
	all := func(bool, []byte) bool { return true }
	conn.lose.Store(&all)
	select {
	case <-p.session.Done():
	case <-time.After(timeout):
		t.Fatal("the session stays")
	}
}

func TestSilentPublisherIsReplaced(t *testing.T) {
	server, conn := newServer(t)
	server.settings.SetICETimeouts(300*time.Millisecond, time.Hour, 100*time.Millisecond)
	p := publish(t, server, "r", clientConfig{})
	all := func(bool, []byte) bool { return true }
	conn.lose.Store(&all)
	waitFor(t, "the publisher to be missed", func() bool { return p.session.stale() })
	conn.lose.Store(nil)
	p.close() // or its ICE checks bring it back
	publish(t, server, "r", clientConfig{})
}

func TestPLIsThrottled(t *testing.T) {
	server, _ := newServer(t)
	p := publish(t, server, "r", clientConfig{})
	f := film{track: p.video}
	f.frame(t, false, 0) // the publisher's SSRC is known from its first packet
	waitFor(t, "the first frame", func() bool { return server.Stats().Counters.PacketsIn == 2 })
	start := time.Now()
	var wg sync.WaitGroup
	viewers := make([]*client, 20)
	for i := range viewers {
		viewers[i] = newClient(t, clientConfig{role: Viewer})
		must(t, viewers[i].join(server, "r"))
	}
	for _, v := range viewers {
		wg.Go(func() { waitConnected(t, v) })
	}
	wg.Wait()
	waitFor(t, "a second request, since no key frame came", func() bool { return p.plis.Load() >= 2 })
	most := 1 + time.Since(start)/pliInterval
	if n := p.plis.Load(); n > int64(most) {
		t.Errorf("%d requests in %v for %d viewers", n, time.Since(start), len(viewers))
	}
	f.frame(t, true, 1)
	for _, v := range viewers {
		waitFor(t, "the key frame", func() bool { return len(v.received()) == 2 })
	}
	waitFor(t, "the want to be over", func() bool { return !p.session.upTracks()[1].keyFrames.wanted.Load() })
}

func TestDraining(t *testing.T) {
	server, _ := newServer(t)
	publish(t, server, "old", clientConfig{})
	server.SetDraining(true)
	p := newClient(t, clientConfig{role: Publisher})
	if err := p.join(server, "new"); !errors.Is(err, ErrDraining) {
		t.Errorf("new room while draining: %v", err)
	}
	view(t, server, "old", clientConfig{}) // goes on
	server.SetDraining(false)
	publish(t, server, "new", clientConfig{})
}

func TestLimits(t *testing.T) {
	server, _ := newServer(t, func(c *Config) { c.MaxRooms, c.MaxSessions = 1, 2 })
	publish(t, server, "r", clientConfig{})
	p := newClient(t, clientConfig{role: Publisher})
	if err := p.join(server, "second"); !errors.Is(err, ErrFull) {
		t.Errorf("second room of one: %v", err)
	}
	view(t, server, "r", clientConfig{})
	v := newClient(t, clientConfig{role: Viewer})
	if err := v.join(server, "r"); !errors.Is(err, ErrFull) {
		t.Errorf("third session of two: %v", err)
	}
}

func TestCloseEndsEverything(t *testing.T) {
	server, _ := newServer(t)
	p := publish(t, server, "r", clientConfig{})
	view(t, server, "r", clientConfig{})
	must(t, server.Close(t.Context()))
	must(t, server.Close(t.Context()))
	if s := server.Stats(); len(s.Rooms) != 0 {
		t.Errorf("rooms of a closed server: %+v", s.Rooms)
	}
	select {
	case <-p.session.Done():
	default:
		t.Error("Close returned before the session was done")
	}
	c := newClient(t, clientConfig{role: Publisher})
	if err := c.join(server, "r"); !errors.Is(err, ErrClosed) {
		t.Errorf("join of a closed server: %v", err)
	}
}

func TestJoinCancelled(t *testing.T) {
	server, _ := newServer(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	c := newClient(t, clientConfig{role: Publisher})
	if _, _, err := server.Publish(ctx, "r", c.offer()); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled join: %v", err)
	}
	if s := server.Stats(); len(s.Rooms) != 0 {
		t.Errorf("rooms: %+v", s.Rooms)
	}
}

// restart has the client restart ICE and the session follow.
func restart(t *testing.T, c *client) {
	t.Helper()
	offer, err := c.pc.CreateOffer(&webrtc.OfferOptions{ICERestart: true})
	must(t, err)
	must(t, c.pc.SetLocalDescription(offer))
	before := c.session.ICE()
	local, err := c.session.UpdateICE(t.Context(), before.Ufrag, ICE{Ufrag: attribute(offer.SDP, "ice-ufrag"), Pwd: attribute(offer.SDP, "ice-pwd")})
	must(t, err)
	if local == nil || local.Ufrag == before.Ufrag || local.Pwd == before.Pwd || len(local.Candidates) == 0 {
		t.Fatalf("after %+v the restart gave %+v", before, local)
	}
	c.answer = strings.ReplaceAll(strings.ReplaceAll(c.answer, before.Ufrag, local.Ufrag), before.Pwd, local.Pwd)
	must(t, c.pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: c.answer}))
}

func attribute(sdp, key string) string {
	_, after, _ := strings.Cut(sdp, "a="+key+":")
	value, _, _ := strings.Cut(after, "\r\n")
	return value
}

func TestICERestart(t *testing.T) {
	server, _ := newServer(t)
	p := publish(t, server, "r", clientConfig{})
	v := view(t, server, "r", clientConfig{})
	f := film{track: p.video}
	f.frame(t, true, 0)
	waitFor(t, "the first frame", func() bool { return len(v.received()) == 2 })
	for _, c := range []*client{p, v} {
		restart(t, c)
		waitFor(t, "ICE to come back", func() bool {
			return c.pc.ICEConnectionState() == webrtc.ICEConnectionStateConnected &&
				c.session.pc.ICEConnectionState() == webrtc.ICEConnectionStateConnected
		})
	}
	waitFor(t, "media on the new path", func() bool {
		f.frame(t, false, 1)
		return len(v.received()) > 2
	})
}

func TestUpdateICE(t *testing.T) {
	server, _ := newServer(t)
	p := publish(t, server, "r", clientConfig{})
	now := p.session.ICE()
	offered := p.session.offer.ice
	good := "1387637174 1 udp 2122260223 192.0.2.1 61764 typ host"
	for _, test := range []struct {
		name    string
		current string
		remote  ICE
		want    error
	}{
		{"candidate", now.Ufrag, ICE{Candidates: []string{good}}, nil},
		{"candidate with credentials", now.Ufrag, ICE{Ufrag: offered.Ufrag, Pwd: offered.Pwd, Candidates: []string{good}}, nil},
		{"of a transport that is not supported", now.Ufrag, ICE{Candidates: []string{"1 1 tcp 1518280447 192.0.2.1 9 typ host tcptype active"}}, nil},
		{"of a name that cannot be resolved", now.Ufrag, ICE{Candidates: []string{"1 1 udp 1 e4a0.local 9 typ host"}}, nil},
		{"nothing", "", ICE{}, nil},
		{"another ICE session", "other", ICE{Candidates: []string{good}}, ErrICESession},
		{"no candidate", now.Ufrag, ICE{Candidates: []string{"1 1 udp"}}, ErrCredentials},
		{"short ufrag", now.Ufrag, ICE{Ufrag: "abc", Pwd: offered.Pwd}, ErrCredentials},
		{"short password", now.Ufrag, ICE{Ufrag: "abcd", Pwd: "short"}, ErrCredentials},
		{"line in a password", now.Ufrag, ICE{Ufrag: "abcd", Pwd: offered.Pwd + "\r\na=x"}, ErrCredentials},
	} {
		t.Run(test.name, func(t *testing.T) {
			local, err := p.session.UpdateICE(t.Context(), test.current, test.remote)
			if !errors.Is(err, test.want) || local != nil {
				t.Errorf("got %+v, %v; want %v", local, err, test.want)
			}
			if fmt.Sprint(p.session.ICE()) != fmt.Sprint(now) {
				t.Error("the ICE session changed")
			}
		})
	}
}

// pion's own certificates last a month, and are refused after that.
func TestCertificateOutlivesTheProcess(t *testing.T) {
	now := time.Now()
	cert, err := newCertificate(now)
	must(t, err)
	if left := cert.Expires().Sub(now); left < 9*365*24*time.Hour {
		t.Errorf("expires in %v", left)
	}
}
