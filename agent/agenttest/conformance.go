package agenttest

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sfu-agent/sfu-agent/agent"
	"github.com/sfu-agent/sfu-agent/agent/launch"
)

// A Subject is a kind of Placer under test.
type Subject struct {
	// Name is its Record.Placer.
	Name string
	// Open makes the Placer of the agent whose workers' names begin with prefix.
	Open func(ctx context.Context, prefix string) (ClosePlacer, error)
	// Left lists what is on the host for that agent: units, cgroups. May be nil.
	Left func(ctx context.Context, prefix string) ([]string, error)
	// Contains says that a worker's children cannot leave it.
	Contains bool
}

// A ClosePlacer is a Placer that must be closed.
type ClosePlacer interface {
	agent.Placer
	Close() error
}

// limit bounds every test of the suite.
const limit = 60 * time.Second

// Conformance tests a kind of Placer with real processes. The package's
// TestMain must be Main.
func Conformance(t *testing.T, subject Subject) {
	for _, test := range []struct {
		name string
		run  func(*testing.T, *bench)
	}{
		{"place", testPlace},
		{"two at once", func(t *testing.T, b *bench) { testMany(t, b, 2) }},
		{"32 at once", func(t *testing.T, b *bench) { testMany(t, b, 32) }},
		{"bad name", testBadName},
		{"bad exe", testBadExe},
		{"bad socket", testBadSocket},
		{"program without gate", testNoGate},
		{"cancelled", testCancelled},
		{"exit", testExit},
		{"signal", testSignal},
		{"several waiters", testWaiters},
		{"stop", testStop},
		{"stop ignoring TERM", testStopStubborn},
		{"stop with children", testStopChildren},
		{"stop with escaped child", testStopEscaped},
		{"stop with cancelled context", testStopCancelled},
		{"adopt", testAdopt},
		{"adopt gone", testAdoptGone},
		{"adopt after agent crash", testAdoptCrash},
		{"sweep", testSweep},
		{"sweep while placing", testSweepOwn},
		{"sweep after agent crash", testSweepCrash},
		{"sweep after agent crash while placing", testCrashWhilePlacing},
		{"set limits", testSetLimits},
		{"close with running worker", testClose},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, newBench(t, subject)) })
	}
}

// bench is one test's agent.
type bench struct {
	subject Subject
	prefix  string
	dir     string // of the sockets
	placer  ClosePlacer
	count   int
}

// newBench opens a Placer and, at the test's end, closes it and checks that
// nothing is left of it.
func newBench(t *testing.T, subject Subject) *bench {
	t.Helper()
	dir, err := os.MkdirTemp("", "sfu") // t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{subject: subject, prefix: strings.ToLower(rand.Text()[:8]), dir: dir}
	ctx := b.context(t)
	before := goleak.IgnoreCurrent()
	files := openFiles(t)
	if b.placer, err = subject.Open(ctx, b.prefix); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.placer.Close(); err != nil {
			t.Error(err)
		}
		b.checkNothingLeft(t)
		goleak.VerifyNone(t, before)
		eventually(t, "file descriptors are closed", func() bool { return openFiles(t) <= files })
		if err := os.Remove(dir); err != nil {
			t.Errorf("sockets left: %v", err)
		}
	})
	return b
}

// context is bounded by the limit of a test.
func (b *bench) context(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	t.Cleanup(cancel)
	return ctx
}

func (b *bench) checkNothingLeft(t *testing.T) {
	t.Helper()
	b.checkNothingLeftOf(t, b.prefix)
}

// checkNothingLeftOf waits until no process, unit or cgroup is there whose
// worker's name begins with prefix.
func (b *bench) checkNothingLeftOf(t *testing.T, prefix string) {
	t.Helper()
	var left []string
	eventually(t, "processes, units and cgroups are gone", func() bool {
		running, err := launch.List(prefix)
		if err != nil || len(running) > 0 || b.subject.Left == nil {
			left = []string{fmt.Sprintf("%+v", running)}
			return err == nil && len(running) == 0
		}
		left, err = b.subject.Left(context.Background(), prefix)
		return err == nil && len(left) == 0
	})
	if t.Failed() {
		t.Logf("left: %v", left)
	}
}

// spec describes the bench's next worker.
func (b *bench) spec() agent.Spec {
	b.count++
	return NewSpec(fmt.Sprintf("%s-%d-test", b.prefix, b.count), b.dir)
}

// place places a worker and, at the test's end, stops and releases it.
func (b *bench) place(t *testing.T) agent.Placement {
	t.Helper()
	placement, err := b.placer.Place(b.context(t), b.spec())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.end(t, placement) })
	return placement
}

// end stops and releases a worker.
func (b *bench) end(t *testing.T, placement agent.Placement) {
	t.Helper()
	if err := placement.Stop(b.context(t), 0); err != nil {
		t.Error(err)
	}
	if err := placement.Release(b.context(t)); err != nil {
		t.Error(err)
	}
}

// ask sends a command to a worker.
func (b *bench) ask(t *testing.T, placement agent.Placement, command string) string {
	t.Helper()
	answer, err := Ask(b.context(t), placement.Record().Socket, command)
	if err != nil {
		t.Fatalf("ask %s: %v", command, err)
	}
	return answer
}

func (b *bench) info(t *testing.T, placement agent.Placement) Info {
	t.Helper()
	var info Info
	answer := b.ask(t, placement, "info")
	if err := json.Unmarshal([]byte(answer), &info); err != nil {
		t.Fatalf("%v in %q", err, answer)
	}
	return info
}

// wait returns how a worker ended.
func (b *bench) wait(t *testing.T, placement agent.Placement) agent.Exit {
	t.Helper()
	exit, err := placement.Wait(b.context(t))
	if err != nil {
		t.Fatal(err)
	}
	return exit
}

// eventually polls a condition for 10 s.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !holds(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Errorf("after 10 s it does not hold that %s", what)
			return
		}
	}
}

func openFiles(t *testing.T) int {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}
