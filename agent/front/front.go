// Package front is the agent's public HTTP face.
//
// It authenticates, admits and routes WHIP and WHEP requests to workers over
// their unix sockets, and serves the admin API, health, metrics and the page.
// It holds no state of rooms or sessions: a room is routed by the Host, a
// session by the worker ID at the head of its own ID.
package front

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sfu-agent/sfu-agent/agent"
	"github.com/sfu-agent/sfu-agent/cgroups"
)

// Host is what the front shows and routes to; *agent.Agent implements it.
type Host interface {
	// Workers is a snapshot of all workers; it never blocks.
	Workers() []agent.Worker
	// Worker is a snapshot of one.
	Worker(id string) (agent.Worker, bool)
	// Route is the worker that has the room or gets it, or agent.ErrNotReady.
	Route(room string) (agent.Worker, error)
	// Drain and Undrain return agent.ErrNoWorker for an unknown ID.
	Drain(id string, deadline time.Duration) error
	Undrain(id string) error
	// SetLimits changes the limits of a running worker and of its successors.
	// It returns agent.ErrNoWorker, agent.ErrNotReady where none runs, or an
	// error that wraps errors.ErrUnsupported where it cannot be limited so.
	SetLimits(id string, limits cgroups.Limits) error
	// Ready is nil when all wished-for workers take rooms, else it says which do not.
	Ready() error
}

// Config of a Front. Host is required.
type Config struct {
	Host Host

	// Token is the bearer token that all but health and the page's own files
	// need. Empty means none; then requests over loopback must name a loopback
	// host or one of Names, in Host and Origin: other sites' pages, which the
	// user's browser runs, are refused.
	Token string
	Names []string

	Version string

	// Probe answers GET /api/v1/probe; what it returns is shown as JSON. It
	// runs at most once at a time and should end with its context, after 10 s.
	Probe func(context.Context) any

	// Collectors are shown in /metrics beside the front's own.
	Collectors []prometheus.Collector

	Log *slog.Logger
}

// Bounds of a Front.
const (
	signalLimit = 1024 // WHIP and WHEP requests in flight
	workerLimit = 256  // of these, to one worker: a hung one leaves room for the others
	apiLimit    = 128  // other requests in flight, health not counted
)

// Front is an http.Handler. Its server should bound the time to read a request
// and to write an answer.
type Front struct {
	host    Host
	log     *slog.Logger
	guard   guard
	workers *workerClients
	metrics *metrics
	loud    throttle
	handler http.Handler
}

// New returns a Front of cfg.Host. Close it after its server.
func New(cfg Config) (*Front, error) {
	if cfg.Host == nil {
		return nil, errors.New("front: Config.Host is missing")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	f := &Front{
		host:    cfg.Host,
		log:     cfg.Log,
		guard:   newGuard(cfg.Token, cfg.Names),
		workers: newWorkerClients(),
	}
	var err error
	if f.metrics, err = newMetrics(cfg.Host, cfg.Version, cfg.Collectors); err != nil {
		return nil, err
	}
	routes, err := f.routes(cfg)
	if err != nil {
		return nil, err
	}
	f.handler = f.observe(mux(routes, f.guard))
	return f, nil
}

func (f *Front) ServeHTTP(w http.ResponseWriter, r *http.Request) { f.handler.ServeHTTP(w, r) }

// Close closes the idle connections to workers. No request may be in flight.
func (f *Front) Close() error {
	f.workers.close()
	return nil
}

// routes is all that the front serves, with nothing else beside it.
func (f *Front) routes(cfg Config) ([]route, error) {
	signal, api := newLimiter(signalLimit), newLimiter(apiLimit)
	page, err := loadPage()
	if err != nil {
		return nil, err
	}
	probe := probeHandler(cfg.Probe)
	return []route{
		{"/whip/{room}", signalling, signal, methods{"GET": serveEndpoint, "POST": f.join}},
		{"/whip/{room}/{session}", signalling, signal, methods{"GET": f.session, "PATCH": f.session, "DELETE": f.session}},
		{"/whep/{room}", signalling, signal, methods{"GET": serveEndpoint, "POST": f.join}},
		{"/whep/{room}/{session}", signalling, signal, methods{"GET": f.session, "PATCH": f.session, "DELETE": f.session}},

		{"/api/v1/workers", admin, api, methods{"GET": f.listWorkers}},
		{"/api/v1/workers/{id}", admin, api, methods{"GET": f.showWorker, "PATCH": f.limitsHandler(), "DELETE": f.drain}},
		{"/api/v1/workers/{id}/drain", admin, api, methods{"DELETE": f.undrain}},
		{"/api/v1/rooms", admin, api, methods{"GET": f.listRooms}},
		{"/api/v1/rooms/{room}", admin, api, methods{"GET": f.showRoom}},
		{"/api/v1/probe", admin, api, methods{"GET": probe}},
		{"/api/v1/openapi.json", admin, api, methods{"GET": serveOpenAPI}},
		{"/metrics", admin, api, methods{"GET": f.metrics.serve}},

		{"/healthz", health, nil, methods{"GET": serveAlive}},
		{"/readyz", health, nil, methods{"GET": f.serveReady}},

		{"/{$}", open, api, methods{"GET": page.serveIndex}},
		{"/assets/{file}", open, api, methods{"GET": page.serveAsset}},
	}, nil
}
