package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/sfu-agent/sfu-agent/stress/rtcclient"
)

// BenchmarkIdleViewer reports what a connected viewer to whom nothing is sent
// costs a worker in memory. The Go runtime gives memory back with the garbage
// collection that it runs after two minutes at the latest, and some time later.
func BenchmarkIdleViewer(b *testing.B) {
	const viewers = 500
	dir := b.TempDir()
	program, socket := filepath.Join(dir, "sfu-agent"), filepath.Join(dir, "control")
	if out, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput(); err != nil {
		b.Fatalf("build: %v\n%s", err, out)
	}
	worker := exec.Command(program, "worker", "--udp", "127.0.0.1:0", "--control", socket, "--log-level", "warn")
	worker.Stderr = os.Stderr
	if err := worker.Start(); err != nil {
		b.Fatal(err)
	}
	defer worker.Wait()
	defer worker.Process.Signal(os.Interrupt)
	cfg := rtcclient.Config{URL: "http://worker/whip/room", HTTP: throughSocket(socket), Source: rtcclient.Source{Pause: true, NoAudio: true}}
	publisher := dialRetrying(b, cfg)
	defer publisher.Close(b.Context())
	before := resident(b, worker.Process.Pid)
	cfg.URL, cfg.Source.NoAudio = "http://worker/whep/room", false
	connectViewers(b, cfg, viewers)
	for _, after := range []time.Duration{10 * time.Second, time.Minute, 2 * time.Minute} {
		time.Sleep(after)
		now := resident(b, worker.Process.Pid)
		b.Logf("after %v more: %.1f KiB a viewer", after, float64(now-before)/viewers)
		b.ReportMetric(float64(now-before)/viewers, "KiB/viewer")
	}
}

// connectViewers connects viewers, some at a time, until the benchmark ends.
func connectViewers(b *testing.B, cfg rtcclient.Config, viewers int) {
	b.Helper()
	var wg sync.WaitGroup
	turn := make(chan struct{}, 8)
	for range viewers {
		turn <- struct{}{}
		wg.Go(func() {
			defer func() { <-turn }()
			v, err := rtcclient.View(b.Context(), cfg)
			if err != nil {
				b.Error(err)
				return
			}
			b.Cleanup(func() { v.Close(context.Background()) })
		})
	}
	wg.Wait()
	if b.Failed() {
		b.FailNow()
	}
}

// dialRetrying publishes as soon as the worker listens.
func dialRetrying(b *testing.B, cfg rtcclient.Config) *rtcclient.Publisher {
	b.Helper()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		p, err := rtcclient.Publish(b.Context(), cfg)
		if err == nil {
			return p
		}
		if time.Now().After(end) {
			b.Fatal(err)
		}
	}
}

func throughSocket(path string) *http.Client {
	return &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}}}
}

// resident is VmRSS of proc_pid_status(5), in KiB.
func resident(b *testing.B, pid int) (kib int) {
	b.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		b.Fatal(err)
	}
	_, line, _ := bytes.Cut(text, []byte("VmRSS:"))
	if _, err := fmt.Sscan(string(line), &kib); err != nil {
		b.Fatalf("VmRSS: %v", err)
	}
	return kib
}
