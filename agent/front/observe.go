package front

import (
	"context"
	"log/slog"
	"net/http"
	"sync"
	"time"
)

// slow is how long a request may take before the log names it at level info.
const slow = time.Second

// observe counts and logs every request, by its route: paths hold session IDs,
// and who has one may end the session.
func (f *Front) observe(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		setSecurity(w.Header())
		rec := &recorder{ResponseWriter: w, status: http.StatusOK}
		next.ServeHTTP(rec, r)
		took := time.Since(start)
		f.metrics.observe(r, rec.status, took)

		level := slog.LevelDebug
		switch {
		case r.Pattern == "/readyz": // its status is its answer
		case rec.status >= 500 && r.Context().Err() == nil:
			level = slog.LevelWarn
		case took > slow:
			level = slog.LevelInfo
		}
		if level > slog.LevelDebug && !f.loud.allow(start) {
			level = slog.LevelDebug
		}
		f.log.LogAttrs(context.WithoutCancel(r.Context()), level, "request", slog.String("method", r.Method),
			slog.String("route", routeName(r)), slog.String("room", r.PathValue("room")), slog.Int("status", rec.status),
			slog.Duration("took", took), slog.String("client", r.RemoteAddr))
	})
}

// warn logs what a client can bring about as often as it likes.
func (f *Front) warn(msg string, args ...any) {
	if f.loud.allow(time.Now()) {
		f.log.Warn(msg, args...)
	}
}

// setSecurity sets the headers that no answer of ours goes without; the page
// replaces the policy.
func setSecurity(h http.Header) {
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
}

// routeName is the route's pattern, "other" where there is none.
func routeName(r *http.Request) string {
	if r.Pattern == "" || r.Pattern == "/" {
		return "other"
	}
	return r.Pattern
}

// recorder remembers the status that was written.
type recorder struct {
	http.ResponseWriter
	status int
	wrote  bool
}

func (r *recorder) WriteHeader(status int) {
	if !r.wrote {
		r.status, r.wrote = status, true
	}
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Write(b []byte) (int, error) {
	r.wrote = true
	return r.ResponseWriter.Write(b)
}

// Unwrap lets http.ResponseController reach the connection.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// throttle lets through so many log lines a second: overload is no reason to
// fill the disk.
type throttle struct {
	mu     sync.Mutex
	second int64
	n      int
}

const loudPerSecond = 10

func (t *throttle) allow(now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s := now.Unix(); s != t.second {
		t.second, t.n = s, 0
	}
	t.n++
	return t.n <= loudPerSecond
}
