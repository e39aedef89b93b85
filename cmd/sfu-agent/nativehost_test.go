//go:build browser

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sfu-agent/sfu-agent/agent"
)

// nativeHost is a systemd host on this machine's network, and the agent in it
// as a unit, from the program that 'make build' made.
type nativeHost struct {
	name string
	port int // HTTP
	udp  int // of the first worker
}

const script = "../../packaging/testhost/native"

// startHost boots a host and an agent in it with workers workers.
func startHost(t *testing.T, workers int, args ...string) *nativeHost {
	t.Helper()
	h := &nativeHost{name: fmt.Sprintf("e2e-%d", os.Getpid()), port: freePort(t), udp: freeUDP(t, workers)}
	h.script(t, "start", h.name, "--network", "host")
	t.Cleanup(func() { h.script(t, "stop", h.name) })
	share := strings.TrimSpace(h.script(t, "share", h.name))
	program, err := os.ReadFile("../../build/sfu-agent")
	if err != nil {
		t.Fatalf("%v (run 'make build' first)", err)
	}
	if err := os.WriteFile(filepath.Join(share, "sfu-agent"), program, 0o755); err != nil {
		t.Fatal(err)
	}
	run := append([]string{
		"systemd-run", "-q", "--unit=sfu-agent", "--service-type=notify", "-p", "KillMode=mixed", "-p", "Restart=on-failure", "-p", "RestartSec=100ms",
		"/rig/sfu-agent", "run", "--placer", "scope", "--workers", fmt.Sprint(workers),
		"--http", fmt.Sprintf("127.0.0.1:%d", h.port), "--udp-port", fmt.Sprint(h.udp),
	}, args...)
	began := time.Now()
	h.exec(t, run...)
	t.Logf("agent with %d workers ready after %s, systemd-run included", workers, time.Since(began).Round(time.Millisecond))
	t.Cleanup(func() {
		if t.Failed() {
			out, _ := exec.Command(script, "exec", h.name, "--", "journalctl", "-u", "sfu-agent", "-n", "80", "--no-pager").CombinedOutput()
			t.Logf("journal:\n%s", out)
		}
	})
	return h
}

// script runs the test host's script.
func (h *nativeHost) script(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.Command(script, args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("native %s: %v\n%s%s", strings.Join(args, " "), err, out.String(), errs.String())
	}
	return out.String()
}

// exec runs a command in the host.
func (h *nativeHost) exec(t *testing.T, command ...string) string {
	t.Helper()
	return h.script(t, append([]string{"exec", h.name, "--"}, command...)...)
}

func (h *nativeHost) url(path string) string {
	return fmt.Sprintf("http://127.0.0.1:%d%s", h.port, path)
}

// get is the body of an answer.
func (h *nativeHost) get(t *testing.T, path string) string {
	t.Helper()
	resp, err := http.Get(h.url(path))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 4<<20))
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

// workers are what the API shows.
func (h *nativeHost) workers(t *testing.T) []agent.Worker {
	t.Helper()
	resp, err := http.Get(h.url("/api/v1/workers"))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var workers []agent.Worker
	if err := json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(&workers); err != nil {
		t.Fatal(err)
	}
	return workers
}

// roomWorker is the worker that has a room.
func (h *nativeHost) roomWorker(t *testing.T, room string) agent.Worker {
	t.Helper()
	var found agent.Worker
	eventually(t, 5*time.Second, "a worker has room "+room, func() bool {
		for _, w := range h.workers(t) {
			if w.Status == nil {
				continue
			}
			for _, r := range w.Status.Rooms {
				if r.Name == room {
					found = w
					return true
				}
			}
		}
		return false
	})
	return found
}

// eventually polls a condition until it holds.
func eventually(t *testing.T, limit time.Duration, what string, holds func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-ctx.Done():
			t.Fatalf("not within %s: %s", limit, what)
		case <-tick.C:
		}
	}
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// freeUDP finds n free ports in a row.
func freeUDP(t *testing.T, n int) int {
	t.Helper()
	for range 100 {
		if base, ok := tryUDP(n); ok {
			return base
		}
	}
	t.Fatalf("no %d free UDP ports in a row", n)
	return 0
}

func tryUDP(n int) (base int, ok bool) {
	var held []net.PacketConn
	defer func() {
		for _, c := range held {
			c.Close()
		}
	}()
	port := 0 // the first one is the kernel's choice
	for range n {
		c, err := net.ListenPacket("udp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			return 0, false
		}
		held = append(held, c)
		port = c.LocalAddr().(*net.UDPAddr).Port + 1
	}
	return port - n, true
}
