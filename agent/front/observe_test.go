package front_test

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/sfu-agent/sfu-agent/agent"
	"github.com/sfu-agent/sfu-agent/agent/front"
)

// sink is a log that may be read while it is written.
type sink struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (s *sink) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.buf.Write(b)
}

func (s *sink) lines() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Split(strings.TrimSpace(s.buf.String()), "\n")
}

func logged(t *testing.T, level slog.Level, do func(*site)) []string {
	t.Helper()
	var out sink
	w := worker(t, "0", whip("0"))
	w.Socket += ".gone"
	s := open(t, front.Config{Host: &host{workers: []agent.Worker{w}}, Token: "t0ken",
		Log: slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: level}))})
	do(s)
	return out.lines()
}

func TestLogNamesRoutesAndNoSecrets(t *testing.T) {
	lines := logged(t, slog.LevelDebug, func(s *site) {
		s.ask("GET", "/api/v1/workers?x=hidden", "", "Authorization", "Bearer t0ken")
		s.ask("DELETE", "/whip/lobby/0-hidden", "", "Authorization", "Bearer t0ken")
		s.ask("GET", "/hidden", "", "Authorization", "Bearer hidden")
	})
	all := strings.Join(lines, "\n")
	for _, want := range []string{
		"level=DEBUG msg=request method=GET route=/api/v1/workers room=\"\" status=200",
		"level=WARN msg=request method=DELETE route=/whip/{room}/{session} room=lobby status=503",
		"level=WARN msg=\"worker gave no answer\" worker=0 name=t-0",
		"level=DEBUG msg=request method=GET route=other room=\"\" status=404",
	} {
		if !strings.Contains(all, want) {
			t.Errorf("no %s in\n%s", want, all)
		}
	}
	if strings.Contains(all, "hidden") || strings.Contains(all, "t0ken") {
		t.Errorf("a secret is in\n%s", all)
	}
}

func TestFailuresDoNotFloodTheLog(t *testing.T) {
	lines := logged(t, slog.LevelInfo, func(s *site) {
		for range 500 {
			s.ask("POST", "/whip/lobby", "v=0", "Authorization", "Bearer t0ken")
		}
	})
	if len(lines) < 2 || len(lines) > 200 {
		t.Errorf("%d lines of 500 failures", len(lines))
	}
}
