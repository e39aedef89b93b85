package whip

import (
	"context"
	"encoding/json"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/sfu-agent/sfu-agent/sfu"
)

// resource is what the tests send requests to.
type resource struct {
	t       testing.TB
	server  *sfu.Server
	handler http.Handler
}

func newResource(t testing.TB, cfg sfu.Config) resource {
	t.Helper()
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	cfg.Conn = conn
	server, err := sfu.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return resource{t, server, New(server)}
}

// do sends a request; header is of pairs.
func (r resource) do(method, path, body string, header ...string) *http.Response {
	r.t.Helper()
	req := httptest.NewRequest(method, path, strings.NewReader(body))
	for i := 0; i < len(header); i += 2 {
		req.Header.Add(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	r.handler.ServeHTTP(w, req)
	return w.Result()
}

// post sends an offer.
func (r resource) post(path, offer string) *http.Response {
	r.t.Helper()
	return r.do(http.MethodPost, path, offer, "Content-Type", "application/sdp")
}

// patch sends a fragment; match is If-Match, "" for none.
func (r resource) patch(path, match, fragment string) *http.Response {
	r.t.Helper()
	header := []string{"Content-Type", "application/trickle-ice-sdpfrag"}
	if match != "" {
		header = append(header, "If-Match", match)
	}
	return r.do(http.MethodPatch, path, fragment, header...)
}

// publish makes a session and returns its path, ETag and answer.
func (r resource) publish(room string) (path, tag, answer string) {
	r.t.Helper()
	resp := r.post("/whip/"+room, offer(r.t, "publish"))
	if resp.StatusCode != http.StatusCreated {
		r.t.Fatalf("publish: %s: %s", resp.Status, text(r.t, resp))
	}
	return resp.Header.Get("Location"), resp.Header.Get("ETag"), text(r.t, resp)
}

func offer(t testing.TB, name string) string {
	t.Helper()
	b, err := os.ReadFile("../testdata/chromium-156-" + name + ".sdp")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func text(t testing.TB, resp *http.Response) string {
	t.Helper()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// wantStatus returns the body. It also wants every error to be a problem with a
// detail.
func wantStatus(t testing.TB, resp *http.Response, status int) (body string) {
	t.Helper()
	body = text(t, resp)
	if resp.StatusCode != status {
		t.Errorf("got %d, want %d: %s", resp.StatusCode, status, body)
	}
	if resp.StatusCode < 400 {
		return body
	}
	var problem struct {
		Title, Detail string
		Status        int
	}
	if err := json.Unmarshal([]byte(body), &problem); err != nil || problem.Detail == "" || problem.Title == "" || problem.Status != resp.StatusCode {
		t.Errorf("%q is no problem: %v", body, err)
	}
	if got := resp.Header.Get("Content-Type"); got != "application/problem+json" {
		t.Errorf("problem of Content-Type %q", got)
	}
	return body
}

// wantLine wants a line of SDP in each m-section of the answer.
func wantLine(t *testing.T, answer, line string) {
	t.Helper()
	sections := strings.Split(answer, "\r\nm=")
	for _, s := range sections[1:] {
		if !strings.Contains(s+"\r\n", "\r\n"+line+"\r\n") {
			t.Errorf("%q is missing in m=%s", line, s)
		}
	}
	if len(sections) != 3 {
		t.Errorf("%d m-sections in the answer", len(sections)-1)
	}
}

func headers(resp *http.Response) []string { return slices.Sorted(maps.Keys(resp.Header)) }
