package whip

import (
	"net/http"
	"slices"
	"strings"
)

// methods serves one resource, by the method.
type methods map[string]http.HandlerFunc

// ServeHTTP adds OPTIONS and the headers for CORS, and answers the methods that
// the resource has not with 405.
func (m methods) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	header.Set("Access-Control-Allow-Origin", "*")
	header.Set("Access-Control-Expose-Headers", "Location, ETag, Link, Retry-After, Accept-Post, Accept-Patch")
	if own, ok := m[r.Method]; ok {
		own(w, r)
		return
	}
	if r.Method == http.MethodOptions {
		m.options(w)
		return
	}
	header.Set("Allow", m.allow())
	fail(w, http.StatusMethodNotAllowed, "allowed are "+m.allow())
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
	names := []string{http.MethodOptions}
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}
