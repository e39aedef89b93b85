package whip

import (
	"net/http"
	"testing"

	"github.com/sfu-agent/sfu-agent/sfu"
)

// FuzzPost wants an answer or a problem for whatever is offered, and nothing
// left behind.
func FuzzPost(f *testing.F) {
	for _, name := range []string{"publish", "simulcast", "view"} {
		f.Add(offer(f, name), name == "view")
	}
	r := newResource(f, sfu.Config{})
	r.publish("watched")
	f.Fuzz(func(t *testing.T, body string, watch bool) {
		r := resource{t, r.server, r.handler}
		path := "/whip/room"
		if watch {
			path = "/whep/watched"
		}
		resp := r.post(path, body)
		if resp.StatusCode >= 500 {
			t.Fatalf("%s: %s", resp.Status, text(t, resp))
		}
		if resp.StatusCode == http.StatusCreated {
			resp = r.do(http.MethodDelete, resp.Header.Get("Location"), "")
		}
		wantClean(t, r, resp)
	})
}

func wantClean(t *testing.T, r resource, resp *http.Response) {
	t.Helper()
	wantStatus(t, resp, resp.StatusCode)
	if rooms := r.server.Stats().Rooms; len(rooms) > 1 || len(rooms) == 1 && rooms[0].Viewers > 0 {
		t.Fatalf("left behind: %+v", rooms)
	}
}

// FuzzPatch wants the session to outlive whatever fragment it is sent.
func FuzzPatch(f *testing.F) {
	f.Add(candidate, "*")
	f.Add(restart+"m=audio 9 RTP/AVP 0\r\na=mid:0\r\n"+candidate, `"x"`)
	f.Fuzz(func(t *testing.T, fragment, match string) {
		ice, err := parseFragment(fragment)
		if err == nil && (ice.Ufrag == "") != (ice.Pwd == "") {
			t.Fatalf("half credentials of %q", fragment)
		}
		r := newResource(t, sfu.Config{})
		session, _, _ := r.publish("room")
		resp := r.patch(session, match, fragment)
		if resp.StatusCode >= 500 {
			t.Fatalf("%s: %s", resp.Status, text(t, resp))
		}
		wantStatus(t, resp, resp.StatusCode)
		wantStatus(t, r.do(http.MethodDelete, session, ""), http.StatusOK)
	})
}
