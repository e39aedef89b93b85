package front

import (
	"encoding/json"
	"net/http"
	"strconv"
)

// problem is an error as the client sees it (RFC 9457, with no type of its own).
type problem struct {
	Status int    `json:"status"`
	Title  string `json:"title"`  // of Status; filled in by writeProblem
	Detail string `json:"detail"` // what is wrong here and what to do

	retry     int    // seconds for Retry-After; 0 for none
	challenge string // WWW-Authenticate, of a 401
}

func writeProblem(w http.ResponseWriter, p problem) {
	p.Title = http.StatusText(p.Status)
	if p.retry > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(p.retry))
	}
	writeJSONAs(w, "application/problem+json", p.Status, p)
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	writeJSONAs(w, "application/json", status, v)
}

func writeJSONAs(w http.ResponseWriter, contentType string, status int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		status, contentType = http.StatusInternalServerError, "application/problem+json"
		body, _ = json.Marshal(problem{Status: status, Title: http.StatusText(status), Detail: "Encode answer: " + err.Error()})
	}
	h := w.Header()
	h.Set("Content-Type", contentType)
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Length", strconv.Itoa(len(body)+1))
	w.WriteHeader(status)
	w.Write(append(body, '\n')) // an error means the client is gone
}
