package front_test

import (
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sfu-agent/sfu-agent/agent"
	"github.com/sfu-agent/sfu-agent/agent/control"
	"github.com/sfu-agent/sfu-agent/agent/front"
	"github.com/sfu-agent/sfu-agent/cgroups"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// host is a front.Host that a test scripts: it is told its workers, and
// remembers what it was asked to drain.
type host struct {
	mu      sync.Mutex
	workers []agent.Worker
	route   error // what Route and Ready say
	drained map[string]time.Duration
	refuse  error // what Drain, Undrain and SetLimits say of a known worker
	asked   int   // how often Workers was called
}

func (h *host) Workers() []agent.Worker {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.asked++
	return append([]agent.Worker(nil), h.workers...)
}

func (h *host) Worker(id string) (agent.Worker, bool) {
	for _, w := range h.Workers() {
		if w.ID == id {
			return w, true
		}
	}
	return agent.Worker{}, false
}

func (h *host) Route(string) (agent.Worker, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.route != nil {
		return agent.Worker{}, h.route
	}
	return h.workers[0], nil
}

func (h *host) Drain(id string, deadline time.Duration) error {
	return h.change(id, agent.StateDraining, func() { h.drained[id] = deadline })
}

func (h *host) Undrain(id string) error {
	return h.change(id, agent.StateReady, func() { delete(h.drained, id) })
}

func (h *host) SetLimits(id string, limits cgroups.Limits) error {
	return h.change(id, agent.StateReady, func() {
		for i := range h.workers {
			if h.workers[i].ID == id {
				h.workers[i].Limits = limits
			}
		}
	})
}

func (h *host) change(id string, to agent.State, note func()) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	for i := range h.workers {
		if h.workers[i].ID != id {
			continue
		}
		if h.refuse != nil {
			return h.refuse
		}
		if h.drained == nil {
			h.drained = make(map[string]time.Duration)
		}
		h.workers[i].State = to
		note()
		return nil
	}
	return agent.ErrNoWorker
}

func (h *host) Ready() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.route
}

func (h *host) set(change func(*host)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	change(h)
}

// worker serves handler on a unix socket until the test ends, and is ready.
func worker(t *testing.T, id string, handler http.Handler) agent.Worker {
	t.Helper()
	w := agent.Worker{ID: id, Name: "t-" + id, State: agent.StateReady, PID: 1, Placer: "process",
		Socket: filepath.Join(t.TempDir(), "w.sock"), Status: &control.Status{Rooms: []control.Room{}}}
	l, err := net.Listen("unix", w.Socket)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: handler}
	var done sync.WaitGroup
	done.Go(func() { srv.Serve(l) })
	t.Cleanup(func() { srv.Close(); done.Wait() })
	return w
}

// open serves a Front over loopback until the test ends.
func open(t *testing.T, cfg front.Config) *site {
	t.Helper()
	f, err := front.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(f)
	t.Cleanup(func() { srv.Close(); f.Close() })
	return &site{t: t, url: srv.URL, client: srv.Client()}
}

type site struct {
	t      *testing.T
	url    string
	client *http.Client
}

// reply is an answer read to its end.
type reply struct {
	*http.Response
	body string
}

// ask sends a request; header is name, value, name, value.
func (s *site) ask(method, path, body string, header ...string) reply {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), method, s.url+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		if header[i] == "Host" {
			req.Host = header[i+1]
		}
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := s.client.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return reply{resp, string(got)}
}

// wantProblem checks an error answer as far as all of them are alike.
func (r reply) wantProblem(t *testing.T, status int, detail string) {
	t.Helper()
	var p struct {
		Status        int
		Title, Detail string
	}
	if r.StatusCode != status {
		t.Fatalf("status %d, want %d; body %s", r.StatusCode, status, r.body)
	}
	if ct := r.Header.Get("Content-Type"); ct != "application/problem+json" {
		t.Errorf("Content-Type %q, want a problem", ct)
	}
	if err := json.Unmarshal([]byte(r.body), &p); err != nil {
		t.Fatalf("body %q: %v", r.body, err)
	}
	if p.Status != status || p.Title != http.StatusText(status) || !strings.Contains(p.Detail, detail) {
		t.Errorf("problem %+v, want status %d and a detail with %q", p, status, detail)
	}
}
