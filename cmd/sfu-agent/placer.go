package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sfu-agent/sfu-agent/agent"
	"github.com/sfu-agent/sfu-agent/agent/process"
	"github.com/sfu-agent/sfu-agent/agent/scope"
	"github.com/sfu-agent/sfu-agent/agent/subtree"
	"github.com/sfu-agent/sfu-agent/dbusx"
	"github.com/sfu-agent/sfu-agent/dbusx/systemd1"
)

// busLimit bounds how long a start waits for the bus and systemd.
const busLimit = 5 * time.Second

// chosenPlacer is where this agent's workers go, and why there.
type chosenPlacer struct {
	agent.Placer
	name string
	why  string
	bus  *dbusx.Client // nil without scopes
	done []func() error
}

func (p *chosenPlacer) close() {
	for _, done := range slices.Backward(p.done) {
		done()
	}
	p.done = nil
}

// choosePlacer takes the wished-for placer, or with "auto" the one that earlier
// workers are in, or the first that this host can give.
func choosePlacer(ctx context.Context, o *runOptions, prefix string, recorded []string, log *slog.Logger) (*chosenPlacer, error) {
	open := map[string]func() (*chosenPlacer, error){
		"scope":   func() (*chosenPlacer, error) { return openScope(ctx, o.slice, prefix, log) },
		"subtree": func() (*chosenPlacer, error) { return openSubtree(ctx, prefix, log) },
		"process": func() (*chosenPlacer, error) { return openProcess(prefix, log), nil },
	}
	name, why := o.placer, "asked for"
	if name == "auto" && len(recorded) == 1 {
		name, why = recorded[0], "its workers are already there"
	}
	if name != "auto" {
		one, ok := open[name]
		if !ok {
			return nil, fmt.Errorf("--placer %q: want auto, scope, subtree or process", name)
		}
		p, err := one()
		if err != nil {
			return nil, fmt.Errorf("--placer %s: %s (choose another with --placer)", name, oneLine(err))
		}
		p.why = why
		return p, nil
	}
	var reasons []string
	for _, name := range []string{"scope", "subtree", "process"} {
		p, err := open[name]()
		if err != nil {
			reasons = append(reasons, "no "+name+": "+oneLine(err))
			continue
		}
		p.why = "the best this host has"
		if len(reasons) > 0 {
			p.why = strings.Join(reasons, "; ")
		}
		return p, nil
	}
	return nil, errors.New(strings.Join(reasons, "; "))
}

// oneLine is a joined error on one line.
func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }

func openScope(ctx context.Context, slice, prefix string, log *slog.Logger) (*chosenPlacer, error) {
	ctx, cancel := context.WithTimeout(ctx, busLimit)
	defer cancel()
	bus, err := dbusx.Open(ctx, dbusx.Options{Log: log})
	if err != nil {
		return nil, err
	}
	systemd := systemd1.New(bus, systemd1.Options{Log: log})
	var placer *scope.Placer
	if _, err = systemd.Version(ctx); err == nil {
		placer, err = scope.New(systemd, scope.Config{Prefix: prefix, Slice: slice, Log: log})
	}
	if err != nil {
		systemd.Close()
		bus.Close()
		return nil, err
	}
	return &chosenPlacer{Placer: placer, name: scope.Name, bus: bus, done: []func() error{bus.Close, systemd.Close, placer.Close}}, nil
}

func openSubtree(ctx context.Context, prefix string, log *slog.Logger) (*chosenPlacer, error) {
	placer, err := subtree.New(ctx, subtree.Config{Prefix: prefix, Log: log})
	if err != nil {
		return nil, err
	}
	return &chosenPlacer{Placer: placer, name: subtree.Name, done: []func() error{placer.Close}}, nil
}

func openProcess(prefix string, log *slog.Logger) *chosenPlacer {
	placer := process.New(process.Config{Prefix: prefix, Log: log})
	return &chosenPlacer{Placer: placer, name: process.Name, done: []func() error{placer.Close}}
}

// collectors are the placer's own metrics.
func (p *chosenPlacer) collectors() []prometheus.Collector {
	if p.bus == nil {
		return nil
	}
	counter := func(name, help string, value func(dbusx.Stats) float64) prometheus.Collector {
		return prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "sfu_dbus_" + name + "_total", Help: help},
			func() float64 { return value(p.bus.Stats()) })
	}
	return []prometheus.Collector{
		counter("calls", "D-Bus calls made.", func(s dbusx.Stats) float64 { return float64(s.Calls) }),
		counter("lost_calls", "D-Bus calls whose outcome the connection's end left unknown.", func(s dbusx.Stats) float64 { return float64(s.Lost) }),
		counter("redials", "Connections to the bus made after the first.", func(s dbusx.Stats) float64 { return float64(s.Redials) }),
	}
}
