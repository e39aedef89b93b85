package dbustest_test

import (
	"errors"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
	"github.com/sfu-agent/sfu-agent/dbusx"
	"github.com/sfu-agent/sfu-agent/dbusx/dbustest"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A client asks for three ticks through a proxy that spoils the second, and
// then once more for none.
func TestProxy(t *testing.T) {
	for name, tt := range map[string]struct {
		verdict dbustest.Verdict
		want    []uint32
		err     error // of the call that ticks
		dials   int
	}{
		"pass":   {dbustest.Pass, []uint32{0, 1, 2}, nil, 1},
		"drop":   {dbustest.Drop, []uint32{0, 2}, nil, 1},
		"repeat": {dbustest.Repeat, []uint32{0, 1, 1, 2}, nil, 1},
		"late":   {dbustest.Late, []uint32{0, 2, 1}, nil, 1},
		"cut":    {dbustest.Cut, []uint32{0}, dbusx.ErrLost, 2},
		"stall":  {dbustest.Stall, []uint32{0}, dbusx.ErrTimeout, 2},
	} {
		t.Run(name, func(t *testing.T) {
			b := ticker()
			defer b.Close()
			l, err := net.Listen("unix", filepath.Join(t.TempDir(), "bus"))
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			b.Listen(l)
			ticks := 0
			p := &dbustest.Proxy{Target: l.Addr().String(), Spoil: func(_ int, m *dbus.Message) dbustest.Verdict {
				if dbustest.Member(m) == "Tick" {
					if ticks++; ticks == 2 {
						return tt.verdict
					}
				}
				return dbustest.Pass
			}}
			defer p.Close()
			c, err := dbusx.Open(t.Context(), dbusx.Options{Dial: p.Dial, CallLimit: time.Second})
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			got := make(chan uint32, 8)
			c.Watch(dbusx.Watch{Name: service, Interface: service, Member: "Tick", Changed: func() {},
				Signal: func(s *dbus.Signal) { got <- s.Body[0].(uint32) }})
			if err := c.Call(t.Context(), dbusx.Object{Name: service, Path: "/"}, service+".Run", nil, uint32(3)); !errors.Is(err, tt.err) {
				t.Errorf("got %v, want %v", err, tt.err)
			}
			for _, want := range tt.want {
				select {
				case n := <-got:
					if n != want {
						t.Errorf("got tick %d, want %d", n, want)
					}
				case <-time.After(5 * time.Second):
					t.Fatalf("no tick %d", want)
				}
			}
			if err := c.Call(t.Context(), dbusx.Object{Name: service, Path: "/"}, service+".Run", nil, uint32(0)); err != nil {
				t.Error(err)
			}
			if n := b.Dials(); n != tt.dials || len(got) > 0 {
				t.Errorf("%d connections, %d ticks too many", n, len(got))
			}
		})
	}
}

const service = "com.example.Ticker"

// ticker is a bus with a service that sends as many signals as it is asked for.
func ticker() *dbustest.Bus {
	b := &dbustest.Bus{Owners: map[string]string{service: ":1.3"}}
	b.Handle(service+".Run", func(c *dbustest.Call) {
		for i := range c.Body[0].(uint32) {
			_ = c.Conn.Send(dbustest.Signal(":1.3", "/", service+".Tick", i))
		}
		c.Reply()
	})
	return b
}
