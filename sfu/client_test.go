package sfu

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pion/ice/v4"
	"github.com/pion/interceptor"
	"github.com/pion/interceptor/pkg/nack"
	"github.com/pion/interceptor/pkg/report"
	"github.com/pion/interceptor/pkg/twcc"
	"github.com/pion/logging"
	"github.com/pion/rtcp"
	"github.com/pion/rtp"
	"github.com/pion/webrtc/v4"
)

// timeout bounds every wait of the tests.
const timeout = 15 * time.Second

// lossyConn is the server's socket, which can lose what matches.
type lossyConn struct {
	*net.UDPConn
	lose atomic.Pointer[func(out bool, b []byte) bool]
}

func (c *lossyConn) lost(out bool, b []byte) bool {
	f := c.lose.Load()
	return f != nil && (*f)(out, b)
}

func (c *lossyConn) ReadFromAddrPort(b []byte) (int, netip.AddrPort, error) {
	for {
		n, from, err := c.UDPConn.ReadFromUDPAddrPort(b)
		if err != nil || !c.lost(false, b[:n]) {
			return n, from, err
		}
	}
}

func (c *lossyConn) WriteToAddrPort(b []byte, to netip.AddrPort) (int, error) {
	if c.lost(true, b) {
		return len(b), nil
	}
	return c.UDPConn.WriteToUDPAddrPort(b, to)
}

// isRTP tells SRTP from SRTCP, DTLS and STUN (RFC 7983, RFC 5761).
func isRTP(b []byte) bool { return len(b) > 1 && b[0]>>6 == 2 && (b[1] < 192 || b[1] > 223) }

func newServer(t testing.TB, change ...func(*Config)) (*Server, *lossyConn) {
	t.Helper()
	udp, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	conn := &lossyConn{UDPConn: udp}
	cfg := Config{Conn: conn}
	for _, f := range change {
		f(&cfg)
	}
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return s, conn
}

// client is a pion client of the tests.
type client struct {
	t       testing.TB
	pc      *webrtc.PeerConnection
	session *Session
	answer  string

	video, audio *webrtc.TrackLocalStaticRTP // of a publisher
	plis         atomic.Int64

	mu      sync.Mutex
	packets []rtp.Packet // video that a viewer received, in order of arrival
	sounds  []rtp.Packet
	reports map[uint32]*rtcp.SenderReport
}

type clientConfig struct {
	role  Role
	video []webrtc.RTPCodecParameters // offered; VP8 if nil
	ipv6  bool                        // from ::1
	sends string                      // MIME type of the video, the first of video if empty
	nack  bool
	exts  bool // offers the header extensions that a viewer may get, and TWCC feedback
}

var vp8 = webrtc.RTPCodecParameters{PayloadType: 96, RTPCodecCapability: webrtc.RTPCodecCapability{
	MimeType: webrtc.MimeTypeVP8, ClockRate: 90000, RTCPFeedback: []webrtc.RTCPFeedback{{Type: "nack"}, {Type: "nack", Parameter: "pli"}},
}}

var opus = webrtc.RTPCodecParameters{PayloadType: 111, RTPCodecCapability: webrtc.RTPCodecCapability{
	MimeType: webrtc.MimeTypeOpus, ClockRate: 48000, Channels: 2, SDPFmtpLine: "minptime=10;useinbandfec=1",
}}

func rtxOf(c webrtc.RTPCodecParameters) webrtc.RTPCodecParameters {
	return webrtc.RTPCodecParameters{PayloadType: c.PayloadType + 1, RTPCodecCapability: webrtc.RTPCodecCapability{
		MimeType: webrtc.MimeTypeRTX, ClockRate: 90000, SDPFmtpLine: fmt.Sprintf("apt=%d", c.PayloadType),
	}}
}

func newClient(t testing.TB, cfg clientConfig) *client {
	t.Helper()
	if cfg.video == nil {
		cfg.video = []webrtc.RTPCodecParameters{vp8}
	}
	s := webrtc.SettingEngine{LoggerFactory: noLog{}}
	s.SetIncludeLoopbackCandidate(true)
	s.SetSRTPReplayProtectionWindow(1024) // retransmissions come late
	s.SetInterfaceFilter(func(name string) bool { return name == "lo" })
	s.SetICEMulticastDNSMode(ice.MulticastDNSModeDisabled)
	s.SetNetworkTypes([]webrtc.NetworkType{webrtc.NetworkTypeUDP4, webrtc.NetworkTypeUDP6})
	if cfg.ipv6 { // pion gathers no ::1
		conn, err := net.ListenUDP("udp6", &net.UDPAddr{IP: net.IPv6loopback})
		must(t, err)
		mux := ice.NewUDPMuxDefault(ice.UDPMuxParams{UDPConn: conn, Logger: noLog{}.NewLogger("")})
		t.Cleanup(func() { _ = mux.Close() })
		s.SetICEUDPMux(mux)
	}
	engine, registry := &webrtc.MediaEngine{}, &interceptor.Registry{}
	for _, c := range cfg.video {
		must(t, engine.RegisterCodec(c, webrtc.RTPCodecTypeVideo))
	}
	must(t, engine.RegisterCodec(opus, webrtc.RTPCodecTypeAudio))
	if cfg.exts {
		offerExtensions(t, engine, registry)
	}
	sender, _ := report.NewSenderInterceptor(report.SenderInterval(50 * time.Millisecond))
	again, _ := nack.NewResponderInterceptor()
	registry.Add(sender)
	registry.Add(again)
	if cfg.nack {
		ask, _ := nack.NewGeneratorInterceptor(nack.GeneratorInterval(10*time.Millisecond), nack.GeneratorMaxNacksPerPacket(20))
		registry.Add(ask)
	}
	api := webrtc.NewAPI(webrtc.WithSettingEngine(s), webrtc.WithMediaEngine(engine), webrtc.WithInterceptorRegistry(registry))
	pc, err := api.NewPeerConnection(webrtc.Configuration{BundlePolicy: webrtc.BundlePolicyMaxBundle})
	must(t, err)
	c := &client{t: t, pc: pc, reports: map[uint32]*rtcp.SenderReport{}}
	t.Cleanup(c.close)
	if cfg.role == Publisher {
		c.audio = c.send(webrtc.MimeTypeOpus)
		c.video = c.send(cmp.Or(cfg.sends, cfg.video[0].MimeType))
		return c
	}
	pc.OnTrack(func(remote *webrtc.TrackRemote, receiver *webrtc.RTPReceiver) {
		go c.readRTCP(receiver)
		c.read(remote)
	})
	for _, kind := range []webrtc.RTPCodecType{webrtc.RTPCodecTypeAudio, webrtc.RTPCodecTypeVideo} {
		_, err := pc.AddTransceiverFromKind(kind, webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionRecvonly})
		must(t, err)
	}
	return c
}

// offerExtensions has a client offer what browsers do, and send TWCC feedback.
func offerExtensions(t testing.TB, engine *webrtc.MediaEngine, registry *interceptor.Registry) {
	t.Helper()
	for _, kind := range []webrtc.RTPCodecType{webrtc.RTPCodecTypeAudio, webrtc.RTPCodecTypeVideo} {
		for _, uri := range extensionURIs[Viewer] {
			must(t, engine.RegisterHeaderExtension(webrtc.RTPHeaderExtensionCapability{URI: uri}, kind))
		}
		engine.RegisterFeedback(webrtc.RTCPFeedback{Type: webrtc.TypeRTCPFBTransportCC}, kind)
	}
	feedback, err := twcc.NewSenderInterceptor(twcc.SendInterval(50 * time.Millisecond))
	must(t, err)
	registry.Add(feedback)
}

func (c *client) send(mime string) *webrtc.TrackLocalStaticRTP {
	track, err := webrtc.NewTrackLocalStaticRTP(webrtc.RTPCodecCapability{MimeType: mime}, mime[:5], "test")
	must(c.t, err)
	tr, err := c.pc.AddTransceiverFromTrack(track, webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionSendonly})
	must(c.t, err)
	go func() {
		for {
			packets, _, err := tr.Sender().ReadRTCP()
			if err != nil {
				return
			}
			for _, p := range packets {
				if _, ok := p.(*rtcp.PictureLossIndication); ok {
					c.plis.Add(1)
				}
			}
		}
	}()
	return track
}

func (c *client) read(remote *webrtc.TrackRemote) {
	for {
		p, _, err := remote.ReadRTP()
		if err != nil {
			return
		}
		c.mu.Lock()
		if remote.Kind() == webrtc.RTPCodecTypeVideo {
			c.packets = append(c.packets, *p)
		} else {
			c.sounds = append(c.sounds, *p)
		}
		c.mu.Unlock()
	}
}

func (c *client) readRTCP(receiver *webrtc.RTPReceiver) {
	for {
		packets, _, err := receiver.ReadRTCP()
		if err != nil {
			return
		}
		c.mu.Lock()
		for _, p := range packets {
			if sr, ok := p.(*rtcp.SenderReport); ok {
				c.reports[sr.SSRC] = sr
			}
		}
		c.mu.Unlock()
	}
}

// received returns a copy of the video packets so far.
func (c *client) received() []rtp.Packet {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]rtp.Packet(nil), c.packets...)
}

func (c *client) offer() string {
	offer, err := c.pc.CreateOffer(nil)
	must(c.t, err)
	gathered := webrtc.GatheringCompletePromise(c.pc)
	must(c.t, c.pc.SetLocalDescription(offer))
	<-gathered
	return c.pc.LocalDescription().SDP
}

// join publishes to or watches the room.
func (c *client) join(s *Server, room string) error {
	join := s.Subscribe
	if c.video != nil {
		join = s.Publish
	}
	session, answer, err := join(c.t.Context(), room, c.offer())
	if err != nil {
		return err
	}
	c.session, c.answer = session, answer
	return c.pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: answer})
}

func (c *client) close() { _ = c.pc.GracefulClose() }

// publish returns a publisher of the room that is connected.
func publish(t testing.TB, s *Server, room string, cfg clientConfig) *client {
	t.Helper()
	cfg.role = Publisher
	c := newClient(t, cfg)
	must(t, c.join(s, room))
	waitConnected(t, c)
	return c
}

// view returns a viewer of the room that is connected.
func view(t testing.TB, s *Server, room string, cfg clientConfig) *client {
	t.Helper()
	cfg.role = Viewer
	c := newClient(t, cfg)
	must(t, c.join(s, room))
	waitConnected(t, c)
	return c
}

func waitConnected(t testing.TB, c *client) {
	t.Helper()
	select {
	case <-c.session.connected:
	case <-time.After(timeout):
		t.Fatalf("%s did not connect", c.session.role)
	}
	waitFor(t, "the client to be connected", func() bool { return c.pc.ConnectionState() == webrtc.PeerConnectionStateConnected })
	if c.session.role == Viewer {
		waitFor(t, "the viewer to be attached", func() bool {
			for _, d := range c.session.downs {
				for _, attached := range *d.slot.down.Load() {
					if attached == d {
						return true
					}
				}
			}
			return false
		})
	}
}

// waitFor polls a condition until it holds.
func waitFor(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(timeout); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

type noLog struct{}

func (noLog) NewLogger(string) logging.LeveledLogger { return &logging.DefaultLeveledLogger{} }

// film sends VP8 frames of two packets each.
type film struct {
	seq   uint16
	ts    uint32
	track *webrtc.TrackLocalStaticRTP
}

// frame sends one frame; its number stands in the last byte of its packets.
func (f *film) frame(t testing.TB, key bool, number byte) {
	t.Helper()
	first := []byte{0x10, 0x01, 0, 0, 0x9d, 0x01, 0x2a, 0, 0, 0, 0, number}
	if key {
		first[1] = 0x00
	}
	f.packet(t, false, first)
	f.packet(t, true, []byte{0x00, 1, 2, 3, number})
	f.ts += 3000
}

func (f *film) packet(t testing.TB, marker bool, payload []byte) {
	t.Helper()
	h := rtp.Header{Version: 2, Marker: marker, SequenceNumber: f.seq, Timestamp: f.ts}
	must(t, f.track.WriteRTP(&rtp.Packet{Header: h, Payload: payload}))
	f.seq++
}
