package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"

	"github.com/sfu-agent/sfu-agent/stress/scopes"
)

func stressCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "stress",
		Short: "Put load on real parts and count what goes wrong",
	}
	cmd.AddCommand(stressScopesCommand(), stressFanoutCommand(), stressSoakCommand())
	return cmd
}

// The positive control: so many cycles, so many at a time, and the share that
// must fail for a run without failures to mean anything.
const (
	controlCycles   = 200
	controlParallel = 8
	controlFails    = 0.05
)

type stressScopes struct {
	n, parallel, rounds int
	fault, client       string
	seconds, deadline   time.Duration
	pid1                string
	asJSON              bool
	noControl           bool
}

func stressScopesCommand() *cobra.Command {
	var o stressScopes
	cmd := &cobra.Command{
		Use:   "scopes",
		Short: "Churn systemd scopes, under faults if asked",
		Long: `Start and stop systemd scopes, each around a process of its own, and check every
answer against /proc and systemd. Exits with 1 on any failure, hang, wrong answer
or leftover of our client, and refuses a good verdict when the naive client,
which takes the first message on its socket for the reply, fails less than 5 %:
such a host proves nothing.

It breaks the bus and systemd of the host it runs on: use 'make stress-scopes',
which boots one for it.

Faults:
` + aboutFaults(),
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGTERM, syscall.SIGINT)
			defer stop()
			return o.run(ctx, cmd.OutOrStdout())
		},
	}
	f := cmd.Flags()
	f.IntVar(&o.n, "n", 10000, "cycles of each run; 0: until --seconds")
	f.IntVar(&o.parallel, "parallel", 64, "cycles at the same time")
	f.StringVar(&o.fault, "fault", "none", "a fault, several with commas, or all")
	f.StringVar(&o.client, "client", "ours", "a client, several with commas, of "+strings.Join(scopes.Clients(), ", "))
	f.IntVar(&o.rounds, "rounds", 1, "runs of each client, alternating")
	f.DurationVar(&o.seconds, "time", 0, "end of each run, whatever --n says (0: none)")
	f.DurationVar(&o.deadline, "deadline", 10*time.Second, "of each start and stop")
	f.StringVar(&o.pid1, "pid1-control", "/rig/pid1-control", "file through which PID 1 is stopped from outside")
	f.BoolVar(&o.asJSON, "json", false, "print JSON")
	f.BoolVar(&o.noControl, "no-control", false, "leave the naive client's control run out, and the verdict too")
	return cmd
}

func aboutFaults() string {
	var b strings.Builder
	for _, name := range scopes.Faults() {
		fmt.Fprintf(&b, "  %-12s %s\n", name, scopes.AboutFault(name))
	}
	return b.String()
}

// scopesReport is what stress scopes prints with --json.
type scopesReport struct {
	Runs    []*scopes.Report `json:"runs"`
	Control *scopes.Report   `json:"control,omitempty"`
	Verdict string           `json:"verdict"`
}

func (o *stressScopes) run(ctx context.Context, w io.Writer) error {
	faults := strings.Split(o.fault, ",")
	if o.fault == "all" {
		faults = scopes.Faults()
	}
	if o.n <= 0 && o.seconds <= 0 || o.parallel < 1 || o.parallel > 1024 || o.rounds < 1 {
		return errors.New("want --n or --time, --parallel 1 to 1024 and --rounds from 1")
	}
	var report scopesReport
	for _, fault := range faults {
		for range o.rounds {
			for _, client := range strings.Split(o.client, ",") {
				r, err := o.one(ctx, client, fault, o.n, o.parallel)
				if err != nil {
					return err
				}
				report.Runs = append(report.Runs, r)
			}
		}
	}
	if !o.noControl {
		control, err := o.one(ctx, "naive", "none", controlCycles, controlParallel)
		if err != nil {
			return err
		}
		report.Control = control
	}
	return report.conclude(w, o.asJSON)
}

func (o *stressScopes) one(ctx context.Context, client, fault string, n, parallel int) (*scopes.Report, error) {
	bar := o.bar(client+", "+fault, n)
	defer bar.Exit()
	r, err := scopes.Run(ctx, scopes.Config{
		Client: client, Fault: fault, Cycles: n, Duration: o.seconds, Parallel: parallel,
		Deadline: o.deadline, PID1Control: o.pid1, Progress: func(int) { bar.Add(1) },
	})
	bar.Finish()
	return r, err
}

func (o *stressScopes) bar(what string, n int) *progressbar.ProgressBar {
	if n == 0 {
		n = -1
	}
	return progressbar.NewOptions(n, progressbar.OptionSetDescription(what), progressbar.OptionSetWriter(os.Stderr),
		progressbar.OptionSetVisibility(isTerminal(os.Stderr)),
		progressbar.OptionShowCount(), progressbar.OptionShowIts(), progressbar.OptionThrottle(500*time.Millisecond),
		progressbar.OptionOnCompletion(func() { fmt.Fprintln(os.Stderr) }))
}

func isTerminal(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// conclude prints the report with its verdict, and returns an error unless that
// is good.
func (r *scopesReport) conclude(w io.Writer, asJSON bool) error {
	verdict := r.verdict()
	r.Verdict = "good"
	if verdict != nil {
		r.Verdict = verdict.Error()
	}
	if err := r.print(w, asJSON); err != nil {
		return err
	}
	if verdict != nil {
		return fmt.Errorf("not good: %w", verdict)
	}
	return nil
}

// verdict is about our client alone; the others are there for comparison.
func (r *scopesReport) verdict() error {
	var bad []error
	for _, run := range r.Runs {
		if err := run.Bad(); err != nil && run.Client == "ours" {
			bad = append(bad, fmt.Errorf("fault %s: %w", run.Fault, err))
		}
	}
	if r.Control == nil {
		return errors.Join(bad...)
	}
	if share := float64(r.Control.Failures) / float64(max(1, r.Control.Cycles)); share < controlFails {
		bad = append(bad, fmt.Errorf("the naive control fails only %.1f %% here: this host proves nothing", 100*share))
	}
	return errors.Join(bad...)
}

func (r *scopesReport) print(w io.Writer, asJSON bool) error {
	if asJSON {
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		return enc.Encode(r)
	}
	runs := r.Runs
	if r.Control != nil {
		runs = append(runs[:len(runs):len(runs)], r.Control)
	}
	if err := scopes.Print(w, runs); err != nil {
		return err
	}
	_, err := fmt.Fprintln(w, "\nverdict:", r.Verdict)
	return err
}
