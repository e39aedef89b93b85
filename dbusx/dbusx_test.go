package dbusx_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
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
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const say = "com.example.Echo.Say"

var echo = dbusx.Object{Name: "com.example.Echo", Path: "/"}

// echoBus answers say with its argument.
func echoBus() *dbustest.Bus {
	b := new(dbustest.Bus)
	b.Handle(say, func(c *dbustest.Call) { c.Reply(c.Body...) })
	return b
}

func open(t *testing.T, b *dbustest.Bus, o dbusx.Options) *dbusx.Client {
	t.Helper()
	if o.Dial == nil && o.Address == "" {
		o.Dial = b.Dial
	}
	c, err := dbusx.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// listen serves b on a real socket and returns its address.
func listen(t *testing.T, b *dbustest.Bus) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "bus")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	b.Listen(l)
	t.Cleanup(func() {
		l.Close()
		b.Close()
	})
	return "unix:path=" + path
}

func ask(ctx context.Context, c *dbusx.Client, text string) (string, error) {
	var got string
	err := c.Call(ctx, echo, say, []any{&got}, text)
	return got, err
}

func mustAsk(t *testing.T, c *dbusx.Client, text string) {
	t.Helper()
	if got, err := ask(t.Context(), c, text); err != nil || got != text {
		t.Fatalf("got %q, %v, want %q", got, err, text)
	}
}

func wantKind(t *testing.T, err, kind error, sent bool) {
	t.Helper()
	var e *dbusx.Error
	if !errors.As(err, &e) || !errors.Is(err, kind) || e.Sent != sent {
		t.Errorf("got error %v (%+v), want %v, sent %t", err, e, kind, sent)
	}
}

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

func TestD02_ForeignMessagesBeforeEach(t *testing.T) {
	b := echoBus()
	b.Write = dbustest.Noise(3)
	defer b.Close()
	c := open(t, b, dbusx.Options{})
	defer c.Close()
	for i := range 100 {
		mustAsk(t, c, fmt.Sprint("call ", i))
	}
}

func TestD03_RepliesInReverseOrder(t *testing.T) {
	const n = 64
	b := new(dbustest.Bus)
	defer b.Close()
	var calls []*dbustest.Call
	b.Handle(say, func(c *dbustest.Call) {
		if calls = append(calls, c); len(calls) == n {
			for _, c := range slices.Backward(calls) {
				c.Reply(c.Body...)
			}
		}
	})
	c := open(t, b, dbusx.Options{})
	defer c.Close()
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			want := fmt.Sprint(i)
			if got, err := ask(t.Context(), c, want); err != nil || got != want {
				t.Errorf("got %q, %v, want %q", got, err, want)
			}
		})
	}
	wg.Wait()
}

func TestD04_NoReply(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := echoBus()
		defer b.Close()
		late := make(chan *dbustest.Call, 100)
		b.Handle("com.example.Echo.Hush", func(c *dbustest.Call) { late <- c })
		c := open(t, b, dbusx.Options{})
		defer c.Close()
		for range cap(late) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			began := time.Now()
			err := c.Call(ctx, echo, "com.example.Echo.Hush", nil)
			cancel()
			wantKind(t, err, dbusx.ErrTimeout, true)
			if !errors.Is(err, context.DeadlineExceeded) || !dbusx.Unknown(err) {
				t.Errorf("error %v: neither the context's nor unknown", err)
			}
			if took := time.Since(began); took != time.Second {
				t.Errorf("returned after %v", took)
			}
			mustAsk(t, c, "still there")
			(<-late).Reply() // dropped
		}
		mustAsk(t, c, "still there")
		if s := c.Stats(); s.InFlight != 0 || s.Redials != 0 || s.Lost != 100 || s.Worst != time.Second {
			t.Errorf("stats %+v", s)
		}
	})
}

// A peer that is silent for the call limit is given up, whatever the callers'
// own limits are.
func TestD04_SilentPeer(t *testing.T) {
	for _, limit := range []time.Duration{time.Second, time.Minute} {
		synctest.Test(t, func(t *testing.T) {
			b := echoBus()
			defer b.Close()
			b.Handle("com.example.Echo.Hush", func(*dbustest.Call) {})
			c := open(t, b, dbusx.Options{})
			defer c.Close()
			mustAsk(t, c, "all of the handshake is over")
			began := time.Now()
			for b.Dials() == 1 && time.Since(began) < time.Minute {
				ctx, cancel := context.WithTimeout(t.Context(), limit)
				wantKind(t, c.Call(ctx, echo, "com.example.Echo.Hush", nil), dbusx.ErrTimeout, true)
				synctest.Wait()
				if len(b.Conns()) == 0 {
					mustAsk(t, c, "on a new connection")
				}
				cancel()
			}
			if took := time.Since(began); took > 4*time.Second {
				t.Errorf("gave the peer up after %v", took)
			}
		})
	}
}

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
	const burst = 100_000
	b := echoBus()
	defer b.Close()
	b.SetOwner(echo.Name, ":1.7")
	b.Handle("com.example.Echo.Burst", func(c *dbustest.Call) {
		for i := range uint32(burst) {
			c.Conn.Send(dbustest.Signal(":1.7", "/", "com.example.Echo.Tick", i))
		}
		c.Reply()
	})
	c := open(t, b, dbusx.Options{CallLimit: time.Minute})
	defer c.Close()
	var next atomic.Uint32
	c.Watch(dbusx.Watch{Name: echo.Name, Interface: echo.Name, Member: "Tick", Changed: func() {},
		Signal: func(s *dbus.Signal) { next.CompareAndSwap(s.Body[0].(uint32), s.Body[0].(uint32)+1) }})
	mustAsk(t, c, "warm")
	goroutines := runtime.NumGoroutine()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := c.Call(ctx, echo, "com.example.Echo.Burst", nil); err != nil {
		t.Fatal(err)
	}
	if n := next.Load(); n != burst {
		t.Errorf("%d signals in order, want %d", n, burst)
	}
	if n := runtime.NumGoroutine(); n > goroutines+2 {
		t.Errorf("%d goroutines, %d before", n, goroutines)
	}
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	if m.HeapAlloc > 16<<20 {
		t.Errorf("%d bytes of heap in use", m.HeapAlloc)
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

func TestD14_CallerGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := echoBus()
		defer b.Close()
		var calls atomic.Int64
		b.Handle("com.example.Echo.Hush", func(*dbustest.Call) { calls.Add(1) })
		c := open(t, b, dbusx.Options{InFlight: 1})
		defer c.Close()
		cause := errors.New("changed my mind")
		hush := func(ctx context.Context) chan error {
			done := make(chan error, 1)
			go func() { done <- c.Call(ctx, echo, "com.example.Echo.Hush", nil) }()
			synctest.Wait()
			return done
		}
		gone := func(name string, done chan error, sent bool, wantCalls int64) {
			t.Helper()
			synctest.Wait()
			select {
			case err := <-done:
				wantKind(t, err, dbusx.ErrTimeout, sent)
				if !sent && !errors.Is(err, cause) {
					t.Errorf("%s: error %v lacks the cause", name, err)
				}
			default:
				t.Fatalf("%s: still waiting", name)
			}
			if n := calls.Load(); n != wantCalls {
				t.Errorf("%s: %d calls sent, want %d", name, n, wantCalls)
			}
		}

		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(cause)
		gone("before", hush(ctx), false, 0)

		inFlight, cancelInFlight := context.WithCancelCause(t.Context())
		first := hush(inFlight)
		ctx, cancel = context.WithCancelCause(t.Context())
		second := hush(ctx)
		cancel(cause)
		gone("waiting for a slot", second, false, 1)
		cancelInFlight(cause)
		gone("in flight", first, true, 1)

		b.Auth = func(conn net.Conn) error { _, err := io.Copy(io.Discard, conn); return err }
		b.Cut()
		synctest.Wait()
		ctx, cancel = context.WithCancelCause(t.Context())
		third := hush(ctx)
		cancel(cause)
		gone("in reconnect", third, false, 1)
	})
}

func TestD15_SlotsInOrder(t *testing.T) {
	const callers, slots = 500, 64
	synctest.Test(t, func(t *testing.T) {
		b := new(dbustest.Bus)
		defer b.Close()
		arrived := make(chan *dbustest.Call, callers)
		b.Handle(say, func(c *dbustest.Call) { arrived <- c })
		c := open(t, b, dbusx.Options{InFlight: slots})
		defer c.Close()
		var wg sync.WaitGroup
		for i := range callers {
			wg.Go(func() {
				if _, err := ask(t.Context(), c, fmt.Sprint(i)); err != nil {
					t.Error(err)
				}
			})
			synctest.Wait()
		}
		for i := range callers {
			synctest.Wait()
			if n := len(arrived); n > slots {
				t.Fatalf("%d calls without a reply", n)
			}
			call := <-arrived
			if got := call.Body[0]; got != fmt.Sprint(i) {
				t.Fatalf("call %d is number %v", i, got)
			}
			call.Reply(call.Body...)
		}
		wg.Wait()
	})
}

func TestD16_Close(t *testing.T) {
	closed := func(t *testing.T, err error) {
		t.Helper()
		if !errors.Is(err, dbusx.ErrClosed) {
			t.Errorf("got %v, want %v", err, dbusx.ErrClosed)
		}
	}
	t.Run("in flight", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := new(dbustest.Bus)
			defer b.Close()
			b.Handle(say, func(*dbustest.Call) {})
			c := open(t, b, dbusx.Options{})
			var wg sync.WaitGroup
			for range 80 { // some without a slot
				wg.Go(func() {
					_, err := ask(t.Context(), c, "")
					closed(t, err)
				})
			}
			synctest.Wait()
			began := time.Now()
			c.Close()
			if took := time.Since(began); took > 0 {
				t.Errorf("Close took %v", took)
			}
			wg.Wait()
			c.Close()
			_, err := ask(t.Context(), c, "")
			closed(t, err)
		})
	})
	t.Run("in reconnect", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			b := echoBus()
			defer b.Close()
			c := open(t, b, dbusx.Options{})
			b.Auth = func(conn net.Conn) error { _, err := io.Copy(io.Discard, conn); return err }
			b.Cut()
			synctest.Wait()
			var wg sync.WaitGroup
			for range 8 {
				wg.Go(func() {
					_, err := ask(t.Context(), c, "")
					closed(t, err)
				})
			}
			synctest.Wait()
			c.Close()
			wg.Wait()
		})
	})
}
