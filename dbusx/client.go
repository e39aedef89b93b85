// Package dbusx is a D-Bus client in which no reply is lost and everything is
// bounded in time.
//
// godbus does the wire format, authentication and serials. Around it this
// package puts one connection that is made anew when it is lost, limits on
// every dial, write and call, a bound on the calls in flight, and errors that
// say whether a request may have been carried out.
//
// There are two locks, Client.mu and signals.mu; the second may be taken while
// the first is held, and nothing blocks under them.
package dbusx

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/godbus/dbus/v5"
)

// Options says where the bus is and how long to wait for it. The zero value is
// the system bus with the limits given here.
type Options struct {
	// Address is the D-Bus address of the bus. Empty means the system bus:
	// $DBUS_SYSTEM_BUS_ADDRESS or unix:path=/run/dbus/system_bus_socket.
	Address string
	// Private means systemd's own socket instead of a bus.
	Private bool
	// PrivateAddress is systemd's own socket, used for Private and when the bus
	// refuses connections, has reached a limit or is missing; the next connection
	// tries the bus first again. Empty means unix:path=/run/systemd/private, as
	// fallback only for root.
	PrivateAddress string

	CallLimit  time.Duration // for one reply; 3 s
	DialLimit  time.Duration // for dial, authentication and Hello together; 3 s
	WriteLimit time.Duration // for one message to leave; 2 s
	InFlight   int           // calls without a reply yet, at most; 64

	// Dial, if set, makes the connection in place of both addresses.
	Dial func(context.Context) (net.Conn, error)
	Log  *slog.Logger
}

func (o Options) withDefaults() Options {
	if o.CallLimit == 0 {
		o.CallLimit = 3 * time.Second
	}
	if o.DialLimit == 0 {
		o.DialLimit = 3 * time.Second
	}
	if o.WriteLimit == 0 {
		o.WriteLimit = 2 * time.Second
	}
	if o.InFlight == 0 {
		o.InFlight = 64
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}

// Client holds one connection to a bus. Its methods may be called from any
// goroutine.
type Client struct {
	opts  Options
	ends  []endpoint
	slots chan struct{} // one element per call in flight; channels wake senders in order

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	quiet  sync.WaitGroup // calls and dials

	mu      sync.Mutex
	closed  bool
	link    *link
	dialing *dialing // nil: nobody dials
	pause   time.Duration
	watches []Watch

	calls, lost, redials atomic.Uint64
	worst                atomic.Int64
}

// Stats counts since Open.
type Stats struct {
	Calls    uint64        // calls sent
	Lost     uint64        // calls whose outcome stayed unknown
	Redials  uint64        // connections made after the first
	InFlight int           // calls without a reply now
	Worst    time.Duration // longest call, from its slot to its reply
}

// Open connects to the bus. ctx and the dial limit bound Open, not the life of
// the connection.
func Open(ctx context.Context, o Options) (*Client, error) {
	o = o.withDefaults()
	ends, err := o.endpoints()
	if err != nil {
		return nil, &Error{Op: "open bus", Kind: ErrConnect, Err: err}
	}
	c := &Client{opts: o, ends: ends, slots: make(chan struct{}, o.InFlight)}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	if _, err := c.connected(ctx, true); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// Close ends the connection. Calls in flight return ErrClosed, and when Close
// returns nothing of the client runs any more.
func (c *Client) Close() error {
	c.mu.Lock()
	l := c.link
	c.closed, c.link = true, nil
	c.mu.Unlock()
	c.cancel()
	if l != nil {
		l.drop()
	}
	c.quiet.Wait()
	return nil
}

// Stats returns the counters.
func (c *Client) Stats() Stats {
	return Stats{
		Calls:    c.calls.Load(),
		Lost:     c.lost.Load(),
		Redials:  c.redials.Load(),
		InFlight: len(c.slots),
		Worst:    time.Duration(c.worst.Load()),
	}
}

// Watch follows a signal from the next call on, for as long as the client lives.
func (c *Client) Watch(w Watch) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.watches = append(c.watches, w)
}

// An Object is what a call is addressed to.
type Object struct {
	Name string // well-known name; ignored without a bus
	Path dbus.ObjectPath
}

// Call calls method (interface and member) and stores the reply's values in ret,
// unless ret is nil. It returns when ctx ends, or by the write limit if the bus
// has stopped reading; a ctx without deadline gets the dial and call limits. A
// call that certainly was not sent is sent again on a new connection; one that
// may have been carried out is not, and its Error says so.
func (c *Client) Call(ctx context.Context, to Object, method string, ret []any, args ...any) error {
	if _, ok := ctx.Deadline(); !ok {
		var stop context.CancelFunc
		ctx, stop = context.WithTimeout(ctx, c.opts.DialLimit+c.opts.CallLimit)
		defer stop()
	}
	if !c.enter() {
		return &Error{Op: method, Kind: ErrClosed}
	}
	defer c.quiet.Done()
	select {
	case c.slots <- struct{}{}:
		defer func() { <-c.slots }()
	case <-ctx.Done():
		return &Error{Op: method, Kind: ErrTimeout, Err: fmt.Errorf("wait for a slot: %w", context.Cause(ctx))}
	case <-c.ctx.Done():
		return &Error{Op: method, Kind: ErrClosed}
	}
	began := time.Now()
	body, err := c.send(ctx, to, method, args)
	c.tookAtMost(time.Since(began))
	if err != nil {
		return err
	}
	if ret == nil {
		return nil
	}
	if err := dbus.Store(body, ret...); err != nil {
		return &Error{Op: method, Kind: ErrReply, Sent: true, Err: err}
	}
	return nil
}

// enter counts a call in, unless the client is closed.
func (c *Client) enter() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	c.quiet.Add(1)
	return true
}

// send makes attempts until one was sent.
func (c *Client) send(ctx context.Context, to Object, method string, args []any) ([]any, error) {
	for {
		if ctx.Err() != nil {
			return nil, &Error{Op: method, Kind: ErrTimeout, Err: context.Cause(ctx)}
		}
		l, err := c.connected(ctx, false)
		if err != nil {
			return nil, err
		}
		body, err := c.attempt(ctx, l, to, method, args)
		var e *Error
		if errors.As(err, &e) && e.Kind == ErrLost && !e.Sent {
			continue
		}
		return body, err
	}
}

// attempt makes one call on l within the call limit. A peer that has been silent
// for so long is given up; when it is the limit that has passed, for most of it.
func (c *Client) attempt(ctx context.Context, l *link, to Object, method string, args []any) ([]any, error) {
	caller := ctx
	ctx, stop := context.WithTimeout(ctx, c.opts.CallLimit)
	defer stop()
	c.calls.Add(1)
	body, err := l.call(ctx, to, method, args)
	if err == nil {
		return body, nil
	}
	silence := c.opts.CallLimit
	if caller.Err() == nil {
		silence /= 2
	}
	if l.wire.silent(silence) {
		c.opts.Log.Warn("bus is silent, connection dropped", "for", silence)
		l.drop()
	}
	e := c.judge(ctx, l, err)
	e.Op = method
	if Unknown(e) {
		c.lost.Add(1)
	}
	return nil, e
}

// judge says what err, with which an attempt on l ended, means.
func (c *Client) judge(ctx context.Context, l *link, err error) *Error {
	var reply dbus.Error
	switch {
	case errors.As(err, &reply):
		return &Error{Kind: kindOf(reply.Name), Name: reply.Name, Sent: true, Err: err}
	case errors.Is(err, dbus.ErrClosed), errors.Is(err, errUnsent):
		l.drop()
		return &Error{Kind: ErrLost, Err: err}
	case l.dead() && c.ctx.Err() != nil:
		return &Error{Kind: ErrClosed, Sent: true, Err: err}
	case l.dead() && ctx.Err() == nil:
		return &Error{Kind: ErrLost, Sent: true, Err: err}
	case ctx.Err() != nil:
		return &Error{Kind: ErrTimeout, Sent: true, Err: context.Cause(ctx)}
	}
	return &Error{Kind: ErrRefused, Err: err} // by godbus: it cannot be encoded
}

func (c *Client) tookAtMost(d time.Duration) {
	for {
		old := c.worst.Load()
		if int64(d) <= old || c.worst.CompareAndSwap(old, int64(d)) {
			return
		}
	}
}
