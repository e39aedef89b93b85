package whip

import (
	"net/http"
	"strings"
	"testing"

	"github.com/sfu-agent/sfu-agent/sfu"
)

// draft-ietf-wish-whep, section 4.2: "SHALL return a 409 Conflict response
// [...] with a Retry-After header" while nobody publishes.
func TestWatchNobody(t *testing.T) {
	r := newResource(t, sfu.Config{})
	resp := r.post("/whep/room", offer(t, "view"))
	wantStatus(t, resp, http.StatusConflict)
	if resp.Header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
}

// Section 4.2: "MUST use sendonly in the SDP answer"; section 4.4.2: all
// m-sections have a=msid of the same MediaStream.
func TestWatch(t *testing.T) {
	r := newResource(t, sfu.Config{})
	r.publish("room")
	resp := r.post("/whep/room", offer(t, "view"))
	answer := text(t, resp)
	if resp.StatusCode != http.StatusCreated || !strings.HasPrefix(resp.Header.Get("Location"), "/whep/room/") || resp.Header.Get("ETag") == "" {
		t.Fatalf("%s, %v: %s", resp.Status, resp.Header, answer)
	}
	wantLine(t, answer, "a=sendonly")
	wantLine(t, answer, "a=rtcp-mux-only")
	for _, want := range []string{"a=msid:room audio\r\n", "a=msid:room video\r\n", "m=video 9 UDP/TLS/RTP/SAVPF 96 97\r\n", "m=audio 9 UDP/TLS/RTP/SAVPF 111\r\n"} {
		if !strings.Contains(answer, want) {
			t.Errorf("%q is missing in\n%s", want, answer)
		}
	}
	wantStatus(t, r.do(http.MethodDelete, resp.Header.Get("Location"), ""), http.StatusOK)
}

func TestWatchWithoutTheCodec(t *testing.T) {
	r := newResource(t, sfu.Config{})
	r.publish("room")
	resp := r.post("/whep/room", strings.ReplaceAll(offer(t, "view"), "VP8/90000", "VP0/90000"))
	wantStatus(t, resp, http.StatusNotAcceptable)
}

func TestSecondPublisher(t *testing.T) {
	r := newResource(t, sfu.Config{})
	r.publish("room")
	wantStatus(t, r.post("/whip/room", offer(t, "publish")), http.StatusConflict)
}

// A room without audio, and a viewer who would like some: the m-section is
// answered all the same, since it carries the candidates.
func TestWatchWithoutAudio(t *testing.T) {
	text1 := offer(t, "publish")
	session, media, _ := strings.Cut(text1, "m=audio")
	_, video, _ := strings.Cut(media, "m=video")
	r := newResource(t, sfu.Config{})
	resp := r.post("/whip/room", strings.Replace(session, "BUNDLE 0 1", "BUNDLE 1", 1)+"m=video"+video)
	wantStatus(t, resp, http.StatusCreated)
	resp = r.post("/whep/room", offer(t, "view"))
	answer := text(t, resp)
	if resp.StatusCode != http.StatusCreated || !strings.Contains(answer, "a=candidate:") || !strings.Contains(answer, "a=group:BUNDLE 0 1\r\n") {
		t.Errorf("%s: %s", resp.Status, answer)
	}
	wantLine(t, answer, "a=sendonly")
}

func TestPaths(t *testing.T) {
	r := newResource(t, sfu.Config{})
	session, _, _ := r.publish("room")
	id := session[strings.LastIndex(session, "/")+1:]
	for _, path := range []string{
		"/whip/room/none", "/whep/room/" + id, "/whip/other/" + id, "/", "/whip", "/other/room", "/whip/room/" + id + "/x",
	} {
		wantStatus(t, r.do(http.MethodDelete, path, ""), http.StatusNotFound)
		wantStatus(t, r.do(http.MethodGet, path, ""), http.StatusNotFound)
	}
	for _, room := range []string{"a%20b", "%2e%2e%2fx", "%C3%A9", strings.Repeat("x", 65), "a%00"} {
		wantStatus(t, r.post("/whip/"+room, offer(t, "publish")), http.StatusNotFound)
	}
	wantStatus(t, r.post("/whip/"+strings.Repeat("~", 64), offer(t, "publish")), http.StatusCreated)
}

func TestOversizedBodies(t *testing.T) {
	r := newResource(t, sfu.Config{})
	session, tag, _ := r.publish("room")
	big := offer(t, "publish") + strings.Repeat("a=x-filler:0123456789\r\n", 3000)
	wantStatus(t, r.post("/whip/big", big), http.StatusRequestEntityTooLarge)
	wantStatus(t, r.patch(session, tag, strings.Repeat(candidate, 1000)), http.StatusRequestEntityTooLarge)
}
