//go:build native

package subtree_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/sfu-agent/sfu-agent/agent"
	"github.com/sfu-agent/sfu-agent/agent/scope"
	"github.com/sfu-agent/sfu-agent/agent/subtree"
	"github.com/sfu-agent/sfu-agent/cgroups"
	"github.com/sfu-agent/sfu-agent/dbusx"
	"github.com/sfu-agent/sfu-agent/dbusx/systemd1"
)

// idler is a program that waits to be killed, and its arguments.
var idler = []string{"/bin/sh", "-c", "kill -STOP $$"}

// BenchmarkCycle starts and stops a process, 1, 8 and 32 at a time: bare, which
// is the least that a Go program can do for a process with a cgroup of its own,
// then by this Placer and, for comparison, by that for scopes.
func BenchmarkCycle(b *testing.B) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	own, err := subtree.New(ctx, subtree.Config{Prefix: "rate"})
	if err != nil {
		b.Fatal(err)
	}
	defer own.Close()
	host, err := cgroups.Detect()
	if err != nil {
		b.Fatal(err)
	}
	client, err := dbusx.Open(ctx, dbusx.Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer client.Close()
	systemd := systemd1.New(client, systemd1.Options{})
	defer systemd.Close()
	scopes, err := scope.New(systemd, scope.Config{Prefix: "rate", Slice: "sfu-rate.slice"})
	if err != nil {
		b.Fatal(err)
	}
	defer scopes.Close()
	dir := b.TempDir()
	for _, parallel := range []int{1, 8, 32} {
		for _, kind := range []struct {
			name  string
			cycle func(name string) (time.Duration, error)
		}{
			{"bare", func(name string) (time.Duration, error) { return bare(host.Own.Parent().Child(name)) }},
			{"subtree", func(name string) (time.Duration, error) { return placed(ctx, own, name, dir) }},
			{"scope", func(name string) (time.Duration, error) { return placed(ctx, scopes, name, dir) }},
		} {
			b.Run(fmt.Sprintf("%s/%d", kind.name, parallel), func(b *testing.B) { cycles(b, parallel, kind.cycle) })
		}
	}
}

// cycles reports the rate and the time that starts took.
func cycles(b *testing.B, parallel int, cycle func(name string) (time.Duration, error)) {
	took := make([]time.Duration, b.N)
	var next atomic.Int64
	var workers sync.WaitGroup
	begin := time.Now()
	for range parallel {
		workers.Go(func() {
			for i := int(next.Add(1)) - 1; i < b.N; i = int(next.Add(1)) - 1 {
				var err error
				if took[i], err = cycle(fmt.Sprintf("rate-%d", i)); err != nil {
					b.Error(err)
				}
			}
		})
	}
	workers.Wait()
	b.ReportMetric(float64(b.N)/time.Since(begin).Seconds(), "cycles/s")
	slices.Sort(took)
	b.ReportMetric(float64(took[b.N/2].Microseconds())/1000, "start-p50-ms")
	b.ReportMetric(float64(took[b.N*99/100].Microseconds())/1000, "start-p99-ms")
}

// bare is mkdir, clone3 with CLONE_INTO_CGROUP, execve, kill, wait and rmdir.
func bare(group cgroups.Group) (time.Duration, error) {
	start := time.Now()
	if err := group.Create(); err != nil {
		return 0, err
	}
	dir, err := group.Open()
	if err != nil {
		return 0, err
	}
	defer dir.Close()
	process, err := os.StartProcess(idler[0], idler, &os.ProcAttr{
		Sys: &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())},
	})
	if err != nil {
		return 0, err
	}
	took := time.Since(start)
	err = process.Kill()
	_, waitErr := process.Wait()
	return took, errors.Join(err, waitErr, os.Remove(group.Dir()))
}

// placed is the same by a Placer.
func placed(ctx context.Context, placer agent.Placer, name, dir string) (time.Duration, error) {
	start := time.Now()
	placement, err := placer.Place(ctx, agent.Spec{
		Name: name, Exe: idler[0], Args: idler[1:], Socket: filepath.Join(dir, name),
	})
	if err != nil {
		return 0, err
	}
	took := time.Since(start)
	return took, errors.Join(placement.Stop(ctx, 0), placement.Release(ctx))
}
