package dbusx_test

import (
	"bytes"
	"context"
	"errors"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/godbus/dbus/v5"
	"github.com/sfu-agent/sfu-agent/dbusx"
	"github.com/sfu-agent/sfu-agent/dbusx/dbustest"
)

func TestD05_PeerStopsReading(t *testing.T) {
	const writeLimit = 300 * time.Millisecond
	b := echoBus()
	address := listen(t, b)
	resume := make(chan struct{})
	b.Handle("com.example.Echo.Stop", func(*dbustest.Call) { <-resume })
	defer close(resume)
	c := open(t, b, dbusx.Options{Address: address, WriteLimit: writeLimit})
	defer c.Close()
	var wg sync.WaitGroup
	for range 40 { // of 16 KB each: more than a socket holds
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			defer cancel()
			began := time.Now()
			err := c.Call(ctx, echo, "com.example.Echo.Stop", nil, make([]byte, 16<<10))
			if !errors.Is(err, dbusx.ErrTimeout) {
				t.Errorf("got %v", err)
			}
			if took := time.Since(began); took > writeLimit+2*time.Second {
				t.Errorf("returned after %v", took)
			}
		})
	}
	wg.Wait()
	mustAsk(t, c, "on a new connection")
	if n := c.Stats().Redials; n != 1 {
		t.Errorf("%d redials", n)
	}
}

func TestD05_CloseWhileWriting(t *testing.T) {
	b := echoBus()
	address := listen(t, b)
	resume := make(chan struct{})
	b.Handle("com.example.Echo.Stop", func(*dbustest.Call) { <-resume })
	defer close(resume)
	c := open(t, b, dbusx.Options{Address: address, WriteLimit: time.Minute})
	var wg sync.WaitGroup
	for range 40 {
		wg.Go(func() {
			err := c.Call(t.Context(), echo, "com.example.Echo.Stop", nil, make([]byte, 16<<10))
			if !errors.Is(err, dbusx.ErrClosed) {
				t.Errorf("got %v", err)
			}
		})
	}
	for c.Stats().InFlight < 40 {
		runtime.Gosched()
	}
	began := time.Now()
	c.Close()
	if took := time.Since(began); took > time.Second {
		t.Errorf("Close took %v", took)
	}
	wg.Wait()
}

func TestD07_ConnectionEndsWithCallsInFlight(t *testing.T) {
	const n = 64
	reply, err := dbustest.Encode(dbustest.Reply(7, "cut"), 7)
	if err != nil {
		t.Fatal(err)
	}
	for name, part := range map[string][]byte{
		"between messages": nil,
		"mid-header":       reply[:10],
		"mid-body":         reply[:len(reply)-3],
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := echoBus()
				defer b.Close()
				calls := 0
				b.Handle("com.example.Echo.Cut", func(c *dbustest.Call) {
					if calls++; calls == n {
						c.Conn.Raw(part)
						c.Conn.Close()
					}
				})
				c := open(t, b, dbusx.Options{})
				defer c.Close()
				var wg sync.WaitGroup
				began := time.Now()
				for range n {
					wg.Go(func() {
						wantKind(t, c.Call(t.Context(), echo, "com.example.Echo.Cut", nil), dbusx.ErrLost, true)
					})
				}
				wg.Wait()
				if took := time.Since(began); took > 0 {
					t.Errorf("returned after %v", took)
				}
				mustAsk(t, c, "on a new connection")
			})
		})
	}
}

func TestD07_Reset(t *testing.T) {
	b := echoBus()
	address := listen(t, b)
	calls := make(chan *dbustest.Call, 64)
	b.Handle("com.example.Echo.Cut", func(c *dbustest.Call) {
		if calls <- c; len(calls) == cap(calls) {
			c.Conn.Close()
		}
	})
	c := open(t, b, dbusx.Options{Address: address})
	defer c.Close()
	var wg sync.WaitGroup
	for range cap(calls) {
		wg.Go(func() {
			wantKind(t, c.Call(t.Context(), echo, "com.example.Echo.Cut", nil), dbusx.ErrLost, true)
		})
	}
	wg.Wait()
	mustAsk(t, c, "on a new connection")
}

func TestD08_BrokenMessages(t *testing.T) {
	good, err := dbustest.Encode(dbustest.Reply(7, "text"), 7)
	if err != nil {
		t.Fatal(err)
	}
	with := func(at int, b ...byte) []byte {
		m := slices.Clone(good)
		copy(m[at:], b)
		return m
	}
	for name, message := range map[string][]byte{
		"body of 4 GiB":         with(4, 0xff, 0xff, 0xff, 0xff),
		"fields of 4 GiB":       with(12, 0xff, 0xff, 0xff, 0xff),
		"both, sum wraps":       with(4, 0xf8, 0xff, 0xff, 0xff, 7, 0, 0, 0, 0x08, 0, 0, 0),
		"129 MiB":               with(4, 0, 0, 0x10, 0x08),
		"wrong byte order mark": with(0, 'x'),
		"other byte order":      with(0, 'B'),
		"protocol version 2":    with(3, 2),
		"bad signature":         bytes.Replace(good, []byte("\x01s\x00"), []byte("\x01(\x00"), 1),
		"body not as announced": bytes.Replace(good, []byte("\x01s\x00"), []byte("\x01t\x00"), 1),
		"zeros":                 make([]byte, 64),
	} {
		t.Run(name, func(t *testing.T) {
			b := echoBus()
			defer b.Close()
			b.Handle("com.example.Echo.Break", func(c *dbustest.Call) { c.Conn.Raw(message) })
			c := open(t, b, dbusx.Options{CallLimit: 300 * time.Millisecond})
			defer c.Close()
			before := allocated()
			err := c.Call(t.Context(), echo, "com.example.Echo.Break", nil)
			if !dbusx.Unknown(err) {
				t.Errorf("got %v", err)
			}
			if n := allocated() - before; n > 4<<20 {
				t.Errorf("%d bytes allocated", n)
			}
			mustAsk(t, c, "still there")
		})
	}
}

func allocated() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.TotalAlloc
}

func TestD08_SignalsThatGodbusStumblesOn(t *testing.T) {
	b := echoBus()
	defer b.Close()
	c := open(t, b, dbusx.Options{})
	defer c.Close()
	for _, name := range []string{"NameLost", "NameAcquired", "NameOwnerChanged"} {
		b.Signal(dbustest.Driver, "/", dbustest.Driver+"."+name)
		b.Signal(dbustest.Driver, "/", dbustest.Driver+"."+name, uint32(1))
	}
	mustAsk(t, c, "still there")
}

func TestD11_BurstOfSignals(t *testing.T) {
	const burst, round = 100_000, 1000
	var ticks []byte
	for i := range uint32(round) {
		tick, err := dbustest.Encode(dbustest.Signal(":1.7", "/", "com.example.Echo.Tick", i), i+1)
		if err != nil {
			t.Fatal(err)
		}
		ticks = append(ticks, tick...)
	}
	b := echoBus()
	defer b.Close()
	b.SetOwner(echo.Name, ":1.7")
	b.Handle("com.example.Echo.Burst", func(c *dbustest.Call) {
		for range burst / round {
			_ = c.Conn.Raw(ticks)
		}
		c.Reply()
	})
	c := open(t, b, dbusx.Options{CallLimit: time.Minute})
	defer c.Close()
	var n, disorder atomic.Int64
	c.Watch(dbusx.Watch{Name: echo.Name, Interface: echo.Name, Member: "Tick", Changed: func() {},
		Signal: func(s *dbus.Signal) {
			if s.Body[0] != uint32((n.Add(1)-1)%round) {
				disorder.Add(1)
			}
		}})
	mustAsk(t, c, "warm")
	goroutines, heap := runtime.NumGoroutine(), inUse()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := c.Call(ctx, echo, "com.example.Echo.Burst", nil); err != nil {
		t.Fatal(err)
	}
	if n.Load() != burst || disorder.Load() > 0 {
		t.Errorf("%d signals, %d out of order, want %d", n.Load(), disorder.Load(), burst)
	}
	if n := runtime.NumGoroutine(); n > goroutines+2 {
		t.Errorf("%d goroutines, %d before", n, goroutines)
	}
	if n := inUse(); n > heap+8<<20 {
		t.Errorf("%d bytes of heap in use, %d before", n, heap)
	}
}

func inUse() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
