package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/sfu-agent/sfu-agent/agent"
	"github.com/sfu-agent/sfu-agent/agent/control"
	"github.com/sfu-agent/sfu-agent/agent/front"
	"github.com/sfu-agent/sfu-agent/cgroups"
	"github.com/sfu-agent/sfu-agent/sfu/udpio"
)

// runOptions are the flags of run and the keys of its configuration file.
type runOptions struct {
	http      string
	hosts     []string
	tokenFile string
	workers   int
	udpPort   uint16
	advertise []string
	stateDir  string
	placer    string
	slice     string
	user      string
	rung      string
	maxHold   time.Duration
	pace      uint32
	config    string
	logFormat string
	logLevel  string
	drain     time.Duration

	cpuWeight   uint64
	cpuQuota    percent
	allowedCPUs string
	memoryHigh  size
	memoryMax   size
	tasksMax    uint64
	ioWeight    uint64
	ioMax       string
}

func (o *runOptions) register(f *pflag.FlagSet) {
	f.StringVar(&o.http, "http", "127.0.0.1:8080", "address of WHIP, WHEP, API and page; off loopback it needs --token-file")
	f.StringSliceVar(&o.hosts, "host", nil, "further host names under which the HTTP address is reached")
	f.StringVar(&o.tokenFile, "token-file", "", "file with the bearer token that requests must carry")
	f.IntVar(&o.workers, "workers", runtime.NumCPU(), "number of workers")
	f.Uint16Var(&o.udpPort, "udp-port", 40000, "UDP port of the first worker; the next ones follow")
	f.StringSliceVar(&o.advertise, "advertise", nil, "IP addresses at which clients reach the UDP ports (default: loopback only)")
	f.StringVar(&o.stateDir, "state-dir", defaultStateDir(), "directory for records and sockets of the workers")
	f.StringVar(&o.placer, "placer", "auto", "where workers go: auto, scope, subtree or process")
	f.StringVar(&o.slice, "slice", "sfu.slice", "systemd slice of the workers' scopes")
	f.StringVar(&o.user, "user", "", "user to run workers as, where the agent is root (default: sfu-worker, else nobody)")
	f.StringVar(&o.rung, "rung", "auto", "how workers send UDP: auto, or one of the rungs that 'sfu-agent probe' lists")
	f.DurationVar(&o.maxHold, "max-hold", udpio.DefaultMaxHold, "how long a packet may wait in a worker for others to be sent with it, 0 for not at all")
	f.Uint32Var(&o.pace, "pace", udpio.DefaultPace/1e6, "Mbit/s to one viewer above which a worker spreads a burst out, 0 for never")
	f.StringVar(&o.config, "config", "", "YAML file whose keys are these flags' names; flags win")
	f.StringVar(&o.logFormat, "log-format", "text", "text or json")
	f.StringVar(&o.logLevel, "log-level", "info", "debug, info, warn or error")
	f.DurationVar(&o.drain, "drain", 5*time.Second, "how long a stopping agent waits for sessions to end")
	f.Uint64Var(&o.cpuWeight, "cpu-weight", 0, "CPUWeight of a worker, 1 to 10000 (default: as the slice)")
	f.Var(&o.cpuQuota, "cpu-quota", "CPU time of a worker, 150% is one and a half cores (default: no limit)")
	f.StringVar(&o.allowedCPUs, "allowed-cpus", "", "CPUs of a worker, for example 0-1,3 (default: all)")
	f.Var(&o.memoryHigh, "memory-high", "memory above which a worker is slowed, for example 512M (default: no limit)")
	f.Var(&o.memoryMax, "memory-max", "memory above which a worker is killed (default: no limit)")
	f.Uint64Var(&o.tasksMax, "tasks-max", 0, "processes and threads of a worker (default: as the slice)")
	f.Uint64Var(&o.ioWeight, "io-weight", 0, "IOWeight of a worker, 1 to 10000 (default: as the slice)")
	f.StringVar(&o.ioMax, "io-max", "", "bytes and operations of a worker a second, by disk, for example '/dev/vda rbps=10M wbps=5M riops=500 wiops=100' (default: no limit)")
}

func runCommand() *cobra.Command {
	var o runOptions
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Run the agent: workers, WHIP, WHEP, API and page",
		Long: `Run the agent. Without any flag it serves http://127.0.0.1:8080 with one worker
a core, in systemd scopes where systemd answers, else in a delegated cgroup,
else as plain processes.

  SIGTERM, SIGINT  drain, stop the workers and leave nothing behind; again: at once
  SIGHUP           start the (new) program in place; the workers go on meanwhile`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.config != "" {
				if err := loadConfig(o.config, cmd.Flags()); err != nil {
					return err
				}
			}
			log, err := newLogger(os.Stderr, o.logFormat, o.logLevel)
			if err != nil {
				return err
			}
			return run(cmd.Context(), &o, log)
		},
	}
	o.register(cmd.Flags())
	return cmd
}

// run is the agent's life. It returns nil after a stop and does not return
// after a hand-over.
func run(ctx context.Context, o *runOptions, log *slog.Logger) error {
	setup, err := o.resolve()
	if err != nil {
		return err
	}
	state, err := agent.OpenStateDir(o.stateDir)
	if err != nil {
		return err
	}
	defer state.Close()
	listener, err := listenHTTP(o.http)
	if err != nil {
		return err
	}
	defer listener.Close()
	recorded, err := state.Placers()
	if err != nil {
		return err
	}
	if len(recorded) == 0 {
		if err := checkUDP(o, setup.bind); err != nil {
			return err
		}
	}
	placer, err := choosePlacer(ctx, o, state.Prefix(), recorded, log)
	if err != nil {
		return err
	}
	defer placer.close()

	hurry := make(chan struct{})
	a := agent.New(agent.Config{
		Placer: placer, PlacerName: placer.name, State: state,
		Control: func(socket string) agent.Control { return control.NewClient(socket) },
		Workers: o.workers, Exe: ownProgram, WorkerArgs: o.workerArgs(setup.bind),
		User: setup.uid, Group: setup.gid, Limits: o.limits(),
		Times: agent.Times{Drain: o.drain}, Hurry: hurry, Log: log,
	})
	face, err := front.New(front.Config{
		Host: a, Token: setup.token, Names: o.hosts, Version: version(), Log: log,
		Probe:      func(ctx context.Context) any { return probeHost(ctx, placer) },
		Collectors: placer.collectors(),
	})
	if err != nil {
		return err
	}
	defer face.Close()
	server := newServer(face, log)

	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := signals(cancel, hurry, log)
	defer stop()
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := server.Serve(listener); !errors.Is(err, errServerClosed) {
			cancel(fmt.Errorf("serve HTTP: %w", err))
		}
	})
	notifying, notified := context.WithCancel(context.WithoutCancel(ctx))
	wg.Go(func() { notify(notifying, ctx, a, log) })
	log.Info("agent up", "version", version(), "http", "http://"+listener.Addr().String(),
		"workers", o.workers, "placer", placer.name, "why", placer.why, "state_dir", o.stateDir)

	err = a.Run(ctx)
	notified()
	shutdown(server)
	wg.Wait()
	if cause := context.Cause(ctx); err == nil && errors.Is(cause, agent.ErrHandover) {
		return handOver(log, listener, state, placer)
	} else if err == nil && !errors.Is(cause, context.Canceled) {
		err = cause
	}
	log.Info("agent down")
	return err
}

// ownProgram is this program, also where the worker's user may not enter its
// directory, and also when another version has taken its place.
const ownProgram = "/proc/self/exe"

// setup is what flags resolve to before anything is started.
type setup struct {
	token    string
	uid, gid uint32
	bind     netip.Addr
}

func (o *runOptions) resolve() (setup, error) {
	var s setup
	if o.workers < 1 || o.workers > 512 {
		return s, fmt.Errorf("--workers %d: want 1 to 512", o.workers)
	}
	if last := int(o.udpPort) + o.workers - 1; o.udpPort < 1024 || last > 65535 {
		return s, fmt.Errorf("--udp-port %d with %d workers: the ports must lie between 1024 and 65535", o.udpPort, o.workers)
	}
	if o.rung != "auto" && !slices.Contains(udpio.Rungs(), o.rung) {
		return s, fmt.Errorf("--rung %q: want auto or one of %s", o.rung, strings.Join(udpio.Rungs(), ", "))
	}
	if err := checkMaxHold(o.maxHold); err != nil {
		return s, err
	}
	if err := o.limits().Check(); err != nil {
		return s, err
	}
	if o.memoryMax > 0 && o.memoryMax < agent.MinMemoryMax {
		return s, fmt.Errorf("--memory-max %s: a worker needs at least 32M", o.memoryMax.String())
	}
	addrs, err := parseAddrs(o.advertise)
	if err != nil {
		return s, fmt.Errorf("--advertise: %w", err)
	}
	s.bind = bindAddr(addrs)
	if s.token, err = readToken(o.tokenFile); err != nil {
		return s, err
	}
	if s.token == "" && !loopback(o.http) {
		return s, fmt.Errorf("--http %s: anyone who reaches it could publish and watch: give --token-file FILE too, or keep to 127.0.0.1", o.http)
	}
	if s.uid, s.gid, err = workerUser(o.user); err != nil {
		return s, err
	}
	return s, nil
}

// checkMaxHold bounds --max-hold by what viewers do not notice.
func checkMaxHold(d time.Duration) error {
	if d < 0 || d > 100*time.Millisecond {
		return fmt.Errorf("--max-hold %v: want 0 to 100ms", d)
	}
	return nil
}

func (o *runOptions) limits() cgroups.Limits {
	return cgroups.Limits{
		CPUWeight: o.cpuWeight, CPUQuota: uint64(o.cpuQuota), AllowedCPUs: o.allowedCPUs,
		MemoryHigh: uint64(o.memoryHigh), MemoryMax: uint64(o.memoryMax), TasksMax: o.tasksMax,
		IOWeight: o.ioWeight, IOMax: o.ioMax,
	}
}

func (o *runOptions) workerArgs(bind netip.Addr) func(int, string) []string {
	return func(index int, name string) []string {
		args := []string{
			"worker", "--name", name, "--session-prefix", strconv.Itoa(index) + "-",
			"--udp", netip.AddrPortFrom(bind, o.udpPort+uint16(index)).String(), "--rung", o.rung, "--max-hold", o.maxHold.String(),
			"--pace", strconv.FormatUint(uint64(o.pace), 10),
			"--log-format", o.logFormat, "--log-level", o.logLevel,
		}
		if len(o.advertise) > 0 {
			args = append(args, "--advertise", strings.Join(o.advertise, ","))
		}
		return args
	}
}

// bindAddr is loopback unless addresses are advertised, then all of their families.
func bindAddr(advertise []netip.Addr) netip.Addr {
	if len(advertise) == 0 {
		return netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	for _, a := range advertise {
		if !a.Is4() {
			return netip.IPv6Unspecified()
		}
	}
	return netip.IPv4Unspecified()
}

// checkUDP says at once, and by name, which port is not to be had.
func checkUDP(o *runOptions, bind netip.Addr) error {
	for i := range o.workers {
		addr := netip.AddrPortFrom(bind, o.udpPort+uint16(i))
		conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(addr))
		if err != nil {
			return fmt.Errorf("UDP port of worker %d: %w (choose others with --udp-port)", i, err)
		}
		conn.Close()
	}
	return nil
}

// signals turns SIGTERM and SIGINT into a stop, the second one into a quick
// one, and SIGHUP into a hand-over.
func signals(cancel context.CancelCauseFunc, hurry chan struct{}, log *slog.Logger) (stop func()) {
	ch := make(chan os.Signal, 4)
	signal.Notify(ch, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		stopping := 0
		for {
			select {
			case <-done:
				return
			case sig := <-ch:
				if sig == syscall.SIGHUP {
					log.Info("handing over to a new agent", "signal", sig)
					cancel(agent.ErrHandover)
					continue
				}
				if stopping++; stopping == 2 {
					close(hurry)
				}
				log.Info("stopping", "signal", sig)
				cancel(nil)
			}
		}
	})
	return func() {
		signal.Stop(ch)
		close(done)
		wg.Wait()
	}
}
