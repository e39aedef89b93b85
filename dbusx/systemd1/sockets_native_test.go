//go:build native

package systemd1_test

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"testing"
	"time"

	"github.com/sfu-agent/sfu-agent/dbusx"
)

const (
	systemSocket  = "/run/dbus/system_bus_socket"
	privateSocket = "/run/systemd/private"
)

func TestS10_Sockets(t *testing.T) {
	requireRaw(t)
	whole(t)
	hide := func(t *testing.T, path string) {
		t.Helper()
		if err := os.Rename(path, path+".hidden"); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := os.Rename(path+".hidden", path); err != nil {
				t.Error(err)
			}
		})
	}
	start := func(t *testing.T) {
		c := &churn{s: connect(t, dbusx.Options{}), limit: 5 * time.Second}
		c.cycle(t)
		c.verdict(t)
	}
	t.Run("only the bus", func(t *testing.T) {
		hide(t, privateSocket)
		start(t)
	})
	t.Run("only systemd's", func(t *testing.T) {
		hide(t, systemSocket)
		start(t)
	})
	t.Run("neither", func(t *testing.T) {
		hide(t, systemSocket)
		hide(t, privateSocket)
		began := time.Now()
		_, err := dbusx.Open(ctxOf(t, time.Second), dbusx.Options{})
		if !errors.Is(err, dbusx.ErrNoSystemd) {
			t.Errorf("got %v", err)
		}
		if took := time.Since(began); took > time.Second {
			t.Errorf("Open took %v", took)
		}
	})
}

// holdBus takes connections of the bus until there are no more, or most.
func holdBus(t *testing.T, most int) int {
	t.Helper()
	for n := range most {
		conn, err := net.Dial("unix", systemSocket)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		hello := "l\x01\x00\x01\x00\x00\x00\x00\x01\x00\x00\x00m\x00\x00\x00" +
			"\x01\x01o\x00\x15\x00\x00\x00/org/freedesktop/DBus\x00\x00\x00" +
			"\x02\x01s\x00\x14\x00\x00\x00org.freedesktop.DBus\x00\x00\x00\x00" +
			"\x03\x01s\x00\x05\x00\x00\x00Hello\x00\x00\x00" +
			"\x06\x01s\x00\x14\x00\x00\x00org.freedesktop.DBus\x00\x00\x00\x00"
		if _, err := fmt.Fprintf(conn, "\x00AUTH EXTERNAL 30\r\nBEGIN\r\n%s", hello); err != nil {
			return n
		}
		_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
		in := bufio.NewReader(conn)
		if _, err := in.ReadString('\n'); err != nil {
			return n
		}
		var kind [2]byte // byte order and type of the answer; 3 is an error
		if _, err := in.Read(kind[:1]); err != nil {
			return n
		}
		if kind[1], err = in.ReadByte(); err != nil || kind[1] == 3 {
			return n
		}
	}
	return most
}

func TestS12_ConnectionsHeldByOthers(t *testing.T) {
	requireRaw(t)
	whole(t)
	n := holdBus(t, 600)
	t.Logf("%d connections held", n)
	began := time.Now()
	c := &churn{s: connect(t, dbusx.Options{}), limit: time.Second}
	c.cycle(t)
	if took := time.Since(began); took > time.Second {
		t.Errorf("connect, start and stop took %v", took)
	}
	c.verdict(t)
}
