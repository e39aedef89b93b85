package front

import (
	"net/http"
	"strings"

	"github.com/sfu-agent/sfu-agent/agent"
)

// readiness is the answer to GET /readyz.
type readiness struct {
	Ready   bool                `json:"ready"`
	Reasons []string            `json:"reasons"` // why not; empty when ready
	Workers map[agent.State]int `json:"workers"` // how many, by state
}

// serveAlive says that this process answers, and depends on nothing else.
func serveAlive(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.Write([]byte("ok\n")) // an error means the client is gone
}

func (f *Front) serveReady(w http.ResponseWriter, _ *http.Request) {
	answer := readiness{Ready: true, Reasons: []string{}, Workers: map[agent.State]int{}}
	for _, worker := range f.host.Workers() {
		answer.Workers[worker.State]++
	}
	status := http.StatusOK
	if err := f.host.Ready(); err != nil {
		answer.Ready, answer.Reasons = false, strings.Split(err.Error(), "\n")
		status = http.StatusServiceUnavailable
		w.Header().Set("Retry-After", "1")
	}
	writeJSON(w, status, answer)
}
