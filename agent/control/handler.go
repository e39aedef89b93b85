package control

import (
	"encoding/json"
	"net/http"
)

// Worker is what Handler serves.
type Worker interface {
	Status() Status
	Drain()   // take no new rooms; again is no error
	Undrain() // take new rooms again
}

// Handler serves GET /status and POST and DELETE /drain: the worker's side of
// Client. It does not check who asks; the socket's permissions do.
func Handler(worker Worker) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) {
		body, err := json.Marshal(worker.Status())
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		w.Write(body) // an error means the asker is gone
	})
	mux.HandleFunc("POST /drain", func(w http.ResponseWriter, _ *http.Request) {
		worker.Drain()
		w.WriteHeader(http.StatusNoContent)
	})
	mux.HandleFunc("DELETE /drain", func(w http.ResponseWriter, _ *http.Request) {
		worker.Undrain()
		w.WriteHeader(http.StatusNoContent)
	})
	return mux
}
