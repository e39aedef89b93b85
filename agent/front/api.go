package front

import (
	"cmp"
	"context"
	_ "embed"
	"errors"
	"net/http"
	"slices"
	"time"

	"github.com/sfu-agent/sfu-agent/agent"
	"github.com/sfu-agent/sfu-agent/agent/control"
)

// Room is a room as GET /api/v1/rooms shows it.
type Room struct {
	control.Room
	Worker string `json:"worker"` // ID of the worker that has it
}

const (
	drainDefault = time.Minute
	drainMax     = 24 * time.Hour
	probeTimeout = 10 * time.Second
)

//go:embed openapi.json
var openAPI []byte

func serveOpenAPI(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	w.Write(openAPI) // an error means the client is gone
}

func (f *Front) listWorkers(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, notNil(f.host.Workers()))
}

func (f *Front) showWorker(w http.ResponseWriter, r *http.Request) {
	f.writeWorker(w, http.StatusOK, r.PathValue("id"))
}

func (f *Front) writeWorker(w http.ResponseWriter, status int, id string) {
	worker, ok := f.host.Worker(id)
	if !ok {
		writeProblem(w, noWorker)
		return
	}
	writeJSON(w, status, worker)
}

func (f *Front) listRooms(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, notNil(rooms(f.host.Workers())))
}

// showRoom prefers the worker with the publisher: while one drains, two may
// have the room.
func (f *Front) showRoom(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("room")
	var found *Room
	for _, room := range rooms(f.host.Workers()) {
		if room.Name == name && (found == nil || room.Publisher && !found.Publisher) {
			found = &room
		}
	}
	if found == nil {
		writeProblem(w, problem{Status: http.StatusNotFound,
			Detail: "No worker has this room; it comes to be with its publisher: POST /whip/{room}."})
		return
	}
	writeJSON(w, http.StatusOK, found)
}

// rooms of all workers, by name.
func rooms(workers []agent.Worker) []Room {
	var all []Room
	for _, w := range workers {
		if w.Status == nil {
			continue
		}
		for _, r := range w.Status.Rooms {
			r.Tracks = notNil(r.Tracks)
			all = append(all, Room{Room: r, Worker: w.ID})
		}
	}
	slices.SortFunc(all, func(a, b Room) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Worker, b.Worker))
	})
	return all
}

func (f *Front) drain(w http.ResponseWriter, r *http.Request) {
	deadline := drainDefault
	if s := r.URL.Query().Get("deadline"); s != "" {
		var err error
		if deadline, err = time.ParseDuration(s); err != nil || deadline < 0 || deadline > drainMax {
			writeProblem(w, problem{Status: http.StatusBadRequest,
				Detail: "deadline is no time from 0s to 24h; write it like 90s or 5m."})
			return
		}
	}
	id := r.PathValue("id")
	if err := f.host.Drain(id, deadline); err != nil {
		writeProblem(w, refusal(err))
		return
	}
	f.log.Info("worker is drained on request", "worker", id, "deadline", deadline, "client", r.RemoteAddr)
	f.writeWorker(w, http.StatusAccepted, id)
}

func (f *Front) undrain(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("id")
	if err := f.host.Undrain(id); err != nil {
		writeProblem(w, refusal(err))
		return
	}
	f.log.Info("worker's drain is cancelled on request", "worker", id, "client", r.RemoteAddr)
	f.writeWorker(w, http.StatusOK, id)
}

var noWorker = problem{Status: http.StatusNotFound, Detail: "No such worker; GET /api/v1/workers lists them."}

// refusal is what the Host's error means to the client.
func refusal(err error) problem {
	if errors.Is(err, agent.ErrNoWorker) {
		return noWorker
	}
	return problem{Status: http.StatusConflict, Detail: "The worker's state does not allow it now: " + err.Error() + "."}
}

// probeHandler runs probe for one client at a time.
func probeHandler(probe func(context.Context) any) http.HandlerFunc {
	one := newLimiter(1)
	return func(w http.ResponseWriter, r *http.Request) {
		if probe == nil {
			writeProblem(w, problem{Status: http.StatusNotFound,
				Detail: "This agent does not probe by HTTP; run sfu-agent probe on its host."})
			return
		}
		if !one.enter() {
			writeProblem(w, problem{Status: http.StatusServiceUnavailable, retry: 2,
				Detail: "The host is being probed for another client; try again."})
			return
		}
		defer one.leave()
		ctx, cancel := context.WithTimeout(r.Context(), probeTimeout)
		defer cancel()
		writeJSON(w, http.StatusOK, probe(ctx))
	}
}

// notNil makes JSON's [] of an empty list.
func notNil[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}
