package main

import (
	"context"
	"fmt"
	"net/http/httptest"
	"net/netip"
	"testing"
	"time"

	"github.com/sfu-agent/sfu-agent/sfu"
	"github.com/sfu-agent/sfu-agent/sfu/udpio"
	"github.com/sfu-agent/sfu-agent/sfu/whip"
	"github.com/sfu-agent/sfu-agent/stress/rtcclient"
)

// Frames of eight packets reach each viewer as trains of about eight, evenly
// paced packets one by one.
func TestFramesLeaveAsTrains(t *testing.T) {
	conn, err := udpio.Listen(t.Context(), udpio.Config{Addr: netip.MustParseAddrPort("127.0.0.1:0")})
	if err != nil {
		t.Fatal(err)
	}
	server, err := sfu.New(sfu.Config{Conn: conn})
	if err != nil {
		t.Fatal(err)
	}
	face := httptest.NewServer(whip.New(server))
	t.Cleanup(func() {
		face.Close()
		if err := server.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	if conn.Stats().Rung != udpio.Rungs()[0] {
		t.Skipf("no trains here: %s", conn.Stats().Why)
	}
	source := rtcclient.Source{Rate: 2_000_000, Frame: 8, NoAudio: true}
	p, err := rtcclient.Publish(t.Context(), rtcclient.Config{URL: face.URL + "/whip/room", Source: source})
	if err != nil {
		t.Fatal(err)
	}
	const viewers = 20
	for i := range viewers {
		v, err := rtcclient.View(t.Context(), rtcclient.Config{URL: face.URL + "/whep/room", Source: source})
		if err != nil {
			t.Fatalf("viewer %d: %v", i, err)
		}
		defer v.Close(t.Context())
	}
	defer p.Close(t.Context())
	before, out := conn.Stats(), server.Stats().Counters.PacketsOut
	for end := time.Now().Add(20 * time.Second); server.Stats().Counters.PacketsOut-out < viewers*8*100; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("waited in vain for 100 frames for each viewer")
		}
	}
	after := conn.Stats()
	packets := after.PacketsOut - before.PacketsOut
	trains, inTrains := after.Trains-before.Trains, after.TrainPackets-before.TrainPackets
	mean := float64(inTrains) / float64(trains)
	report := fmt.Sprintf("%d datagrams, %d of them in %d trains of %.2f; %.1f datagrams a system call; %d holds", packets, inTrains, trains, mean, float64(packets)/float64(after.BatchesOut-before.BatchesOut), after.Holds-before.Holds)
	t.Log(report)
	if mean < 6 || inTrains < packets*8/10 {
		t.Error(report)
	}
}
