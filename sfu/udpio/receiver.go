package udpio

import (
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"time"
)

// A receiver reads datagrams in one way.
type receiver interface {
	// read waits for a datagram and copies it into b, as much as fits.
	read(b []byte) (n int, from netip.AddrPort, err error)
	setDeadline(t time.Time) error
	// close ends waiting reads and returns when none runs any more, or leaves
	// that to the close of the socket, which follows.
	close() error
}

// openReceiver takes the best way to receive that goes with the rung, and says
// what it is.
func openReceiver(s *socket, r rung, prober *Prober, c *counters, log *slog.Logger) (rx receiver, name string, err error) {
	if r.own {
		if rx, name, err = openMmsgReceiver(s, prober, c, log); err == nil {
			return rx, name, nil
		}
	}
	name = "plain"
	if err != nil {
		name += ": " + err.Error()
	}
	conn, err := s.netConn()
	return plainReceiver{conn, c}, name, err
}

func openMmsgReceiver(s *socket, prober *Prober, c *counters, log *slog.Logger) (rx receiver, name string, err error) {
	single := prober.HaveRecvmmsg() != nil
	name = "recvmmsg"
	if single {
		name = "recvmsg"
	}
	if rx, err = newMmsgReceiver(s, c, log, single); err != nil {
		return nil, "", err
	}
	if prober.HaveGRO() == nil && s.setGRO() == nil {
		name += " with UDP_GRO"
	}
	return rx, name, nil
}

// plainReceiver reads with Go's net.
type plainReceiver struct {
	conn     *net.UDPConn
	counters *counters
}

func (r plainReceiver) read(b []byte) (int, netip.AddrPort, error) {
	n, from, err := r.conn.ReadFromUDPAddrPort(b)
	if err != nil {
		if op, ok := errors.AsType[*net.OpError](err); ok {
			err = op.Err // Conn says the rest
		}
		return 0, from, err
	}
	r.counters.received(1, n)
	return n, netip.AddrPortFrom(from.Addr().Unmap(), from.Port()), nil
}

func (r plainReceiver) setDeadline(t time.Time) error { return r.conn.SetReadDeadline(t) }
func (r plainReceiver) close() error                  { return nil } // the socket closes conn
