package front

import (
	"maps"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sfu-agent/sfu-agent/agent"
	"github.com/sfu-agent/sfu-agent/agent/control"
)

// labelLimit is how many values of a label, or buckets, one worker may report.
const labelLimit = 32

// workerCollector turns the workers' last accounts into metrics. A replaced
// worker's counters start at 0 again under the same label.
type workerCollector struct {
	host Host

	workers, restarts         *prometheus.Desc
	rooms, viewers            *prometheus.Desc
	drops, joins, firstFrames *prometheus.Desc
	udp                       *prometheus.Desc
	counters                  []counter
}

// counter is one number of control.Counters.
type counter struct {
	desc  *prometheus.Desc
	value func(control.Counters) float64
}

var states = []agent.State{
	agent.StatePlacing, agent.StateStarting, agent.StateReady, agent.StateDraining,
	agent.StateStopping, agent.StateBackoff, agent.StateFailed,
}

func newWorkerCollector(host Host) *workerCollector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, labels, nil)
	}
	plain := func(name, help string, value func(control.Counters) uint64) counter {
		return counter{desc(name, help, "worker"), func(c control.Counters) float64 { return float64(value(c)) }}
	}
	return &workerCollector{
		host:        host,
		workers:     desc("sfu_workers", "Workers by state.", "state"),
		restarts:    desc("sfu_worker_restarts_total", "Replacements of the worker since the agent started.", "worker"),
		rooms:       desc("sfu_rooms", "Rooms of the worker.", "worker"),
		viewers:     desc("sfu_viewers", "Viewers in the worker's rooms.", "worker"),
		drops:       desc("sfu_drops_total", "RTP packets not forwarded, by reason.", "worker", "reason"),
		joins:       desc("sfu_joins_total", "Requests to publish or watch, by result.", "worker", "result"),
		firstFrames: desc("sfu_first_frame_seconds", "From a viewer's request to its first complete key frame on the socket.", "worker"),
		udp:         desc("sfu_worker_udp_info", "1, with the send path in use and why not the better one as labels.", "worker", "rung", "why"),
		counters: []counter{
			plain("sfu_packets_in_total", "RTP packets from publishers.", func(c control.Counters) uint64 { return c.PacketsIn }),
			plain("sfu_bytes_in_total", "RTP bytes from publishers.", func(c control.Counters) uint64 { return c.BytesIn }),
			plain("sfu_packets_out_total", "RTP packets to viewers, retransmissions included.", func(c control.Counters) uint64 { return c.PacketsOut }),
			plain("sfu_bytes_out_total", "RTP bytes to viewers, retransmissions included.", func(c control.Counters) uint64 { return c.BytesOut }),
			plain("sfu_nacks_total", "RTP packets that viewers asked for again.", func(c control.Counters) uint64 { return c.NACKs }),
			plain("sfu_retransmits_total", "RTP packets sent again from the cache.", func(c control.Counters) uint64 { return c.Retransmits }),
			plain("sfu_plis_total", "Key-frame requests sent to publishers.", func(c control.Counters) uint64 { return c.PLIs }),
			plain("sfu_udp_packets_in_total", "Datagrams received.", func(c control.Counters) uint64 { return c.UDPPacketsIn }),
			plain("sfu_udp_packets_out_total", "Datagrams sent.", func(c control.Counters) uint64 { return c.UDPPacketsOut }),
			plain("sfu_udp_batches_total", "System calls that sent datagrams.", func(c control.Counters) uint64 { return c.UDPBatches }),
			plain("sfu_udp_trains_total", "Sends of several datagrams as one.", func(c control.Counters) uint64 { return c.UDPTrains }),
			plain("sfu_udp_train_packets_total", "Datagrams of these.", func(c control.Counters) uint64 { return c.UDPInTrains }),
			plain("sfu_udp_holds_total", "Batches left to grow because more was to come at once.", func(c control.Counters) uint64 { return c.UDPHolds }),
			plain("sfu_udp_delays_total", "Batches left to grow because the sender was busy.", func(c control.Counters) uint64 { return c.UDPDelays }),
			{desc("sfu_udp_held_seconds_total", "How long batches were left to grow.", "worker"), func(c control.Counters) float64 { return c.UDPHeldSeconds }},
			plain("sfu_udp_paced_packets_total", "Datagrams of bursts that left later.", func(c control.Counters) uint64 { return c.UDPPaced }),
		},
	}
}

// Describe implements prometheus.Collector.
func (c *workerCollector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.workers, c.restarts, c.rooms, c.viewers, c.drops, c.joins, c.firstFrames, c.udp} {
		out <- d
	}
	for _, k := range c.counters {
		out <- k.desc
	}
}

// Collect implements prometheus.Collector.
func (c *workerCollector) Collect(out chan<- prometheus.Metric) {
	byState := make(map[agent.State]int)
	for _, w := range c.host.Workers() {
		byState[w.State]++
		out <- count(c.restarts, uint64(w.Restarts), w.ID)
		if w.Status != nil {
			c.collect(out, w.ID, w.Status)
		}
	}
	for _, s := range states {
		out <- gauge(c.workers, byState[s], string(s))
	}
}

func (c *workerCollector) collect(out chan<- prometheus.Metric, id string, s *control.Status) {
	viewers := 0
	for _, r := range s.Rooms {
		viewers += r.Viewers
	}
	out <- gauge(c.rooms, len(s.Rooms), id)
	out <- gauge(c.viewers, viewers, id)
	out <- gauge(c.udp, 1, id, label(s.UDP.Rung), label(s.UDP.Why))
	for _, k := range c.counters {
		out <- prometheus.MustNewConstMetric(k.desc, prometheus.CounterValue, k.value(s.Counters), id)
	}
	labelled(out, c.drops, id, s.Counters.Drops)
	labelled(out, c.joins, id, s.Counters.Joins)
	if buckets, ok := buckets(s.FirstFrame); ok {
		out <- prometheus.MustNewConstHistogram(c.firstFrames, s.FirstFrame.Count, s.FirstFrame.Sum, buckets, id)
	}
}

func labelled(out chan<- prometheus.Metric, d *prometheus.Desc, id string, values map[string]uint64) {
	for i, label := range slices.Sorted(maps.Keys(values)) {
		if i == labelLimit {
			return
		}
		out <- count(d, values[label], id, label)
	}
}

// label is a worker's text, cut to what a label may have.
func label(text string) string {
	const limit = 256 // bytes
	if len(text) > limit {
		text = text[:limit]
	}
	return strings.ToValidUTF8(text, "")
}

// buckets is false for a histogram that is none.
func buckets(h control.Histogram) (map[float64]uint64, bool) {
	if len(h.Bounds) != len(h.Counts) || len(h.Bounds) > labelLimit || !slices.IsSorted(h.Bounds) {
		return nil, false
	}
	b := make(map[float64]uint64, len(h.Bounds))
	for i, bound := range h.Bounds {
		b[bound] = h.Counts[i]
	}
	return b, true
}

func count(d *prometheus.Desc, v uint64, labels ...string) prometheus.Metric {
	return prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
}

func gauge(d *prometheus.Desc, v int, labels ...string) prometheus.Metric {
	return prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(v), labels...)
}
