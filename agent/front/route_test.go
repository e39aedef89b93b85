package front

import (
	"net/http"
	"net/http/httptest"
	"testing"
)

// Who comes beyond the limit is refused at once, and let in when one has left.
func TestRouteLimit(t *testing.T) {
	inside, leave := make(chan struct{}), make(chan struct{})
	rt := route{"/whip/{room}", signalling, newLimiter(1), methods{"POST": func(http.ResponseWriter, *http.Request) {
		inside <- struct{}{}
		<-leave
	}}}
	h := rt.handler(newGuard("", nil))
	post := func() *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("POST", "/whip/lobby", nil))
		return w
	}
	first := make(chan *httptest.ResponseRecorder)
	enter := func() {
		go func() { first <- post() }()
		<-inside
	}
	enter()
	if w := post(); w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") != "1" {
		t.Errorf("second: %d, Retry-After %q", w.Code, w.Header().Get("Retry-After"))
	}
	leave <- struct{}{}
	<-first
	enter()
	leave <- struct{}{}
	if w := <-first; w.Code != http.StatusOK {
		t.Errorf("after the first has left: %d", w.Code)
	}
}
