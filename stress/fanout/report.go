package fanout

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// Report is what came of a Run.
type Report struct {
	Date    time.Time `json:"date"`
	Machine Machine   `json:"machine"`
	Checks  []string  `json:"checks"` // what is checked, and how
	GRO     bool      `json:"gro"`    // the viewers' sockets took trains whole
	Rows    []*Row    `json:"rows"`
}

// Machine is where a Run was.
type Machine struct {
	CPU    string `json:"cpu"`
	CPUs   int    `json:"cpus"`
	Kernel string `json:"kernel"`
	Go     string `json:"go"`
}

// Spread is the median of the rounds, and the least and greatest.
type Spread struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

// Row is one rung under one load.
type Row struct {
	Name           string        `json:"name,omitempty"` // of a row that is not simply a load
	Rung           string        `json:"rung"`           // asked for
	RungInUse      string        `json:"rung_in_use"`    // at the end
	Why            string        `json:"why"`            // why not a better one
	Viewers        int           `json:"viewers"`
	Rooms          int           `json:"rooms"`
	Load           `json:"load"` // of each publisher
	MaxHoldMS      float64       `json:"max_hold_ms"` // -1: the worker's default
	Seconds        float64       `json:"seconds"`     // of each round
	Rounds         int           `json:"rounds"`
	SessionsFailed int           `json:"sessions_failed"`
	Failure        string        `json:"failure,omitempty"` // one of them

	SFUCPUSeconds    float64 `json:"sfu_cpu_seconds"` // of all rounds
	Delivered        uint64  `json:"delivered"`       // packets, in that time
	PacketsPerSecond float64 `json:"packets_per_second"`
	Lost             uint64  `json:"lost"`
	Overflowed       uint64  `json:"overflowed"` // of these, had reached a viewer's socket, which was full
	Duplicates       uint64  `json:"duplicates"`
	Reordered        uint64  `json:"reordered"`
	Checked          uint64  `json:"checked"`
	Corrupt          uint64  `json:"corrupt"`
	Unchecked        uint64  `json:"unchecked"`

	LatencyMS struct {
		P50 float64 `json:"p50"`
		P99 float64 `json:"p99"`
		Max float64 `json:"max"`
	} `json:"latency_ms"` // from the publisher's write to the viewer's read

	CPUPerPacketUS     Spread  `json:"cpu_us_per_packet"`
	CeilingUS          Spread  `json:"ceiling_us_per_packet"`
	Ratio              Spread  `json:"ratio"` // of each round
	CeilingLost        uint64  `json:"ceiling_lost"`
	RSSPerViewerKiB    float64 `json:"rss_per_viewer_kib"` // of an idle one
	PacketsPerSend     float64 `json:"packets_per_send"`   // trains count as one send
	PacketsPerCall     float64 `json:"packets_per_syscall"`
	HeldShare          float64 `json:"held_share"`              // of the time, in which packets waited to be sent with others
	HeldMeanMS         float64 `json:"held_mean_ms"`            // of a batch that waited
	SentOfAsked        float64 `json:"publisher_sent_of_asked"` // share
	CeilingSentOfAsked float64 `json:"ceiling_sent_of_asked"`   // share
	Note               string  `json:"note,omitempty"`

	variant                Variant
	cpus, ceilings, ratios []float64
	delays                 histogram
	published, atCeiling   uint64
	udp                    udpWork
	wall                   time.Duration
	ceilingWall            time.Duration
}

func newReport(cfg Config) *Report {
	return &Report{
		GRO:  cfg.GRO,
		Date: time.Now().UTC().Truncate(time.Second),
		Machine: Machine{
			CPU: cpuModel(), CPUs: runtime.NumCPU(), Kernel: firstLine("/proc/sys/kernel/osrelease"), Go: runtime.Version(),
		},
		Checks: []string{
			"every packet: counted from its RTP header at the viewer's socket; lost is what the publisher sent less what came, nothing is asked again",
			fmt.Sprintf("one packet in %d, and all up to %d packets/s: decrypted by pion, its checksum compared, its latency taken", checkShare, checkAll),
			"latency: from the publisher's write to the read of the viewer's socket, on one clock",
			"CPU: the processes' own clocks, user and system, over the time in which the packets were counted; what the kernel does for a receiver while it sends is the sender's",
		},
	}
}

func firstLine(file string) string {
	text, _ := os.ReadFile(file)
	line, _, _ := strings.Cut(string(text), "\n")
	return line
}

func cpuModel() string {
	text, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(text)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}

func (s *scene) newRow(l Load) *Row {
	return &Row{
		Rung: s.variant.Rung, Viewers: s.viewers, Rooms: s.cfg.Rooms, Load: l, MaxHoldMS: s.variant.maxHoldMS(), variant: s.variant,
		Seconds: s.cfg.Time.Seconds(), Rounds: s.cfg.Rounds, SessionsFailed: s.failed, Failure: s.failure,
		RSSPerViewerKiB: s.rssPerViewer, delays: histogram{},
	}
}

// add takes a round.
func (r *Row) add(m sample, ceiling *sample) {
	t := m.tally
	r.cpus = append(r.cpus, m.cpuPerPacket())
	r.SFUCPUSeconds += m.cpu.Seconds()
	r.Delivered += m.delivered
	r.Lost += t.Lost
	r.Overflowed += t.Overflowed
	r.Duplicates += t.Duplicates
	r.Reordered += t.Reordered
	r.Checked += t.Checked
	r.Corrupt += t.Corrupt
	r.Unchecked += t.Unchecked
	r.LatencyMS.Max = math.Max(r.LatencyMS.Max, t.MaxMS)
	for us, n := range t.DelaysUS {
		r.delays[us] += n
	}
	r.wall += m.wall
	r.published += m.published
	r.udp = r.udp.plus(m.udp, 1)
	if ceiling != nil {
		r.ceilings = append(r.ceilings, ceiling.cpuPerPacket())
		r.ratios = append(r.ratios, m.cpuPerPacket()/ceiling.cpuPerPacket())
		r.CeilingLost += ceiling.tally.Lost
		r.atCeiling += ceiling.published
		r.ceilingWall += ceiling.wall
	}
}

// conclude computes what the rounds amount to.
func (r *Row) conclude() {
	r.PacketsPerSecond = float64(r.Delivered) / r.wall.Seconds()
	r.CPUPerPacketUS, r.CeilingUS, r.Ratio = spread(r.cpus), spread(r.ceilings), spread(r.ratios)
	r.LatencyMS.P50, r.LatencyMS.P99 = r.delays.quantile(.5)/1000, r.delays.quantile(.99)/1000
	if r.udp.calls > 0 {
		r.PacketsPerSend = r.udp.packets / r.udp.sends
		r.PacketsPerCall = r.udp.packets / r.udp.calls
		r.HeldShare = r.udp.held / r.wall.Seconds()
	}
	if r.udp.batches > 0 {
		r.HeldMeanMS = 1000 * r.udp.held / r.udp.batches
	}
	asked := r.packetsPerSecond() * float64(r.Rooms)
	r.SentOfAsked = float64(r.published) / (asked * r.wall.Seconds())
	if r.ceilingWall > 0 {
		r.CeilingSentOfAsked = float64(r.atCeiling) / (asked * r.ceilingWall.Seconds())
	}
	r.Note = r.note()
}

// slow is the share of what was asked below which a sender was the bottleneck.
const slow = 0.98

func (r *Row) note() string {
	var notes []string
	if r.SentOfAsked < slow {
		notes = append(notes, fmt.Sprintf("the publishers sent only %.0f %% of what was asked", 100*r.SentOfAsked))
	}
	if r.CeilingSentOfAsked > 0 && r.CeilingSentOfAsked < slow {
		notes = append(notes, fmt.Sprintf("the ceiling sent only %.0f %% of what was asked", 100*r.CeilingSentOfAsked))
	}
	if r.Overflowed > 0 {
		notes = append(notes, fmt.Sprintf("%d of the packets lost had reached the viewers, who were too slow", r.Overflowed))
	}
	if r.CeilingLost > 0 {
		notes = append(notes, fmt.Sprintf("the ceiling lost %d packets: the viewers were too slow", r.CeilingLost))
	}
	return strings.Join(notes, "; ")
}

// spread of no values is of zeros.
func spread(values []float64) Spread {
	if len(values) == 0 {
		return Spread{}
	}
	sorted := slices.Sorted(slices.Values(values))
	middle := len(sorted) / 2
	median := sorted[middle]
	if len(sorted)%2 == 0 {
		median = (sorted[middle-1] + sorted[middle]) / 2
	}
	return Spread{median, sorted[0], sorted[len(sorted)-1]}
}

func (h histogram) quantile(q float64) float64 {
	var total, below int64
	for _, n := range h {
		total += n
	}
	for _, us := range slices.Sorted(maps.Keys(h)) {
		if below += h[us]; float64(below) >= q*float64(total) {
			return float64(us)
		}
	}
	return 0
}

// Bad says what makes the report no good; with strict also loss.
func (r *Report) Bad(strict bool) error {
	var bad []error
	for _, row := range r.Rows {
		what := fmt.Sprintf("rung %s, %d viewers, %s", row.Rung, row.Viewers, row.loadName())
		if row.SessionsFailed > 0 {
			bad = append(bad, fmt.Errorf("%s: %d sessions failed: %s", what, row.SessionsFailed, row.Failure))
		}
		if row.Delivered == 0 {
			bad = append(bad, fmt.Errorf("%s: nothing was delivered", what))
		}
		if strict && row.Lost+row.Corrupt > 0 {
			bad = append(bad, fmt.Errorf("%s: %d packets lost, %d corrupt", what, row.Lost, row.Corrupt))
		}
	}
	return errors.Join(bad...)
}

func (r *Row) loadName() string {
	name := "frames"
	if r.Paced {
		name = "paced"
	}
	return name + r.Name
}

// JSON writes the report as JSON.
func (r *Report) JSON(w io.Writer) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(r)
}

var columns = []string{
	"load", "viewers", "rung", "packets/s", "lost", "SFU us/packet", "ceiling us", "ratio",
	"p50 ms", "p99", "max", "packets/send", "packets/call", "held ms", "KiB/viewer",
}

func (r *Row) cells() []string {
	rung := r.variant.String()
	if r.RungInUse != r.Rung && r.RungInUse != "" {
		rung += " (" + r.RungInUse + ")"
	}
	f := func(format string, v float64) string { return fmt.Sprintf(format, v) }
	return []string{
		r.loadName(), fmt.Sprint(r.Viewers), rung, f("%.0f", r.PacketsPerSecond), fmt.Sprint(r.Lost),
		r.CPUPerPacketUS.String(), r.CeilingUS.String(), r.Ratio.String(),
		f("%.2f", r.LatencyMS.P50), f("%.2f", r.LatencyMS.P99), f("%.1f", r.LatencyMS.Max),
		f("%.1f", r.PacketsPerSend), f("%.1f", r.PacketsPerCall), f("%.2f", r.HeldMeanMS), f("%.0f", r.RSSPerViewerKiB),
	}
}

// String is the median and in brackets the range, or a dash where there is nothing.
func (s Spread) String() string {
	if s == (Spread{}) {
		return "-"
	}
	return fmt.Sprintf("%.2f [%.2f-%.2f]", s.Median, s.Min, s.Max)
}

// Text writes the report as a table.
func (r *Report) Text(w io.Writer) error {
	table := tabwriter.NewWriter(w, 0, 8, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, strings.Join(columns, "\t")+"\t")
	for _, row := range r.Rows {
		fmt.Fprintln(table, strings.Join(row.cells(), "\t")+"\t")
	}
	if err := table.Flush(); err != nil {
		return err
	}
	return r.remarks(w, "\n")
}

// Markdown writes the report as a table to paste.
func (r *Report) Markdown(w io.Writer) error {
	fmt.Fprintf(w, "%s; %d x %s, Linux %s, %s.\n\n", r.Date.Format(time.DateOnly), r.Machine.CPUs, r.Machine.CPU, r.Machine.Kernel, r.Machine.Go)
	fmt.Fprintf(w, "| %s |\n|%s\n", strings.Join(columns, " | "), strings.Repeat(" --- |", len(columns)))
	for _, row := range r.Rows {
		fmt.Fprintf(w, "| %s |\n", strings.Join(row.cells(), " | "))
	}
	return r.remarks(w, "\n- ")
}

// remarks are what the columns have no room for.
func (r *Report) remarks(w io.Writer, before string) error {
	for _, row := range r.Rows {
		what := fmt.Sprintf("%s, %d viewers, %s: ", row.loadName(), row.Viewers, row.Rung)
		fmt.Fprintf(w, "%s%d packets in %.3f s of CPU; %d checked, %d corrupt, %d duplicates, %d reordered", before+what,
			row.Delivered, row.SFUCPUSeconds, row.Checked, row.Corrupt, row.Duplicates, row.Reordered)
		for _, more := range []string{row.Why, row.Note, row.Failure} {
			if more != "" {
				fmt.Fprint(w, "; ", more)
			}
		}
	}
	_, err := fmt.Fprintln(w)
	return err
}
