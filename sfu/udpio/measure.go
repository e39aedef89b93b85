package udpio

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// What Measure sends in one turn of one rung.
const (
	measureDestinations = 50
	measurePackets      = 4000
	measureBytes        = 1200
)

// A Cost is what sending by one rung takes of the CPU.
type Cost struct {
	Rung  string
	Named bool          // "auto" does not take it
	Err   error         // why the rung cannot be used here; the rest is zero then
	CPU   time.Duration // user and system time of this process for a datagram, the median of all turns
	Turns int
}

// Measure sends frames of so many datagrams of 1200 bytes each to 50 sockets on
// loopback, which drop all they get, by each rung in turn, so that a busy machine
// is busy for all of them. It goes on for about a duration, at least one turn of
// each, and counts all that this process does meanwhile: do nothing else.
func Measure(ctx context.Context, prober *Prober, frame int, about time.Duration) ([]Cost, error) {
	to, closeAll, err := openHoles(measureDestinations)
	if err != nil {
		return nil, fmt.Errorf("measure: %w", err)
	}
	defer closeAll()
	m := measurement{frame: frame, to: to, payload: make([]byte, measureBytes)}
	var costs []Cost
	for _, r := range rungs() {
		c, err := m.open(ctx, r.name, prober)
		if costs = append(costs, Cost{Rung: r.name, Named: r.wish, Err: err}); err == nil {
			defer c.Close()
		}
		m.conns = append(m.conns, c)
	}
	if err := m.run(ctx, time.Now().Add(about)); err != nil {
		return nil, fmt.Errorf("measure: %w", err)
	}
	for i, turns := range m.turns {
		if costs[i].Turns = len(turns); len(turns) > 0 {
			slices.Sort(turns)
			costs[i].CPU = turns[len(turns)/2]
		}
	}
	return costs, nil
}

type measurement struct {
	frame   int
	to      []netip.AddrPort
	payload []byte
	conns   []*Conn           // nil where there is no such rung
	turns   [][]time.Duration // of each
}

// open returns nil and an error where the rung cannot be stood on.
func (m *measurement) open(ctx context.Context, rung string, prober *Prober) (*Conn, error) {
	c, err := Listen(ctx, Config{
		Addr: netip.AddrPortFrom(m.to[0].Addr(), 0), Rung: rung, Prober: prober, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return nil, err
	}
	if stands := c.Stats(); stands.Rung != rung {
		return nil, errors.Join(errors.New(stands.Why), c.Close())
	}
	return c, nil
}

func (m *measurement) run(ctx context.Context, end time.Time) error {
	m.turns = make([][]time.Duration, len(m.conns))
	for len(m.turns[len(m.turns)-1]) == 0 || time.Now().Before(end) {
		for i, c := range m.conns {
			if c == nil {
				continue
			}
			cost, err := m.turn(ctx, c)
			if err != nil {
				return err
			}
			m.turns[i] = append(m.turns[i], cost)
		}
	}
	return nil
}

// turn sends measurePackets, a frame to every destination and then the next one
// when these have left.
func (m *measurement) turn(ctx context.Context, c *Conn) (perPacket time.Duration, err error) {
	before, err := usedCPU()
	if err != nil {
		return 0, err
	}
	start := c.counters.packetsOut.Load()
	round := uint64(len(m.to) * m.frame)
	for left := start; left < start+measurePackets; {
		for _, to := range m.to {
			for range m.frame {
				if _, err := c.WriteToAddrPort(m.payload, to); err != nil {
					return 0, err
				}
			}
		}
		left += round
		for c.counters.packetsOut.Load() < left {
			if ctx.Err() != nil {
				return 0, context.Cause(ctx)
			}
			time.Sleep(20 * time.Microsecond)
		}
	}
	after, err := usedCPU()
	return (after - before) / time.Duration(c.counters.packetsOut.Load()-start), err
}

// usedCPU is the CPU time of this process, user and system.
func usedCPU() (time.Duration, error) {
	var usage unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &usage); err != nil {
		return 0, fmt.Errorf("getrusage: %w", err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano()), nil
}

// openHoles opens sockets on loopback for which the kernel drops everything,
// after all the work of delivering it.
func openHoles(n int) (addrs []netip.AddrPort, closeAll func() error, err error) {
	var sockets []*socket
	closeAll = func() error {
		var all error
		for _, s := range sockets {
			all = errors.Join(all, s.close())
		}
		return all
	}
	for range n {
		s, err := openHole()
		if err != nil {
			return nil, nil, errors.Join(err, closeAll())
		}
		sockets, addrs = append(sockets, s), append(addrs, s.local)
	}
	return addrs, closeAll, nil
}

func openHole() (*socket, error) {
	s, other, err := loopback()
	if err != nil {
		return nil, err
	}
	nothing := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K}}
	err = unix.SetsockoptSockFprog(s.fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &nothing[0]})
	if err = errors.Join(err, other.close()); err != nil {
		return nil, errors.Join(fmt.Errorf("attach a socket filter: %w", err), s.close())
	}
	return s, nil
}
