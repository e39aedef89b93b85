package dbusx_test

import (
	"context"
	"io"
	"net"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
	"github.com/sfu-agent/sfu-agent/dbusx"
	"github.com/sfu-agent/sfu-agent/dbusx/dbustest"
)

// FuzzReader lets the peer answer a call with anything.
func FuzzReader(f *testing.F) {
	for _, m := range []*dbus.Message{
		dbustest.Reply(2, "text"),
		dbustest.Failure(2, "org.freedesktop.DBus.Error.Failed", "text"),
		dbustest.Signal(dbustest.Driver, "/", dbustest.Driver+".NameLost", ":1.1"),
		dbustest.Signal(dbustest.Driver, "/", dbustest.Driver+".NameOwnerChanged", "com.example.Echo", "", ":1.1"),
		dbustest.Signal(":1.1", "/", "com.example.Echo.Tick", map[string]dbus.Variant{"a": dbus.MakeVariant([]byte{1})}),
	} {
		data, err := dbustest.Encode(m, 2)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		b := echoBus()
		defer b.Close()
		b.Handle("com.example.Echo.Break", func(c *dbustest.Call) {
			_ = c.Conn.Raw(data)
			_ = c.Conn.Close()
		})
		c := open(t, b, dbusx.Options{})
		defer c.Close()
		c.Watch(dbusx.Watch{Name: echo.Name, Interface: echo.Name, Member: "Tick", Signal: func(*dbus.Signal) {}, Changed: func() {}})
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		var text string
		_ = c.Call(ctx, echo, "com.example.Echo.Break", []any{&text})
		if ctx.Err() != nil {
			t.Error("the end of the connection went unseen")
		}
	})
}

// FuzzAuth lets the peer say anything instead of OK.
func FuzzAuth(f *testing.F) {
	for _, line := range []string{"OK 00\r\n", "REJECTED EXTERNAL\r\n", "ERROR\r\n", "\r\n", "OK", "DATA\r\nOK 0\r\n", "\x00"} {
		f.Add([]byte(line))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		b := &dbustest.Bus{Auth: func(conn net.Conn) error {
			go func() { _, _ = conn.Write(data); _ = conn.Close() }()
			_, err := io.Copy(io.Discard, conn)
			return err
		}}
		defer b.Close()
		c, err := dbusx.Open(t.Context(), dbusx.Options{Dial: b.Dial})
		if err == nil {
			t.Error("connected to a peer without a bus")
			c.Close()
		}
	})
}
