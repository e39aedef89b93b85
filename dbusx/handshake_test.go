package dbusx_test

import (
	"context"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sfu-agent/sfu-agent/dbusx"
	"github.com/sfu-agent/sfu-agent/dbusx/dbustest"
)

func TestD01_HelloReplyAndSignalInAnyPieces(t *testing.T) {
	for name, write := range map[string]func() func(io.Writer, []byte) error{
		"one write":     func() func(io.Writer, []byte) error { return dbustest.Together(1) },
		"two writes":    func() func(io.Writer, []byte) error { return nil },
		"1-byte writes": func() func(io.Writer, []byte) error { return dbustest.Fragments(1) },
	} {
		t.Run(name, func(t *testing.T) {
			for range 1000 {
				b := echoBus()
				b.Write = write()
				c := open(t, b, dbusx.Options{})
				mustAsk(t, c, "hello")
				c.Close()
				b.Close()
			}
		})
	}
}

func TestD06_NoHandshake(t *testing.T) {
	line := func(text string) func(net.Conn) error {
		return func(conn net.Conn) error {
			go io.Copy(io.Discard, conn)
			if _, err := io.WriteString(conn, text); err != nil {
				return err
			}
			_, err := conn.Read(make([]byte, 1))
			return err
		}
	}
	for name, auth := range map[string]func(net.Conn) error{
		"silence":  func(conn net.Conn) error { _, err := io.Copy(io.Discard, conn); return err },
		"rejected": line("REJECTED EXTERNAL\r\nREJECTED EXTERNAL\r\n"),
		"garbage":  line("\x00\xff\x01 garbage\r\n"),
		"no end":   line(string(make([]byte, 1<<20))),
		"closed":   func(net.Conn) error { return io.EOF },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := &dbustest.Bus{Auth: auth}
				began := time.Now()
				_, err := dbusx.Open(t.Context(), dbusx.Options{Dial: b.Dial})
				wantKind(t, err, dbusx.ErrConnect, false)
				if took := time.Since(began); took > 3*time.Second {
					t.Errorf("Open took %v", took)
				}
				synctest.Wait()
				if n := len(b.Conns()); n != 0 {
					t.Errorf("%d connections left open", n)
				}
				b.Close()
			})
		})
	}
}

func TestD12_LimitsOfTheBus(t *testing.T) {
	full := func(c *dbustest.Call) {
		c.Fail("org.freedesktop.DBus.Error.LimitsExceeded", "The maximum number of active connections for UID 0 has been reached")
	}
	t.Run("later there is room", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := echoBus()
			defer b.Close()
			c := open(t, b, dbusx.Options{})
			defer c.Close()
			hellos := 0
			b.Handle(dbustest.Driver+".Hello", func(c *dbustest.Call) {
				if hellos++; hellos < 5 {
					full(c)
				} else {
					c.Reply(":1.5")
				}
			})
			b.Cut()
			synctest.Wait()
			mustAsk(t, c, "fifth time")
		})
	})
	t.Run("never", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := echoBus()
			defer b.Close()
			c := open(t, b, dbusx.Options{})
			defer c.Close()
			b.Handle(dbustest.Driver+".Hello", full)
			b.Cut()
			synctest.Wait()
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			_, err := ask(ctx, c, "")
			wantKind(t, err, dbusx.ErrLimits, false)
			if n := b.Dials(); n > 60 {
				t.Errorf("%d dials in 5 s", n)
			}
		})
	})
	t.Run("private socket", func(t *testing.T) {
		b, private := echoBus(), echoBus()
		b.Handle(dbustest.Driver+".Hello", full)
		c, err := dbusx.Open(t.Context(), dbusx.Options{Address: listen(t, b), PrivateAddress: listen(t, private)})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		mustAsk(t, c, "without a bus")
		if b.Dials() != 1 || private.Dials() != 1 {
			t.Errorf("%d and %d dials", b.Dials(), private.Dials())
		}
	})
	t.Run("pending replies", func(t *testing.T) {
		b := echoBus()
		defer b.Close()
		b.Handle(say, full)
		c := open(t, b, dbusx.Options{})
		defer c.Close()
		_, err := ask(t.Context(), c, "")
		wantKind(t, err, dbusx.ErrLimits, true)
	})
}
