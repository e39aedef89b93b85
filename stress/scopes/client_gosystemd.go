package scopes

import (
	"context"
	"sync"
	"time"

	systemd "github.com/coreos/go-systemd/v22/dbus"
)

// goSystemd is coreos/go-systemd as runc and others use it: one Conn for all,
// made anew when it is found lost.
type goSystemd struct {
	mu   sync.Mutex
	conn *systemd.Conn
}

func openGoSystemd(context.Context) (client, error) {
	c := &goSystemd{}
	_, err := c.connected()
	return c, err
}

func (c *goSystemd) connected() (*systemd.Conn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn != nil && c.conn.Connected() {
		return c.conn, nil
	}
	// The context is the connection's life, so no deadline can be given.
	conn, err := systemd.NewSystemConnectionContext(context.Background())
	if err != nil {
		return nil, err
	}
	if c.conn != nil {
		c.conn.Close()
	}
	c.conn = conn
	return conn, nil
}

func (c *goSystemd) start(ctx context.Context, unit string, pid int, stopTimeout time.Duration) error {
	conn, err := c.connected()
	if err != nil {
		return err
	}
	var props []systemd.Property
	for _, p := range properties(pid, stopTimeout) {
		props = append(props, systemd.Property{Name: p.Name, Value: p.Value})
	}
	done := make(chan string, 1)
	if _, err := conn.StartTransientUnitContext(ctx, unit, "fail", props, done); err != nil {
		return err
	}
	return waitResult(ctx, done)
}

func (c *goSystemd) stop(ctx context.Context, unit string) error {
	conn, err := c.connected()
	if err != nil {
		return err
	}
	done := make(chan string, 1)
	if _, err := conn.StopUnitContext(ctx, unit, "replace", done); err != nil {
		return err
	}
	return waitResult(ctx, done)
}

func (c *goSystemd) close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn != nil {
		c.conn.Close()
	}
	return nil
}
