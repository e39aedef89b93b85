package front_test

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/sfu-agent/sfu-agent/agent"
	"github.com/sfu-agent/sfu-agent/agent/front"
)

func TestTokenMatrix(t *testing.T) {
	s := open(t, front.Config{Host: &host{workers: []agent.Worker{worker(t, "0", whip("0"))}}, Token: "s3cret",
		Probe: func(context.Context) any { return "ok" }})
	guarded := []string{
		"GET /whip/r", "HEAD /whep/r", "GET /whip/r/0-a", "HEAD /whep/r/0-a", "POST /whip/r", "POST /whep/r", "PATCH /whip/r/0-a", "DELETE /whip/r/0-a", "PATCH /whep/r/0-a", "DELETE /whep/r/0-a",
		"GET /api/v1/workers", "GET /api/v1/workers/0", "PATCH /api/v1/workers/0", "DELETE /api/v1/workers/0", "DELETE /api/v1/workers/0/drain",
		"GET /api/v1/rooms", "GET /api/v1/probe", "GET /api/v1/openapi.json", "GET /metrics", "HEAD /metrics",
	}
	free := []string{"GET /healthz", "GET /readyz", "GET /", "HEAD /", "GET /assets/index.html", "OPTIONS /whip/r", "OPTIONS /api/v1/workers"}
	for _, auth := range []struct {
		name, value, challenge string // no challenge: let in
	}{
		{"none", "", `Bearer realm="sfu-agent"`},
		{"empty", "Bearer ", `Bearer realm="sfu-agent", error="invalid_token"`},
		{"wrong", "Bearer s3creT", `Bearer realm="sfu-agent", error="invalid_token"`},
		{"a part", "Bearer s3cre", `Bearer realm="sfu-agent", error="invalid_token"`},
		{"more", "Bearer s3cret2", `Bearer realm="sfu-agent", error="invalid_token"`},
		{"another scheme", "Basic s3cret", `Bearer realm="sfu-agent"`},
		{"without scheme", "s3cret", `Bearer realm="sfu-agent"`},
		{"right", "Bearer s3cret", ""},
		{"lower-case scheme", "bearer s3cret", ""},
	} {
		for _, route := range guarded {
			method, path, _ := strings.Cut(route, " ")
			r := s.ask(method, path, "", "Authorization", auth.value)
			if got := r.Header.Get("WWW-Authenticate"); got != auth.challenge || (r.StatusCode == 401) != (auth.challenge != "") {
				t.Errorf("token %s: %s: %d, challenge %q, want %q", auth.name, route, r.StatusCode, got, auth.challenge)
			}
		}
		for _, route := range free {
			method, path, _ := strings.Cut(route, " ")
			if r := s.ask(method, path, "", "Authorization", auth.value); r.StatusCode >= 300 {
				t.Errorf("token %s: %s: %d, want to be let in", auth.name, route, r.StatusCode)
			}
		}
	}
}

// Nobody who is kept out reaches the host.
func TestRefusedDrainDoesNothing(t *testing.T) {
	h := &host{workers: []agent.Worker{{ID: "0"}}}
	open(t, front.Config{Host: h, Token: "a"}).ask("DELETE", "/api/v1/workers/0", "").wantProblem(t, 401, "Authorization: Bearer TOKEN")
	open(t, front.Config{Host: h}).ask("DELETE", "/api/v1/workers/0", "", "Host", "evil.example").wantProblem(t, 421, "localhost")
	open(t, front.Config{Host: h}).ask("DELETE", "/api/v1/workers/0", "", "Sec-Fetch-Site", "cross-site").wantProblem(t, 403, "another origin")
	open(t, front.Config{Host: h, Token: "a"}).ask("DELETE", "/api/v1/workers/0", "", "Authorization", "Bearer a",
		"Origin", "https://evil.example").wantProblem(t, 403, "another origin")
	if len(h.drained) != 0 {
		t.Errorf("drained %v", h.drained)
	}
}

func TestHostHeaderOnLoopbackWithoutToken(t *testing.T) {
	h := &host{workers: []agent.Worker{worker(t, "0", whip("0"))}}
	bare := open(t, front.Config{Host: h, Names: []string{"SFU.example"}})
	for name, ok := range map[string]bool{
		"localhost": true, "localhost:8080": true, "LOCALHOST": true, "127.0.0.1": true, "127.0.0.1:1": true, "127.9.9.9": true,
		"[::1]": true, "[::1]:8080": true, "sfu.example": true, "sfu.EXAMPLE:443": true,
		"evil.example": false, "localhost.evil.example": false, "127.0.0.1.evil.example": false, "192.0.2.1": false, "[2001:db8::1]:80": false,
		"sfu.example.evil": false,
	} {
		for _, route := range []string{"GET /api/v1/workers", "POST /whep/r", "GET /", "GET /metrics", "OPTIONS /whep/r"} {
			method, path, _ := strings.Cut(route, " ")
			r := bare.ask(method, path, "", "Host", name)
			if (r.StatusCode != http.StatusMisdirectedRequest) != ok {
				t.Errorf("Host %s: %s: %d", name, route, r.StatusCode)
			}
		}
		if r := bare.ask("GET", "/healthz", "", "Host", name); r.StatusCode != 200 {
			t.Errorf("Host %s: /healthz: %d", name, r.StatusCode)
		}
	}
	guarded := open(t, front.Config{Host: h, Token: "a"})
	if r := guarded.ask("GET", "/api/v1/workers", "", "Host", "evil.example", "Authorization", "Bearer a"); r.StatusCode != 200 {
		t.Errorf("with a token: %d, want 200 under any name", r.StatusCode)
	}
}

func TestOriginOnLoopbackWithoutToken(t *testing.T) {
	s := open(t, front.Config{Host: &host{workers: []agent.Worker{worker(t, "0", whip("0"))}}, Names: []string{"sfu.example"}})
	for origin, ok := range map[string]bool{
		"http://localhost:3000": true, "http://127.0.0.1:8080": true, "https://sfu.example": true, "": true,
		"https://evil.example": false, "null": false, "http://localhost.evil.example": false, "file://": false, "http://[::1": false,
	} {
		for _, method := range []string{"POST", "OPTIONS"} {
			r := s.ask(method, "/whep/r", "", "Origin", origin)
			if (r.StatusCode < 300) != ok || !ok && r.StatusCode != http.StatusForbidden {
				t.Errorf("%s from %q: %d", method, origin, r.StatusCode)
			}
		}
	}
}

// Without a token on a public address everyone is meant to come in.
func TestPublicAddressWithoutToken(t *testing.T) {
	f, err := front.New(front.Config{Host: &host{}})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r := httptest.NewRequest("OPTIONS", "http://sfu.example/whep/r", nil)
	r.Header.Set("Origin", "https://player.example")
	r = r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, net.Addr(&net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 80})))
	w := httptest.NewRecorder()
	f.ServeHTTP(w, r)
	if w.Code != http.StatusOK || w.Header().Get("Access-Control-Allow-Origin") != "*" {
		t.Errorf("%d, %v", w.Code, w.Header())
	}
}

func TestOptions(t *testing.T) {
	s := open(t, front.Config{Host: &host{}, Token: "a"}) // no worker is needed
	for path, want := range map[string]map[string]string{
		"/whip/r": {"Allow": "GET, HEAD, OPTIONS, POST", "Access-Control-Allow-Methods": "GET, HEAD, OPTIONS, POST", "Access-Control-Allow-Origin": "*",
			"Access-Control-Allow-Headers": "Authorization, Content-Type, If-Match", "Accept-Post": "application/sdp", "Accept-Patch": ""},
		"/whep/r/0-a": {"Allow": "DELETE, GET, HEAD, OPTIONS, PATCH", "Access-Control-Allow-Origin": "*", "Accept-Post": "",
			"Accept-Patch": "application/trickle-ice-sdpfrag"},
		"/api/v1/workers/0": {"Allow": "DELETE, GET, HEAD, OPTIONS, PATCH", "Access-Control-Allow-Origin": "", "Access-Control-Allow-Methods": "",
			"Accept-Patch": "application/merge-patch+json, application/json"},
	} {
		r := s.ask("OPTIONS", path, "", "Origin", "https://player.example", "Access-Control-Request-Method", "POST")
		if r.StatusCode != http.StatusOK {
			t.Errorf("%s: %d", path, r.StatusCode)
		}
		for name, want := range want {
			if got := r.Header.Get(name); got != want {
				t.Errorf("%s: %s: %q, want %q", path, name, got, want)
			}
		}
	}
}

func FuzzGuard(f *testing.F) {
	f.Add("127.0.0.1:8080", "http://localhost", "Bearer a")
	f.Add("[::1", "null", "bearer")
	f.Add("evil.example", "http://127.0.0.1.evil.example:80", "")
	fr, err := front.New(front.Config{Host: &host{}})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, hostname, origin, auth string) {
		r := httptest.NewRequest("GET", "/api/v1/rooms", nil)
		r = r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, net.Addr(&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})))
		r.Host = hostname
		r.Header.Set("Origin", origin)
		r.Header.Set("Authorization", auth)
		w := httptest.NewRecorder()
		fr.ServeHTTP(w, r)
		lower := strings.ToLower(hostname)
		if w.Code == http.StatusOK && !strings.Contains(lower, "localhost") && !strings.Contains(lower, "127.") && !strings.Contains(lower, "::") && !strings.Contains(lower, ":0") {
			t.Errorf("let in under the name %q", hostname)
		}
	})
}
