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
	Worker func(socket, rung string) *exec.Cmd

	// Target is the URL of another SFU's endpoints instead of a worker of our
	// own, with {kind} for "whip" and "whep" and {room} for a room's name. PIDs
	// are its processes, whose CPU time counts with that of their children.
	Target string
	Token  string
	PIDs   []int

	Bind    netip.Addr // address of the viewers; 127.0.0.1 if it is not set
	Rungs   []string   // of the worker; one without Target
	Viewers []int
	Rooms   int // each with a publisher; the viewers are spread over them
	Loads   []Load
	Time    time.Duration // of each measurement
	Rounds  int           // of a measurement of the SFU and one of the ceiling

	NoCeiling bool
	Progress  func(what string) // nil: none
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
		for _, rung := range cfg.Rungs {
			rows, err := cfg.rows(ctx, rung, viewers)
			if err != nil {
				return r, err
			}
			r.Rows = append(r.Rows, rows...)
		}
	}
	return r, nil
}

func (cfg *Config) rows(ctx context.Context, rung string, viewers int) (rows []*Row, err error) {
	s, err := cfg.open(ctx, rung, viewers)
	if err != nil {
		return nil, fmt.Errorf("rung %s, %d viewers: %w", rung, viewers, err)
	}
	defer func() { err = errors.Join(err, s.close(context.WithoutCancel(ctx))) }()
	for _, l := range cfg.Loads {
		row, err := s.row(ctx, rung, l)
		if err != nil {
			return nil, fmt.Errorf("rung %s, %d viewers: %w", rung, viewers, err)
		}
		rows = append(rows, row)
	}
	return rows, nil
}

// row alternates between the ceiling and the SFU.
func (s *scene) row(ctx context.Context, rung string, l Load) (*Row, error) {
	row := s.newRow(rung, l)
	for round := range s.cfg.Rounds {
		name := fmt.Sprintf("%s, %d viewers, round %d of %d", row.Rung, s.viewers, round+1, s.cfg.Rounds)
		var ceiling *sample
		if s.ceiling != nil {
			s.cfg.progress(name + ": ceiling")
			m, err := s.atCeiling(ctx, l, s.cfg.Time)
			if err != nil {
				return nil, err
			}
			ceiling = &m
		}
		s.cfg.progress(name + ": SFU")
		m, err := s.ours(ctx, l, s.cfg.Time)
		if err != nil {
			return nil, err
		}
		row.add(m, ceiling)
	}
	return row, s.finish(ctx, row)
}

// finish adds what the worker says of itself.
func (s *scene) finish(ctx context.Context, row *Row) error {
	row.conclude()
	if s.worker == nil {
		return nil
	}
	status, err := s.worker.control.Status(ctx)
	if err != nil {
		return err
	}
	row.RungInUse, row.Why = status.UDP.Rung, status.UDP.Why
	return nil
}
