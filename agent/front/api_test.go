package front_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"testing"
	"time"

	"github.com/sfu-agent/sfu-agent/agent"
	"github.com/sfu-agent/sfu-agent/agent/control"
	"github.com/sfu-agent/sfu-agent/agent/front"
	"github.com/sfu-agent/sfu-agent/cgroups"
)

// two workers with rooms, one of them in both.
func twoWorkers() []agent.Worker {
	return []agent.Worker{
		{ID: "0", Name: "a-0-1", State: agent.StateDraining, PID: 10, Placer: "scope", Unit: "sfu-worker-a-0-1.scope", Socket: "/secret",
			Limits: cgroups.Limits{MemoryMax: 1 << 28}, Restarts: 2,
			LastExit: &agent.LastExit{Exit: agent.Exit{Reason: agent.ReasonOOM, Signal: "SIGKILL"}, Name: "a-0-0", Text: "killed by the kernel: out of memory"},
			Status:   &control.Status{State: control.StateDraining, Rooms: []control.Room{{Name: "lobby", Viewers: 2}, {Name: "attic"}}}},
		{ID: "1", Name: "a-1-1", State: agent.StateReady, PID: 11, Status: &control.Status{Rooms: []control.Room{
			{Name: "lobby", Publisher: true, Viewers: 5, Tracks: []control.Track{{Kind: "video", Codec: "video/VP8"}}}}}},
		{ID: "2", Name: "a-2-1", State: agent.StateStarting},
	}
}

func decode[T any](t *testing.T, r reply) T {
	t.Helper()
	var v T
	if err := json.Unmarshal([]byte(r.body), &v); err != nil || r.Header.Get("Content-Type") != "application/json" {
		t.Fatalf("%d %s %q: %v", r.StatusCode, r.Header.Get("Content-Type"), r.body, err)
	}
	return v
}

func TestWorkers(t *testing.T) {
	s := open(t, front.Config{Host: &host{workers: twoWorkers()}})
	want := twoWorkers()
	want[0].Socket = ""
	if got := decode[[]agent.Worker](t, s.ask("GET", "/api/v1/workers", "")); !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if got := decode[agent.Worker](t, s.ask("GET", "/api/v1/workers/1", "")); !reflect.DeepEqual(got, want[1]) {
		t.Errorf("got  %+v\nwant %+v", got, want[1])
	}
	s.ask("GET", "/api/v1/workers/7", "").wantProblem(t, 404, "GET /api/v1/workers")
	if r := s.ask("HEAD", "/api/v1/workers", ""); r.StatusCode != 200 || r.body != "" || r.ContentLength < 100 {
		t.Errorf("HEAD: %d, %d bytes of body, Content-Length %d", r.StatusCode, len(r.body), r.ContentLength)
	}
}

func TestRooms(t *testing.T) {
	s := open(t, front.Config{Host: &host{workers: twoWorkers()}})
	var got []string
	for _, r := range decode[[]front.Room](t, s.ask("GET", "/api/v1/rooms", "")) {
		if r.Tracks == nil {
			t.Errorf("tracks of %s are null", r.Name)
		}
		got = append(got, fmt.Sprint(r.Name, " ", r.Worker, " ", r.Viewers))
	}
	if want := []string{"attic 0 0", "lobby 0 2", "lobby 1 5"}; !reflect.DeepEqual(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if r := decode[front.Room](t, s.ask("GET", "/api/v1/rooms/lobby", "")); r.Worker != "1" || !r.Publisher {
		t.Errorf("%+v, want the one with the publisher", r)
	}
	s.ask("GET", "/api/v1/rooms/cellar", "").wantProblem(t, 404, "publisher")
}

func TestNothingIsEmptyNotNull(t *testing.T) {
	s := open(t, front.Config{Host: &host{}})
	for _, path := range []string{"/api/v1/workers", "/api/v1/rooms"} {
		if r := s.ask("GET", path, ""); r.body != "[]\n" {
			t.Errorf("%s: %q", path, r.body)
		}
	}
}

func TestDrain(t *testing.T) {
	h := &host{workers: twoWorkers()}
	s := open(t, front.Config{Host: h})
	for query, want := range map[string]time.Duration{"": time.Minute, "?deadline=90s": 90 * time.Second, "?deadline=0s": 0, "?deadline=24h": 24 * time.Hour} {
		r := s.ask("DELETE", "/api/v1/workers/1"+query, "")
		if w := decode[agent.Worker](t, r); r.StatusCode != http.StatusAccepted || w.State != agent.StateDraining || h.drained["1"] != want {
			t.Errorf("deadline %q: %d, worker is %s, deadline %v", query, r.StatusCode, w.State, h.drained["1"])
		}
	}
	r := s.ask("DELETE", "/api/v1/workers/1/drain", "")
	if w := decode[agent.Worker](t, r); r.StatusCode != 200 || w.State != agent.StateReady || len(h.drained) != 0 {
		t.Errorf("cancel: %d, worker is %s, drained %v", r.StatusCode, w.State, h.drained)
	}
	for _, query := range []string{"?deadline=60", "?deadline=-1s", "?deadline=25h", "?deadline=soon"} {
		s.ask("DELETE", "/api/v1/workers/1"+query, "").wantProblem(t, 400, "90s")
	}
	for _, path := range []string{"/api/v1/workers/7", "/api/v1/workers/7/drain"} {
		s.ask("DELETE", path, "").wantProblem(t, 404, "No such worker")
	}
	h.set(func(h *host) { h.refuse = errors.New("worker 1 is placing") })
	for _, path := range []string{"/api/v1/workers/1", "/api/v1/workers/1/drain"} {
		s.ask("DELETE", path, "").wantProblem(t, 409, "worker 1 is placing")
	}
}

func TestProbe(t *testing.T) {
	entered, release := make(chan struct{}), make(chan struct{})
	s := open(t, front.Config{Host: &host{}, Probe: func(ctx context.Context) any {
		if _, ok := ctx.Deadline(); !ok {
			return errors.New("no deadline")
		}
		entered <- struct{}{}
		<-release
		return map[string]string{"gso": "yes"}
	}})
	first := make(chan reply)
	go func() { first <- s.ask("GET", "/api/v1/probe", "") }()
	<-entered
	r := s.ask("GET", "/api/v1/probe", "")
	r.wantProblem(t, 503, "another client")
	r.wantRetry(t)
	close(release)
	if got := decode[map[string]string](t, <-first); got["gso"] != "yes" {
		t.Errorf("%v", got)
	}
	open(t, front.Config{Host: &host{}}).ask("GET", "/api/v1/probe", "").wantProblem(t, 404, "sfu-agent probe")
	open(t, front.Config{Host: &host{}, Probe: func(context.Context) any { return make(chan int) }}).
		ask("GET", "/api/v1/probe", "").wantProblem(t, 500, "Encode answer")
}

func TestHealth(t *testing.T) {
	h := &host{workers: twoWorkers(), route: errors.Join(errors.New("worker 0 is draining"), errors.New("worker 2 is starting"))}
	s := open(t, front.Config{Host: h, Token: "a"})
	if r := s.ask("GET", "/healthz", ""); r.StatusCode != 200 || r.body != "ok\n" {
		t.Errorf("healthz: %d %q", r.StatusCode, r.body)
	}
	type readiness struct {
		Ready   bool
		Reasons []string
		Workers map[string]int
	}
	workers := map[string]int{"draining": 1, "ready": 1, "starting": 1}
	r := s.ask("GET", "/readyz", "")
	r.wantRetry(t)
	if got, want := decode[readiness](t, r), (readiness{false, []string{"worker 0 is draining", "worker 2 is starting"}, workers}); r.StatusCode != 503 || !reflect.DeepEqual(got, want) {
		t.Errorf("readyz: %d %+v, want 503 %+v", r.StatusCode, got, want)
	}
	h.set(func(h *host) { h.route = nil })
	r = s.ask("GET", "/readyz", "")
	if got, want := decode[readiness](t, r), (readiness{true, []string{}, workers}); r.StatusCode != 200 || !reflect.DeepEqual(got, want) {
		t.Errorf("readyz: %d %+v, want 200 %+v", r.StatusCode, got, want)
	}
}

func TestWrongMethodsAndPaths(t *testing.T) {
	s := open(t, front.Config{Host: &host{workers: twoWorkers()}})
	for route, allow := range map[string]string{
		"PUT /whip/r": "GET, HEAD, OPTIONS, POST", "PATCH /whep/r": "GET, HEAD, OPTIONS, POST",
		"POST /whep/r/0-a":     "DELETE, GET, HEAD, OPTIONS, PATCH",
		"POST /api/v1/workers": "GET, HEAD, OPTIONS", "PUT /api/v1/workers/0": "DELETE, GET, HEAD, OPTIONS, PATCH", "GET /api/v1/workers/0/drain": "DELETE, OPTIONS",
		"POST /": "GET, HEAD, OPTIONS", "BREW /healthz": "GET, HEAD, OPTIONS",
	} {
		var method, path string
		fmt.Sscan(route, &method, &path)
		r := s.ask(method, path, "")
		if r.StatusCode != 405 || r.Header.Get("Allow") != allow {
			t.Errorf("%s: %d, Allow %q; want 405, %q", route, r.StatusCode, r.Header.Get("Allow"), allow)
		}
	}
	for _, path := range []string{"/none", "/whip", "/whip/", "/whep/a/b/c", "/api/v1/", "/api/v2/workers", "/assets/", "/assets/none.js", "/assets/..%2ffront.go"} {
		s.ask("GET", path, "").wantProblem(t, 404, "")
	}
}
