package whip

import (
	"errors"
	"io"
	"mime"
	"net/http"
	"path"
	"strings"

	"github.com/sfu-agent/sfu-agent/sfu"
)

// Media types of the bodies.
const (
	typeSDP      = "application/sdp"
	typeFragment = "application/trickle-ice-sdpfrag" // RFC 8840
)

// maxBody is the longest offer or fragment that is read, in bytes.
const maxBody = 64 << 10

type handler struct{ server *sfu.Server }

// New returns the handler of
//
//	/whip/{room} and /whip/{room}/{session}
//	/whep/{room} and /whep/{room}/{session}
//
// It authorises nobody: who may publish or watch is for the one before it.
func New(server *sfu.Server) http.Handler {
	h := handler{server}
	mux := http.NewServeMux()
	for prefix, role := range map[string]sfu.Role{"/whip/": sfu.Publisher, "/whep/": sfu.Viewer} {
		exists := func(w http.ResponseWriter, r *http.Request) { h.show(w, r, role) }
		mux.Handle(prefix+"{room}", methods{
			http.MethodGet: empty, http.MethodHead: empty,
			http.MethodPost: func(w http.ResponseWriter, r *http.Request) { h.join(w, r, role) },
		})
		mux.Handle(prefix+"{room}/{session}", methods{
			http.MethodGet: exists, http.MethodHead: exists,
			http.MethodPatch:  func(w http.ResponseWriter, r *http.Request) { h.patch(w, r, role) },
			http.MethodDelete: func(w http.ResponseWriter, r *http.Request) { h.leave(w, r, role) },
		})
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		fail(w, http.StatusNotFound, "the path is /whip/ROOM or /whep/ROOM")
	})
	return mux
}

// join answers an offer.
func (h handler) join(w http.ResponseWriter, r *http.Request, role sfu.Role) {
	offer, ok := body(w, r, typeSDP)
	if !ok {
		return
	}
	join := h.server.Publish
	if role == sfu.Viewer {
		join = h.server.Subscribe
	}
	session, answer, err := join(r.Context(), r.PathValue("room"), offer)
	if err != nil {
		failJoin(w, role, err)
		return
	}
	header := w.Header()
	header.Set("Content-Type", typeSDP)
	header.Set("Location", path.Join(r.URL.Path, session.ID()))
	header.Set("ETag", tag(session.ICE()))
	w.WriteHeader(http.StatusCreated)
	_, _ = io.WriteString(w, answer) // a client that is gone will not connect either
}

// empty answers GET: the resources have no representation (RFC 9725, section
// 4.1).
func empty(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }

// show is empty for a session that there is.
func (h handler) show(w http.ResponseWriter, r *http.Request, role sfu.Role) {
	if h.session(w, r, role) != nil {
		empty(w, r)
	}
}

// leave ends a session. RFC 9725, section 4.3.1 has If-Match ignored here.
func (h handler) leave(w http.ResponseWriter, r *http.Request, role sfu.Role) {
	if session := h.session(w, r, role); session != nil {
		session.Close()
		w.WriteHeader(http.StatusOK)
	}
}

// session finds the session of the path, or answers 404.
func (h handler) session(w http.ResponseWriter, r *http.Request, role sfu.Role) *sfu.Session {
	s := h.server.Session(r.PathValue("session"))
	if s == nil || s.Role() != role || s.Room() != r.PathValue("room") {
		fail(w, http.StatusNotFound, "no such session")
		return nil
	}
	return s
}

// tag is the strong entity tag of an ICE session.
func tag(ice sfu.ICE) string { return `"` + ice.Ufrag + `"` }

// body reads a request's body, which has to be of the media type.
func body(w http.ResponseWriter, r *http.Request, mediaType string) (text string, ok bool) {
	if got, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); !strings.EqualFold(got, mediaType) {
		fail(w, http.StatusUnsupportedMediaType, "the body has to be of Content-Type "+mediaType)
		return "", false
	}
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
		fail(w, http.StatusRequestEntityTooLarge, "the body is longer than 64 KiB")
		return "", false
	}
	if err != nil {
		fail(w, http.StatusBadRequest, "the body ended early")
		return "", false
	}
	return string(b), true
}
