package cgroups

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// freezeLimit bounds a freeze: a process in uninterruptible sleep, such as one
// that waits in vfork(2), cannot be frozen.
const freezeLimit = 2 * time.Second

// Freeze stops all processes in the cgroup and below it, and returns when they
// are stopped. After 2 s, or when ctx ends, it thaws the cgroup again and
// returns an error, which in the first case wraps ErrFreezeTimeout.
func (g Group) Freeze(ctx context.Context) error {
	err := g.setFrozen(ctx, true)
	if err == nil {
		return nil
	}
	if thawErr := g.write("cgroup.freeze", "0"); thawErr != nil && !errors.Is(thawErr, ErrGone) {
		err = errors.Join(err, thawErr)
	}
	return fmt.Errorf("freeze cgroup %s: %w", g, err)
}

// Thaw lets the processes of a frozen cgroup go on, and returns when they do.
func (g Group) Thaw(ctx context.Context) error {
	if err := g.setFrozen(ctx, false); err != nil {
		return fmt.Errorf("thaw cgroup %s: %w", g, err)
	}
	return nil
}

func (g Group) setFrozen(ctx context.Context, want bool) error {
	value := "0"
	if want {
		value = "1"
	}
	if err := g.write("cgroup.freeze", value); err != nil {
		return err
	}
	have := !want
	err := retry(ctx, freezeLimit, func() (bool, error) {
		data, err := g.read("cgroup.events")
		have = parseEvents(data, nil).Frozen
		return have == want || err != nil, err
	})
	if err == nil && have != want {
		err = ErrFreezeTimeout
	}
	return err
}
