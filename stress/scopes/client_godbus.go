package scopes

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/godbus/dbus/v5"
)

const (
	service   = "org.freedesktop.systemd1"
	manager   = service + ".Manager."
	busObject = dbus.ObjectPath("/org/freedesktop/systemd1")
)

// plainGodbus is godbus as its documentation shows it: one connection, made
// anew when it is found lost, and JobRemoved from a channel.
type plainGodbus struct {
	mu      sync.Mutex
	conn    *dbus.Conn
	waiting map[string]chan string // by unit
}

func openGodbus(context.Context) (client, error) {
	c := &plainGodbus{waiting: map[string]chan string{}}
	_, err := c.connected()
	return c, err
}

func (c *plainGodbus) connected() (*dbus.Conn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn != nil && c.conn.Connected() {
		return c.conn, nil
	}
	conn, err := dbus.ConnectSystemBus()
	if err != nil {
		return nil, err
	}
	if err := conn.AddMatchSignal(dbus.WithMatchInterface(service+".Manager"), dbus.WithMatchMember("JobRemoved")); err != nil {
		conn.Close()
		return nil, err
	}
	signals := make(chan *dbus.Signal, 4096)
	conn.Signal(signals)
	go c.dispatch(signals) // ends when conn closes the channel
	c.conn = conn
	return conn, nil
}

func (c *plainGodbus) dispatch(signals <-chan *dbus.Signal) {
	for sig := range signals {
		var id uint32
		var job dbus.ObjectPath
		var unit, result string
		if dbus.Store(sig.Body, &id, &job, &unit, &result) != nil {
			continue
		}
		c.mu.Lock()
		if ch, ok := c.waiting[unit]; ok {
			select {
			case ch <- result:
			default:
			}
		}
		c.mu.Unlock()
	}
}

func (c *plainGodbus) job(ctx context.Context, unit, method string, args ...any) error {
	conn, err := c.connected()
	if err != nil {
		return err
	}
	done := make(chan string, 1)
	c.mu.Lock()
	c.waiting[unit] = done
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		delete(c.waiting, unit)
		c.mu.Unlock()
	}()
	if call := conn.Object(service, busObject).CallWithContext(ctx, manager+method, 0, args...); call.Err != nil {
		return call.Err
	}
	return waitResult(ctx, done)
}

func (c *plainGodbus) start(ctx context.Context, unit string, pid int, stopTimeout time.Duration) error {
	aux := []struct {
		Name  string
		Props []property
	}{}
	return c.job(ctx, unit, "StartTransientUnit", unit, "fail", properties(pid, stopTimeout), aux)
}

func (c *plainGodbus) stop(ctx context.Context, unit string) error {
	return c.job(ctx, unit, "StopUnit", unit, "replace")
}

func (c *plainGodbus) close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn == nil {
		return nil
	}
	return c.conn.Close()
}

func waitResult(ctx context.Context, done <-chan string) error {
	select {
	case result := <-done:
		if result != "done" {
			return fmt.Errorf("job result %q", result)
		}
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
