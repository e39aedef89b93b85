package scopes

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/godbus/dbus/v5"

	"github.com/sfu-agent/sfu-agent/cgroups"
	"github.com/sfu-agent/sfu-agent/dbusx"
	"github.com/sfu-agent/sfu-agent/dbusx/systemd1"
)

const (
	slice       = "sfustress.slice"
	unitPrefix  = "sfustress"
	defaultStop = 5 * time.Second
	tasksMax    = 64
	memoryMax   = 256 << 20
	cpuWeight   = 100
	collectMode = "inactive-or-failed"
)

// client is one way to speak to systemd. Every variant asks for the same
// properties.
type client interface {
	// start returns when the process is in the new scope.
	start(ctx context.Context, unit string, pid int, stopTimeout time.Duration) error
	// stop returns when the scope is gone.
	stop(ctx context.Context, unit string) error
	close() error
}

var clients = map[string]func(context.Context) (client, error){
	"ours":       openOurs,
	"godbus":     openGodbus,
	"go-systemd": openGoSystemd,
	"naive":      func(context.Context) (client, error) { return naive{}, nil },
}

// Clients are the names of all clients.
func Clients() []string { return slices.Sorted(maps.Keys(clients)) }

// ours is dbusx and systemd1 as the agent's scope placer uses them.
type ours struct {
	bus     *dbusx.Client
	systemd *systemd1.Systemd
	host    cgroups.Host
	scopes  sync.Map // startedScope by unit
}

type startedScope struct {
	group       cgroups.Group
	stopTimeout time.Duration
}

func openOurs(ctx context.Context) (client, error) {
	host, err := cgroups.Detect()
	if err != nil {
		return nil, err
	}
	bus, err := dbusx.Open(ctx, dbusx.Options{})
	if err != nil {
		return nil, err
	}
	return &ours{bus: bus, systemd: systemd1.New(bus, systemd1.Options{}), host: host}, nil
}

func (c *ours) start(ctx context.Context, unit string, pid int, stopTimeout time.Duration) error {
	var p systemd1.Properties
	p.PIDs(pid)
	p.Slice(slice)
	p.Delegate(true)
	p.DefaultDependencies(false)
	p.CollectMode(collectMode)
	p.TimeoutStop(orDefault(stopTimeout))
	p.TasksMax(tasksMax)
	p.MemoryMax(memoryMax)
	p.CPUWeight(cpuWeight)
	if err := c.systemd.StartScope(ctx, unit, p); err != nil {
		return err
	}
	if group, err := c.host.GroupOf(pid); err == nil { // else it has ended
		c.scopes.Store(unit, startedScope{group, orDefault(stopTimeout)})
	}
	return nil
}

func (c *ours) stop(ctx context.Context, unit string) error {
	v, _ := c.scopes.LoadAndDelete(unit)
	scope, _ := v.(startedScope) // of no cgroup if the process has ended
	_, err := c.systemd.StopScope(ctx, unit, scope.group, scope.stopTimeout)
	return err
}

// close first lets failed starts be undone, as a supervisor that goes on would.
func (c *ours) close() error {
	until(30*time.Second, func() bool { return c.systemd.Stats().UndoPending == 0 })
	err := c.systemd.Close()
	c.bus.Close()
	return err
}

// properties are the same for the clients that take godbus's types.
func properties(pid int, stopTimeout time.Duration) []property {
	return []property{
		{"PIDs", dbus.MakeVariant([]uint32{uint32(pid)})},
		{"Slice", dbus.MakeVariant(slice)},
		{"Delegate", dbus.MakeVariant(true)},
		{"DefaultDependencies", dbus.MakeVariant(false)},
		{"CollectMode", dbus.MakeVariant(collectMode)},
		{"TimeoutStopUSec", dbus.MakeVariant(uint64(orDefault(stopTimeout).Microseconds()))},
		{"TasksMax", dbus.MakeVariant(uint64(tasksMax))},
		{"MemoryMax", dbus.MakeVariant(uint64(memoryMax))},
		{"CPUWeight", dbus.MakeVariant(uint64(cpuWeight))},
	}
}

type property struct {
	Name  string
	Value dbus.Variant
}

func orDefault(d time.Duration) time.Duration {
	if d == 0 {
		return defaultStop
	}
	return d
}
