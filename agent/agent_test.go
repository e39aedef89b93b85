package agent_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sfu-agent/sfu-agent/agent"
	"github.com/sfu-agent/sfu-agent/agent/agenttest"
	"github.com/sfu-agent/sfu-agent/agent/control"
	"github.com/sfu-agent/sfu-agent/cgroups"
)

// workers answer for scripted placements: what each says of itself, by socket.
type workers struct {
	mu     sync.Mutex
	status map[string]control.Status
	silent map[string]bool
	start  control.State // of a worker that was never heard of
}

func newWorkers() *workers {
	return &workers{status: map[string]control.Status{}, silent: map[string]bool{}, start: control.StateReady}
}

// change edits what the worker of a slot says.
func (ws *workers) change(w agent.Worker, edit func(*control.Status)) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	s := ws.status[w.Socket]
	edit(&s)
	ws.status[w.Socket] = s
}

func (ws *workers) silence(w agent.Worker) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	ws.silent[w.Socket] = true
}

type line struct {
	ws     *workers
	socket string
}

func (l line) Status(ctx context.Context) (control.Status, error) {
	l.ws.mu.Lock()
	s, silent := l.ws.status[l.socket], l.ws.silent[l.socket]
	if s.State == "" {
		s.State = l.ws.start
	}
	l.ws.mu.Unlock()
	if silent {
		<-ctx.Done()
		return s, ctx.Err()
	}
	return s, nil
}

func (l line) set(state control.State) error {
	l.ws.mu.Lock()
	defer l.ws.mu.Unlock()
	s := l.ws.status[l.socket]
	s.State = state
	l.ws.status[l.socket] = s
	return nil
}

func (l line) Drain(context.Context) error   { return l.set(control.StateDraining) }
func (l line) Undrain(context.Context) error { return l.set(control.StateReady) }
func (l line) Close() error                  { return nil }

// run is one agent under test.
type run struct {
	*agent.Agent
	cancel context.CancelCauseFunc
	done   chan error
}

func start(t *testing.T, state *agent.StateDir, p *agenttest.Placer, ws *workers, n int, edit ...func(*agent.Config)) *run {
	t.Helper()
	cfg := agent.Config{
		Placer: p, PlacerName: "agenttest", State: state, Workers: n, Exe: "/bin/worker",
		WorkerArgs: func(i int, name string) []string { return []string{fmt.Sprint(i), name} },
		Control:    func(socket string) agent.Control { return line{ws, socket} },
	}
	for _, e := range edit {
		e(&cfg)
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	r := &run{agent.New(cfg), cancel, make(chan error, 1)}
	go func() { r.done <- r.Run(ctx) }()
	return r
}

func (r *run) stop(t *testing.T) {
	t.Helper()
	r.cancel(nil)
	if err := <-r.done; err != nil {
		t.Errorf("Run: %v", err)
	}
}

func openState(t *testing.T, dir string) *agent.StateDir {
	t.Helper()
	state, err := agent.OpenStateDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	return state
}

// world runs a test with an agent of n workers that are all ready.
func world(t *testing.T, n int, test func(*testing.T, *run, *agenttest.Placer, *workers), scripts ...agenttest.Script) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		state := openState(t, dir)
		p, ws := agenttest.NewPlacer(scripts...), newWorkers()
		r := start(t, state, p, ws, n)
		time.Sleep(time.Second)
		test(t, r, p, ws)
		r.stop(t)
		state.Close()
		wantEmpty(t, p, dir)
	})
}

func wantEmpty(t *testing.T, p *agenttest.Placer, dir string) {
	t.Helper()
	if held := p.Held(); len(held) != 0 {
		t.Errorf("%d placements left", len(held))
	}
	files, _ := filepath.Glob(filepath.Join(dir, "*-*"))
	if len(files) != 0 {
		t.Errorf("left in the state directory: %v", files)
	}
}

func (r *run) only(t *testing.T) agent.Worker {
	t.Helper()
	w, ok := r.Worker("0")
	if !ok {
		t.Fatal("no worker 0")
	}
	return w
}

func wantState(t *testing.T, w agent.Worker, want agent.State) {
	t.Helper()
	if w.State != want {
		t.Errorf("worker %s is %s, want %s", w.ID, w.State, want)
	}
}

func TestWorkersBecomeReady(t *testing.T) {
	world(t, 3, func(t *testing.T, r *run, p *agenttest.Placer, _ *workers) {
		if err := r.Ready(); err != nil {
			t.Error(err)
		}
		for i, w := range r.Workers() {
			wantState(t, w, agent.StateReady)
			if w.ID != fmt.Sprint(i) || w.PID == 0 || w.Status == nil {
				t.Errorf("worker %d: %+v", i, w)
			}
		}
		if len(p.Specs()) != 3 {
			t.Errorf("placed %d times", len(p.Specs()))
		}
	})
}

func TestWorkerIsReplaced(t *testing.T) {
	oom := agent.Exit{Reason: agent.ReasonOOM, Signal: "SIGKILL"}
	world(t, 1, func(t *testing.T, r *run, _ *agenttest.Placer, _ *workers) {
		first := r.only(t)
		time.Sleep(10 * time.Second)
		w := r.only(t)
		wantState(t, w, agent.StateReady)
		if w.Name == first.Name || w.Restarts != 1 {
			t.Errorf("not replaced: %+v", w)
		}
		if w.LastExit == nil || w.LastExit.Reason != agent.ReasonOOM || w.LastExit.Name != first.Name {
			t.Errorf("last exit: %+v", w.LastExit)
		}
	}, agenttest.Script{Life: 5 * time.Second, Exit: oom})
}

func TestCrashLoopBacksOffAndRecovers(t *testing.T) {
	crash := agenttest.Script{Life: time.Millisecond, Exit: agent.Exit{Reason: agent.ReasonExit, Code: 1}}
	world(t, 1, func(t *testing.T, r *run, p *agenttest.Placer, _ *workers) {
		wantState(t, r.only(t), agent.StateBackoff)
		if r.Ready() == nil {
			t.Error("ready without a worker")
		}
		time.Sleep(2 * time.Minute)
		wantState(t, r.only(t), agent.StateFailed)
		if n := len(p.Specs()); n != 10 {
			t.Errorf("placed %d times, want 10", n)
		}
		time.Sleep(5 * time.Minute)
		wantState(t, r.only(t), agent.StateReady)
	}, slices.Repeat([]agenttest.Script{crash}, 10)...)
}

func TestPlaceFails(t *testing.T) {
	world(t, 1, func(t *testing.T, r *run, p *agenttest.Placer, _ *workers) {
		w := r.only(t)
		wantState(t, w, agent.StateReady)
		if len(p.Specs()) != 2 || w.LastExit == nil || !strings.Contains(w.LastExit.Text, "no bus") {
			t.Errorf("placed %d times, last exit %+v", len(p.Specs()), w.LastExit)
		}
	}, agenttest.Script{Err: errors.New("no bus")})
}

func TestPlaceIsBounded(t *testing.T) {
	world(t, 1, func(t *testing.T, r *run, _ *agenttest.Placer, _ *workers) {
		wantState(t, r.only(t), agent.StatePlacing)
		time.Sleep(16 * time.Second)
		wantState(t, r.only(t), agent.StateReady)
	}, agenttest.Script{Delay: time.Hour})
}

func TestHangingWorkerIsReplaced(t *testing.T) {
	world(t, 1, func(t *testing.T, r *run, _ *agenttest.Placer, ws *workers) {
		ws.silence(r.only(t))
		time.Sleep(6 * time.Second)
		w := r.only(t)
		wantState(t, w, agent.StateReady)
		if w.LastExit == nil || w.LastExit.Reason != agent.ReasonHang {
			t.Errorf("last exit: %+v", w.LastExit)
		}
	}, agenttest.Script{Stubborn: true})
}

func TestWorkerThatNeverGetsReadyIsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		state := openState(t, dir)
		p, ws := agenttest.NewPlacer(), newWorkers()
		ws.start = control.StateStarting
		r := start(t, state, p, ws, 1)
		time.Sleep(5 * time.Second)
		wantState(t, r.only(t), agent.StateStarting)
		time.Sleep(6 * time.Second)
		if w := r.only(t); w.Restarts == 0 {
			t.Errorf("not replaced: %+v", w)
		}
		r.stop(t)
		state.Close()
		wantEmpty(t, p, dir)
	})
}

func TestDrainWaitsForRooms(t *testing.T) {
	world(t, 2, func(t *testing.T, r *run, _ *agenttest.Placer, ws *workers) {
		first := r.only(t)
		ws.change(first, func(s *control.Status) {
			s.State, s.Rooms = control.StateReady, []control.Room{{Name: "a", Viewers: 2}}
		})
		time.Sleep(time.Second)
		if err := r.Drain("0", time.Minute); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
		w := r.only(t)
		wantState(t, w, agent.StateDraining)
		if w.DrainDeadline == nil {
			t.Error("no deadline shown")
		}
		if got, err := r.Route("a"); err != nil || got.ID != "0" {
			t.Errorf("room on the draining worker goes to %q, %v", got.ID, err)
		}
		if got, err := r.Route("new"); err != nil || got.ID != "1" {
			t.Errorf("new room goes to %q, %v", got.ID, err)
		}
		ws.change(first, func(s *control.Status) { s.Rooms = nil })
		time.Sleep(2 * time.Second)
		w = r.only(t)
		wantState(t, w, agent.StateReady)
		if w.Name == first.Name {
			t.Error("drained worker not replaced")
		}
	})
}

func TestDrainDeadline(t *testing.T) {
	world(t, 1, func(t *testing.T, r *run, _ *agenttest.Placer, ws *workers) {
		first := r.only(t)
		ws.change(first, func(s *control.Status) { s.State, s.Rooms = control.StateReady, []control.Room{{Name: "a"}} })
		if err := r.Drain("0", 20*time.Second); err != nil {
			t.Fatal(err)
		}
		time.Sleep(19 * time.Second)
		wantState(t, r.only(t), agent.StateDraining)
		time.Sleep(2 * time.Second)
		if w := r.only(t); w.Name == first.Name {
			t.Errorf("still there: %+v", w)
		}
	})
}

func TestUndrain(t *testing.T) {
	world(t, 1, func(t *testing.T, r *run, _ *agenttest.Placer, ws *workers) {
		first := r.only(t)
		ws.change(first, func(s *control.Status) { s.State, s.Rooms = control.StateReady, []control.Room{{Name: "a"}} })
		if err := errors.Join(r.Drain("0", 20*time.Second), r.Undrain("0")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		w := r.only(t)
		wantState(t, w, agent.StateReady)
		if w.Name != first.Name {
			t.Error("replaced although the drain was cancelled")
		}
		if err := r.Drain("7", time.Second); !errors.Is(err, agent.ErrNoWorker) {
			t.Errorf("unknown worker: %v", err)
		}
	})
}

func TestLimitsStayWithTheSlot(t *testing.T) {
	world(t, 1, func(t *testing.T, r *run, p *agenttest.Placer, _ *workers) {
		want := cgroups.Limits{TasksMax: 7}
		if err := r.SetLimits("0", want); err != nil {
			t.Fatal(err)
		}
		if got := p.Held()[0].Limits(); got != want {
			t.Errorf("placement has %+v", got)
		}
		p.Held()[0].End(agent.Exit{Reason: agent.ReasonExit})
		time.Sleep(2 * time.Second)
		if got := p.Specs()[1].Limits; got != want {
			t.Errorf("successor has %+v", got)
		}
	})
}

func TestStopDrainsFirst(t *testing.T) {
	for _, hurried := range []bool{false, true} {
		t.Run(fmt.Sprintf("hurried=%v", hurried), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				dir := t.TempDir()
				state := openState(t, dir)
				p, ws, hurry := agenttest.NewPlacer(), newWorkers(), make(chan struct{})
				r := start(t, state, p, ws, 1, func(c *agent.Config) { c.Hurry = hurry; c.Times.Drain = 30 * time.Second })
				time.Sleep(time.Second)
				ws.change(r.only(t), func(s *control.Status) { s.Rooms = []control.Room{{Name: "a"}} })
				began := time.Now()
				r.cancel(nil)
				time.Sleep(5 * time.Second)
				wantState(t, r.only(t), agent.StateDraining)
				if r.Ready() == nil {
					t.Error("a stopping agent says it is ready")
				}
				want := 30 * time.Second
				if hurried {
					close(hurry)
					want = 5 * time.Second
				}
				r.stop(t)
				if took := time.Since(began); took < want || took > want+time.Second {
					t.Errorf("stop took %s, want about %s", took, want)
				}
				state.Close()
				wantEmpty(t, p, dir)
			})
		})
	}
}

func TestHandOverAndAdoption(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		p, ws := agenttest.NewPlacer(), newWorkers()
		state := openState(t, dir)
		r := start(t, state, p, ws, 3)
		time.Sleep(time.Second)
		limits := cgroups.Limits{MemoryMax: 1 << 30}
		if err := r.SetLimits("1", limits); err != nil {
			t.Fatal(err)
		}
		before := r.Workers()
		r.cancel(agent.ErrHandover)
		if err := <-r.done; err != nil {
			t.Fatal(err)
		}
		state.Close()
		if len(p.Held()) != 3 {
			t.Fatalf("%d workers left running, want 3", len(p.Held()))
		}

		state = openState(t, dir)
		r = start(t, state, p, ws, 2) // one fewer: the third is surplus
		time.Sleep(time.Second)
		for i, w := range r.Workers() {
			wantState(t, w, agent.StateReady)
			if !w.Adopted || w.PID != before[i].PID || w.Limits != before[i].Limits {
				t.Errorf("worker %d not adopted: %+v", i, w)
			}
		}
		if len(p.Held()) != 2 {
			t.Errorf("%d workers, want 2", len(p.Held()))
		}
		r.stop(t)
		state.Close()
		wantEmpty(t, p, dir)
	})
}

func TestAdoptionOfWhatIsBroken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		p, ws := agenttest.NewPlacer(), newWorkers()
		state := openState(t, dir)
		write := func(name, text string) {
			if err := os.WriteFile(filepath.Join(dir, name+".json"), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		gone, cut, placing := state.Prefix()+"-0-aa", state.Prefix()+"-1-bb", state.Prefix()+"-1-cc"
		write(gone, `{"name":"`+gone+`","placer":"agenttest","pid":4711}`)
		write(cut, `{"name":"`+cut)
		write(placing, `{"name":"`+placing+`","placer":"agenttest","pid":0}`)
		if _, err := p.Place(t.Context(), agent.Spec{Name: placing}); err != nil { // its agent died before it wrote the PID
			t.Fatal(err)
		}
		r := start(t, state, p, ws, 2)
		time.Sleep(time.Second)
		if err := r.Ready(); err != nil {
			t.Error(err)
		}
		for _, held := range p.Held() {
			if held.Record().Name == placing {
				t.Error("the half-placed worker was not swept")
			}
		}
		r.stop(t)
		state.Close()
		wantEmpty(t, p, dir)
	})
}

func TestOtherPlacersWorkersAreNotTouched(t *testing.T) {
	dir := t.TempDir()
	state := openState(t, dir)
	defer state.Close()
	name := state.Prefix() + "-0-aa"
	text := `{"name":"` + name + `","placer":"scope","pid":4711,"unit":"sfu-worker-` + name + `.scope"}`
	if err := os.WriteFile(filepath.Join(dir, name+".json"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	r := start(t, state, agenttest.NewPlacer(), newWorkers(), 1)
	err := <-r.done
	if err == nil || !strings.Contains(err.Error(), "systemctl stop sfu-worker-"+name+".scope") {
		t.Errorf("Run: %v", err)
	}
	if placers, err := state.Placers(); err != nil || !slices.Equal(placers, []string{"scope"}) {
		t.Errorf("Placers: %v, %v", placers, err)
	}
}

func TestRoute(t *testing.T) {
	world(t, 3, func(t *testing.T, r *run, _ *agenttest.Placer, ws *workers) {
		ws.change(r.only(t), func(s *control.Status) {
			s.State, s.Rooms = control.StateReady, []control.Room{{Name: "busy", Viewers: 10}}
		})
		time.Sleep(time.Second)
		seen := map[string]string{}
		for _, room := range []string{"a", "b", "a", "b", "busy"} {
			w, err := r.Route(room)
			if err != nil {
				t.Fatal(err)
			}
			if before, ok := seen[room]; ok && before != w.ID {
				t.Errorf("room %s went to %s, then to %s", room, before, w.ID)
			}
			seen[room] = w.ID
		}
		if seen["a"] == seen["b"] || seen["a"] == "0" || seen["b"] == "0" || seen["busy"] != "0" {
			t.Errorf("routes: %v", seen)
		}
	})
}

func TestRouteWithoutWorkers(t *testing.T) {
	world(t, 1, func(t *testing.T, r *run, _ *agenttest.Placer, _ *workers) {
		if _, err := r.Route("a"); !errors.Is(err, agent.ErrNotReady) {
			t.Errorf("Route: %v", err)
		}
	}, agenttest.Script{Delay: 10 * time.Second})
}

func TestStateDirIsExclusive(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	first := openState(t, dir)
	_, err := agent.OpenStateDir(dir)
	if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("PID %d", os.Getpid())) {
		t.Errorf("second open: %v", err)
	}
	first.Close()
	second := openState(t, dir)
	defer second.Close()
	if first.Prefix() != second.Prefix() {
		t.Error("the prefix changed")
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := agent.OpenStateDir(file); err == nil {
		t.Error("a file was taken for a directory")
	}
}
