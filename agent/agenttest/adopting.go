package agenttest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/sfu-agent/sfu-agent/agent"
)

// testAdopt adopts a worker of this very agent through a second Placer.
func testAdopt(t *testing.T, b *bench) {
	placement := b.place(t)
	second := b.open(t, b.prefix)
	adopted, err := second.Adopt(b.context(t), placement.Record())
	if err != nil {
		t.Fatal(err)
	}
	if adopted.Record() != placement.Record() {
		t.Errorf("record %+v, want %+v", adopted.Record(), placement.Record())
	}
	b.ask(t, adopted, "ignore")
	if err := adopted.Stop(b.context(t), 0); err != nil {
		t.Error(err)
	}
	if exit := b.wait(t, placement); exit.Signal != "SIGKILL" {
		t.Errorf("exit %+v", exit)
	}
}

func testAdoptGone(t *testing.T, b *bench) {
	placement := b.place(t)
	running := placement.Record()
	other := running
	other.StartTime++
	b.expectGone(t, other)
	b.end(t, placement)
	b.expectGone(t, running)
	other.Placer = "other"
	if _, err := b.placer.Adopt(b.context(t), other); err == nil {
		t.Errorf("adopted a worker of another kind of Placer")
	}
	for _, pid := range []int{-1, 0, 1} {
		other.PID = pid
		if _, err := b.placer.Adopt(b.context(t), other); err == nil {
			t.Errorf("adopted process %d", pid)
		}
	}
}

func (b *bench) expectGone(t *testing.T, rec agent.Record) {
	t.Helper()
	if _, err := b.placer.Adopt(b.context(t), rec); !errors.Is(err, agent.ErrGone) {
		t.Errorf("adopt %+v: %v", rec, err)
	}
}

// crash runs an agent that places workers and is then killed.
func (b *bench) crash(t *testing.T, count int) (records []agent.Record) {
	t.Helper()
	cmd := b.agentCommand(b.context(t), count)
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	err = json.NewDecoder(out).Decode(&records)
	killAgent(t, cmd)
	if err != nil {
		t.Fatal(err)
	}
	return records
}

func killAgent(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if err := cmd.Process.Kill(); err != nil {
		t.Error(err)
	}
	if err := cmd.Wait(); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Errorf("agent ended: %v", err)
	}
}

func testAdoptCrash(t *testing.T, b *bench) {
	for _, rec := range b.crash(t, 3) {
		adopted, err := b.placer.Adopt(b.context(t), rec)
		if err != nil {
			t.Fatal(err)
		}
		if info := b.info(t, adopted); info.PID != rec.PID {
			t.Errorf("worker %+v of record %+v", info, rec)
		}
		b.endsAdopted(t, adopted)
	}
}

// endsAdopted ends an adopted worker by itself or by a stop, in turn.
func (b *bench) endsAdopted(t *testing.T, adopted agent.Placement) {
	t.Helper()
	wants := func(exit agent.Exit) bool {
		return exit.Reason == agent.ReasonExit || exit.Reason == agent.ReasonSignal
	}
	if b.count++; b.count%2 == 0 {
		Ask(b.context(t), adopted.Record().Socket, "exit 3")
		wants = func(exit agent.Exit) bool { return exit == agent.Exit{Reason: agent.ReasonExit, Code: 3} }
	} else if err := adopted.Stop(b.context(t), limit); err != nil {
		t.Error(err)
	}
	if exit := b.wait(t, adopted); exit.Reason != agent.ReasonUnknown && !wants(exit) { // unknown before Linux 6.15
		t.Errorf("exit %+v", exit)
	}
	b.end(t, adopted)
}

// testSweep has the next agent, and a stranger, sweep beside the one that placed.
func testSweep(t *testing.T, b *bench) {
	kept, swept := b.place(t), b.place(t)
	stranger, next := b.open(t, b.prefix+"0"), b.open(t, b.prefix)
	if removed, err := stranger.Sweep(b.context(t), nil); err != nil || len(removed) != 0 {
		t.Errorf("another agent swept %v: %v", removed, err)
	}
	removed, err := next.Sweep(b.context(t), []agent.Record{kept.Record()})
	if err != nil {
		t.Error(err)
	}
	if len(removed) != 1 || !strings.Contains(removed[0], swept.Record().Name) {
		t.Errorf("removed %q, want the one of %+v", removed, swept.Record())
	}
	b.wait(t, swept)
	b.info(t, kept)
}

// open opens another Placer for the length of the test.
func (b *bench) open(t *testing.T, prefix string) agent.Placer {
	t.Helper()
	placer, err := b.subject.Open(b.context(t), prefix)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := placer.Close(); err != nil {
			t.Error(err)
		}
	})
	return placer
}

// testSweepOwn has the agent itself sweep, all the time, while it places workers
// whose records are not yet known.
func testSweepOwn(t *testing.T, b *bench) {
	ctx, cancel := context.WithCancel(b.context(t))
	swept := make(chan error, 1)
	go func() {
		var err error
		for ctx.Err() == nil {
			var removed []string
			if removed, err = b.placer.Sweep(b.context(t), nil); err != nil || len(removed) > 0 {
				err = fmt.Errorf("swept %v: %w", removed, err)
				break
			}
		}
		swept <- err
	}()
	for range 10 {
		b.info(t, b.place(t))
	}
	cancel()
	if err := <-swept; err != nil {
		t.Error(err)
	}
	// What was stopped and not released is a leftover.
	stopped := b.place(t)
	if err := stopped.Stop(b.context(t), 0); err != nil {
		t.Error(err)
	}
	if _, err := b.placer.Sweep(b.context(t), nil); err != nil {
		t.Error(err)
	}
	b.checkNothingLeftOf(t, stopped.Record().Name)
}

func testSweepCrash(t *testing.T, b *bench) {
	records := b.crash(t, 3)
	kept := records[1]
	removed, err := b.placer.Sweep(b.context(t), []agent.Record{kept})
	if err != nil {
		t.Error(err)
	}
	if len(removed) != 2 || slices.ContainsFunc(removed, func(s string) bool { return strings.Contains(s, kept.Name) }) {
		t.Errorf("removed %q, want two and not %s", removed, kept.Name)
	}
	adopted, err := b.placer.Adopt(b.context(t), kept)
	if err != nil {
		t.Fatal(err)
	}
	b.info(t, adopted)
	b.end(t, adopted)
	for _, rec := range records {
		os.Remove(rec.Socket) // a sweep knows no sockets
	}
}

// testCrashWhilePlacing kills agents in the midst of placing workers, of which
// nobody has a record.
func testCrashWhilePlacing(t *testing.T, b *bench) {
	const agents = 5
	for i := range agents {
		cmd := b.agentCommand(b.context(t), 1000)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the agent places workers", func() bool { return len(sockets(t, b.dir)) > 5*i })
		killAgent(t, cmd)
		if _, err := b.placer.Sweep(b.context(t), nil); err != nil {
			t.Error(err)
		}
		b.checkNothingLeft(t)
		for _, socket := range sockets(t, b.dir) {
			if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) {
				t.Error(err)
			}
		}
	}
}

func sockets(t *testing.T, dir string) []string {
	t.Helper()
	found, err := filepath.Glob(dir + "/*")
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func atoi(t *testing.T, text string) int {
	t.Helper()
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// ended says whether a process is gone or a zombie.
func ended(pid int) bool {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return true
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	return strings.HasPrefix(rest, "Z") || strings.HasPrefix(rest, "X")
}

// reap waits for a child that no Placer watches any more.
func reap(pid int) {
	var status syscall.WaitStatus
	syscall.Wait4(pid, &status, 0, nil)
}
