package fanout

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Saturate looks for the highest rate that each variant forwards without loss,
// then measures all of them at nine tenths of the first one's, in turn. It takes
// the first number of viewers and the first load, whose rate is where the search
// begins.
func Saturate(ctx context.Context, cfg Config) (_ *Report, err error) {
	r := newReport(cfg)
	var scenes []*scene
	defer func() {
		for _, s := range scenes {
			err = errors.Join(err, s.close(context.WithoutCancel(ctx)))
		}
	}()
	for _, v := range cfg.Variants {
		s, err := cfg.open(ctx, v, cfg.Viewers[0])
		if err != nil {
			return r, err
		}
		scenes = append(scenes, s)
		row, err := s.saturate(ctx, cfg.Loads[0])
		if err != nil {
			return r, err
		}
		r.Rows = append(r.Rows, row)
	}
	l := r.Rows[0].Load
	l.Rate = l.Rate / 10 * 9
	rows, err := inTurn(ctx, cfg, scenes, l)
	r.Rows = append(r.Rows, rows...)
	return r, err
}

// inTurn measures scenes under the same load, one after the other in each round.
func inTurn(ctx context.Context, cfg Config, scenes []*scene, l Load) ([]*Row, error) {
	var rows []*Row
	for _, s := range scenes {
		row := s.newRow(l)
		row.Name = ", 90 % of that"
		rows = append(rows, row)
	}
	for range cfg.Rounds {
		for i, s := range scenes {
			if err := s.round(ctx, rows[i]); err != nil {
				return nil, err
			}
		}
	}
	for i, s := range scenes {
		if err := s.conclude(ctx, rows[i]); err != nil {
			return nil, err
		}
	}
	return rows, nil
}

// Bounds of the search: so often the rate is doubled, then so often halved is
// the step between a rate that went well and one that did not.
const (
	doublings = 8
	halvings  = 5
	trials    = 2 // of a rate, before it counts as too high
	trialTime = 2 * time.Second
)

// errTooSlow is that no rate went well.
var errTooSlow = errors.New("packets are lost at every rate")

// saturate returns a row of the highest rate that went well.
func (s *scene) saturate(ctx context.Context, l Load) (*Row, error) {
	var best *Row
	good, bad := 0, 0
	for range doublings + halvings {
		rate := next(l.Rate, good, bad)
		if rate == good {
			break
		}
		row, err := s.try(ctx, Load{Rate: rate, Frame: l.Frame, Paced: l.Paced})
		if err != nil {
			return nil, err
		}
		if row.kept() {
			good, best = rate, row
		} else {
			bad = rate
		}
		if bad > 0 && good > 0 && bad-good < good/(1<<halvings) {
			break
		}
	}
	if best == nil {
		return nil, fmt.Errorf("%s, %d viewers: %w", s.variant, s.viewers, errTooSlow)
	}
	return best, s.conclude(ctx, best)
}

// next is the rate to try, given the highest that went well and the lowest that
// did not, 0 if there is none yet.
func next(first, good, bad int) int {
	switch {
	case good == 0 && bad == 0:
		return first
	case good == 0:
		return bad / 2
	case bad == 0:
		return good * 2
	}
	return (good + bad) / 2
}

// try measures a rate, again where it does not go well: on a busy machine that
// may have been something else.
func (s *scene) try(ctx context.Context, l Load) (row *Row, err error) {
	for range trials {
		if row, err = s.trial(ctx, l); err != nil || row.kept() {
			break
		}
	}
	return row, err
}

func (s *scene) trial(ctx context.Context, l Load) (*Row, error) {
	row := s.newRow(l)
	row.Name, row.Seconds, row.Rounds = ", most", trialTime.Seconds(), 1
	s.cfg.progress(fmt.Sprintf("%s, %d viewers: trying %.1f Mbit/s", s.variant, s.viewers, float64(l.Rate)/1e6))
	m, err := s.ours(ctx, l, trialTime)
	if err != nil {
		return nil, err
	}
	row.add(m, nil)
	row.conclude()
	return row, nil
}

// kept tells whether all of it arrived, and in its time.
func (r *Row) kept() bool {
	asked := r.packetsPerSecond() * float64(r.Viewers)
	return r.Lost == 0 && slices.Min([]float64{r.SentOfAsked, r.PacketsPerSecond / asked}) >= slow
}
