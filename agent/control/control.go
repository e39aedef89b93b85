// Package control is what agent and worker say to each other over the worker's
// unix socket.
package control

import "time"

// State of a worker as it sees itself.
type State string

// The states of a worker.
const (
	StateStarting State = "starting"
	StateReady    State = "ready"
	StateDraining State = "draining"
)

// Status is a worker's account of itself: the answer to GET /status.
type Status struct {
	Name     string    `json:"name"`
	PID      int       `json:"pid"`
	Version  string    `json:"version"`
	State    State     `json:"state"`
	Started  time.Time `json:"started"`
	UDP      UDP       `json:"udp"`
	Sandbox  []string  `json:"sandbox"` // confinement steps in force, "no-new-privileges", ...
	Rooms    []Room    `json:"rooms"`
	Counters Counters  `json:"counters"`
	// Goroutines is how many there are now.
	Goroutines int `json:"goroutines"`
	// FirstFrame counts, in seconds from the arrival of a viewer's request to
	// its first complete key frame handed to the socket.
	FirstFrame Histogram `json:"first_frame"`
}

// UDP is the worker's media socket and how it sends.
type UDP struct {
	Address   string   `json:"address"`             // bound "IP:port"
	Advertise []string `json:"advertise,omitempty"` // candidate addresses, "IP:port"
	Rung      string   `json:"rung"`                // send path in use
	Why       string   `json:"why,omitempty"`       // why not the better one
}

// Room is one room of a worker.
type Room struct {
	Name      string    `json:"name"`
	Since     time.Time `json:"since"`
	Publisher bool      `json:"publisher"` // someone publishes now
	Viewers   int       `json:"viewers"`
	Tracks    []Track   `json:"tracks"`
}

// Track is one up-track of a room.
type Track struct {
	Kind    string `json:"kind"`  // "audio" or "video"
	Codec   string `json:"codec"` // MIME type, "video/VP8"
	SSRC    uint32 `json:"ssrc"`
	RID     string `json:"rid,omitempty"`
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"`
	Lost    uint64 `json:"lost"` // never received, retransmission included
}

// Counters only grow while the worker lives.
type Counters struct {
	PacketsIn     uint64            `json:"packets_in"` // RTP from publishers
	BytesIn       uint64            `json:"bytes_in"`
	PacketsOut    uint64            `json:"packets_out"` // RTP to viewers, retransmissions included
	BytesOut      uint64            `json:"bytes_out"`
	Drops         map[string]uint64 `json:"drops"`       // packets not forwarded, by reason
	NACKs         uint64            `json:"nacks"`       // packets that viewers asked again
	Retransmits   uint64            `json:"retransmits"` // of these, answered from the cache
	PLIs          uint64            `json:"plis"`        // key-frame requests sent to publishers
	Joins         map[string]uint64 `json:"joins"`       // by result: "ok", "refused", "failed"
	UDPPacketsIn  uint64            `json:"udp_packets_in"`
	UDPPacketsOut uint64            `json:"udp_packets_out"`
	UDPBatches    uint64            `json:"udp_batches"`   // send system calls
	UDPTrains     uint64            `json:"udp_trains"`    // sends of several packets as one
	UDPInTrains   uint64            `json:"udp_in_trains"` // packets of these
	// Batches that were left to grow because more was to come at once, or because
	// the sender was busy, and for how long in all.
	UDPHolds       uint64  `json:"udp_holds"`
	UDPDelays      uint64  `json:"udp_delays"`
	UDPHeldSeconds float64 `json:"udp_held_seconds"`
	// Packets that left later because they were of a burst to one destination.
	UDPPaced uint64 `json:"udp_paced"`
}

// Histogram has cumulative counts like a Prometheus histogram.
type Histogram struct {
	Bounds []float64 `json:"bounds"` // upper bounds, seconds, ascending
	Counts []uint64  `json:"counts"` // observations <= the bound of the same index
	Count  uint64    `json:"count"`
	Sum    float64   `json:"sum"` // seconds
}
