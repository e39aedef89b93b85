//go:build native || vm

package scope_test

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sfu-agent/sfu-agent/agent/agenttest"
	"github.com/sfu-agent/sfu-agent/agent/scope"
	"github.com/sfu-agent/sfu-agent/cgroups"
	"github.com/sfu-agent/sfu-agent/dbusx"
	"github.com/sfu-agent/sfu-agent/dbusx/systemd1"
)

const slice = "sfu-test.slice"

var subject = agenttest.Subject{Name: scope.Name, Open: open, Left: left, Contains: true}

func TestMain(m *testing.M) { agenttest.Main(m, subject) }

// placer is a Placer with a bus connection of its own.
type placer struct {
	*scope.Placer
	systemd *systemd1.Systemd
	client  *dbusx.Client
}

func open(ctx context.Context, prefix string) (agenttest.ClosePlacer, error) {
	return openWith(ctx, prefix, nil)
}

// openWith opens a Placer that reaches the bus by dial, nil for as usual.
func openWith(ctx context.Context, prefix string, dial func(context.Context) (net.Conn, error)) (*placer, error) {
	client, err := dbusx.Open(ctx, dbusx.Options{Dial: dial})
	if err != nil {
		return nil, err
	}
	systemd := systemd1.New(client, systemd1.Options{})
	p, err := scope.New(systemd, scope.Config{Prefix: prefix, Slice: slice})
	if err != nil {
		return nil, errors.Join(err, systemd.Close(), client.Close())
	}
	return &placer{p, systemd, client}, nil
}

func (p *placer) Close() error {
	// What failed to start is looked for, and not found, some times before it is forgotten.
	for end := time.Now().Add(10 * time.Second); p.systemd.Stats().UndoPending > 0 && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond)
	}
	return errors.Join(p.Placer.Close(), p.systemd.Close(), p.client.Close())
}

// left lists the units and cgroups of an agent.
func left(ctx context.Context, prefix string) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	client, err := dbusx.Open(ctx, dbusx.Options{})
	if err != nil {
		return nil, err
	}
	defer client.Close()
	systemd := systemd1.New(client, systemd1.Options{})
	defer systemd.Close()
	units, err := systemd.List(ctx, "sfu-worker-"+prefix+"*")
	if err != nil {
		return nil, err
	}
	var left []string
	for _, unit := range units {
		left = append(left, unit.Name+" "+unit.ActiveState)
	}
	host, err := cgroups.Detect()
	if err != nil {
		return nil, err
	}
	groups, err := filepath.Glob(filepath.Join(host.Mount, "*.slice", "*.slice", "*.scope"))
	for _, group := range groups {
		if strings.Contains(group, prefix) {
			left = append(left, group)
		}
	}
	return left, err
}
