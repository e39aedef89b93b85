package rtcclient

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"
	"time"

	"github.com/sfu-agent/sfu-agent/sfu"
	"github.com/sfu-agent/sfu-agent/sfu/codec"
	"github.com/sfu-agent/sfu-agent/sfu/udpio"
	"github.com/sfu-agent/sfu-agent/sfu/whip"
)

// newSFU serves an SFU over HTTP and returns its URL.
func newSFU(t *testing.T) (url string) {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	conn, err := udpio.Listen(t.Context(), udpio.Config{Addr: netip.MustParseAddrPort("127.0.0.1:0"), Log: log})
	if err != nil {
		t.Fatal(err)
	}
	server, err := sfu.New(sfu.Config{Conn: conn, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	web := httptest.NewServer(whip.New(server))
	t.Cleanup(func() {
		web.Close()
		if err := server.Close(context.Background()); err != nil {
			t.Error(err)
		}
		http.DefaultClient.CloseIdleConnections()
	})
	return web.URL
}

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

func TestPublishAndView(t *testing.T) {
	url := newSFU(t)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	p, err := Publish(ctx, Config{URL: url + "/whip/room", RTX: true, Source: Source{Rate: 2_000_000}})
	if err != nil {
		t.Fatal(err)
	}
	var viewers []*Viewer
	for i := range 10 {
		v, err := View(ctx, Config{URL: url + "/whep/room", RTX: i%2 == 0})
		if err != nil {
			t.Fatal(err)
		}
		viewers = append(viewers, v)
	}
	for _, v := range viewers {
		waitFor(t, "200 video packets", func() bool { s := v.Stats(); return s.Video >= 200 && s.Audio >= 40 })
	}
	if err := p.Close(ctx); err != nil {
		t.Error(err)
	}
	for _, v := range viewers {
		waitFor(t, "what is under way", func() bool { return v.Stats().Missing == 0 })
		s := v.Stats()
		if s.Lost != 0 || s.Holes != 0 || s.Duplicates != 0 || s.Streams != 2 || s.KeyFrames == 0 {
			t.Errorf("stats: %+v", s)
		}
		if s.FirstPacket == 0 || s.FirstKeyFrame < s.FirstPacket || s.FirstKeyFrame > 5*time.Second {
			t.Errorf("first packet after %v, key frame after %v", s.FirstPacket, s.FirstKeyFrame)
		}
		if h := v.Latency(); uint64(h.TotalCount()) != s.Packets || h.Max() > int64(2*time.Second/time.Microsecond) {
			t.Errorf("%d delays of %d packets, the longest %d us", h.TotalCount(), s.Packets, h.Max())
		}
		if err := v.Close(ctx); err != nil {
			t.Error(err)
		}
	}
	if s := p.Stats(); s.PLIs == 0 || s.KeyFrames == 0 || s.Packets < 240 {
		t.Errorf("publisher: %+v", s)
	}
}

func TestPacedSource(t *testing.T) {
	url := newSFU(t)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	p, err := Publish(ctx, Config{URL: url + "/whip/room", Source: Source{NoAudio: true, Paced: true, KeyInterval: 10, Rate: 2_500_000}})
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	waitFor(t, "300 packets", func() bool { return p.Stats().Packets >= 300 })
	if took := time.Since(start); took < 800*time.Millisecond { // 8 packets in each of 30 frames a second
		t.Errorf("300 packets in %v", took)
	}
	if err := p.Close(ctx); err != nil {
		t.Error(err)
	}
	if s := p.Stats(); s.KeyFrames < s.Packets/80 {
		t.Errorf("%d key frames in %d packets", s.KeyFrames, s.Packets)
	}
}

func TestRefused(t *testing.T) {
	url := newSFU(t)
	_, err := View(t.Context(), Config{URL: url + "/whep/nobody"})
	var status *ErrStatus
	if !errors.As(err, &status) || status.Code != http.StatusConflict || status.RetryAfter == "" {
		t.Errorf("got %v", err)
	}
}

// The SFU has to see the key frames.
func TestVP8Headers(t *testing.T) {
	for _, test := range []struct{ first, key bool }{{true, true}, {true, false}, {false, true}, {false, false}} {
		b := make([]byte, 100)
		n := putVP8(b, 0x7fff, test.first, test.key)
		Stamp{Stream: 7, Number: 8, Sent: time.Unix(9, 10)}.put(b[n:])
		if start, known := codec.KeyFrame("video/VP8", b); start != (test.first && test.key) || !known {
			t.Errorf("first %v, key %v: start %v, known %v", test.first, test.key, start, known)
		}
		rest, key := skipVP8(b)
		s, ok := readStamp(rest)
		if key != (test.first && test.key) || !ok || s.Stream != 7 || s.Number != 8 || !s.Sent.Equal(time.Unix(9, 10)) {
			t.Errorf("first %v, key %v: read %+v, key %v", test.first, test.key, s, key)
		}
	}
}

func TestArrivals(t *testing.T) {
	var a arrivals
	at := func(ms int) time.Time { return time.Unix(1000, int64(ms)*1e6) }
	for i, step := range []struct {
		seq   uint16
		ms    int
		first bool
	}{{65534, 0, true}, {0, 1, true}, {65535, 2, true}, {65535, 3, false}, {4, 4, true}, {2, 5, true}} {
		if first := a.addSeq(step.seq, at(step.ms)); first != step.first {
			t.Errorf("step %d: first %v", i, first)
		}
	}
	if lost, missing := a.gaps(at(500)); lost != 0 || missing != 2 {
		t.Errorf("soon: %d lost, %d missing", lost, missing)
	}
	if lost, missing := a.gaps(at(1500)); lost != 2 || missing != 0 {
		t.Errorf("later: %d lost, %d missing", lost, missing)
	}
	a.add(a.next+maxMissing+10, at(1600))
	if lost, missing := a.gaps(at(1700)); lost+missing != maxMissing+12 {
		t.Errorf("a jump: %d lost, %d missing", lost, missing)
	}
}
