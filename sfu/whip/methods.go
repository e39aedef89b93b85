package whip

import (
	"net/http"
	"slices"
	"strings"
)

// methods serves one resource: what it has of its own, and what RFC 9725,
// sections 4.1 and 4.2 want of every resource.
type methods map[string]http.HandlerFunc

// ServeHTTP answers OPTIONS for CORS, GET and HEAD with no content, since the
// resources have no representation, and other methods that the resource has not
// with 405.
func (m methods) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	header.Set("Access-Control-Allow-Origin", "*")
	header.Set("Access-Control-Expose-Headers", "Location, ETag, Link, Retry-After, Accept-Post, Accept-Patch")
	if own, ok := m[r.Method]; ok {
		own(w, r)
		return
	}
	switch r.Method {
	case http.MethodOptions:
		m.options(w)
	case http.MethodGet, http.MethodHead:
		w.WriteHeader(http.StatusNoContent)
	default:
		header.Set("Allow", m.allow())
		fail(w, http.StatusMethodNotAllowed, "allowed are "+m.allow())
	}
}

func (m methods) options(w http.ResponseWriter) {
	header := w.Header()
	header.Set("Allow", m.allow())
	header.Set("Access-Control-Allow-Methods", m.allow())
	header.Set("Access-Control-Allow-Headers", "Authorization, Content-Type, If-Match")
	header.Set("Access-Control-Max-Age", "86400")
	if _, ok := m[http.MethodPost]; ok {
		header.Set("Accept-Post", typeSDP)
	}
	if _, ok := m[http.MethodPatch]; ok {
		header.Set("Accept-Patch", typeFragment)
	}
	w.WriteHeader(http.StatusOK)
}

func (m methods) allow() string {
	names := []string{http.MethodOptions, http.MethodGet, http.MethodHead}
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}
