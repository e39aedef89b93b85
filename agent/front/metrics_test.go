package front_test

import (
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/sfu-agent/sfu-agent/agent"
	"github.com/sfu-agent/sfu-agent/agent/control"
	"github.com/sfu-agent/sfu-agent/agent/front"
)

const wantMetrics = `
# HELP sfu_bytes_in_total RTP bytes from publishers.
# TYPE sfu_bytes_in_total counter
sfu_bytes_in_total{worker="0"} 2
# HELP sfu_bytes_out_total RTP bytes to viewers, retransmissions included.
# TYPE sfu_bytes_out_total counter
sfu_bytes_out_total{worker="0"} 4
# HELP sfu_drops_total RTP packets not forwarded, by reason.
# TYPE sfu_drops_total counter
sfu_drops_total{reason="full",worker="0"} 8
sfu_drops_total{reason="late",worker="0"} 9
# HELP sfu_first_frame_seconds From a viewer's request to its first complete key frame on the socket.
# TYPE sfu_first_frame_seconds histogram
sfu_first_frame_seconds_bucket{worker="0",le="0.1"} 1
sfu_first_frame_seconds_bucket{worker="0",le="1"} 3
sfu_first_frame_seconds_bucket{worker="0",le="+Inf"} 4
sfu_first_frame_seconds_sum{worker="0"} 5.5
sfu_first_frame_seconds_count{worker="0"} 4
# HELP sfu_joins_total Requests to publish or watch, by result.
# TYPE sfu_joins_total counter
sfu_joins_total{result="ok",worker="0"} 10
# HELP sfu_nacks_total RTP packets that viewers asked for again.
# TYPE sfu_nacks_total counter
sfu_nacks_total{worker="0"} 5
# HELP sfu_packets_in_total RTP packets from publishers.
# TYPE sfu_packets_in_total counter
sfu_packets_in_total{worker="0"} 1
# HELP sfu_packets_out_total RTP packets to viewers, retransmissions included.
# TYPE sfu_packets_out_total counter
sfu_packets_out_total{worker="0"} 3
# HELP sfu_plis_total Key-frame requests sent to publishers.
# TYPE sfu_plis_total counter
sfu_plis_total{worker="0"} 7
# HELP sfu_retransmits_total RTP packets sent again from the cache.
# TYPE sfu_retransmits_total counter
sfu_retransmits_total{worker="0"} 6
# HELP sfu_rooms Rooms of the worker.
# TYPE sfu_rooms gauge
sfu_rooms{worker="0"} 2
# HELP sfu_udp_batches_total System calls that sent datagrams.
# TYPE sfu_udp_batches_total counter
sfu_udp_batches_total{worker="0"} 13
# HELP sfu_udp_delays_total Batches left to grow because the sender was busy.
# TYPE sfu_udp_delays_total counter
sfu_udp_delays_total{worker="0"} 17
# HELP sfu_udp_held_seconds_total How long batches were left to grow.
# TYPE sfu_udp_held_seconds_total counter
sfu_udp_held_seconds_total{worker="0"} 1.8
# HELP sfu_udp_holds_total Batches left to grow because more was to come at once.
# TYPE sfu_udp_holds_total counter
sfu_udp_holds_total{worker="0"} 16
# HELP sfu_udp_packets_in_total Datagrams received.
# TYPE sfu_udp_packets_in_total counter
sfu_udp_packets_in_total{worker="0"} 11
# HELP sfu_udp_packets_out_total Datagrams sent.
# TYPE sfu_udp_packets_out_total counter
sfu_udp_packets_out_total{worker="0"} 12
# HELP sfu_udp_paced_packets_total Datagrams of bursts that left later.
# TYPE sfu_udp_paced_packets_total counter
sfu_udp_paced_packets_total{worker="0"} 19
# HELP sfu_udp_train_packets_total Datagrams of these.
# TYPE sfu_udp_train_packets_total counter
sfu_udp_train_packets_total{worker="0"} 15
# HELP sfu_udp_trains_total Sends of several datagrams as one.
# TYPE sfu_udp_trains_total counter
sfu_udp_trains_total{worker="0"} 14
# HELP sfu_viewers Viewers in the worker's rooms.
# TYPE sfu_viewers gauge
sfu_viewers{worker="0"} 7
# HELP sfu_worker_restarts_total Replacements of the worker since the agent started.
# TYPE sfu_worker_restarts_total counter
sfu_worker_restarts_total{worker="0"} 3
sfu_worker_restarts_total{worker="1"} 0
# HELP sfu_worker_udp_info 1, with the send path in use and why not the better one as labels.
# TYPE sfu_worker_udp_info gauge
sfu_worker_udp_info{rung="gso",why="uring: no",worker="0"} 1
# HELP sfu_workers Workers by state.
# TYPE sfu_workers gauge
sfu_workers{state="backoff"} 1
sfu_workers{state="draining"} 0
sfu_workers{state="failed"} 0
sfu_workers{state="placing"} 0
sfu_workers{state="ready"} 1
sfu_workers{state="starting"} 0
sfu_workers{state="stopping"} 0
`

func measuredHost() *host {
	return &host{workers: []agent.Worker{
		{ID: "0", State: agent.StateReady, Restarts: 3, Status: &control.Status{
			UDP:   control.UDP{Rung: "gso", Why: "uring: no"},
			Rooms: []control.Room{{Name: "a", Viewers: 3}, {Name: "b", Viewers: 4}},
			Counters: control.Counters{PacketsIn: 1, BytesIn: 2, PacketsOut: 3, BytesOut: 4, NACKs: 5, Retransmits: 6, PLIs: 7,
				Drops: map[string]uint64{"full": 8, "late": 9}, Joins: map[string]uint64{"ok": 10},
				UDPPacketsIn: 11, UDPPacketsOut: 12, UDPBatches: 13,
				UDPTrains: 14, UDPInTrains: 15, UDPHolds: 16, UDPDelays: 17, UDPHeldSeconds: 1.8, UDPPaced: 19},
			FirstFrame: control.Histogram{Bounds: []float64{.1, 1}, Counts: []uint64{1, 3}, Count: 4, Sum: 5.5}}},
		{ID: "1", State: agent.StateBackoff},
	}}
}

func TestMetrics(t *testing.T) {
	more := prometheus.NewGauge(prometheus.GaugeOpts{Name: "dbus_calls", Help: "Of the caller."})
	s := open(t, front.Config{Host: measuredHost(), Version: "v9", Collectors: []prometheus.Collector{more}})
	s.ask("GET", "/api/v1/rooms/none", "")
	s.ask("GET", "/api/v1/rooms/no-such", "")
	s.ask("BREW", "/nowhere", "")
	r := s.ask("GET", "/metrics", "")

	var names []string
	for line := range strings.Lines(wantMetrics) {
		if name, ok := strings.CutPrefix(line, "# HELP "); ok {
			names = append(names, strings.Fields(name)[0])
		}
	}
	if err := testutil.ScrapeAndCompare(s.url+"/metrics", strings.NewReader(wantMetrics), names...); err != nil {
		t.Error(err)
	}
	for _, want := range []string{
		`sfu_http_requests_total{method="GET",route="/api/v1/rooms/{room}",status="404"} 2`,
		`sfu_http_requests_total{method="other",route="other",status="404"} 1`,
		`sfu_http_request_seconds_count{route="/api/v1/rooms/{room}"} 2`,
		`version="v9"`, "sfu_build_info{", "dbus_calls 0", "go_goroutines ", "process_resident_memory_bytes ",
	} {
		if !strings.Contains(r.body, want) {
			t.Errorf("no %s", want)
		}
	}
	problems, err := promlint.New(strings.NewReader(r.body)).Lint()
	if err != nil || len(problems) > 0 {
		t.Errorf("lint: %v %v", problems, err)
	}
}

// What a worker says about itself cannot spoil the metrics of the others.
func TestMetricsOfALyingWorker(t *testing.T) {
	many := make(map[string]uint64)
	for c := range 1000 {
		many[strings.Repeat("x", c)] = 1
	}
	h := measuredHost()
	h.workers = append(h.workers,
		agent.Worker{ID: "2", State: "odd", Status: &control.Status{Counters: control.Counters{Drops: many},
			FirstFrame: control.Histogram{Bounds: []float64{1, 2, 3}, Counts: []uint64{1}}}},
		agent.Worker{ID: "3", Status: &control.Status{UDP: control.UDP{Why: strings.Repeat("é", 1e5)}, FirstFrame: control.Histogram{Bounds: []float64{2, 1}, Counts: []uint64{1, 1}}}},
		agent.Worker{ID: "4", Status: &control.Status{FirstFrame: control.Histogram{Bounds: make([]float64, 1e5), Counts: make([]uint64, 1e5)}}})
	r := open(t, front.Config{Host: h}).ask("GET", "/metrics", "")
	if r.StatusCode != 200 || !strings.Contains(r.body, `sfu_drops_total{reason="late",worker="0"} 9`) {
		t.Errorf("%d %s", r.StatusCode, r.body)
	}
	if n := strings.Count(r.body, "sfu_drops_total{"); n != 2+32 {
		t.Errorf("%d drop reasons, want at most 32 of one worker", n)
	}
	if n := strings.Count(r.body, "é"); n != 128 {
		t.Errorf("a label with %d letters of 2 bytes, want 256 bytes", n)
	}
	if n := strings.Count(r.body, "sfu_first_frame_seconds_count"); n != 1 {
		t.Errorf("%d first-frame histograms, want the one that is", n)
	}
}

func TestCollectorsThatCollideAreAnError(t *testing.T) {
	same := prometheus.NewGauge(prometheus.GaugeOpts{Name: "sfu_rooms", Help: "Of the caller."})
	if _, err := front.New(front.Config{Host: &host{}, Collectors: []prometheus.Collector{same}}); err == nil {
		t.Error("no error")
	}
}
