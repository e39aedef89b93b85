package whip

import (
	"encoding/json"
	"errors"
	"net/http"

	"github.com/sfu-agent/sfu-agent/sfu"
)

// retryAfter is when a client is told to try again, in seconds.
const retryAfter = "2"

// failJoin answers why a client cannot join.
func failJoin(w http.ResponseWriter, role sfu.Role, err error) {
	status := http.StatusInternalServerError
	switch {
	case errors.Is(err, sfu.ErrRoomName):
		status = http.StatusNotFound
	case errors.Is(err, sfu.ErrMalformed):
		status = http.StatusBadRequest
	case errors.Is(err, sfu.ErrCodec) && role == sfu.Viewer:
		status = http.StatusNotAcceptable
	case errors.Is(err, sfu.ErrUnusable), errors.Is(err, sfu.ErrCodec):
		status = http.StatusUnprocessableEntity
	case errors.Is(err, sfu.ErrNoRoom), errors.Is(err, sfu.ErrPublisherExists):
		status = http.StatusConflict
		w.Header().Set("Retry-After", retryAfter)
	case errors.Is(err, sfu.ErrDraining), errors.Is(err, sfu.ErrFull), errors.Is(err, sfu.ErrClosed):
		status = http.StatusServiceUnavailable
		w.Header().Set("Retry-After", retryAfter)
	}
	fail(w, status, err.Error())
}

// fail answers with a problem (RFC 9457).
func fail(w http.ResponseWriter, status int, detail string) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(struct {
		Type   string `json:"type"`
		Title  string `json:"title"`
		Status int    `json:"status"`
		Detail string `json:"detail"`
	}{"about:blank", http.StatusText(status), status, detail})
}
