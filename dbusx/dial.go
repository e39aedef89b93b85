package dbusx

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/godbus/dbus/v5"
)

const (
	systemBus   = "unix:path=/run/dbus/system_bus_socket"
	systemdPeer = "unix:path=/run/systemd/private"

	minPause = 10 * time.Millisecond // between failed dials, doubled
	maxPause = 100 * time.Millisecond
)

// endpoint is a place to connect to.
type endpoint struct {
	dial func(context.Context) (net.Conn, error)
	bus  bool
}

// endpoints lists where to connect, best first.
func (o Options) endpoints() ([]endpoint, error) {
	if o.Dial != nil {
		return []endpoint{{o.Dial, !o.Private}}, nil
	}
	var ends []endpoint
	if !o.Private {
		address := firstOf(o.Address, os.Getenv("DBUS_SYSTEM_BUS_ADDRESS"), systemBus)
		dial, err := dialer(address)
		if err != nil {
			return nil, err
		}
		ends = append(ends, endpoint{dial, true})
	}
	if o.Private || o.PrivateAddress != "" || os.Geteuid() == 0 {
		dial, err := dialer(firstOf(o.PrivateAddress, systemdPeer))
		if err != nil {
			return nil, err
		}
		ends = append(ends, endpoint{dial, false})
	}
	return ends, nil
}

func firstOf(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}

// dialer understands unix:path= and unix:abstract= (D-Bus specification, Server
// Addresses).
func dialer(address string) (func(context.Context) (net.Conn, error), error) {
	path, isPath := strings.CutPrefix(address, "unix:path=")
	name, isAbstract := strings.CutPrefix(address, "unix:abstract=")
	if isAbstract {
		path = "@" + name
	} else if !isPath {
		return nil, fmt.Errorf("address %q: neither unix:path= nor unix:abstract=", address)
	}
	path, _, _ = strings.Cut(path, ",") // guid=
	path, err := dbus.UnescapeBusAddressValue(path)
	if err != nil {
		return nil, fmt.Errorf("address %q: %w", address, err)
	}
	return func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}, nil
}

// dialing is one attempt to connect, shared by all who wait for it.
type dialing struct {
	done chan struct{}
	err  error // valid after done
}

// connected returns a live link that follows all watches, dialing if need be.
// It goes on until ctx ends, unless once is set or time cannot cure the error.
func (c *Client) connected(ctx context.Context, once bool) (*link, error) {
	var last error
	for {
		l, d, err := c.linkOrDial()
		if l != nil || err != nil {
			return l, err
		}
		select {
		case <-d.done:
			last = d.err
		case <-ctx.Done():
			return nil, connectError(last, context.Cause(ctx))
		}
		if last != nil && (once || connectKind(last) == ErrAccessDenied) {
			return nil, connectError(last, nil)
		}
	}
}

// linkOrDial returns the live link or else the attempt to make one.
func (c *Client) linkOrDial() (*link, *dialing, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, nil, &Error{Op: "connect", Kind: ErrClosed}
	}
	if c.link != nil && !c.link.dead() && c.link.signals.count() == len(c.watches) {
		return c.link, nil, nil
	}
	if c.dialing == nil {
		c.dialing = &dialing{done: make(chan struct{})}
		c.quiet.Add(1)
		go c.dial(c.dialing, c.link, c.pause)
	}
	return nil, c.dialing, nil
}

// dial carries out one attempt: watches that old lacks are added to it, a dead
// one is replaced after a pause.
func (c *Client) dial(d *dialing, old *link, pause time.Duration) {
	defer c.quiet.Done()
	ctx, stop := context.WithTimeout(c.ctx, c.opts.DialLimit)
	defer stop()
	l, err := old, error(nil)
	if old == nil || old.dead() {
		if old != nil {
			old.drop()
		}
		l, err = c.anew(ctx, pause)
	}
	if err == nil {
		err = c.follow(ctx, l)
	}
	c.publish(d, l, old, err)
}

// anew connects to the first endpoint that will have us.
func (c *Client) anew(ctx context.Context, pause time.Duration) (*link, error) {
	select {
	case <-time.After(pause):
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	var missing, failed error
	for _, at := range c.ends {
		l, err := dialLink(ctx, at, c.opts.WriteLimit)
		switch {
		case err == nil:
			return l, nil
		case connectKind(err) == ErrNoSystemd:
			missing = errors.Join(missing, err)
		default:
			failed = errors.Join(failed, err)
		}
		if ctx.Err() != nil || !turnedAway(err) {
			break
		}
	}
	if failed != nil {
		return nil, failed
	}
	return nil, missing
}

// follow makes l follow the watches it does not yet.
func (c *Client) follow(ctx context.Context, l *link) error {
	c.mu.Lock()
	missing := c.watches[l.signals.count():]
	c.mu.Unlock()
	if err := l.signals.follow(ctx, l.conn, missing); err != nil {
		return because(ctx, err)
	}
	return nil
}

// publish ends the attempt d.
func (c *Client) publish(d *dialing, l, old *link, err error) {
	c.mu.Lock()
	if err == nil && c.closed {
		err = ErrClosed
	}
	c.dialing, d.err = nil, err
	if err == nil {
		c.link, c.pause = l, 0
		if l != old && old != nil {
			c.redials.Add(1)
		}
	} else {
		c.pause = min(max(minPause, 2*c.pause), maxPause)
	}
	watches := c.watches[:len(c.watches):len(c.watches)]
	c.mu.Unlock()
	close(d.done)
	if err != nil {
		if l != nil {
			l.drop()
		}
		return
	}
	if l == old {
		return
	}
	for _, w := range watches {
		w.Changed()
	}
}

// turnedAway reports whether an endpoint is missing, refuses connections or has
// no room, so that the next one is worth a try.
func turnedAway(err error) bool {
	if kind := connectKind(err); kind == ErrLimits || kind == ErrNoSystemd {
		return true
	}
	for _, e := range []error{syscall.ECONNREFUSED, syscall.EAGAIN, syscall.ECONNRESET, syscall.EPIPE, io.EOF} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

func connectKind(err error) error {
	var reply dbus.Error
	switch {
	case errors.Is(err, ErrClosed):
		return ErrClosed
	case errors.As(err, &reply) && kindOf(reply.Name) != ErrRefused:
		return kindOf(reply.Name)
	case errors.Is(err, fs.ErrPermission):
		return ErrAccessDenied
	case errors.Is(err, fs.ErrNotExist):
		return ErrNoSystemd
	}
	return ErrConnect
}

// connectError tells of the last attempt and, if it did, of the end of ctx.
func connectError(last, ended error) error {
	if last == nil {
		return &Error{Op: "connect", Kind: ErrTimeout, Err: ended}
	}
	e := &Error{Op: "connect", Kind: connectKind(last), Err: last}
	if ended != nil {
		e.Err = errors.Join(ended, last)
	}
	var reply dbus.Error
	if errors.As(last, &reply) {
		e.Name = reply.Name
	}
	return e
}
