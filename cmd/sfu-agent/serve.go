package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"github.com/sfu-agent/sfu-agent/agent"
	"github.com/sfu-agent/sfu-agent/agent/front"
)

var errServerClosed = http.ErrServerClosed

func listenHTTP(addr string) (net.Listener, error) {
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("--http %s: %w (another program may have the port; choose another with --http)", addr, err)
	}
	return listener, nil
}

// newServer serves the public HTTP face of the agent.
func newServer(face *front.Front, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           face,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       15 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       90 * time.Second,
		MaxHeaderBytes:    32 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
}

// shutdown lets requests in hand end for a moment.
func shutdown(server *http.Server) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	if server.Shutdown(ctx) != nil {
		server.Close()
	}
}

// notify tells systemd how the agent is (sd_notify(3)): ready once all workers
// are, a status line, and signs of life for WatchdogSec.
// running ends when the agent begins to stop or, which is no stop to systemd, to
// hand over.
func notify(ctx, running context.Context, a *agent.Agent, log *slog.Logger) {
	watchdog, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		log.Warn("systemd watchdog not served", "error", err)
	}
	interval := time.Second
	if watchdog > 0 {
		interval = min(interval, watchdog/3)
	}
	tick := time.NewTicker(interval / 10)
	defer tick.Stop()
	ready, last, stopping := false, "", running.Done()
	for {
		err := a.Ready()
		if err == nil && !ready {
			ready = true
			tick.Reset(interval)
			daemon.SdNotify(false, daemon.SdNotifyReady)
		}
		if status := statusLine(a); status != last {
			last = status
			daemon.SdNotify(false, "STATUS="+status)
		}
		if watchdog > 0 {
			daemon.SdNotify(false, daemon.SdNotifyWatchdog)
		}
		select {
		case <-ctx.Done():
			return
		case <-stopping:
			stopping = nil
			if !errors.Is(context.Cause(running), agent.ErrHandover) {
				daemon.SdNotify(false, daemon.SdNotifyStopping)
			}
		case <-tick.C:
		}
	}
}

func statusLine(a *agent.Agent) string {
	ready, rooms, viewers := 0, 0, 0
	workers := a.Workers()
	for _, w := range workers {
		if w.State == agent.StateReady {
			ready++
		}
		if w.Status == nil {
			continue
		}
		rooms += len(w.Status.Rooms)
		for _, r := range w.Status.Rooms {
			viewers += r.Viewers
		}
	}
	return fmt.Sprintf("%d of %d workers ready, %d rooms, %d viewers", ready, len(workers), rooms, viewers)
}
