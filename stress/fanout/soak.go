package fanout

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"text/tabwriter"
	"time"
)

// SoakConfig is what Soak needs.
type SoakConfig struct {
	Config               // of it Part, Worker, Progress, and the first of Variants, Viewers and Loads
	For    time.Duration // how long
	Every  time.Duration // from one sample to the next, at least
}

// SoakReport is what came of a Soak.
type SoakReport struct {
	Joins   int          `json:"joins"`
	Samples []SoakSample `json:"samples"`
	Verdict string       `json:"verdict"`
}

// SoakSample is what the worker held at a quiet point: the usual number of
// viewers, and nobody coming or going.
type SoakSample struct {
	Seconds    float64 `json:"seconds"` // since the beginning
	RSS        int64   `json:"rss"`     // bytes
	FDs        int     `json:"fds"`
	Goroutines int     `json:"goroutines"`
	Delivered  uint64  `json:"delivered"`
	Lost       uint64  `json:"lost"` // of the packets sent just before
}

// Soak has viewers and publishers come and go for a long time, and looks at
// quiet points between at what the worker holds.
func Soak(ctx context.Context, cfg SoakConfig) (_ *SoakReport, err error) {
	cfg.NoCeiling = true
	s, err := cfg.open(ctx, cfg.Variants[0], cfg.Viewers[0])
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.close(context.WithoutCancel(ctx))) }()
	if s.failed > 0 {
		return nil, fmt.Errorf("%d viewers could not join: %s", s.failed, s.failure)
	}
	r := &SoakReport{}
	for began := time.Now(); time.Since(began) < cfg.For; {
		n, err := s.churn(ctx, cfg.Loads[0], cfg.Every)
		if err != nil {
			return r, err
		}
		r.Joins += n
		sample, err := s.quietPoint(ctx, cfg.Loads[0])
		if err != nil {
			return r, err
		}
		sample.Seconds = time.Since(began).Seconds()
		r.Samples = append(r.Samples, sample)
		s.cfg.progress(fmt.Sprintf("%v of %v: %d joins, %.1f MiB, %d fds, %d goroutines", time.Since(began).Round(time.Second), cfg.For,
			r.Joins, float64(sample.RSS)/(1<<20), sample.FDs, sample.Goroutines))
	}
	return r, nil
}

// churn has viewers replaced while media flows, and at the end a publisher.
func (s *scene) churn(ctx context.Context, l Load, d time.Duration) (joins int, err error) {
	if err := s.publisher.call(ctx, "load", l, nil); err != nil {
		return 0, err
	}
	for end := time.Now().Add(d); time.Now().Before(end); {
		n := 1 + rand.IntN(s.viewers)
		var j joined
		if err := s.viewer.call(ctx, "join", joinViewers{s.target, s.cfg.bind(), s.cfg.GRO, s.cfg.Rooms, n}, &j); err != nil {
			return joins, err
		}
		if j.Failed > 0 {
			return joins, fmt.Errorf("%d of %d viewers could not join: %s", j.Failed, n, j.Error)
		}
		if err := s.viewer.call(ctx, "leave", n, nil); err != nil {
			return joins, err
		}
		joins += n
	}
	return joins, s.publisher.call(ctx, "replace", rand.IntN(s.cfg.Rooms), nil)
}

// How long media is checked at a quiet point, and how long it may take until
// those who left are gone.
const (
	soakCheck = 500 * time.Millisecond
	soakQuiet = 10 * time.Second
)

func (s *scene) quietPoint(ctx context.Context, l Load) (SoakSample, error) {
	m, err := s.ours(ctx, l, soakCheck)
	if err != nil {
		return SoakSample{}, err
	}
	sample := SoakSample{Delivered: m.tally.Delivered, Lost: m.tally.Lost}
	if err := s.awaitViewers(ctx); err != nil {
		return sample, err
	}
	status, err := s.worker.control.Status(ctx)
	if err != nil {
		return sample, err
	}
	sample.Goroutines = status.Goroutines
	if sample.RSS, err = rss(s.pids); err != nil {
		return sample, err
	}
	sample.FDs, err = openFiles(s.worker.pid())
	return sample, err
}

// awaitViewers returns when the worker counts as many viewers as there are.
func (s *scene) awaitViewers(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, soakQuiet)
	defer cancel()
	for {
		status, err := s.worker.control.Status(ctx)
		if err != nil {
			return err
		}
		n := 0
		for _, room := range status.Rooms {
			n += room.Viewers
		}
		if n == s.viewers {
			return nil
		}
		if err := sleep(ctx, 20*time.Millisecond); err != nil {
			return fmt.Errorf("the worker counts %d viewers, of which %d have not left: %w", n, s.viewers, err)
		}
	}
}

// What may grow from the first to the last third of a soak, the warm-up left
// out; memory only in a long one, because a heap takes its time to settle.
const (
	soakWarmUp = 10 // one part in so many
	soakRSS    = 1.1
	soakLong   = 5 * time.Minute
)

// Bad says what makes the soak no good.
func (r *SoakReport) Bad() error {
	kept := r.Samples[min(len(r.Samples), max(1, len(r.Samples)/soakWarmUp)):]
	third := len(kept) / 3
	if third == 0 {
		return fmt.Errorf("%d samples are too few", len(r.Samples))
	}
	first, last := kept[:third], kept[len(kept)-third:]
	var bad []error
	grew := func(what string, of func(SoakSample) float64, most float64) {
		if a, b := medianOf(first, of), medianOf(last, of); b > a*most {
			bad = append(bad, fmt.Errorf("%s grew from %.0f to %.0f", what, a, b))
		}
	}
	grew("open files", func(s SoakSample) float64 { return float64(s.FDs) }, 1)
	grew("goroutines", func(s SoakSample) float64 { return float64(s.Goroutines) }, 1)
	if long := time.Duration(last[0].Seconds * float64(time.Second)); long > soakLong {
		grew("memory", func(s SoakSample) float64 { return float64(s.RSS) }, soakRSS)
	}
	for _, s := range r.Samples {
		if s.Lost > 0 || s.Delivered == 0 {
			bad = append(bad, fmt.Errorf("after %.0f s: %d packets delivered, %d lost", s.Seconds, s.Delivered, s.Lost))
		}
	}
	return errors.Join(bad...)
}

func medianOf(samples []SoakSample, of func(SoakSample) float64) float64 {
	var values []float64
	for _, s := range samples {
		values = append(values, of(s))
	}
	return spread(values).Median
}

// soakLines is how many samples a printed report shows at most.
const soakLines = 30

// Print writes the report, with its verdict, as a table or as JSON.
func (r *SoakReport) Print(w io.Writer, asJSON bool) error {
	r.Verdict = "good"
	if err := r.Bad(); err != nil {
		r.Verdict = err.Error()
	}
	if asJSON {
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		return enc.Encode(r)
	}
	table := tabwriter.NewWriter(w, 0, 8, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "seconds\tMiB\tfds\tgoroutines\tdelivered\tlost\t")
	step := max(1, (len(r.Samples)+soakLines-1)/soakLines)
	for chunk := range slices.Chunk(r.Samples, step) {
		s := chunk[len(chunk)-1]
		fmt.Fprintf(table, "%.0f\t%.1f\t%d\t%d\t%d\t%d\t\n", s.Seconds, float64(s.RSS)/(1<<20), s.FDs, s.Goroutines, s.Delivered, s.Lost)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "\n%d viewers joined and left in %d samples; verdict: %s\n", r.Joins, len(r.Samples), r.Verdict)
	return err
}
