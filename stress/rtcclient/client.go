package rtcclient

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/pion/ice/v4"
	"github.com/pion/interceptor"
	"github.com/pion/interceptor/pkg/nack"
	"github.com/pion/interceptor/pkg/report"
	"github.com/pion/logging"
	"github.com/pion/webrtc/v4"
)

// Config is what Publisher and Viewer have in common. Only URL is needed.
type Config struct {
	// URL of the WHIP or WHEP endpoint, "http://host:8080/whip/room".
	URL   string
	Token string // bearer token, if any

	// Bind is the address that media is sent from and received at; 127.0.0.1 if
	// it is not set.
	Bind netip.Addr

	// RTX has retransmissions come on a stream of their own (RFC 4588).
	RTX bool

	HTTP *http.Client // nil: http.DefaultClient

	// Conn is the socket of the session, which closes it. Its LocalAddr is a
	// *net.UDPAddr that the server reaches. nil: pion opens some on Bind.
	Conn net.PacketConn

	// Check is for a Viewer whose Conn holds back some of what it receives: it is
	// called with each of the other packets, one after the other, and nothing is
	// counted or asked again.
	Check func(Checked)

	// Source is what a Publisher sends. A Viewer looks at which media there are
	// none of.
	Source Source
}

// ErrStatus is what an endpoint refused with.
type ErrStatus struct {
	Code       int
	RetryAfter string
	Body       string
}

func (e *ErrStatus) Error() string {
	return fmt.Sprintf("endpoint answered %d %s: %.200s", e.Code, http.StatusText(e.Code), e.Body)
}

// Checked is what a packet of a Publisher says of itself, once decrypted.
type Checked struct {
	SSRC           uint32 // of the RTP header
	Seq            uint16
	Stream, Number uint32 // of the Publisher's track, and of the packet in it, from 0
	Sent           time.Time
	Intact         bool // the checksum is right
}

// client is one PeerConnection and its WHIP or WHEP session.
type client struct {
	cfg     Config
	pc      *webrtc.PeerConnection
	mux     ice.UDPMux // of cfg.Conn
	session string     // URL
	state   chan webrtc.PeerConnectionState
}

// dial makes the PeerConnection; add puts the tracks in.
func dial(ctx context.Context, cfg Config, add func(*webrtc.PeerConnection) error) (*client, error) {
	c := &client{cfg: cfg, state: make(chan webrtc.PeerConnectionState, 16)}
	var err error
	if c.pc, err = c.newPeerConnection(); err != nil {
		return nil, errors.Join(err, c.close(ctx))
	}
	c.pc.OnConnectionStateChange(func(s webrtc.PeerConnectionState) {
		select {
		case c.state <- s:
		default:
		}
	})
	if err = add(c.pc); err == nil {
		err = c.post(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, c.close(ctx))
	}
	return c, nil
}

func (c *client) newPeerConnection() (*webrtc.PeerConnection, error) {
	s := webrtc.SettingEngine{LoggerFactory: quiet{}}
	bind := c.cfg.Bind
	if !bind.IsValid() {
		bind = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	s.SetIPFilter(func(ip net.IP) bool { a, _ := netip.AddrFromSlice(ip); return a.Unmap() == bind.Unmap() })
	s.SetIncludeLoopbackCandidate(true)
	s.SetSRTPReplayProtectionWindow(1024) // retransmissions come late
	s.SetICEMulticastDNSMode(ice.MulticastDNSModeDisabled)
	s.SetNetworkTypes([]webrtc.NetworkType{webrtc.NetworkTypeUDP4, webrtc.NetworkTypeUDP6})
	if c.cfg.Conn != nil {
		c.mux = ice.NewUDPMuxDefault(ice.UDPMuxParams{UDPConn: c.cfg.Conn, Logger: quiet{}.NewLogger("")})
		s.SetICEUDPMux(c.mux)
	}
	engine, registry := &webrtc.MediaEngine{}, &interceptor.Registry{}
	if err := register(engine, c.cfg.RTX); err != nil {
		return nil, err
	}
	if c.cfg.Check == nil {
		if err := addFeedback(registry); err != nil {
			return nil, err
		}
	}
	api := webrtc.NewAPI(webrtc.WithMediaEngine(engine), webrtc.WithInterceptorRegistry(registry), webrtc.WithSettingEngine(s))
	pc, err := api.NewPeerConnection(webrtc.Configuration{BundlePolicy: webrtc.BundlePolicyMaxBundle})
	if err != nil {
		return nil, fmt.Errorf("make PeerConnection: %w", err)
	}
	return pc, nil
}

// register has VP8 and Opus, and no other codec, offered.
func register(engine *webrtc.MediaEngine, rtx bool) error {
	feedback := []webrtc.RTCPFeedback{{Type: "nack"}, {Type: "nack", Parameter: "pli"}}
	vp8 := webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeVP8, ClockRate: 90000, RTCPFeedback: feedback}
	opus := webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeOpus, ClockRate: 48000, Channels: 2, SDPFmtpLine: "minptime=10;useinbandfec=1"}
	err := errors.Join(
		engine.RegisterCodec(webrtc.RTPCodecParameters{RTPCodecCapability: vp8, PayloadType: 96}, webrtc.RTPCodecTypeVideo),
		engine.RegisterCodec(webrtc.RTPCodecParameters{RTPCodecCapability: opus, PayloadType: 111}, webrtc.RTPCodecTypeAudio),
	)
	if rtx {
		c := webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeRTX, ClockRate: 90000, SDPFmtpLine: "apt=96"}
		err = errors.Join(err, engine.RegisterCodec(webrtc.RTPCodecParameters{RTPCodecCapability: c, PayloadType: 97}, webrtc.RTPCodecTypeVideo))
	}
	return err
}

// addFeedback has a viewer ask again for lost packets, a publisher answer that,
// and both send their reports.
func addFeedback(registry *interceptor.Registry) error {
	ask, err1 := nack.NewGeneratorInterceptor(nack.GeneratorInterval(20*time.Millisecond), nack.GeneratorMaxNacksPerPacket(10))
	again, err2 := nack.NewResponderInterceptor()
	receiver, err3 := report.NewReceiverInterceptor()
	sender, err4 := report.NewSenderInterceptor()
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		return fmt.Errorf("make interceptors: %w", err)
	}
	for _, f := range []interceptor.Factory{ask, again, receiver, sender} {
		registry.Add(f)
	}
	return nil
}

// post sends the offer, complete with candidates, and takes the answer.
func (c *client) post(ctx context.Context) error {
	offer, err := c.pc.CreateOffer(nil)
	if err != nil {
		return fmt.Errorf("make offer: %w", err)
	}
	gathered := webrtc.GatheringCompletePromise(c.pc)
	if err := c.pc.SetLocalDescription(offer); err != nil {
		return fmt.Errorf("make offer: %w", err)
	}
	<-gathered
	response, err := c.request(ctx, http.MethodPost, c.cfg.URL, c.pc.LocalDescription().SDP)
	if err != nil {
		return err
	}
	if c.session, err = resolve(c.cfg.URL, response.location); err != nil {
		return err
	}
	if err := c.pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeAnswer, SDP: response.body}); err != nil {
		return fmt.Errorf("take answer: %w", err)
	}
	return nil
}

type response struct{ location, body string }

func (c *client) request(ctx context.Context, method, to, body string) (response, error) {
	req, err := http.NewRequestWithContext(ctx, method, to, strings.NewReader(body))
	if err != nil {
		return response{}, err
	}
	req.Header.Set("Content-Type", "application/sdp")
	if c.cfg.Token != "" {
		req.Header.Set("Authorization", "Bearer "+c.cfg.Token)
	}
	resp, err := cmp.Or(c.cfg.HTTP, http.DefaultClient).Do(req)
	if err != nil {
		return response{}, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return response{}, fmt.Errorf("read answer of %s: %w", to, err)
	}
	if resp.StatusCode/100 != 2 {
		return response{}, &ErrStatus{Code: resp.StatusCode, RetryAfter: resp.Header.Get("Retry-After"), Body: string(text)}
	}
	return response{location: resp.Header.Get("Location"), body: string(text)}, nil
}

func resolve(base, location string) (string, error) {
	b, err := url.Parse(base)
	if err != nil {
		return "", err
	}
	l, err := b.Parse(location)
	if err != nil {
		return "", fmt.Errorf("read Location: %w", err)
	}
	return l.String(), nil
}

// connect waits for ICE and DTLS.
func (c *client) connect(ctx context.Context) error {
	for {
		select {
		case s := <-c.state:
			switch s {
			case webrtc.PeerConnectionStateConnected:
				return nil
			case webrtc.PeerConnectionStateFailed, webrtc.PeerConnectionStateClosed:
				return fmt.Errorf("connect to %s: %s", c.cfg.URL, s)
			}
		case <-ctx.Done():
			return fmt.Errorf("connect to %s: %w", c.cfg.URL, ctx.Err())
		}
	}
}

// close leaves the session and waits for pion.
func (c *client) close(ctx context.Context) error {
	var err error
	if c.session != "" {
		_, err = c.request(ctx, http.MethodDelete, c.session, "")
		if gone := (*ErrStatus)(nil); errors.As(err, &gone) && gone.Code == http.StatusNotFound {
			err = nil
		}
	}
	if c.pc != nil {
		err = errors.Join(err, c.pc.GracefulClose())
	}
	if c.mux != nil {
		err = errors.Join(err, c.mux.Close())
	}
	return err
}

// quiet drops pion's log.
type quiet struct{}

func (quiet) NewLogger(string) logging.LeveledLogger {
	return &logging.DefaultLeveledLogger{}
}
