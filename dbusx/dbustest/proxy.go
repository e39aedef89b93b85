package dbustest

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"net"
	"sync"
	"time"

	"github.com/godbus/dbus/v5"
)

// Verdict is what a Proxy does with a message from the bus.
type Verdict int

// The verdicts.
const (
	Pass   Verdict = iota
	Drop           // it never arrives
	Repeat         // it arrives twice
	Late           // it arrives 300 ms later, after others
	Cut            // half of it arrives, then the connection ends
	Stall          // it does not arrive, nor anything after it; the connection stays
)

// Proxy stands between clients and a real bus and spoils what the bus sends.
type Proxy struct {
	// Target is the path of the bus's socket.
	Target string
	// Spoil decides about the nth message, counted from 1 over all
	// connections; nil passes all.
	Spoil func(n int, m *dbus.Message) Verdict
	// Write replaces how a message goes out to the client.
	Write func(w io.Writer, message []byte) error

	mu     sync.Mutex
	n      int
	conns  []net.Conn
	closed bool
	wg     sync.WaitGroup
}

// Dial connects to the bus through the proxy; it fits dbusx.Options.Dial.
func (p *Proxy) Dial(ctx context.Context) (net.Conn, error) {
	bus, err := new(net.Dialer).DialContext(ctx, "unix", p.Target)
	if err != nil {
		return nil, err
	}
	client, near := net.Pipe()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		_ = bus.Close()
		return nil, net.ErrClosed
	}
	p.conns = append(p.conns, bus, near)
	p.wg.Go(func() {
		_, _ = io.Copy(bus, near)
		_ = bus.Close()
	})
	p.wg.Go(func() {
		p.forward(near, bufio.NewReader(bus))
		_ = near.Close()
	})
	return client, nil
}

// Close ends all connections and waits until nothing of the proxy runs.
func (p *Proxy) Close() {
	p.mu.Lock()
	p.closed = true
	for _, c := range p.conns {
		_ = c.Close()
	}
	p.mu.Unlock()
	p.wg.Wait()
}

// forward passes on what the bus says until the connection ends.
func (p *Proxy) forward(to net.Conn, from *bufio.Reader) {
	var mu sync.Mutex // late messages come from elsewhere
	send := func(data []byte) error {
		mu.Lock()
		defer mu.Unlock()
		if p.Write != nil && isMessage(data[0]) {
			return p.Write(to, data)
		}
		_, err := to.Write(data)
		return err
	}
	for {
		data, err := next(from)
		if err != nil {
			return
		}
		switch p.verdict(data) {
		case Drop:
		case Repeat:
			for range 2 {
				if send(data) != nil {
					return
				}
			}
		case Late:
			p.wg.Go(func() {
				time.Sleep(300 * time.Millisecond)
				_ = send(data)
			})
		case Cut:
			_ = send(data[:len(data)/2])
			return
		case Stall:
			_, _ = io.Copy(io.Discard, from)
			return
		default:
			if send(data) != nil {
				return
			}
		}
	}
}

func (p *Proxy) verdict(data []byte) Verdict {
	m, err := dbus.DecodeMessage(bytes.NewReader(data))
	if err != nil || p.Spoil == nil {
		return Pass // a line of the authentication
	}
	p.mu.Lock()
	p.n++
	n := p.n
	p.mu.Unlock()
	return p.Spoil(n, m)
}

// next reads a message or a line of the authentication.
func next(from *bufio.Reader) ([]byte, error) {
	first, err := from.Peek(1)
	if err != nil {
		return nil, err
	}
	if !isMessage(first[0]) {
		return from.ReadBytes('\n')
	}
	head, err := from.Peek(16)
	if err != nil {
		return nil, err
	}
	var order binary.ByteOrder = binary.LittleEndian
	if first[0] == 'B' {
		order = binary.BigEndian
	}
	fields := (int(order.Uint32(head[12:])) + 7) &^ 7
	data := make([]byte, 16+fields+int(order.Uint32(head[4:])))
	_, err = io.ReadFull(from, data)
	return data, err
}

// isMessage tells the first byte of a message from that of a line.
func isMessage(first byte) bool { return first == 'l' || first == 'B' }

// Member returns the member of a signal, "" of other messages.
func Member(m *dbus.Message) string {
	if m.Type != dbus.TypeSignal {
		return ""
	}
	name, _ := m.Headers[dbus.FieldMember].Value().(string)
	return name
}
