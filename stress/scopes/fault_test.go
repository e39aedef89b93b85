package scopes

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestFaultNames(t *testing.T) {
	want := []string{
		"bus-kill", "bus-restart", "bus-stop", "die-early", "hold-conns", "none", "pid1-stop",
		"reexec", "reload", "term-ignore", "zombie",
	}
	if got := Faults(); !slices.Equal(got, want) {
		t.Errorf("faults %q, want %q", got, want)
	}
	for _, name := range Faults() {
		f := faults[name]
		if AboutFault(name) == "" || len(f.payload) == 0 {
			t.Errorf("%s: %q, payload %q", name, f.about, f.payload)
		}
		if name != "none" && name != "term-ignore" && (f.loop == nil) == (f.kill == nil) {
			t.Errorf("%s does nothing, or two things", name)
		}
	}
	if got, want := Clients(), []string{"go-systemd", "godbus", "naive", "ours"}; !slices.Equal(got, want) {
		t.Errorf("clients %q, want %q", got, want)
	}
}

// story notes what a fault's loop does.
type story struct {
	mu    sync.Mutex
	words []string
}

func (s *story) add(word string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.words = append(s.words, word)
}

func (s *story) run(pid1 string) faultRun {
	return faultRun{pid1: pid1, started: func() { s.add("started") }, ended: func() { s.add("ended") }}
}

func TestEvery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		var s story
		err := every(2*time.Second, func(context.Context) error { s.add("do"); return nil })(ctx, s.run(""))
		want := []string{"started", "do", "ended", "do", "ended", "do", "ended"} // at 0, 2 and 4 s
		if !errors.Is(err, context.DeadlineExceeded) || !slices.Equal(s.words, want) {
			t.Errorf("%q, %v, want %q", s.words, err, want)
		}
	})
	broken := errors.New("broken")
	if err := every(0, func(context.Context) error { return broken })(t.Context(), new(story).run("")); !errors.Is(err, broken) {
		t.Errorf("a fault that cannot be done: %v", err)
	}
}

func TestPausePID1(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pid1 := filepath.Join(t.TempDir(), "pid1")
		ctx, cancel := context.WithTimeout(t.Context(), 7*time.Second)
		var s story
		var outside sync.WaitGroup
		defer outside.Wait()
		defer cancel()
		outside.Go(func() {
			for ctx.Err() == nil {
				if word, err := os.ReadFile(pid1); err == nil && len(word) > 0 {
					s.add(string(word))
					os.Remove(pid1)
				}
				time.Sleep(time.Millisecond)
			}
		})
		err := pausePID1(ctx, s.run(pid1))
		want := []string{"stop", "started", "cont", "ended", "stop", "started", "cont", "ended"}
		if !errors.Is(err, context.DeadlineExceeded) || !slices.Equal(s.words, want) {
			t.Errorf("%q, %v, want %q", s.words, err, want)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		err := pausePID1(t.Context(), new(story).run(filepath.Join(t.TempDir(), "pid1")))
		if err == nil || !strings.Contains(err.Error(), "make stress-scopes") {
			t.Errorf("nobody outside: %v", err)
		}
	})
}
