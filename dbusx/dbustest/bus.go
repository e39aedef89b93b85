// Package dbustest holds D-Bus peers that misbehave on demand: a bus with a
// systemd on it, and a proxy in front of a real bus.
package dbustest

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"

	"github.com/godbus/dbus/v5"
)

// Driver is the bus's own name.
const Driver = "org.freedesktop.DBus"

// Bus is a message bus in memory. Set its fields before the first Dial; the
// zero value is a bus on which nobody offers anything.
type Bus struct {
	// Auth replaces the server's side of authentication.
	Auth func(net.Conn) error
	// Wrap is put around the server's end of every connection.
	Wrap func(net.Conn) net.Conn
	// Write replaces how a message goes out; it gets the encoded message.
	Write func(w io.Writer, message []byte) error
	// Owners are the unique names behind well-known names.
	Owners map[string]string

	mu       sync.Mutex
	handlers map[string]func(*Call)
	conns    map[*Conn]bool
	dials    int
	wg       sync.WaitGroup
}

// Handle has f answer calls of method, interface and member. It runs in the
// goroutine that reads the connection, so that calls are taken in order.
func (b *Bus) Handle(method string, f func(*Call)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.handlers == nil {
		b.handlers = make(map[string]func(*Call))
	}
	b.handlers[method] = f
}

// Dial connects to the bus through a net.Pipe; it fits dbusx.Options.Dial.
func (b *Bus) Dial(context.Context) (net.Conn, error) {
	client, server := net.Pipe()
	b.Serve(server)
	return client, nil
}

// Serve takes over the server's end of a connection.
func (b *Bus) Serve(server net.Conn) {
	if b.Wrap != nil {
		server = b.Wrap(server)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.dials++
	c := &Conn{bus: b, Conn: server, in: bufio.NewReader(server), name: fmt.Sprintf(":1.%d", b.dials)}
	if b.conns == nil {
		b.conns = make(map[*Conn]bool)
	}
	b.conns[c] = true
	b.wg.Go(func() {
		c.serve()
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.conns, c)
	})
}

// Listen serves connections to l until it is closed.
func (b *Bus) Listen(l net.Listener) {
	b.wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			b.Serve(conn)
		}
	})
}

// Dials returns how many connections there have been.
func (b *Bus) Dials() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.dials
}

// Conns returns the connections there are.
func (b *Bus) Conns() []*Conn {
	b.mu.Lock()
	defer b.mu.Unlock()
	conns := make([]*Conn, 0, len(b.conns))
	for c := range b.conns {
		conns = append(conns, c)
	}
	return conns
}

// Cut ends all connections.
func (b *Bus) Cut() {
	for _, c := range b.Conns() {
		_ = c.Close()
	}
}

// Close ends all connections and waits until nothing of the bus runs.
func (b *Bus) Close() {
	b.Cut()
	b.wg.Wait()
}

// Signal sends a signal of sender to every connection.
func (b *Bus) Signal(sender string, path dbus.ObjectPath, name string, body ...any) {
	m := Signal(sender, path, name, body...)
	for _, c := range b.Conns() {
		_ = c.Send(m)
	}
}

// SetOwner gives a well-known name another owner and announces it.
func (b *Bus) SetOwner(name, owner string) {
	b.mu.Lock()
	before := b.Owners[name]
	if b.Owners == nil {
		b.Owners = make(map[string]string)
	}
	b.Owners[name] = owner
	b.mu.Unlock()
	b.Signal(Driver, "/org/freedesktop/DBus", Driver+".NameOwnerChanged", name, before, owner)
}

func (b *Bus) owner(name string) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Owners[name]
}

func (b *Bus) handler(method string) func(*Call) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if f := b.handlers[method]; f != nil {
		return f
	}
	return drivers[method]
}

// drivers are the bus's own methods.
var drivers = map[string]func(*Call){
	Driver + ".Hello": func(c *Call) {
		c.Reply(c.Conn.name)
		_ = c.Conn.Send(Signal(Driver, "/org/freedesktop/DBus", Driver+".NameAcquired", c.Conn.name))
	},
	Driver + ".AddMatch": func(c *Call) { c.Reply() },
	Driver + ".GetNameOwner": func(c *Call) {
		name, _ := c.Body[0].(string)
		if owner := c.Conn.bus.owner(name); owner != "" {
			c.Reply(owner)
			return
		}
		c.Fail(Driver+".Error.NameHasNoOwner", "no owner")
	},
}

// Conn is the bus's end of one connection.
type Conn struct {
	net.Conn
	bus  *Bus
	in   *bufio.Reader
	name string

	mu     sync.Mutex
	serial uint32
}

func (c *Conn) serve() {
	defer c.Close()
	auth := c.bus.Auth
	if auth == nil {
		auth = c.authenticate
	}
	if auth(c.Conn) != nil {
		return
	}
	for {
		m, err := dbus.DecodeMessage(c.in)
		if err != nil {
			return
		}
		if m.Type != dbus.TypeMethodCall {
			continue
		}
		call := &Call{Conn: c, Message: m}
		if f := c.bus.handler(call.Method()); f != nil {
			f(call)
		} else {
			call.Fail(Driver+".Error.ServiceUnknown", "nobody offers "+call.Method())
		}
	}
}

// authenticate lets anybody in who says EXTERNAL.
func (c *Conn) authenticate(net.Conn) error {
	if _, err := c.in.ReadByte(); err != nil { // the credentials' null byte
		return err
	}
	for {
		line, err := c.in.ReadString('\n')
		if err != nil {
			return err
		}
		answer := "ERROR\r\n"
		switch line = strings.TrimSpace(line); {
		case line == "BEGIN":
			return nil
		case line == "AUTH":
			answer = "REJECTED EXTERNAL\r\n"
		case strings.HasPrefix(line, "AUTH EXTERNAL "), strings.HasPrefix(line, "DATA"):
			answer = "OK 0123456789abcdef0123456789abcdef\r\n"
		case line == "AUTH EXTERNAL":
			answer = "DATA\r\n"
		}
		if _, err := io.WriteString(c.Conn, answer); err != nil {
			return err
		}
	}
}

// Send sends a message.
func (c *Conn) Send(m *dbus.Message) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.serial++
	data, err := Encode(m, c.serial)
	if err != nil {
		return err
	}
	if c.bus.Write != nil {
		return c.bus.Write(c.Conn, data)
	}
	_, err = c.Conn.Write(data)
	return err
}

// Raw sends bytes as they are.
func (c *Conn) Raw(data []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, err := c.Conn.Write(data)
	return err
}
