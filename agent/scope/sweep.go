package scope

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"sync"

	"github.com/sfu-agent/sfu-agent/agent"
	"github.com/sfu-agent/sfu-agent/cgroups"
	"github.com/sfu-agent/sfu-agent/dbusx/systemd1"
)

// Sweep implements agent.Placer. It looks for processes, for units, failed ones
// too, and for cgroups of the slice that have lost their unit.
func (p *Placer) Sweep(ctx context.Context, keep []agent.Record) ([]string, error) {
	removed, err := p.plain.Sweep(ctx, keep)
	units, unitsErr := p.sweepUnits(ctx, keep)
	groups, groupsErr := p.sweepGroups(ctx, keep)
	removed = slices.Concat(removed, units, groups)
	slices.Sort(removed)
	if err = errors.Join(err, unitsErr, groupsErr); err != nil {
		err = fmt.Errorf("sweep: %w", err)
	}
	return slices.Compact(removed), err
}

// stray says whether a unit is one of this agent's that keep does not list, and
// returns its worker's name.
func (p *Placer) stray(unit string, keep []agent.Record) (name string, stray bool) {
	name, ok := strings.CutPrefix(unit, unitPrefix)
	name, isScope := strings.CutSuffix(name, unitSuffix)
	return name, ok && isScope && strings.HasPrefix(name, p.prefix+"-") && !p.plain.Kept(keep, name)
}

func (p *Placer) sweepUnits(ctx context.Context, keep []agent.Record) (removed []string, err error) {
	units, err := p.systemd.List(ctx, unitPrefix+p.prefix+"-*"+unitSuffix)
	if err != nil {
		return nil, err
	}
	errs := make([]error, len(units))
	var sweeps sync.WaitGroup
	for i, unit := range units {
		if name, stray := p.stray(unit.Name, keep); stray {
			removed = append(removed, name)
			sweeps.Go(func() { errs[i] = p.remove(ctx, unit.Name) })
		}
	}
	sweeps.Wait()
	return removed, errors.Join(errs...)
}

func (p *Placer) sweepGroups(ctx context.Context, keep []agent.Record) (removed []string, err error) {
	slice, err := p.systemd.Unit(ctx, p.slice)
	if errors.Is(err, systemd1.ErrNoUnit) || err == nil && slice.ControlGroup == "" {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	groups, err := p.host.Group(slice.ControlGroup).Children()
	if errors.Is(err, cgroups.ErrGone) {
		return nil, nil
	}
	var errs []error
	for _, group := range groups {
		if name, stray := p.stray(path.Base(group.Path()), keep); stray {
			removed = append(removed, name)
			errs = append(errs, group.Kill(ctx), group.Remove(ctx))
		}
	}
	return removed, errors.Join(append(errs, err)...)
}
