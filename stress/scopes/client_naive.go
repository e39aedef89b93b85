package scopes

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/godbus/dbus/v5"
)

// naive reads as youki's first D-Bus client did (youki#2826): a connection for
// each operation, reads of 128 bytes until one is short, and the first message
// of what came is taken for the reply. It is the positive control: where it
// does not fail, the rig does not provoke what the others must withstand.
type naive struct{}

func (naive) start(ctx context.Context, unit string, pid int, stopTimeout time.Duration) error {
	return naiveCall(ctx, "StartTransientUnit", unit, "fail", properties(pid, stopTimeout), []struct {
		Name  string
		Props []property
	}{})
}

func (naive) stop(ctx context.Context, unit string) error {
	return naiveCall(ctx, "StopUnit", unit, "replace")
}

func (naive) close() error { return nil }

func naiveCall(ctx context.Context, method string, args ...any) error {
	c, err := dialRaw(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := hello(c); err != nil {
		return err
	}
	if err := firstIsReply(c); err != nil {
		return fmt.Errorf("call Hello: %w", err)
	}
	call := &dbus.Message{Type: dbus.TypeMethodCall, Headers: map[dbus.HeaderField]dbus.Variant{
		dbus.FieldDestination: dbus.MakeVariant(service),
		dbus.FieldPath:        dbus.MakeVariant(busObject),
		dbus.FieldInterface:   dbus.MakeVariant(strings.TrimSuffix(manager, ".")),
		dbus.FieldMember:      dbus.MakeVariant(method),
		dbus.FieldSignature:   dbus.MakeVariant(dbus.SignatureOf(args...)),
	}, Body: args}
	if err := send(c, call, 2); err != nil {
		return err
	}
	if err := firstIsReply(c); err != nil {
		return fmt.Errorf("call %s: %w", method, err)
	}
	return nil
}

// dialRaw connects to the system bus and authenticates.
func dialRaw(ctx context.Context) (net.Conn, error) {
	c, err := new(net.Dialer).DialContext(ctx, "unix", "/run/dbus/system_bus_socket")
	if err != nil {
		return nil, err
	}
	if deadline, ok := ctx.Deadline(); ok {
		c.SetDeadline(deadline)
	}
	uid := hex.EncodeToString([]byte(strconv.Itoa(os.Getuid())))
	if _, err := fmt.Fprintf(c, "\x00AUTH EXTERNAL %s\r\n", uid); err != nil {
		c.Close()
		return nil, err
	}
	line, err := bufio.NewReaderSize(c, 256).ReadString('\n')
	if err == nil && !strings.HasPrefix(line, "OK ") {
		err = fmt.Errorf("bus answered %q", strings.TrimSpace(line))
	}
	if err == nil {
		_, err = c.Write([]byte("BEGIN\r\n"))
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

func hello(c net.Conn) error {
	return send(c, &dbus.Message{Type: dbus.TypeMethodCall, Headers: map[dbus.HeaderField]dbus.Variant{
		dbus.FieldDestination: dbus.MakeVariant("org.freedesktop.DBus"),
		dbus.FieldPath:        dbus.MakeVariant(dbus.ObjectPath("/org/freedesktop/DBus")),
		dbus.FieldInterface:   dbus.MakeVariant("org.freedesktop.DBus"),
		dbus.FieldMember:      dbus.MakeVariant("Hello"),
	}}, 1)
}

func send(c net.Conn, msg *dbus.Message, serial uint32) error {
	var b bytes.Buffer
	if err := msg.EncodeTo(&b, binary.LittleEndian); err != nil {
		return err
	}
	binary.LittleEndian.PutUint32(b.Bytes()[8:], serial) // the field after the body's length
	_, err := c.Write(b.Bytes())
	return err
}

// firstIsReply is the mistake.
func firstIsReply(c net.Conn) error {
	var all []byte
	chunk := make([]byte, 128)
	for {
		n, err := c.Read(chunk)
		if err != nil {
			return err
		}
		all = append(all, chunk[:n]...)
		if n < len(chunk) {
			break
		}
	}
	msg, err := dbus.DecodeMessage(bytes.NewReader(all))
	if err != nil {
		return err
	}
	switch msg.Type {
	case dbus.TypeMethodReply:
		return nil
	case dbus.TypeError:
		return dbus.Error{Name: fmt.Sprint(msg.Headers[dbus.FieldErrorName].Value()), Body: msg.Body}
	}
	return errNoReply
}

var errNoReply = errors.New("expected to get a reply for method call, didn't get any")
