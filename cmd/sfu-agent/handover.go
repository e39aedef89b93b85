package main

import (
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"syscall"

	"github.com/sfu-agent/sfu-agent/agent"
)

// handOver replaces this program by the one now on disk, which adopts the workers.
func handOver(log *slog.Logger, listener net.Listener, state *agent.StateDir, placer *chosenPlacer) error {
	exe, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find our own program: %w", err)
	}
	exe = strings.TrimSuffix(exe, " (deleted)") // a package upgrade replaced the file
	placer.close()
	listener.Close()
	state.Close()
	log.Info("starting in place", "program", exe)
	return fmt.Errorf("start %s in place: %w", exe, syscall.Exec(exe, os.Args, os.Environ()))
}
