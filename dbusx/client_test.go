package dbusx_test

import (
	"context"
	"errors"
	"io"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

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
