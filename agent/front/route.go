package front

import (
	"maps"
	"net/http"
	"slices"
	"strings"
)

// access says who may use a route.
type access int

const (
	signalling access = iota // token; pages of any site, but local ones only where there is no token on loopback
	admin                    // token; this site's page only
	open                     // anyone who names us rightly
	health                   // anyone
)

// methods has no OPTIONS and no HEAD: both follow from the others.
type methods map[string]http.HandlerFunc

// route is one path with all that is allowed on it.
type route struct {
	pattern string
	access  access
	limit   limiter // nil for none
	methods methods
}

func mux(routes []route, g guard) http.Handler {
	m := http.NewServeMux()
	for _, r := range routes {
		m.Handle(r.pattern, r.handler(g))
	}
	m.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		writeProblem(w, problem{Status: http.StatusNotFound,
			Detail: "Nothing is served here; /api/v1/openapi.json lists what is."})
	})
	return m
}

// handler checks in the order from cheap to dear, and allocates nothing for
// who is refused.
func (rt route) handler(g guard) http.Handler {
	allow := rt.allow()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if rt.access == signalling {
			setCORS(w.Header())
		}
		if p := g.checkSite(r, rt.access); p != nil {
			writeProblem(w, *p)
			return
		}
		if r.Method == http.MethodOptions {
			serveOptions(w, rt, allow)
			return
		}
		serve := rt.methods[r.Method]
		if r.Method == http.MethodHead {
			serve = rt.methods[http.MethodGet]
		}
		if serve == nil {
			w.Header().Set("Allow", allow)
			writeProblem(w, problem{Status: http.StatusMethodNotAllowed, Detail: "Use one of: " + allow + "."})
			return
		}
		if p := g.checkToken(r, rt.access); p != nil {
			w.Header().Set("WWW-Authenticate", p.challenge)
			writeProblem(w, *p)
			return
		}
		if !rt.limit.enter() {
			writeProblem(w, problem{Status: http.StatusServiceUnavailable, retry: 1,
				Detail: "Too many requests are in flight; try again."})
			return
		}
		defer rt.limit.leave()
		serve(w, r)
	})
}

func (rt route) allow() string {
	names := slices.Collect(maps.Keys(rt.methods))
	if rt.methods[http.MethodGet] != nil {
		names = append(names, http.MethodHead)
	}
	names = append(names, http.MethodOptions)
	slices.Sort(names)
	return strings.Join(names, ", ")
}

// serveOptions answers without a worker: neither an endpoint's abilities nor a
// browser's preflight depend on one (RFC 9725 section 4.2).
func serveOptions(w http.ResponseWriter, rt route, allow string) {
	h := w.Header()
	h.Set("Allow", allow)
	if rt.access == signalling {
		h.Set("Access-Control-Allow-Methods", allow)
		h.Set("Access-Control-Allow-Headers", "Authorization, Content-Type, If-Match")
		h.Set("Access-Control-Max-Age", "600")
		if rt.methods[http.MethodPost] != nil {
			h.Set("Accept-Post", "application/sdp")
		}
	}
	if rt.methods[http.MethodPatch] != nil {
		h.Set("Accept-Patch", patchTypes(rt.access))
	}
	w.WriteHeader(http.StatusOK)
}

// patchTypes are the media types of a PATCH (RFC 5789 section 3.1).
func patchTypes(a access) string {
	if a == signalling {
		return "application/trickle-ice-sdpfrag"
	}
	return limitsTypes
}

// limiter bounds what is in flight; the nil one bounds nothing.
type limiter chan struct{}

func newLimiter(n int) limiter { return make(limiter, n) }

func (l limiter) enter() bool {
	if l == nil {
		return true
	}
	select {
	case l <- struct{}{}:
		return true
	default:
		return false
	}
}

func (l limiter) leave() {
	if l != nil {
		<-l
	}
}
