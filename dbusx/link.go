package dbusx

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/godbus/dbus/v5"
)

// link is one connection to a bus or, without one, to a single peer.
type link struct {
	wire    *wire
	conn    *dbus.Conn
	bus     bool // there is a bus in between: names, match rules
	signals *signals
}

// dialLink connects, authenticates and says Hello before ctx ends.
func dialLink(ctx context.Context, at endpoint, writeLimit time.Duration) (*link, error) {
	raw, err := at.dial(ctx)
	if err != nil {
		return nil, err
	}
	w := newWire(raw, writeLimit)
	s := &signals{bus: at.bus, owners: make(map[string]string)}
	conn, err := dbus.NewConn(w, dbus.WithSignalHandler(s), dbus.WithIncomingInterceptor(sift))
	if err != nil {
		return nil, errors.Join(err, w.Close())
	}
	l := &link{wire: w, conn: conn, bus: at.bus, signals: s}
	stop := context.AfterFunc(ctx, func() { _ = w.Close() })
	defer stop()
	if err := l.handshake(); err != nil {
		l.drop()
		return nil, because(ctx, err)
	}
	return l, nil
}

// because puts the end of ctx before what it made fail.
func because(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("%w: %w", context.Cause(ctx), err)
	}
	return err
}

func (l *link) handshake() error {
	if err := l.wire.authenticate(os.Geteuid()); err != nil {
		return fmt.Errorf("authenticate: %w", err)
	}
	if err := l.conn.Auth([]dbus.Auth{dbus.AuthExternal("")}); err != nil {
		return fmt.Errorf("start reading: %w", err)
	}
	if !l.bus {
		return nil
	}
	if err := l.conn.Hello(); err != nil {
		return fmt.Errorf("say Hello: %w", err)
	}
	return nil
}

// drop ends the connection: calls in flight return, and when drop returns no
// watch is told of signals any more.
func (l *link) drop() {
	_ = l.wire.Close() // first, so that nobody stays in a write with godbus's lock held
	_ = l.conn.Close()
	l.signals.end()
}

// call makes one call and waits for its reply until ctx ends.
func (l *link) call(ctx context.Context, to Object, method string, args []any) ([]any, error) {
	defer l.wire.ask()()
	done := make(chan *dbus.Call, 1)
	l.conn.Object(to.Name, to.Path).GoWithContext(ctx, method, dbus.FlagNoAutoStart, done, args...)
	call := <-done // bounded: the write by its deadline, the wait by ctx
	return call.Body, call.Err
}

// dead reports whether the connection has ended.
func (l *link) dead() bool { return l.wire.broken.Load() || !l.conn.Connected() }
