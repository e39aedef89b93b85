package fanout

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"time"
)

// Config is what Run needs. Part and, without Target, Worker have to be there.
type Config struct {
	// Part makes the command of a process that calls Part with that role.
	Part func(role string) *exec.Cmd

	// Worker makes the command of an SFU worker on any UDP port of loopback that
	// serves on the unix socket.
	Worker func(socket string, v Variant) *exec.Cmd

	// Target is the URL of another SFU's endpoints instead of a worker of our
	// own, with {kind} for "whip" and "whep" and {room} for a room's name. PIDs
	// are its processes, whose CPU time counts with that of their children.
	Target string
	Token  string
	PIDs   []int

	Bind     netip.Addr // address of the viewers; 127.0.0.1 if it is not set
	Variants []Variant  // what to measure; one with Target
	Viewers  []int
	Rooms    int // each with a publisher; the viewers are spread over them
	Loads    []Load
	Time     time.Duration // of each measurement
	Rounds   int           // of a measurement of the SFU and one of the ceiling

	GRO       bool // sockets take trains whole; else the kernel cuts them, on loopback in the sender's time
	NoCeiling bool
	Progress  func(what string) // nil: none
}

// A Variant is a way to start the worker.
type Variant struct {
	Rung    string
	MaxHold time.Duration // below 0: the worker's default
}

func (v Variant) maxHoldMS() float64 {
	if v.MaxHold < 0 {
		return -1
	}
	return float64(v.MaxHold) / float64(time.Millisecond)
}

func (v Variant) String() string {
	if v.MaxHold < 0 {
		return v.Rung
	}
	return fmt.Sprintf("%s, hold %v", v.Rung, v.MaxHold)
}

func (cfg *Config) bind() netip.Addr {
	if cfg.Bind.IsValid() {
		return cfg.Bind
	}
	return netip.AddrFrom4([4]byte{127, 0, 0, 1})
}

func (cfg *Config) progress(what string) {
	if cfg.Progress != nil {
		cfg.Progress(what)
	}
}

// Run measures every rung with every number of viewers and every load. What
// went wrong within a measurement stands in its row.
func Run(ctx context.Context, cfg Config) (*Report, error) {
	r := newReport(cfg)
	for _, viewers := range cfg.Viewers {
		for _, v := range cfg.Variants {
			rows, err := cfg.rows(ctx, v, viewers)
			if err != nil {
				return r, err
			}
			r.Rows = append(r.Rows, rows...)
		}
	}
	return r, nil
}

func (cfg *Config) rows(ctx context.Context, v Variant, viewers int) (rows []*Row, err error) {
	s, err := cfg.open(ctx, v, viewers)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.close(context.WithoutCancel(ctx))) }()
	for _, l := range cfg.Loads {
		row := s.newRow(l)
		for range cfg.Rounds {
			if err := s.round(ctx, row); err != nil {
				return nil, err
			}
		}
		rows = append(rows, row)
		if err := s.conclude(ctx, row); err != nil {
			return nil, err
		}
	}
	return rows, nil
}

// round measures the ceiling, if there is one, and the SFU.
func (s *scene) round(ctx context.Context, row *Row) error {
	name := fmt.Sprintf("%s, %d viewers, %s, %.1f Mbit/s, round %d", s.variant, s.viewers, row.loadName(), float64(row.Rate)/1e6, len(row.cpus)+1)
	var ceiling *sample
	if s.ceiling != nil {
		s.cfg.progress(name + ": ceiling")
		m, err := s.atCeiling(ctx, row.Load, s.cfg.Time)
		if err != nil {
			return fmt.Errorf("%s: ceiling: %w", name, err)
		}
		ceiling = &m
	}
	s.cfg.progress(name + ": SFU")
	m, err := s.ours(ctx, row.Load, s.cfg.Time)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	row.add(m, ceiling)
	return nil
}

// conclude completes a row, with what the worker says of itself.
func (s *scene) conclude(ctx context.Context, row *Row) error {
	row.conclude()
	if s.worker == nil {
		return nil
	}
	status, err := s.worker.control.Status(ctx)
	row.RungInUse, row.Why = status.UDP.Rung, status.UDP.Why
	return err
}
