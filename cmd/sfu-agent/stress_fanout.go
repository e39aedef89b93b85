package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/sfu-agent/sfu-agent/sfu/udpio"
	"github.com/sfu-agent/sfu-agent/stress/fanout"
)

type stressFanout struct {
	viewers    []int
	rooms      int
	rate       bits
	frame      int
	seconds    float64
	rounds     int
	paced      bool
	loads      []string
	rungs      []string
	gomaxprocs int
	maxHold    time.Duration
	target     string
	token      string
	pids       []int
	bind       string
	saturate   bool
	gro        bool
	noCeiling  bool
	strict     bool
	asJSON     bool
	asMarkdown bool
}

func stressFanoutCommand() *cobra.Command {
	var o stressFanout
	cmd := &cobra.Command{
		Use:   "fanout",
		Short: "Measure the CPU time of a forwarded packet, beside the least it can be",
		Long: `Start a worker, publishers and viewers, each kind in a process of its own, and
measure the worker's CPU time for each packet that a viewer received. In turn
with that, with as many packets to as many sockets, measure the ceiling: a loop
that seals each packet with AES-128-GCM and sends them as trains (whole frames)
or with sendmmsg (paced), and does nothing else.

Viewers count every packet from its RTP header and ask for nothing again; of
many packets they decrypt and compare one in 32, of few all.

Exits with 1 where sessions failed or nothing came, with --strict also where a
packet was lost.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGTERM, syscall.SIGINT)
			defer stop()
			return o.run(ctx, cmd.OutOrStdout())
		},
	}
	o.rate = 2_500_000
	f := cmd.Flags()
	f.IntSliceVar(&o.viewers, "viewers", []int{100}, "number of viewers; several with commas, one after the other")
	f.IntVar(&o.rooms, "rooms", 1, "rooms, each with a publisher, over which the viewers are spread")
	f.Var(&o.rate, "rate", "bit/s of each publisher, for example 2.5M")
	f.IntVar(&o.frame, "frame", 8, "packets of 1200 bytes in a frame")
	f.Float64Var(&o.seconds, "seconds", 15, "time of each measurement")
	f.IntVar(&o.rounds, "rounds", 3, "measurements of the SFU and of the ceiling, in turn")
	f.BoolVar(&o.paced, "paced", false, "as --load paced")
	f.StringSliceVar(&o.loads, "load", []string{"frames"}, "frames: each at once; paced: a frame's packets evenly over its time; or both with a comma")
	f.StringSliceVar(&o.rungs, "rung", []string{"auto"}, "how the worker sends: all (that this host has), or some of auto, "+strings.Join(udpio.Rungs(), ", "))
	f.IntVar(&o.gomaxprocs, "gomaxprocs", 0, "GOMAXPROCS of the worker (default: as without it)")
	f.DurationVar(&o.maxHold, "max-hold", -1, "--max-hold of the worker (default: as without it)")
	f.StringVar(&o.target, "target", "", "another SFU's URL, with {kind} for whip and whep and {room} for a room (default: a worker of our own)")
	f.StringVar(&o.token, "token", "", "bearer token for --target")
	f.IntSliceVar(&o.pids, "pid", nil, "processes of --target whose CPU time counts, with their children's")
	f.StringVar(&o.bind, "bind", "127.0.0.1", "address of the viewers")
	f.BoolVar(&o.saturate, "saturate", false, "look for the highest rate without loss, from --rate on, with --max-hold and with none; then measure both at 90 % of it")
	f.BoolVar(&o.gro, "gro", false, "viewers' sockets take trains whole; else the kernel cuts them, on loopback in the sender's time")
	f.BoolVar(&o.noCeiling, "no-ceiling", false, "leave the ceiling out")
	f.BoolVar(&o.strict, "strict", false, "exit with 1 where a packet was lost")
	f.BoolVar(&o.asJSON, "json", false, "print JSON")
	f.BoolVar(&o.asMarkdown, "markdown", false, "print a table for a document")
	cmd.AddCommand(stressPartCommand())
	return cmd
}

// stressPartCommand is what the processes of a run are started as.
func stressPartCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "part ROLE",
		Hidden: true,
		Args:   cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			signal.Ignore(syscall.SIGINT, syscall.SIGTERM) // the end of standard input ends it
			return fanout.Part(cmd.Context(), args[0], cmd.InOrStdin(), cmd.OutOrStdout())
		},
	}
}

// part makes the command of a process of a run.
func part(role string) *exec.Cmd { return exec.Command(ownProgram, "stress", "fanout", "part", role) }

func (o *stressFanout) run(ctx context.Context, w io.Writer) error {
	if slices.Equal(o.rungs, []string{"all"}) {
		have, err := rungsHere(ctx, os.Stderr)
		if err != nil {
			return err
		}
		o.rungs = append([]string{"auto"}, have...)
	}
	cfg, err := o.config()
	if err != nil {
		return err
	}
	line := progressLine{w: os.Stderr, on: isTerminal(os.Stderr)}
	cfg.Progress = line.show
	measure := fanout.Run
	if o.saturate {
		measure = fanout.Saturate
	}
	report, err := measure(ctx, cfg)
	line.clear()
	if err != nil {
		return err
	}
	if err := o.print(w, report); err != nil {
		return err
	}
	return report.Bad(o.strict)
}

func (o *stressFanout) print(w io.Writer, report *fanout.Report) error {
	switch {
	case o.asJSON:
		return report.JSON(w)
	case o.asMarkdown:
		return report.Markdown(w)
	}
	return report.Text(w)
}

func (o *stressFanout) config() (fanout.Config, error) {
	cfg := fanout.Config{
		Part: part, Worker: o.worker, Target: o.target, Token: o.token, PIDs: o.pids,
		Viewers: o.viewers, Rooms: o.rooms, Time: time.Duration(o.seconds * float64(time.Second)), Rounds: o.rounds, GRO: o.gro, NoCeiling: o.noCeiling,
	}
	var err error
	if cfg.Bind, err = netip.ParseAddr(o.bind); err != nil {
		return cfg, fmt.Errorf("--bind: %w", err)
	}
	if o.target != "" {
		o.rungs = []string{o.target}
	}
	for _, rung := range o.rungs {
		cfg.Variants = append(cfg.Variants, fanout.Variant{Rung: rung, MaxHold: o.maxHold})
		if o.saturate && o.target == "" {
			cfg.Variants = append(cfg.Variants, fanout.Variant{Rung: rung})
		}
	}
	if o.paced {
		o.loads = []string{"paced"}
	}
	for _, name := range o.loads {
		if name != "frames" && name != "paced" {
			return cfg, fmt.Errorf("--load %q: want frames or paced", name)
		}
		cfg.Loads = append(cfg.Loads, fanout.Load{Rate: int(o.rate), Frame: o.frame, Paced: name == "paced"})
	}
	return cfg, o.check()
}

// rungsHere lists the rungs that this host has, and says why it has not the others.
func rungsHere(ctx context.Context, log io.Writer) (have []string, err error) {
	for _, rung := range udpio.Rungs() {
		conn, err := udpio.Listen(ctx, udpio.Config{
			Addr: netip.MustParseAddrPort("127.0.0.1:0"), Rung: rung, Prober: newProber(), Log: slog.New(slog.DiscardHandler),
		})
		switch {
		case errors.Is(err, errors.ErrUnsupported):
			fmt.Fprintln(log, "left out:", err)
		case err != nil:
			return nil, err
		default:
			conn.Close()
			have = append(have, rung)
		}
	}
	return have, nil
}

// Bounds of a run.
const (
	maxStressViewers = 4000
	maxStressRate    = 1_000_000_000
)

func (o *stressFanout) check() error {
	for _, n := range o.viewers {
		if n < 1 || n > maxStressViewers || n < o.rooms {
			return fmt.Errorf("--viewers %d: want 1 to %d, and one for each room", n, maxStressViewers)
		}
	}
	for _, rung := range o.rungs {
		if o.target == "" && rung != "auto" && !slices.Contains(udpio.Rungs(), rung) {
			return fmt.Errorf("--rung %q: want all, auto or some of %s", rung, strings.Join(udpio.Rungs(), ", "))
		}
	}
	switch {
	case o.rooms < 1:
		return errors.New("--rooms: want 1 or more")
	case o.rate < 10_000 || o.rate > maxStressRate:
		return fmt.Errorf("--rate %s: want 10k to 1000M", o.rate)
	case o.frame < 1 || o.frame > 64:
		return fmt.Errorf("--frame %d: want 1 to 64", o.frame)
	case o.seconds < 0.1 || o.seconds > 3600 || o.rounds < 1 || o.rounds > 100:
		return errors.New("want --seconds 0.1 to 3600 and --rounds 1 to 100")
	case o.target != "" && len(o.pids) == 0:
		return errors.New("--target needs --pid, the processes whose CPU time counts")
	}
	return nil
}

// worker makes the command of the SFU under test: an agent starts its workers
// so, but for the sandbox.
func (o *stressFanout) worker(socket string, v fanout.Variant) *exec.Cmd {
	cmd := stressWorker(socket, v)
	if o.gomaxprocs > 0 {
		cmd.Env = append(os.Environ(), "GOMAXPROCS="+strconv.Itoa(o.gomaxprocs))
	}
	return cmd
}

func stressWorker(socket string, v fanout.Variant) *exec.Cmd {
	args := []string{"worker", "--name", "fanout", "--udp", "127.0.0.1:0", "--control", socket, "--rung", v.Rung, "--log-level", "warn"}
	if v.MaxHold >= 0 {
		args = append(args, "--max-hold", v.MaxHold.String())
	}
	return exec.Command(ownProgram, args...)
}

// bits is a flag of bit/s with an optional k, M or G.
type bits int

func (b bits) String() string {
	for _, unit := range bitUnits {
		if n := float64(b) / unit.n; n >= 1 {
			return strconv.FormatFloat(n, 'g', -1, 64) + unit.name
		}
	}
	return strconv.Itoa(int(b))
}

var bitUnits = []struct {
	name string
	n    float64
}{{"G", 1e9}, {"M", 1e6}, {"k", 1e3}}

// Set implements pflag.Value.
func (b *bits) Set(text string) error {
	number, factor := text, 1.0
	for _, unit := range bitUnits {
		if rest, ok := strings.CutSuffix(text, unit.name); ok {
			number, factor = rest, unit.n
		}
	}
	n, err := strconv.ParseFloat(number, 64)
	if err != nil || n*factor < 0 || n*factor > 1e12 {
		return fmt.Errorf("%q: want bit/s, for example 800k or 2.5M", text)
	}
	*b = bits(n * factor)
	return nil
}

// Type implements pflag.Value.
func (b *bits) Type() string { return "bit/s" }

// A progressLine tells on a terminal what goes on.
type progressLine struct {
	w  io.Writer
	on bool
}

func (l progressLine) show(what string) {
	if l.on {
		fmt.Fprintf(l.w, "\r\x1b[K%s", what)
	}
}

func (l progressLine) clear() { l.show("") }
