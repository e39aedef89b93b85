package front

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/sfu-agent/sfu-agent/agent"
)

const (
	bodyLimit = 64 << 10         // bytes of a request: an offer or a trickled fragment
	bodyTime  = 5 * time.Second  // to send it
	askTime   = 10 * time.Second // for the worker to answer
)

// Names that need no escaping in a URL path segment.
var (
	roomName    = regexp.MustCompile(`^[A-Za-z0-9._~-]{1,64}$`)
	sessionName = regexp.MustCompile(`^[0-9]{1,4}-[A-Za-z0-9_-]{1,128}$`)
)

// serveEndpoint is GET of a WHIP or WHEP endpoint: there is nothing to show
// (RFC 9725 section 4.1).
func serveEndpoint(w http.ResponseWriter, r *http.Request) {
	if !roomName.MatchString(r.PathValue("room")) {
		writeProblem(w, badRoom)
		return
	}
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusNoContent)
}

// join is POST to a WHIP or WHEP endpoint: it goes to the room's worker.
func (f *Front) join(w http.ResponseWriter, r *http.Request) {
	room := r.PathValue("room")
	if !roomName.MatchString(room) {
		writeProblem(w, badRoom)
		return
	}
	worker, err := f.host.Route(room)
	if errors.Is(err, agent.ErrNotReady) {
		writeProblem(w, problem{Status: http.StatusServiceUnavailable, retry: 1,
			Detail: "No worker is ready for new rooms now; try again. /readyz says why."})
		return
	}
	if err != nil {
		f.warn("room has no route", "room", room, "error", err)
		writeProblem(w, problem{Status: http.StatusServiceUnavailable, retry: 2,
			Detail: "The room has no worker: " + err.Error() + "."})
		return
	}
	f.forward(w, r, worker)
}

var badRoom = problem{Status: http.StatusBadRequest,
	Detail: "A room's name is 1 to 64 of the letters A to Z and a to z, digits, and . _ ~ -"}

// session is GET, PATCH or DELETE of a session: it goes to the worker whose ID is
// the head of the session's.
func (f *Front) session(w http.ResponseWriter, r *http.Request) {
	session := r.PathValue("session")
	id, _, _ := strings.Cut(session, "-")
	worker, ok := f.host.Worker(id)
	if !ok || worker.PID == 0 || !sessionName.MatchString(session) || !roomName.MatchString(r.PathValue("room")) {
		writeProblem(w, problem{Status: http.StatusNotFound,
			Detail: "No such session: it has ended, or its worker has. Join again with a POST."})
		return
	}
	f.forward(w, r, worker)
}

// forward asks the worker once and passes its answer on, whole or not at all.
func (f *Front) forward(w http.ResponseWriter, r *http.Request, worker agent.Worker) {
	body, p := readBody(w, r)
	if p != nil {
		writeProblem(w, *p)
		return
	}
	client := f.workers.of(worker)
	if !client.limit.enter() {
		writeProblem(w, problem{Status: http.StatusServiceUnavailable, retry: 2,
			Detail: "The room's worker has too many requests in flight; try again."})
		return
	}
	defer client.limit.leave()
	ctx, cancel := context.WithTimeout(r.Context(), askTime)
	defer cancel()
	a, err := client.ask(ctx, r, body)
	if err != nil {
		if r.Context().Err() == nil {
			f.warn("worker gave no answer", "worker", worker.ID, "name", worker.Name, "route", r.Pattern, "error", err)
		}
		writeProblem(w, absence(err))
		return
	}
	a.writeTo(w)
}

// readBody takes the whole body before anything of the worker is in use, so
// that a slow client holds up nothing but itself.
func readBody(w http.ResponseWriter, r *http.Request) ([]byte, *problem) {
	conn := http.NewResponseController(w)
	bounded := conn.SetReadDeadline(time.Now().Add(bodyTime)) == nil
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, bodyLimit))
	var long *http.MaxBytesError
	switch {
	case err == nil:
		if bounded {
			conn.SetReadDeadline(time.Time{}) // it is the server's again
		}
		return body, nil
	case errors.As(err, &long):
		return nil, &problem{Status: http.StatusRequestEntityTooLarge,
			Detail: fmt.Sprintf("The body is longer than %d bytes; offer fewer tracks or codecs.", bodyLimit)}
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, &problem{Status: http.StatusRequestTimeout,
			Detail: fmt.Sprintf("The body did not come within %v.", bodyTime)}
	}
	return nil, &problem{Status: http.StatusBadRequest, Detail: "The body ended early: " + err.Error() + "."}
}

// absence is what a worker's failing to answer means to the client.
func absence(err error) problem {
	var op *net.OpError
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return problem{Status: http.StatusGatewayTimeout, retry: 2,
			Detail: fmt.Sprintf("The room's worker did not answer within %v; join again.", askTime)}
	case errors.As(err, &op) && op.Op == "dial":
		return problem{Status: http.StatusServiceUnavailable, retry: 1,
			Detail: "The room's worker has just ended; join again."}
	case errors.Is(err, errAnswer):
		return problem{Status: http.StatusBadGateway, retry: 2,
			Detail: "The room's worker answered what no WHIP or WHEP server may; see the agent's log."}
	}
	return problem{Status: http.StatusBadGateway, retry: 1,
		Detail: "The room's worker ended before it had answered; join again."}
}
