package dbusx_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
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
				if !errors.Is(err, cause) {
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

func TestUnencodableArgument(t *testing.T) {
	b := echoBus()
	defer b.Close()
	c := open(t, b, dbusx.Options{})
	defer c.Close()
	for _, arg := range []any{"\xff", "a\x00b", dbus.ObjectPath("no path")} {
		wantKind(t, c.Call(t.Context(), echo, say, nil, arg), dbusx.ErrRefused, false)
	}
	mustAsk(t, c, "still there")
	if n := c.Stats().Redials; n != 0 {
		t.Errorf("%d redials", n)
	}
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
