package whip

import (
	"errors"
	"io"
	"net/http"
	"strings"

	"github.com/sfu-agent/sfu-agent/sfu"
)

// patch takes candidates of a client, or restarts ICE (RFC 9725, section 4.3).
func (h handler) patch(w http.ResponseWriter, r *http.Request, role sfu.Role) {
	session := h.session(w, r, role)
	if session == nil {
		return
	}
	text, ok := body(w, r, typeFragment)
	if !ok {
		return
	}
	remote, err := parseFragment(text)
	if err != nil {
		fail(w, http.StatusBadRequest, err.Error())
		return
	}
	match := r.Header.Values("If-Match")
	if len(match) == 0 {
		fail(w, http.StatusPreconditionRequired, "If-Match is missing: the ETag of the ICE session, or * to restart ICE")
		return
	}
	local, err := session.UpdateICE(r.Context(), matching(match, session), remote)
	switch {
	case err != nil:
		failPatch(w, err)
	case local == nil:
		w.WriteHeader(http.StatusNoContent)
	default:
		w.Header().Set("Content-Type", typeFragment)
		w.Header().Set("ETag", tag(*local))
		_, _ = io.WriteString(w, formatFragment(*local))
	}
}

// matching is the ICE session that If-Match names: empty for any, and one that
// there is not if none of the tags is the current one (RFC 9110, section 13.1.1;
// weak tags never match).
func matching(match []string, session *sfu.Session) string {
	current := session.ICE()
	for field := range strings.SplitSeq(strings.Join(match, ","), ",") {
		switch strings.TrimSpace(field) {
		case "*":
			return ""
		case tag(current):
			return current.Ufrag
		}
	}
	return "none"
}

func failPatch(w http.ResponseWriter, err error) {
	status := http.StatusUnprocessableEntity // the ICE session goes on as it was
	switch {
	case errors.Is(err, sfu.ErrICESession):
		status = http.StatusPreconditionFailed
	case errors.Is(err, sfu.ErrCredentials):
		status = http.StatusBadRequest
	case errors.Is(err, sfu.ErrSessionClosed):
		status = http.StatusNotFound
	}
	fail(w, status, err.Error())
}
