package control_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sfu-agent/sfu-agent/agent/control"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// scripted is a worker that says what it is told to and remembers its state.
type scripted struct {
	mu     sync.Mutex
	status control.Status
}

func (s *scripted) Status() control.Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.status
}

func (s *scripted) Drain()   { s.set(control.StateDraining) }
func (s *scripted) Undrain() { s.set(control.StateReady) }

func (s *scripted) set(state control.State) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status.State = state
}

// serve runs an HTTP server on a unix socket until the test ends.
func serve(t *testing.T, h http.Handler) (socket string) {
	t.Helper()
	return serveCounted(t, h, new(atomic.Int32))
}

func serveCounted(t *testing.T, h http.Handler, conns *atomic.Int32) (socket string) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "w.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: h, ConnState: func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			conns.Add(1)
		}
	}}
	done := make(chan struct{})
	go func() { defer close(done); srv.Serve(l) }()
	t.Cleanup(func() { srv.Close(); <-done })
	return socket
}

// answer runs a server that reads one request per connection, writes raw and
// then, unless stay, closes.
func answer(t *testing.T, stay bool, raw func(io.Writer)) (socket string) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "w.sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() {
				defer c.Close()
				r := bufio.NewReader(c)
				if _, err := http.ReadRequest(r); err != nil {
					return
				}
				raw(c)
				if stay {
					io.Copy(io.Discard, r) // until the client goes
				}
			})
		}
	})
	t.Cleanup(func() { l.Close(); all.Wait() })
	return socket
}

func client(t *testing.T, socket string) *control.Client {
	c := control.NewClient(socket)
	t.Cleanup(func() { c.Close() })
	return c
}

func TestStatusCrossesTheSocketWhole(t *testing.T) {
	want := control.Status{
		Name: "a-0-1", PID: 7, Version: "v1", State: control.StateReady,
		Started: time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC),
		UDP:     control.UDP{Address: "0.0.0.0:40000", Advertise: []string{"192.0.2.1:40000"}, Rung: "sendmmsg", Why: "no GSO"},
		Sandbox: []string{"no-new-privileges"},
		Rooms: []control.Room{{Name: "r", Publisher: true, Viewers: 3, Since: time.Unix(9, 0).UTC(),
			Tracks: []control.Track{{Kind: "video", Codec: "video/VP8", SSRC: 1 << 31, RID: "h", Packets: 1 << 60, Bytes: 2, Lost: 3}}}},
		Counters:   control.Counters{PacketsIn: 1, Drops: map[string]uint64{"queue": 2}, Joins: map[string]uint64{"ok": 3}},
		FirstFrame: control.Histogram{Bounds: []float64{0.1, 1}, Counts: []uint64{1, 2}, Count: 3, Sum: 4.5},
	}
	got, err := client(t, serve(t, control.Handler(&scripted{status: want}))).Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestDrainAndBack(t *testing.T) {
	c := client(t, serve(t, control.Handler(&scripted{status: control.Status{State: control.StateReady}})))
	for _, step := range []struct {
		name string
		call func(context.Context) error
		want control.State
	}{
		{"drain", c.Drain, control.StateDraining},
		{"drain again", c.Drain, control.StateDraining},
		{"undrain", c.Undrain, control.StateReady},
		{"undrain again", c.Undrain, control.StateReady},
	} {
		if err := step.call(t.Context()); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
		s, err := c.Status(t.Context())
		if err != nil || s.State != step.want {
			t.Fatalf("after %s: state %q, error %v; want %q", step.name, s.State, err, step.want)
		}
	}
}

func TestHandlerRefusesOtherMethods(t *testing.T) {
	socket := serve(t, control.Handler(&scripted{}))
	tr := control.Transport(socket)
	defer tr.CloseIdleConnections()
	for path, allow := range map[string]string{"/status": "GET, HEAD", "/drain": "DELETE, POST"} {
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodPut, "http://w"+path, nil)
		resp, err := tr.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusMethodNotAllowed || resp.Header.Get("Allow") != allow {
			t.Errorf("PUT %s: %d, Allow %q; want 405, %q", path, resp.StatusCode, resp.Header.Get("Allow"), allow)
		}
	}
}

func TestBadWorkersAreErrorsInTime(t *testing.T) {
	const head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
	for _, tc := range []struct {
		name string
		stay bool
		raw  func(io.Writer)
		want string // part of the error
	}{
		{"never answers", true, func(io.Writer) {}, "deadline exceeded"},
		{"closes at once", false, func(io.Writer) {}, "EOF"},
		{"no HTTP", false, say("220 mail.example ESMTP\r\n\r\n"), "malformed"},
		{"closes in the middle", false, say(head + "Content-Length: 100\r\n\r\n{\"name\":"), "unexpected EOF"},
		{"stops in the middle", true, say(head + "Content-Length: 100\r\n\r\n{\"name\":"), "deadline exceeded"},
		{"garbage JSON", false, say(head + "Content-Length: 5\r\n\r\n{\"na}"), "decode answer"},
		{"JSON of another shape", false, say(head + "Content-Length: 2\r\n\r\n[]"), "decode answer"},
		{"negative counter", false, say(head + "Connection: close\r\n\r\n{\"counters\":{\"plis\":-1}}"), "decode answer"},
		{"not JSON", false, say("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 2\r\n\r\nhi"), "not JSON"},
		{"endless body", false, endless(head + "Connection: close\r\n\r\n"), "longer than 4194304 bytes"},
		{"endless header", false, endless("HTTP/1.1 200 OK\r\nX: "), "header"},
		{"busy", false, say("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 4\r\n\r\nbusy"), `503 Service Unavailable: "busy"`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := client(t, answer(t, tc.stay, tc.raw))
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			if !strings.Contains(tc.want, "deadline") {
				ctx, cancel = context.WithCancel(t.Context())
			}
			defer cancel()
			_, err := c.Status(ctx)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, want one with %q", err, tc.want)
			}
			if strings.Contains(tc.want, "deadline") && !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("error %v is no context.DeadlineExceeded", err)
			}
		})
	}
}

func say(s string) func(io.Writer) {
	return func(w io.Writer) { io.WriteString(w, s) }
}

func endless(head string) func(io.Writer) {
	return func(w io.Writer) {
		chunk := strings.Repeat(" ", 1<<16)
		for _, err := io.WriteString(w, head); err == nil; {
			_, err = io.WriteString(w, chunk)
		}
	}
}

func TestCallsEndByThemselves(t *testing.T) {
	c := client(t, answer(t, true, func(io.Writer) {}))
	start := time.Now()
	err := c.Drain(context.Background())
	if took := time.Since(start); !errors.Is(err, context.DeadlineExceeded) || took < time.Second || took > 10*time.Second {
		t.Errorf("error %v after %v, want deadline exceeded after 2 s", err, took)
	}
}

func TestNoWorker(t *testing.T) {
	_, err := client(t, filepath.Join(t.TempDir(), "none.sock")).Status(t.Context())
	if err == nil || !strings.Contains(err.Error(), "none.sock") {
		t.Errorf("error %v, want one that names the socket", err)
	}
}

func TestCloseEndsCallsInFlight(t *testing.T) {
	reached := make(chan struct{}, 4)
	c := control.NewClient(answer(t, true, func(io.Writer) { reached <- struct{}{} }))
	ended := make(chan error, 4)
	for range 4 {
		go func() { _, err := c.Status(context.Background()); ended <- err }()
	}
	for range 4 {
		<-reached
	}
	for range 2 {
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for range 4 {
		if err := <-ended; !errors.Is(err, control.ErrClosed) {
			t.Errorf("error %v, want ErrClosed", err)
		}
	}
	if err := c.Drain(context.Background()); !errors.Is(err, control.ErrClosed) {
		t.Errorf("after Close: error %v, want ErrClosed", err)
	}
}

func TestConnectionIsKept(t *testing.T) {
	var conns atomic.Int32
	socket := serveCounted(t, control.Handler(&scripted{}), &conns)
	c := client(t, socket)
	for range 10 {
		if _, err := c.Status(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if n := conns.Load(); n != 1 {
		t.Errorf("10 calls in a row used %d connections, want 1", n)
	}
}
