// Package udpio is a UDP socket that sends in batches: what is written waits,
// grouped by destination, for one goroutine that hands it to the kernel in as
// few system calls as the host allows.
package udpio

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"
)

// Defaults of Config.
const (
	DefaultQueueBytes       = 16 << 20
	DefaultDestinationBytes = 1 << 20
	DefaultSocketBytes      = 4 << 20
)

// Config is what Listen needs. Only Addr is required.
type Config struct {
	// Addr is the local address. Port 0 takes any free one; [::] also carries
	// IPv4.
	Addr netip.AddrPort

	// Rung is how to send: one of Rungs, or "auto" (and "") for the best that
	// works here. Where "uring" does not, it is as "auto".
	Rung string

	// QueueBytes bounds the memory of all datagrams that wait or are being
	// sent, DestinationBytes what waits for one destination, so that none can
	// crowd out the others. What does not fit is dropped and counted.
	QueueBytes       int
	DestinationBytes int

	// MaxHold bounds how long a datagram may wait for others to leave with it,
	// while someone holds (Conn.Hold) or while the writer is close to saturated.
	// 0 is DefaultMaxHold; where it is negative nothing waits.
	MaxHold time.Duration

	// Pace is the budget of each destination in bits per second. A burst may
	// exceed it by 16 full datagrams, or by a millisecond's worth if that is more;
	// the rest follows a millisecond later. It spreads bursts and is no limit:
	// nothing is dropped because of it, and what it holds back leaves at once
	// when there is too much of that. 0 is DefaultPace, negative is none.
	Pace int64

	// SocketBytes is asked of the kernel for its send and receive buffer each.
	SocketBytes int

	Log    *slog.Logger // nil: slog.Default()
	Prober *Prober      // nil: a new one
}

func (c Config) withDefaults() Config {
	if c.Rung == "" {
		c.Rung = "auto"
	}
	if c.QueueBytes == 0 {
		c.QueueBytes = DefaultQueueBytes
	}
	if c.DestinationBytes == 0 {
		c.DestinationBytes = DefaultDestinationBytes
	}
	if c.MaxHold == 0 {
		c.MaxHold = DefaultMaxHold
	}
	if c.Pace == 0 {
		c.Pace = DefaultPace
	}
	if c.SocketBytes == 0 {
		c.SocketBytes = DefaultSocketBytes
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	if c.Prober == nil {
		c.Prober = &Prober{}
	}
	return c
}

// A Conn is a net.PacketConn over UDP. Besides ReadFrom and WriteTo it has
// ReadFromAddrPort and WriteToAddrPort, which do not allocate and which
// pion/ice looks for.
type Conn struct {
	socket   *socket
	receiver receiver
	queue    *queue
	writer   *writer
	counters counters
	local    *net.UDPAddr

	close    sync.Once
	closeErr error
}

var _ net.PacketConn = (*Conn)(nil)

// Listen binds the address and chooses how to send on it. It logs once what was
// chosen and why not the better one. An address in use is an error that wraps
// syscall.EADDRINUSE; a rung asked for by name which this host has not is one
// that wraps errors.ErrUnsupported.
func Listen(ctx context.Context, config Config) (*Conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	config = config.withDefaults()
	ladder, why, err := choose(config.Rung, config.Prober)
	if err != nil {
		return nil, fmt.Errorf("listen on udp %s: %w", config.Addr, err)
	}
	c, err := open(config, ladder, why)
	if err != nil {
		return nil, fmt.Errorf("listen on udp %s: %w", config.Addr, err)
	}
	return c, nil
}

func open(config Config, ladder []rung, why string) (*Conn, error) {
	socket, err := openSocket(config.Addr)
	if err != nil {
		return nil, err
	}
	c := &Conn{socket: socket, local: net.UDPAddrFromAddrPort(socket.local)}
	if err := c.start(config, ladder, why); err != nil {
		return nil, errors.Join(err, socket.close())
	}
	return c, nil
}

func (c *Conn) start(config Config, ladder []rung, why string) error {
	buffers := c.socket.setBuffers(config.SocketBytes)
	receiver, receives, err := openReceiver(c.socket, ladder[0], config.Prober, &c.counters, config.Log)
	if err != nil {
		return err
	}
	sends, err := newLadder(c.socket, &c.counters, ladder, why, config.Log)
	if err != nil {
		return errors.Join(err, receiver.close())
	}
	c.receiver = receiver
	c.queue = newQueue(config.QueueBytes, config.DestinationBytes, config.MaxHold, c.socket.family)
	c.writer = startWriter(c.queue, &c.counters, sends, newPace(config.Pace))
	stands := sends.state.Load()
	logStart(config.Log, c.socket.local, stands.rung, stands.why, receives, buffers)
	return nil
}

// LocalAddr returns the bound address, a *net.UDPAddr.
func (c *Conn) LocalAddr() net.Addr { return c.local }

// ReadFromAddrPort waits for a datagram and copies it into b, as much as fits.
func (c *Conn) ReadFromAddrPort(b []byte) (n int, from netip.AddrPort, err error) {
	n, from, err = c.receiver.read(b)
	if err != nil {
		return 0, netip.AddrPort{}, c.opError("read", err)
	}
	return n, from, nil
}

// WriteToAddrPort copies b into the queue of that destination and returns at
// once. As with any UDP socket, no error does not mean that b arrives: a
// datagram for which there is no room is dropped and counted in Stats.
func (c *Conn) WriteToAddrPort(b []byte, to netip.AddrPort) (n int, err error) {
	drop, err := c.queue.write(b, to)
	if err != nil {
		return 0, c.opError("write", err)
	}
	if drop != dropNone {
		c.counters.dropped(drop, 1)
	}
	return len(b), nil
}

// ReadFrom is ReadFromAddrPort for those who want a net.Addr.
func (c *Conn) ReadFrom(b []byte) (int, net.Addr, error) {
	n, from, err := c.ReadFromAddrPort(b)
	if err != nil {
		return 0, nil, err
	}
	return n, net.UDPAddrFromAddrPort(from), nil
}

// WriteTo is WriteToAddrPort for those who have a net.Addr: a *net.UDPAddr.
func (c *Conn) WriteTo(b []byte, to net.Addr) (int, error) {
	addr, ok := to.(*net.UDPAddr)
	if !ok {
		return 0, c.opError("write", &net.AddrError{Err: "not a UDP address", Addr: fmt.Sprint(to)})
	}
	return c.WriteToAddrPort(b, addr.AddrPort())
}

// SetDeadline is SetReadDeadline, since writes do not wait.
func (c *Conn) SetDeadline(t time.Time) error { return c.SetReadDeadline(t) }

// SetReadDeadline bounds waiting reads; the zero time lifts the bound.
func (c *Conn) SetReadDeadline(t time.Time) error {
	if err := c.receiver.setDeadline(t); err != nil {
		return c.opError("set", err)
	}
	return nil
}

// SetWriteDeadline has nothing to bound, since writes do not wait.
func (c *Conn) SetWriteDeadline(time.Time) error { return nil }

// Close sends what waits, as far as the kernel takes it within a twentieth of a
// second, ends waiting reads, and returns when the socket is closed and nothing
// of the Conn runs any more.
func (c *Conn) Close() error {
	c.close.Do(func() {
		c.queue.close()
		expired := c.socket.expire()
		c.writer.wait()
		c.closeErr = errors.Join(expired, c.writer.ladder.close(), c.receiver.close(), c.socket.close())
	})
	return c.closeErr
}

func (c *Conn) opError(op string, err error) error {
	return &net.OpError{Op: op, Net: "udp", Source: c.local, Err: err}
}
