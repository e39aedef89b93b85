package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"text/tabwriter"
	"time"

	"github.com/sfu-agent/sfu-agent/sfu/udpio"
)

// benchTime is about how long one load is measured.
const benchTime = 2 * time.Second

// rungBench is what sending costs here, by each rung.
type rungBench struct {
	Auto  string     `json:"auto"`          // rung that --rung auto takes
	Why   string     `json:"why,omitempty"` // why not one of those above it
	Rungs []rungCost `json:"rungs"`
}

// rungCost is the CPU time of one datagram of 1200 bytes over loopback, the
// receiving half up to the socket included, in microseconds.
type rungCost struct {
	Rung   string  `json:"rung"`
	Named  bool    `json:"named"`                // auto never takes it
	Frames float64 `json:"frames_us,omitempty"`  // in frames of 8 to each destination
	Single float64 `json:"singles_us,omitempty"` // one at a time
	Turns  int     `json:"turns,omitempty"`      // of the load with fewer; the figures are medians
	Error  string  `json:"error,omitempty"`      // why it cannot be used here
}

func benchRungs(ctx context.Context) (*rungBench, error) {
	prober := newProber()
	c, err := udpio.Listen(ctx, udpio.Config{Addr: netip.MustParseAddrPort("127.0.0.1:0"), Prober: prober, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, err
	}
	chosen := c.Stats()
	if err := c.Close(); err != nil {
		return nil, err
	}
	frames, err := udpio.Measure(ctx, prober, 8, benchTime)
	if err != nil {
		return nil, err
	}
	singles, err := udpio.Measure(ctx, prober, 1, benchTime)
	if err != nil {
		return nil, err
	}
	b := &rungBench{Auto: chosen.Rung, Why: chosen.Why}
	for i, f := range frames {
		s := singles[i]
		r := rungCost{Rung: f.Rung, Named: f.Named, Frames: micros(f.CPU), Single: micros(s.CPU), Turns: min(f.Turns, s.Turns)}
		if err := cmp.Or(f.Err, s.Err); err != nil {
			r = rungCost{Rung: f.Rung, Named: f.Named, Error: oneLine(err)}
		}
		b.Rungs = append(b.Rungs, r)
	}
	return b, nil
}

func micros(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1000 }

func (b *rungBench) print(w io.Writer) error {
	fmt.Fprint(w, "\nCPU time of a datagram of 1200 bytes over loopback, median of interleaved turns:\n")
	table := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(table, "RUNG\tFRAMES OF 8\tSINGLES\tTURNS\t")
	for _, r := range b.Rungs {
		if r.Error != "" {
			fmt.Fprintf(table, "%s\t-\t-\t-\t%s\n", r.Rung, r.Error)
			continue
		}
		note := ""
		switch {
		case r.Rung == b.Auto:
			note = "auto takes it"
		case r.Named:
			note = "only by its name"
		}
		fmt.Fprintf(table, "%s\t%.2f us\t%.2f us\t%d\t%s\n", r.Rung, r.Frames, r.Single, r.Turns, note)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	why := "the best of those that it chooses from works here"
	if b.Why != "" {
		why = b.Why
	}
	_, err := fmt.Fprintf(w, "auto takes %s: %s\n", b.Auto, why)
	return err
}
