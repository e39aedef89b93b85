package sfu

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"strings"
	"time"

	"github.com/pion/dtls/v3"
	"github.com/pion/ice/v4"
	"github.com/pion/interceptor"
	"github.com/pion/interceptor/pkg/report"
	"github.com/pion/interceptor/pkg/twcc"
	"github.com/pion/sdp/v3"
	"github.com/pion/webrtc/v4"
)

// ICE timers of a session. A lite agent learns that its client is gone only
// from the silence: clients send consent checks (RFC 7675) every 4 to 6 s.
const (
	iceDisconnected = 7 * time.Second // silence after which a publisher may be replaced
	iceFailed       = 8 * time.Second // further silence after which the session ends
)

// maxPacket is the longest RTP or RTCP packet the SFU takes, in bytes.
const maxPacket = 1500

// newCertificate makes the process's DTLS certificate. Clients know it by its
// fingerprint alone; it is only not to expire while the process lives.
func newCertificate(now time.Time) (webrtc.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return webrtc.Certificate{}, fmt.Errorf("make DTLS key: %w", err)
	}
	cert, err := webrtc.NewCertificate(key, x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()),
		Subject:      pkix.Name{CommonName: "WebRTC"},
		NotBefore:    now.AddDate(0, 0, -1), // clients' clocks differ
		NotAfter:     now.AddDate(10, 0, 0),
	})
	if err != nil {
		return webrtc.Certificate{}, fmt.Errorf("make DTLS certificate: %w", err)
	}
	return *cert, nil
}

// newSettings are what all sessions have in common.
func newSettings(mux *udpMux, handshake time.Duration, log pionLog) webrtc.SettingEngine {
	s := webrtc.SettingEngine{LoggerFactory: log}
	s.SetLite(true)
	s.DisableMediaEngineCopy(true) // each session has its own
	s.SetICEUDPMux(mux)
	s.SetNet(mux.network) // or each session lists the interfaces again, and keeps the list
	s.SetNetworkTypes([]webrtc.NetworkType{webrtc.NetworkTypeUDP4, webrtc.NetworkTypeUDP6})
	s.SetICEMulticastDNSMode(ice.MulticastDNSModeDisabled)
	s.SetICETimeouts(iceDisconnected, iceFailed, 2*time.Second)
	s.SetReceiveMTU(maxPacket)
	s.SetSRTPProtectionProfiles(dtls.SRTP_AEAD_AES_128_GCM, dtls.SRTP_AEAD_AES_256_GCM, dtls.SRTP_AES128_CM_HMAC_SHA1_80)
	s.SetSRTPReplayProtectionWindow(nackWindow) // or late retransmissions are taken for replays
	// RFC 9725, section 4.4.4: the client may be a DTLS client only. ICE has
	// verified its address, so there is no need of a cookie.
	_ = s.SetAnsweringDTLSRole(webrtc.DTLSRoleServer)
	s.SetDTLSInsecureSkipHelloVerify(true)
	s.SetDTLSConnectContextMaker(func() (context.Context, func()) {
		return context.WithTimeout(context.Background(), handshake)
	})
	return s
}

// newPeerConnection makes a PeerConnection that knows the chosen formats and
// nothing else, so that the answer can hold nothing else.
func newPeerConnection(role Role, chosen []format, settings webrtc.SettingEngine, cert webrtc.Certificate) (*webrtc.PeerConnection, error) {
	engine, registry := &webrtc.MediaEngine{}, &interceptor.Registry{}
	for _, f := range chosen {
		for _, c := range f.codecs() {
			if err := engine.RegisterCodec(c, f.kind()); err != nil {
				return nil, fmt.Errorf("register %s: %w", c.MimeType, err)
			}
		}
		for _, uri := range extensionURIs[role] {
			if err := engine.RegisterHeaderExtension(webrtc.RTPHeaderExtensionCapability{URI: uri}, f.kind()); err != nil {
				return nil, fmt.Errorf("register %s: %w", uri, err)
			}
		}
	}
	if role == Publisher {
		if err := addFeedback(registry, settings); err != nil {
			return nil, err
		}
	}
	api := webrtc.NewAPI(webrtc.WithMediaEngine(engine), webrtc.WithInterceptorRegistry(registry), webrtc.WithSettingEngine(settings))
	return api.NewPeerConnection(webrtc.Configuration{
		Certificates: []webrtc.Certificate{cert},
		BundlePolicy: webrtc.BundlePolicyMaxBundle,
	})
}

// addFeedback has receiver reports and TWCC feedback sent to a publisher.
// Viewers get no interceptor: these cost allocations for every packet.
func addFeedback(registry *interceptor.Registry, settings webrtc.SettingEngine) error {
	reports, err := report.NewReceiverInterceptor(report.WithReceiverLoggerFactory(settings.LoggerFactory))
	if err != nil {
		return fmt.Errorf("make receiver reports: %w", err)
	}
	feedback, err := twcc.NewSenderInterceptor(twcc.WithLoggerFactory(settings.LoggerFactory))
	if err != nil {
		return fmt.Errorf("make TWCC feedback: %w", err)
	}
	registry.Add(reports)
	registry.Add(feedback)
	return nil
}

// answer has pc answer the offer, with all its candidates.
func answer(ctx context.Context, pc *webrtc.PeerConnection, offer webrtc.SessionDescription) (*sdp.SessionDescription, error) {
	if err := pc.SetRemoteDescription(offer); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnusable, err)
	}
	local, err := pc.CreateAnswer(&webrtc.AnswerOptions{OfferAnswerOptions: webrtc.OfferAnswerOptions{ICETricklingSupported: true}})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnusable, err)
	}
	gathered := webrtc.GatheringCompletePromise(pc)
	if err := pc.SetLocalDescription(local); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnusable, err)
	}
	select {
	case <-gathered:
	case <-ctx.Done():
		return nil, fmt.Errorf("gather candidates: %w", ctx.Err())
	}
	return finish(pc.LocalDescription().SDP)
}

// finish adds to pion's answer what RFC 9725, section 4.4.1 wants, and takes
// away the candidates of the RTCP component that rtcp-mux has no use for.
func finish(text string) (*sdp.SessionDescription, error) {
	d := &sdp.SessionDescription{}
	if err := d.UnmarshalString(text); err != nil {
		return nil, fmt.Errorf("read own answer: %w", err)
	}
	for _, m := range d.MediaDescriptions {
		var out []sdp.Attribute
		for _, a := range m.Attributes {
			if a.Key == sdp.AttrKeyCandidate && strings.Fields(a.Value)[1] == "2" {
				continue
			}
			out = append(out, a)
			if a.Key == sdp.AttrKeyRTCPMux {
				out = append(out, sdp.Attribute{Key: "rtcp-mux-only"}) // RFC 8858
			}
		}
		m.Attributes = out
	}
	return d, nil
}

// iceOf reads the server's side of the ICE session from its answer.
func iceOf(d *sdp.SessionDescription) ICE {
	var i ICE
	for _, a := range d.MediaDescriptions[0].Attributes {
		switch a.Key {
		case "ice-ufrag":
			i.Ufrag = a.Value
		case "ice-pwd":
			i.Pwd = a.Value
		case sdp.AttrKeyMID:
			i.Mid = a.Value
		case sdp.AttrKeyCandidate:
			i.Candidates = append(i.Candidates, a.Value)
		}
	}
	return i
}
