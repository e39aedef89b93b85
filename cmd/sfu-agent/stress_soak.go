package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/sfu-agent/sfu-agent/stress/fanout"
)

type stressSoak struct {
	time, every time.Duration
	viewers     int
	rooms       int
	rate        bits
	rung        string
	asJSON      bool
}

func stressSoakCommand() *cobra.Command {
	var o stressSoak
	cmd := &cobra.Command{
		Use:   "soak",
		Short: "Let viewers and publishers come and go for long, and see whether a worker grows",
		Long: `Start a worker, and replace its viewers and publishers while media flows. At
quiet points between look at the worker's memory, open files and goroutines, and
whether all packets arrive.

Exits with 1 where from the first to the last third, the warm-up left out, the
median of the memory grew by more than 10 % (judged from five minutes on), or
that of open files or goroutines at all; or where a packet was lost or a viewer
could not join.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGTERM, syscall.SIGINT)
			defer stop()
			return o.run(ctx, cmd.OutOrStdout())
		},
	}
	o.rate = 1_000_000
	f := cmd.Flags()
	f.DurationVar(&o.time, "time", 30*time.Minute, "how long")
	f.DurationVar(&o.every, "every", 10*time.Second, "time from one quiet point to the next, a twentieth of --time at most")
	f.IntVar(&o.viewers, "viewers", 20, "viewers that are there at a quiet point")
	f.IntVar(&o.rooms, "rooms", 2, "rooms, each with a publisher")
	f.Var(&o.rate, "rate", "bit/s of each publisher")
	f.StringVar(&o.rung, "rung", "auto", "how the worker sends")
	f.BoolVar(&o.asJSON, "json", false, "print JSON")
	return cmd
}

func (o *stressSoak) run(ctx context.Context, w io.Writer) error {
	if o.time < 5*time.Second || o.time > 72*time.Hour || o.every <= 0 {
		return errors.New("want --time 5s to 72h and --every above 0")
	}
	if o.rooms < 1 || o.viewers < o.rooms || o.viewers > 1000 || o.rate < 10_000 || o.rate > maxStressRate {
		return fmt.Errorf("want --rooms from 1, --viewers as many to 1000, --rate 10k to 1000M")
	}
	line := progressLine{w: os.Stderr, on: isTerminal(os.Stderr)}
	report, err := fanout.Soak(ctx, fanout.SoakConfig{
		Config: fanout.Config{
			Part: part, Worker: stressWorker, Progress: line.show,
			Variants: []fanout.Variant{{Rung: o.rung, MaxHold: -1}}, Viewers: []int{o.viewers}, Rooms: o.rooms,
			Loads: []fanout.Load{{Rate: int(o.rate), Frame: 4}},
		},
		For: o.time, Every: min(o.every, o.time/20),
	})
	line.clear()
	if err != nil {
		return err
	}
	if err := report.Print(w, o.asJSON); err != nil {
		return err
	}
	return report.Bad()
}
