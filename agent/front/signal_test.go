package front_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sfu-agent/sfu-agent/agent"
	"github.com/sfu-agent/sfu-agent/agent/front"
)

// whip answers as a worker's WHIP and WHEP endpoints do, and tells what it got.
func whip(id string) http.Handler {
	mux := http.NewServeMux()
	join := func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("Content-Type", "application/sdp")
		w.Header().Set("Location", r.URL.Path+"/"+id+"-abc")
		w.Header().Set("ETag", `"1"`)
		w.Header().Set("Set-Cookie", "a=b")
		w.Header().Set("X-Got", r.Header.Get("Authorization"))
		w.WriteHeader(http.StatusCreated)
		fmt.Fprintf(w, "%s %s %q %s auth=%q", r.Method, r.URL.RequestURI(), body, r.Header.Get("Content-Type"), r.Header.Get("Authorization"))
	}
	mux.HandleFunc("POST /{kind}/{room}", join)
	mux.HandleFunc("GET /{kind}/{room}/{session}", func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusNoContent)
	})
	mux.HandleFunc("DELETE /{kind}/{room}/{session}", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		fmt.Fprint(w, "worker ", id, " ended ", r.PathValue("session"))
	})
	mux.HandleFunc("PATCH /{kind}/{room}/{session}", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", r.Header.Get("If-Match"))
		w.WriteHeader(http.StatusNoContent)
	})
	return mux
}

func TestJoinGoesToTheRoomsWorker(t *testing.T) {
	s := open(t, front.Config{Host: &host{workers: []agent.Worker{worker(t, "0", whip("0"))}}, Token: "secret"})
	for _, kind := range []string{"whip", "whep"} {
		r := s.ask("POST", "/"+kind+"/lobby?x=1", "v=0", "Content-Type", "application/sdp", "Authorization", "Bearer secret")
		want := fmt.Sprintf(`POST /%s/lobby?x=1 "v=0" application/sdp auth=""`, kind)
		if r.StatusCode != http.StatusCreated || r.body != want {
			t.Errorf("%d %s, want 201 %s", r.StatusCode, r.body, want)
		}
		for name, want := range map[string]string{
			"Location": "/" + kind + "/lobby/0-abc", "ETag": `"1"`, "Content-Type": "application/sdp", "Cache-Control": "no-store",
			"Access-Control-Allow-Origin": "*", "Set-Cookie": "", "X-Got": "", "X-Content-Type-Options": "nosniff",
		} {
			if got := r.Header.Get(name); got != want {
				t.Errorf("%s: %q, want %q", name, got, want)
			}
		}
	}
}

func TestSessionGoesToTheWorkerItNames(t *testing.T) {
	s := open(t, front.Config{Host: &host{workers: []agent.Worker{
		worker(t, "0", whip("0")), worker(t, "1", whip("1")), {ID: "2", State: agent.StateBackoff},
	}}})
	if r := s.ask("DELETE", "/whep/lobby/1-xyz", ""); r.StatusCode != 200 || r.body != "worker 1 ended 1-xyz" {
		t.Errorf("DELETE: %d %s", r.StatusCode, r.body)
	}
	if r := s.ask("PATCH", "/whip/lobby/0-xyz", "a=x", "If-Match", `"7"`); r.StatusCode != 204 || r.Header.Get("ETag") != `"7"` {
		t.Errorf("PATCH: %d, ETag %q", r.StatusCode, r.Header.Get("ETag"))
	}
	for _, session := range []string{"9-xyz", "2-xyz", "xyz", "-xyz", "0-", "0-a%2Fb", "0-..", "00001-x"} {
		s.ask("DELETE", "/whep/lobby/"+session, "").wantProblem(t, http.StatusNotFound, "Join again")
	}
	s.ask("DELETE", "/whep/a%20b/0-xyz", "").wantProblem(t, http.StatusNotFound, "Join again")
}

// GET and HEAD find what there is, and nothing in it.
func TestEmptyResources(t *testing.T) {
	s := open(t, front.Config{Host: &host{workers: []agent.Worker{worker(t, "0", whip("0"))}}})
	for _, method := range []string{"GET", "HEAD"} {
		for _, path := range []string{"/whip/lobby", "/whep/none", "/whip/lobby/0-xyz", "/whep/lobby/0-xyz"} {
			r := s.ask(method, path, "")
			if r.StatusCode != http.StatusNoContent || r.body != "" || r.Header.Get("Access-Control-Allow-Origin") != "*" || r.Header.Get("Cache-Control") != "no-store" {
				t.Errorf("%s %s: %d %q %v", method, path, r.StatusCode, r.body, r.Header)
			}
		}
	}
	s.ask("GET", "/whip/a%20b", "").wantProblem(t, http.StatusBadRequest, "A room's name")
	s.ask("GET", "/whip/lobby/1-xyz", "").wantProblem(t, http.StatusNotFound, "No such session")
	if r := s.ask("HEAD", "/whip/lobby/1-xyz", ""); r.StatusCode != http.StatusNotFound || r.body != "" {
		t.Errorf("HEAD of no session: %d %q", r.StatusCode, r.body)
	}
	if r := open(t, front.Config{Host: &host{route: agent.ErrNotReady}}).ask("GET", "/whep/lobby", ""); r.StatusCode != http.StatusNoContent {
		t.Errorf("without a worker: %d, want 204", r.StatusCode)
	}
}

func TestRoomNames(t *testing.T) {
	s := open(t, front.Config{Host: &host{workers: []agent.Worker{worker(t, "0", whip("0"))}}})
	for _, name := range []string{"a", "A.b_c~1-", "-a", ".a", "...", strings.Repeat("x", 64)} {
		if r := s.ask("POST", "/whep/"+name, "v=0"); r.StatusCode != http.StatusCreated {
			t.Errorf("room %q: %d %s", name, r.StatusCode, r.body)
		}
	}
	for _, name := range []string{"a%2Fb", "a%3Ab", "a%20b", "%C3%A4", "a%00", strings.Repeat("x", 65)} {
		s.ask("POST", "/whep/"+name, "v=0").wantProblem(t, http.StatusBadRequest, "A room's name")
	}
}

func TestNoWorkerIsReady(t *testing.T) {
	h := &host{route: agent.ErrNotReady}
	s := open(t, front.Config{Host: h})
	r := s.ask("POST", "/whep/lobby", "v=0")
	r.wantProblem(t, http.StatusServiceUnavailable, "try again")
	r.wantRetry(t)
	h.set(func(h *host) { h.route = errors.New("out of order") })
	s.ask("POST", "/whep/lobby", "v=0").wantProblem(t, http.StatusServiceUnavailable, "out of order")
}

func (r reply) wantRetry(t *testing.T) {
	t.Helper()
	if n, err := strconv.Atoi(r.Header.Get("Retry-After")); err != nil || n < 1 || n > 10 {
		t.Errorf("Retry-After %q, want a few seconds", r.Header.Get("Retry-After"))
	}
}

func TestOversizeBodyDoesNotReachTheWorker(t *testing.T) {
	reached := false
	s := open(t, front.Config{Host: &host{workers: []agent.Worker{worker(t, "0", http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached = true }))}}})
	s.ask("POST", "/whip/lobby", strings.Repeat("a", 64<<10+1)).wantProblem(t, http.StatusRequestEntityTooLarge, "65536 bytes")
	if reached {
		t.Error("the worker was asked")
	}
}

func TestWorkersThatDoNotAnswerWell(t *testing.T) {
	location := func(l string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", l)
			w.WriteHeader(http.StatusCreated)
		}
	}
	for _, tc := range []struct {
		name    string
		handler http.HandlerFunc
		status  int
		detail  string
	}{
		{"closes at once", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, 502, "ended before"},
		{"closes in the middle", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			w.Write([]byte("v=0"))
			http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}, 502, "ended before"},
		{"says too much", func(w http.ResponseWriter, _ *http.Request) { io.Copy(w, zeros{}) }, 502, "no WHIP or WHEP server may"},
		{"speaks no HTTP", raw("hello\r\n\r\n"), 502, "ended before"},
		{"switches protocols", raw("HTTP/1.1 101 Switching Protocols\r\n\r\n"), 502, "no WHIP or WHEP server may"},
		{"creates nothing", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusCreated) }, 502, "no WHIP or WHEP server may"},
		{"sends elsewhere", location("http://evil.example/whip/lobby/0-a"), 502, "no WHIP or WHEP server may"},
		{"sends out of the room", location("/whip/other/0-a"), 502, "no WHIP or WHEP server may"},
		{"sends up", location("/whip/lobby/../0-a"), 502, "no WHIP or WHEP server may"},
		{"names another worker", location("/whip/lobby/1-a"), 502, "no WHIP or WHEP server may"},
		{"names no worker", location("/whip/lobby/a"), 502, "no WHIP or WHEP server may"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := open(t, front.Config{Host: &host{workers: []agent.Worker{worker(t, "0", tc.handler)}}})
			r := s.ask("POST", "/whip/lobby", "v=0")
			r.wantProblem(t, tc.status, tc.detail)
			r.wantRetry(t)
			if r.Header.Get("Access-Control-Allow-Origin") != "*" {
				t.Error("a page of another site could not read this error")
			}
		})
	}
}

// raw answers with bytes of its own and closes.
func raw(answer string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		c, _, err := http.NewResponseController(w).Hijack()
		if err == nil {
			io.WriteString(c, answer)
			c.Close()
		}
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { return len(b), nil }

func TestDeadWorker(t *testing.T) {
	w := worker(t, "0", whip("0"))
	w.Socket += ".gone"
	r := open(t, front.Config{Host: &host{workers: []agent.Worker{w}}}).ask("POST", "/whip/lobby", "v=0")
	r.wantProblem(t, http.StatusServiceUnavailable, "just ended")
	r.wantRetry(t)
}

func TestWorkersErrorsPass(t *testing.T) {
	s := open(t, front.Config{Host: &host{workers: []agent.Worker{worker(t, "0", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/problem+json")
		w.Header().Set("Retry-After", "3")
		w.WriteHeader(http.StatusConflict)
		io.WriteString(w, `{"status":409,"title":"Conflict","detail":"The room has a publisher."}`)
	}))}}})
	r := s.ask("POST", "/whip/lobby", "v=0")
	r.wantProblem(t, http.StatusConflict, "has a publisher")
	r.wantRetry(t)
}

// A hung worker takes its own share of the requests in flight and no more.
func TestHungWorkerLeavesRoomForOthers(t *testing.T) {
	release := make(chan struct{})
	var asked sync.WaitGroup
	asked.Add(256)
	hung := worker(t, "0", http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Done(); <-release }))
	t.Cleanup(func() { close(release) })
	s := open(t, front.Config{Host: &host{workers: []agent.Worker{hung, worker(t, "1", whip("1"))}}})

	var all sync.WaitGroup
	t.Cleanup(all.Wait)
	for range 256 {
		all.Go(func() {
			if resp, err := s.client.Post(s.url+"/whip/lobby", "application/sdp", strings.NewReader("v=0")); err == nil {
				resp.Body.Close()
			}
		})
	}
	asked.Wait()
	r := s.ask("POST", "/whip/lobby", "v=0")
	r.wantProblem(t, http.StatusServiceUnavailable, "too many requests in flight")
	r.wantRetry(t)
	if r := s.ask("DELETE", "/whip/lobby/1-a", ""); r.StatusCode != http.StatusOK {
		t.Errorf("the other worker: %d %s", r.StatusCode, r.body)
	}
}

func TestReplacedWorkerIsAskedOnItsOwnSocket(t *testing.T) {
	first := worker(t, "0", whip("0"))
	h := &host{workers: []agent.Worker{first}}
	s := open(t, front.Config{Host: h})
	s.ask("POST", "/whip/lobby", "v=0")
	second := worker(t, "0", http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "second") }))
	second.Name += "-again"
	h.set(func(h *host) { h.workers[0] = second })
	if r := s.ask("DELETE", "/whip/lobby/0-a", ""); r.body != "second" {
		t.Errorf("%d %s, want the second worker's answer", r.StatusCode, r.body)
	}
}

// A client that stops in the middle of its body is answered, not waited for.
func TestSlowBody(t *testing.T) {
	t.Parallel()
	s := open(t, front.Config{Host: &host{workers: []agent.Worker{worker(t, "0", whip("0"))}}})
	c, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprintf(c, "POST /whip/lobby HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n\r\nv=0")
	c.SetReadDeadline(time.Now().Add(20 * time.Second))
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusRequestTimeout {
		t.Errorf("status %d, want 408", resp.StatusCode)
	}
}

// A worker that takes the request and never answers costs its client 10 s.
func TestSilentWorker(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	w := worker(t, "0", http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
	t.Cleanup(func() { close(release) })
	s := open(t, front.Config{Host: &host{workers: []agent.Worker{w}}})
	start := time.Now()
	r := s.ask("POST", "/whip/lobby", "v=0")
	r.wantProblem(t, http.StatusGatewayTimeout, "did not answer")
	r.wantRetry(t)
	if took := time.Since(start); took > 20*time.Second {
		t.Errorf("took %v", took)
	}
}
