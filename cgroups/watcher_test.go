package cgroups

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

const memoryEvents = "low 0\nhigh 5\nmax 7\noom 2\noom_kill 1\noom_group_kill 1\nsomething_new 3\n"

func TestEvents(t *testing.T) {
	g := fakeGroup(t, map[string]string{"cgroup.events": "populated 1\nfrozen 1\n", "memory.events": memoryEvents})
	want := Events{Populated: true, Frozen: true, High: 5, Max: 7, OOM: 2, OOMKill: 1, OOMGroupKill: 1}
	if got, err := g.Events(); err != nil || got != want {
		t.Errorf("got %+v, %v", got, err)
	}
	if err := os.Remove(g.Dir() + "/memory.events"); err != nil {
		t.Fatal(err)
	}
	if got, err := g.Events(); err != nil || got != (Events{Populated: true, Frozen: true}) {
		t.Errorf("without the memory controller: %+v, %v", got, err)
	}
}

// await waits for a change after which holds is true.
func await(t *testing.T, x *Watch, holds func(Events, error) bool) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	for !holds(x.Events()) {
		select {
		case <-x.Changed():
		case <-deadline:
			events, err := x.Events()
			t.Fatalf("no change in 10 s from %+v, %v", events, err)
		}
	}
}

// checkWatcher follows a cgroup through changes to its removal.
func checkWatcher(t *testing.T, w *Watcher) {
	t.Helper()
	g := fakeGroup(t, map[string]string{"cgroup.events": "populated 1\n", "memory.events": "oom_kill 0\n"})
	var watches []*Watch
	for range 2 {
		x, err := w.Watch(g)
		if err != nil {
			t.Fatal(err)
		}
		watches = append(watches, x)
	}
	start := time.Now()
	set(t, g, "memory.events", "oom_kill 3\n")
	for _, x := range watches {
		defer func() {
			if killed := x.OOMKilled(); killed.Before(start) {
				t.Errorf("out-of-memory kill seen at %v, it was after %v", killed, start)
			}
		}()
		await(t, x, func(e Events, err error) bool { return err == nil && e.OOMKill == 3 && e.Populated })
	}
	watches[0].Close()
	watches[0].Close()
	set(t, g, "cgroup.events", "populated 0\n")
	await(t, watches[1], func(e Events, err error) bool { return err == nil && !e.Populated })
	if err := os.Remove(g.Dir() + "/memory.events"); err != nil {
		t.Fatal(err)
	}
	if e, err := watches[1].Look(); err != nil || e.OOMKill != 3 {
		t.Errorf("while its files vanish: %+v, %v", e, err)
	}
	if err := os.RemoveAll(g.Dir()); err != nil {
		t.Fatal(err)
	}
	await(t, watches[1], func(e Events, err error) bool { return errors.Is(err, ErrGone) && e.OOMKill == 3 })
	if e, _ := watches[0].Events(); !e.Populated {
		t.Error("a closed watch was looked at")
	}
	if _, err := w.Watch(g); !errors.Is(err, ErrGone) {
		t.Errorf("watch of no cgroup: %v", err)
	}
	w.Close()
	w.Close()
	watches[1].Close()
	if _, err := w.Watch(g); !errors.Is(err, os.ErrClosed) {
		t.Errorf("watch by a closed Watcher: %v", err)
	}
	if len(w.byWD) > 1 { // of the one watch that was open at Close
		t.Errorf("%d descriptors left", len(w.byWD))
	}
}

func TestWatcher(t *testing.T) {
	defer goleak.VerifyNone(t)
	w := NewWatcher(nil)
	if err := w.Polling(); err != nil {
		t.Fatal(err)
	}
	checkWatcher(t, w)
}

func TestC08WatcherPollsWithoutInotify(t *testing.T) {
	defer goleak.VerifyNone(t)
	var log bytes.Buffer
	w := newWatcher(slog.New(slog.NewTextHandler(&log, nil)), func() (int, error) { return -1, unix.EMFILE })
	checkWatcher(t, w)
	if !errors.Is(w.Polling(), unix.EMFILE) || strings.Count(log.String(), "polling") != 1 {
		t.Errorf("polling: %v, log %s", w.Polling(), &log)
	}
}

func TestParseInotify(t *testing.T) {
	event := func(wd, mask byte, name string) string {
		return string([]byte{wd, 0, 0, 0, mask, 0, 0, 0, 0, 0, 0, 0, byte(len(name)), 0, 0, 0}) + name
	}
	got := parseInotify([]byte(event(1, 2, "") + event(3, 2, "name\x00\x00\x00\x00") + event(4, 2, "")))
	want := []inotifyEvent{{1, 2}, {3, 2}, {4, 2}}
	if len(got) != len(want) || got[0] != want[0] || got[1] != want[1] || got[2] != want[2] {
		t.Errorf("got %v, want %v", got, want)
	}
}

func FuzzParseInotify(f *testing.F) {
	f.Add(make([]byte, 16))
	f.Add(append(make([]byte, 12), 255, 255, 255, 255, 1))
	f.Add([]byte("short"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if got := parseInotify(data); len(got) > len(data)/unix.SizeofInotifyEvent {
			t.Errorf("%d events in %d bytes", len(got), len(data))
		}
	})
}
