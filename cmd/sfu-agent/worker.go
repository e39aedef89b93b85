package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/sfu-agent/sfu-agent/agent/control"
	"github.com/sfu-agent/sfu-agent/sfu"
	"github.com/sfu-agent/sfu-agent/sfu/udpio"
	"github.com/sfu-agent/sfu-agent/sfu/whip"
)

type workerOptions struct {
	name          string
	sessionPrefix string
	udp           string
	rung          string
	maxHold       time.Duration
	pace          uint32
	advertise     []string
	control       string
	controlFD     int
	gateFD        int
	logFormat     string
	logLevel      string
}

func workerCommand() *cobra.Command {
	var o workerOptions
	cmd := &cobra.Command{
		Use:   "worker",
		Short: "Run one SFU worker (the agent starts these)",
		Long: `Run one SFU worker: one UDP port for media, one unix socket for WHIP, WHEP and
control. The agent starts workers; one alone serves to try things:

  sfu-agent worker --udp 127.0.0.1:40000 --control /tmp/sfu.sock
  curl --unix-socket /tmp/sfu.sock http://worker/status`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := waitGate(o.gateFD); err != nil {
				return err
			}
			log, err := newLogger(os.Stderr, o.logFormat, o.logLevel)
			if err != nil {
				return err
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGTERM, syscall.SIGINT)
			defer stop()
			return work(ctx, &o, log.With("worker", o.name))
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.name, "name", "worker", "name in logs and status")
	f.StringVar(&o.sessionPrefix, "session-prefix", "0-", "what the IDs of sessions begin with")
	f.StringVar(&o.udp, "udp", "127.0.0.1:40000", "address of the media socket")
	f.StringVar(&o.rung, "rung", "auto", "how to send UDP: auto, or one of the rungs that 'sfu-agent probe' lists")
	f.DurationVar(&o.maxHold, "max-hold", udpio.DefaultMaxHold, "how long a packet may wait for others to be sent with it, 0 for not at all")
	f.Uint32Var(&o.pace, "pace", udpio.DefaultPace/1e6, "Mbit/s to one destination above which a burst is spread out, 0 for never")
	f.StringSliceVar(&o.advertise, "advertise", nil, "IP addresses at which clients reach the UDP port (default: the bound one)")
	f.StringVar(&o.control, "control", "", "path of the unix socket to serve on")
	f.IntVar(&o.controlFD, "control-fd", -1, "inherited listening unix socket, instead of --control")
	f.IntVar(&o.gateFD, "gate-fd", -1, "inherited pipe from which a byte lets the worker begin")
	f.StringVar(&o.logFormat, "log-format", "text", "text or json")
	f.StringVar(&o.logLevel, "log-level", "info", "debug, info, warn or error")
	return cmd
}

// waitGate returns when the one who started the worker has put it where it
// belongs. The end of the pipe means that nobody wants it any more.
func waitGate(fd int) error {
	if fd < 0 {
		return nil
	}
	gate := os.NewFile(uintptr(fd), "gate")
	defer gate.Close()
	var b [1]byte
	if _, err := io.ReadFull(gate, b[:]); err != nil {
		return errSilent
	}
	return nil
}

// gcPercent is Go's GOGC where the environment has none. Most of a worker's
// memory is sessions, which live long, and packets allocate nothing: a low
// figure costs a tenth more CPU time for a join, and saves a quarter of the memory
// that an idle viewer takes.
const gcPercent = 15

// work serves until ctx ends.
func work(ctx context.Context, o *workerOptions, log *slog.Logger) error {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	addr, err := netip.ParseAddrPort(o.udp)
	if err != nil {
		return fmt.Errorf("--udp: %w", err)
	}
	advertise, err := parseAddrs(o.advertise)
	if err != nil {
		return fmt.Errorf("--advertise: %w", err)
	}
	if err := checkMaxHold(o.maxHold); err != nil {
		return err
	}
	listener, err := controlListener(o)
	if err != nil {
		return err
	}
	defer listener.Close()
	conn, err := udpio.Listen(ctx, udpio.Config{Addr: addr, Rung: o.rung, MaxHold: cmp.Or(o.maxHold, -1), Pace: cmp.Or(int64(o.pace)*1e6, -1), Log: log, Prober: newProber()})
	if err != nil {
		return err
	}
	server, err := sfu.New(sfu.Config{Conn: conn, Advertise: advertise, SessionPrefix: o.sessionPrefix, Log: log})
	if err != nil {
		conn.Close()
		return err
	}
	w := &worker{name: o.name, started: time.Now(), conn: conn, sfu: server, advertise: o.advertise, sandbox: sandbox()}
	face := &http.Server{
		Handler:           w.handler(),
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       15 * time.Second,
		WriteTimeout:      30 * time.Second,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	served := make(chan error, 1)
	go func() { served <- face.Serve(listener) }()
	select {
	case <-ctx.Done():
	case err = <-served:
		served <- err
	}
	bounded, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	if closeErr := server.Close(bounded); closeErr != nil {
		log.Warn("sessions not all closed", "error", closeErr)
	}
	face.Close()
	if serveErr := <-served; ctx.Err() == nil {
		return fmt.Errorf("serve control: %w", serveErr)
	}
	return err
}

func controlListener(o *workerOptions) (net.Listener, error) {
	if o.controlFD >= 0 {
		file := os.NewFile(uintptr(o.controlFD), "control")
		defer file.Close()
		listener, err := net.FileListener(file)
		if err != nil {
			return nil, fmt.Errorf("--control-fd %d: %w", o.controlFD, err)
		}
		return listener, nil
	}
	if o.control == "" {
		return nil, fmt.Errorf("give --control PATH, the unix socket to serve on")
	}
	listener, err := net.Listen("unix", o.control)
	if err != nil {
		return nil, fmt.Errorf("--control: %w", err)
	}
	return listener, nil
}

// worker gives control the account that sfu and udpio keep.
type worker struct {
	name      string
	started   time.Time
	conn      *udpio.Conn
	sfu       *sfu.Server
	sandbox   []string
	advertise []string
}

func (w *worker) handler() http.Handler {
	mux := http.NewServeMux()
	media := whip.New(w.sfu)
	mux.Handle("/whip/", media)
	mux.Handle("/whep/", media)
	mux.Handle("/", control.Handler(w))
	return mux
}

func (w *worker) Drain()   { w.sfu.SetDraining(true) }
func (w *worker) Undrain() { w.sfu.SetDraining(false) }

func (w *worker) Status() control.Status {
	media, udp := w.sfu.Stats(), w.conn.Stats()
	s := control.Status{
		Name: w.name, PID: os.Getpid(), Version: version(), State: control.StateReady, Started: w.started, Sandbox: w.sandbox,
		UDP:        control.UDP{Address: w.conn.LocalAddr().String(), Advertise: w.advertise, Rung: udp.Rung, Why: udp.Why},
		Rooms:      make([]control.Room, len(media.Rooms)),
		Counters:   counters(media.Counters, udp),
		FirstFrame: control.Histogram(media.FirstFrame),
		Goroutines: runtime.NumGoroutine(),
	}
	if media.Draining {
		s.State = control.StateDraining
	}
	for i, r := range media.Rooms {
		s.Rooms[i] = control.Room{Name: r.Name, Since: r.Since, Publisher: r.Publisher, Viewers: r.Viewers, Tracks: make([]control.Track, len(r.Tracks))}
		for j, t := range r.Tracks {
			s.Rooms[i].Tracks[j] = control.Track(t)
		}
	}
	return s
}

// counters joins what the SFU and its socket count. The socket's drops carry
// its name.
func counters(media sfu.Counters, udp udpio.Stats) control.Counters {
	drops := media.Drops
	if drops == nil {
		drops = make(map[string]uint64)
	}
	for reason, n := range udp.Drops {
		drops["udp-"+reason] = n
	}
	return control.Counters{
		PacketsIn: media.PacketsIn, BytesIn: media.BytesIn, PacketsOut: media.PacketsOut, BytesOut: media.BytesOut,
		Drops: drops, NACKs: media.NACKs, Retransmits: media.Retransmits, PLIs: media.PLIs, Joins: media.Joins,
		UDPPacketsIn: udp.PacketsIn, UDPPacketsOut: udp.PacketsOut, UDPBatches: udp.BatchesOut,
		UDPTrains: udp.Trains, UDPInTrains: udp.TrainPackets,
		UDPHolds: udp.Holds, UDPDelays: udp.Delays, UDPHeldSeconds: udp.HeldTime.Seconds(), UDPPaced: udp.Paced,
	}
}

// sandbox lists what confines this process, from /proc/self/status.
func sandbox() []string {
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return nil
	}
	var steps []string
	for line := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ":\t")
		switch {
		case key == "NoNewPrivs" && value == "1":
			steps = append(steps, "no-new-privileges")
		case key == "Seccomp" && value == "2":
			steps = append(steps, "seccomp")
		case key == "CapPrm" && strings.Trim(value, "0") == "":
			steps = append(steps, "no-capabilities")
		}
	}
	if os.Geteuid() != 0 {
		steps = append(steps, "unprivileged-user")
	}
	return steps
}
