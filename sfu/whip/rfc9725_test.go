package whip

import (
	"net/http"
	"strings"
	"testing"

	"github.com/sfu-agent/sfu-agent/sfu"
)

// The tests of this file are named after what RFC 9725 requires of a server.

// Section 4.1: "MUST return a 2xx successful response with no content when a
// GET request is received".
func TestGETHasNoContent(t *testing.T) {
	r := newResource(t, sfu.Config{})
	session, _, _ := r.publish("room")
	for _, path := range []string{"/whip/room", "/whep/room", session} {
		for _, method := range []string{http.MethodGet, http.MethodHead} {
			if body := wantStatus(t, r.do(method, path, ""), http.StatusNoContent); body != "" {
				t.Errorf("%s %s: %q", method, path, body)
			}
		}
	}
}

// Other methods stay reserved.
func TestOtherMethodsAreNotAllowed(t *testing.T) {
	r := newResource(t, sfu.Config{})
	session, _, _ := r.publish("room")
	for path, methods := range map[string][]string{
		"/whip/room": {http.MethodPut, http.MethodPatch, http.MethodDelete, "BREW"},
		session:      {http.MethodPut, http.MethodPost, "BREW"},
	} {
		for _, method := range methods {
			resp := r.do(method, path, "")
			wantStatus(t, resp, http.StatusMethodNotAllowed)
			if resp.Header.Get("Allow") == "" {
				t.Errorf("%s %s: no Allow", method, path)
			}
		}
	}
}

// Section 4.2: "return a 201 Created response with a content type of
// application/sdp, the SDP answer as the body, and a Location header field".
func TestOfferIsAnswered(t *testing.T) {
	r := newResource(t, sfu.Config{})
	resp := r.post("/whip/room", offer(t, "publish"))
	if got := resp.Header.Get("Content-Type"); resp.StatusCode != http.StatusCreated || got != "application/sdp" {
		t.Errorf("%s, Content-Type %q", resp.Status, got)
	}
	location := resp.Header.Get("Location")
	if !strings.HasPrefix(location, "/whip/room/") {
		t.Errorf("Location %q", location)
	}
	wantStatus(t, r.do(http.MethodGet, location, ""), http.StatusNoContent)
	if answer := text(t, resp); !strings.HasPrefix(answer, "v=0\r\n") {
		t.Errorf("answer %q", answer)
	}
}

// Section 4.2: "The WHIP endpoint MUST use the recvonly attribute in the SDP
// answer", also where the client offers sendrecv.
func TestAnswerIsRecvonly(t *testing.T) {
	r := newResource(t, sfu.Config{})
	_, _, answer := r.publish("room")
	wantLine(t, answer, "a=recvonly")
	resp := r.post("/whip/other", strings.ReplaceAll(offer(t, "publish"), "a=sendonly", "a=sendrecv"))
	wantLine(t, text(t, resp), "a=recvonly")
}

// Section 4.2: "a content type different than application/sdp [...] MUST reject
// [...] with an appropriate 4xx error response".
func TestOfferOfOtherContentType(t *testing.T) {
	r := newResource(t, sfu.Config{})
	for _, contentType := range []string{"text/plain", "application/json", "application/sdpx", ";", ""} {
		resp := r.do(http.MethodPost, "/whip/room", offer(t, "publish"), "Content-Type", contentType)
		wantStatus(t, resp, http.StatusUnsupportedMediaType)
	}
	resp := r.do(http.MethodPost, "/whip/room", offer(t, "publish"), "Content-Type", "Application/SDP; charset=utf-8")
	wantStatus(t, resp, http.StatusCreated)
}

// Section 4.2: "or the SDP is malformed [...] MUST reject".
func TestMalformedOffer(t *testing.T) {
	r := newResource(t, sfu.Config{})
	for _, body := range []string{"", "hello", "v=0", "v=0\r\nm=x", strings.Repeat("v=0\r\n", 1000)} {
		wantStatus(t, r.post("/whip/room", body), http.StatusBadRequest)
	}
	if n := len(r.server.Stats().Rooms); n != 0 {
		t.Errorf("%d rooms", n)
	}
}

// Section 4.2: "MUST support OPTIONS requests for Cross-Origin Resource Sharing
// [...] 200 OK [...] SHOULD include an Accept-Post header".
func TestOptions(t *testing.T) {
	r := newResource(t, sfu.Config{})
	resp := r.do(http.MethodOptions, "/whip/room", "", "Origin", "https://example.org", "Access-Control-Request-Method", "POST")
	wantStatus(t, resp, http.StatusOK)
	for name, want := range map[string]string{
		"Access-Control-Allow-Origin": "*", "Accept-Post": "application/sdp",
		"Access-Control-Allow-Methods": "POST", "Access-Control-Allow-Headers": "Authorization",
	} {
		if got := resp.Header.Get(name); !strings.Contains(got, want) {
			t.Errorf("%s: %q", name, got)
		}
	}
	exposed := r.post("/whip/room", offer(t, "publish")).Header.Get("Access-Control-Expose-Headers")
	for _, name := range []string{"Location", "ETag", "Link", "Retry-After"} {
		if !strings.Contains(exposed, name) {
			t.Errorf("%s is not exposed: %q", name, exposed)
		}
	}
}

// Section 4.2: "Upon receiving the HTTP DELETE request, the WHIP session will
// be removed and the resources freed on the media server".
func TestDeleteRemovesTheSession(t *testing.T) {
	r := newResource(t, sfu.Config{})
	session, _, _ := r.publish("room")
	wantStatus(t, r.do(http.MethodDelete, session, ""), http.StatusOK)
	if n := len(r.server.Stats().Rooms); n != 0 {
		t.Errorf("%d rooms are left", n)
	}
	wantStatus(t, r.do(http.MethodDelete, session, ""), http.StatusNotFound)
	wantStatus(t, r.patch(session, "*", ""), http.StatusNotFound)
}

// Section 4.3.1: "MUST ignore any entity-tag value sent by the WHIP client when
// ICE session matching is not required, as in the HTTP DELETE request".
func TestDeleteIgnoresTheEntityTag(t *testing.T) {
	r := newResource(t, sfu.Config{})
	session, _, _ := r.publish("room")
	wantStatus(t, r.do(http.MethodDelete, session, "", "If-Match", `"other"`), http.StatusOK)
}

// Section 4.3.1: "MUST generate a unique strong entity-tag identifying the ICE
// session [...] MUST be returned in an ETag header field in the 201 Created".
func TestEntityTagIsStrongAndUnique(t *testing.T) {
	r := newResource(t, sfu.Config{})
	_, first, _ := r.publish("one")
	_, second, _ := r.publish("two")
	if len(first) < 10 || first[0] != '"' || first[len(first)-1] != '"' || first == second {
		t.Errorf("ETags %s and %s", first, second)
	}
}

const candidate = "a=candidate:1387637174 1 udp 2122260223 192.0.2.1 61764 typ host generation 0 ufrag m2o0 network-id 1\r\n"

// Section 4.3.1: "a content type different than
// application/trickle-ice-sdpfrag or the SDP fragment is malformed [...] MUST
// reject the HTTP PATCH with an appropriate 4xx error response".
func TestMalformedPatch(t *testing.T) {
	r := newResource(t, sfu.Config{})
	session, tag, _ := r.publish("room")
	resp := r.do(http.MethodPatch, session, candidate, "Content-Type", "application/sdp", "If-Match", tag)
	wantStatus(t, resp, http.StatusUnsupportedMediaType)
	for _, fragment := range []string{
		"hello", "x=1\r\n", "a\r\n", "a=ice-ufrag:only\r\n", "a=candidate:1 1 udp\r\n",
		"a=ice-ufrag:abc\r\na=ice-pwd:short\r\n", "a=candidate:1 one udp 1 192.0.2.1 9 typ host\r\n",
	} {
		wantStatus(t, r.patch(session, tag, fragment), http.StatusBadRequest)
	}
}

// Section 4.3.1: "a 428 Precondition Required response for a missing entity
// tag, and a 412 Precondition Failed response for a non-matching entity tag".
func TestPatchWantsTheEntityTag(t *testing.T) {
	r := newResource(t, sfu.Config{})
	session, tag, _ := r.publish("room")
	wantStatus(t, r.patch(session, "", candidate), http.StatusPreconditionRequired)
	wantStatus(t, r.patch(session, `"other"`, candidate), http.StatusPreconditionFailed)
	wantStatus(t, r.patch(session, "W/"+tag, candidate), http.StatusPreconditionFailed)
	wantStatus(t, r.patch(session, `"other", `+tag, candidate), http.StatusNoContent)
}

// Section 4.3.2: "The WHIP endpoint SHALL gather all the ICE candidates [...]
// the SDP answer SHALL contain the full list".
func TestAnswerHasAllCandidates(t *testing.T) {
	r := newResource(t, sfu.Config{})
	_, _, answer := r.publish("room")
	for _, want := range []string{"a=candidate:", " 127.0.0.1 ", " typ host", "a=end-of-candidates", "a=ice-lite"} {
		if !strings.Contains(answer, want) {
			t.Errorf("%q is missing in\n%s", want, answer)
		}
	}
}

// Section 4.3.2: "MUST return a 204 No Content response without a body and MUST
// NOT include an ETag header in the response".
func TestTrickle(t *testing.T) {
	r := newResource(t, sfu.Config{})
	session, tag, _ := r.publish("room")
	ufrag, pwd := credentials(offer(t, "publish"))
	for _, fragment := range []string{
		candidate,
		"a=ice-ufrag:" + ufrag + "\r\na=ice-pwd:" + pwd + "\r\nm=audio 9 RTP/AVP 0\r\na=mid:0\r\n" + candidate + "a=end-of-candidates\r\n",
		"a=end-of-candidates\r\n",
	} {
		for _, match := range []string{tag, "*"} {
			resp := r.patch(session, match, fragment)
			if body := wantStatus(t, resp, http.StatusNoContent); resp.Header.Get("ETag") != "" || body != "" {
				t.Errorf("headers %v", headers(resp))
			}
		}
	}
}

// Section 4.3.2: "does not support a candidate transport or is not able to
// resolve the connection address, it MUST silently discard the candidate".
func TestUnusableCandidatesAreDiscarded(t *testing.T) {
	r := newResource(t, sfu.Config{})
	session, tag, _ := r.publish("room")
	for _, fragment := range []string{
		"a=candidate:473322822 1 tcp 1518280447 192.0.2.1 9 typ host tcptype active\r\n",
		"a=candidate:1 1 udp 2113937151 0b2d5fa9-8f1a-4e5c-9b3a-6a7e1c2d3e4f.local 50000 typ host\r\n",
		"a=candidate:1 1 sctp 1 no.such.name 9 typ future\r\n",
	} {
		wantStatus(t, r.patch(session, tag, fragment), http.StatusNoContent)
	}
}

const restart = "a=ice-ufrag:ysXw\r\na=ice-pwd:vw5LmwG4y/e6dPP/zAP9Gp5k\r\n"

// Section 4.3.3: "SHALL return a 200 OK with an
// application/trickle-ice-sdpfrag body containing the new ICE username fragment
// and password [...] MUST contain the new entity-tag".
func TestICERestart(t *testing.T) {
	r := newResource(t, sfu.Config{})
	session, tag, answer := r.publish("room")
	resp := r.patch(session, "*", restart)
	fragment := text(t, resp)
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "application/trickle-ice-sdpfrag" {
		t.Fatalf("%s, %v: %s", resp.Status, resp.Header, fragment)
	}
	newTag := resp.Header.Get("ETag")
	oldUfrag, oldPwd := credentials(answer)
	ufrag, pwd := credentials(fragment)
	if newTag == tag || newTag == "" || ufrag == oldUfrag || pwd == oldPwd || ufrag == "" || pwd == "" {
		t.Errorf("ETag %s after %s, fragment %s", newTag, tag, fragment)
	}
	for _, want := range []string{"a=ice-lite\r\n", "a=mid:0\r\n", "a=candidate:"} {
		if !strings.Contains(fragment, want) {
			t.Errorf("%q is missing in %s", want, fragment)
		}
	}
	wantStatus(t, r.patch(session, tag, candidate), http.StatusPreconditionFailed)
	wantStatus(t, r.patch(session, newTag, candidate), http.StatusNoContent)
	wantStatus(t, r.patch(session, "*", restart), http.StatusNoContent) // the same again is no restart
}

// Section 4.3.3: "If the ICE restart request cannot be satisfied [...] MUST NOT
// terminate the session immediately and keep the existing ICE session".
func TestFailedRestartKeepsTheSession(t *testing.T) {
	r := newResource(t, sfu.Config{})
	session, tag, _ := r.publish("room")
	wantStatus(t, r.patch(session, "*", "a=ice-ufrag:ysXw\r\na=ice-pwd:short\r\n"), http.StatusBadRequest)
	wantStatus(t, r.patch(session, tag, candidate), http.StatusNoContent)
}

// Section 4.4.1: "MUST be part of a single BUNDLE group [...] SHALL use RTP/RTCP
// multiplexing [...] MUST include the rtcp-mux-only attribute".
func TestAnswerIsBundledAndMultiplexed(t *testing.T) {
	r := newResource(t, sfu.Config{})
	_, _, answer := r.publish("room")
	wantLine(t, answer, "a=rtcp-mux")
	wantLine(t, answer, "a=rtcp-mux-only")
	if !strings.Contains(answer, "a=group:BUNDLE 0 1\r\n") {
		t.Errorf("no BUNDLE of both in\n%s", answer)
	}
	unbundled := strings.Replace(offer(t, "publish"), "a=group:BUNDLE 0 1", "a=group:BUNDLE 0", 1)
	wantStatus(t, r.post("/whip/other", unbundled), http.StatusUnprocessableEntity)
}

// Section 4.4.2: "if the number of audio and/or video tracks or the number of
// MediaStreams are not supported [...] MUST reject the HTTP POST request".
func TestSecondTrackOfAKind(t *testing.T) {
	r := newResource(t, sfu.Config{})
	text := offer(t, "publish")
	_, video, _ := strings.Cut(text, "m=video")
	two := strings.Replace(text, "BUNDLE 0 1", "BUNDLE 0 1 2", 1) + "m=video" + strings.Replace(video, "a=mid:1", "a=mid:2", 1)
	wantStatus(t, r.post("/whip/room", two), http.StatusUnprocessableEntity)
}

// Section 4.4.3: "SHOULD NOT reject individual m= sections [...] but reject the
// HTTP POST request".
func TestNoPartialSuccess(t *testing.T) {
	r := newResource(t, sfu.Config{})
	wantStatus(t, r.post("/whip/room", strings.ReplaceAll(offer(t, "publish"), "opus/48000", "speex/48000")), http.StatusUnprocessableEntity)
}

// Section 4.4.4: the client MAY offer to be DTLS client only.
func TestServerIsDTLSServer(t *testing.T) {
	r := newResource(t, sfu.Config{})
	for i, setup := range []string{"actpass", "active"} {
		resp := r.post("/whip/room"+string(rune('0'+i)), strings.ReplaceAll(offer(t, "publish"), "a=setup:actpass", "a=setup:"+setup))
		wantLine(t, text(t, resp), "a=setup:passive")
	}
	passive := strings.ReplaceAll(offer(t, "publish"), "a=setup:actpass", "a=setup:passive")
	wantStatus(t, r.post("/whip/room", passive), http.StatusUnprocessableEntity)
}

// Section 4.5: "503 Service Unavailable [...] might send a Retry-After".
func TestOverload(t *testing.T) {
	r := newResource(t, sfu.Config{MaxSessions: 1})
	r.publish("one")
	for _, refuse := range []func(){func() {}, func() { r.server.SetDraining(true) }} {
		refuse()
		resp := r.post("/whip/two", offer(t, "publish"))
		wantStatus(t, resp, http.StatusServiceUnavailable)
		if resp.Header.Get("Retry-After") == "" {
			t.Error("no Retry-After")
		}
	}
}

// Section 5: session URLs that cannot be guessed.
func TestSessionURLsAreRandom(t *testing.T) {
	r := newResource(t, sfu.Config{SessionPrefix: "w3-"})
	path, _, _ := r.publish("room")
	id := strings.TrimPrefix(path, "/whip/room/w3-")
	if id == path || len(id) < 26 { // 26 of base32: 130 bits
		t.Errorf("session path %s", path)
	}
}

func credentials(text string) (ufrag, pwd string) {
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\r\n")
		if v, ok := strings.CutPrefix(line, "a=ice-ufrag:"); ok {
			ufrag = v
		}
		if v, ok := strings.CutPrefix(line, "a=ice-pwd:"); ok {
			pwd = v
		}
	}
	return ufrag, pwd
}
