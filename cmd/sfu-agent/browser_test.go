//go:build browser

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/sfu-agent/sfu-agent/agent"
	"github.com/sfu-agent/sfu-agent/stress/rtcclient"
)

// session is what the page tells of one of its tiles in window.sfu.sessions.
type session struct {
	Kind          string   `json:"kind"` // "whip", "whep"
	Room          string   `json:"room"`
	State         string   `json:"state"`
	Detail        string   `json:"detail"`
	FramesEncoded int      `json:"framesEncoded"`
	FramesDecoded int      `json:"framesDecoded"`
	FirstFrameMS  *float64 `json:"firstFrameMs"`
	AudioPackets  int      `json:"audioPackets"`
	Codec         string   `json:"codec"`
}

// browser is one Chromium; each page is a tab of it.
func browser(t *testing.T) context.Context {
	t.Helper()
	options := append(slices.Clone(chromedp.DefaultExecAllocatorOptions[:]),
		chromedp.NoSandbox, chromedp.WindowSize(1280, 1000),
		chromedp.Flag("use-fake-device-for-media-stream", true),
		chromedp.Flag("use-fake-ui-for-media-stream", true),
		chromedp.Flag("autoplay-policy", "no-user-gesture-required"),
		chromedp.Flag("disable-features", "WebRtcHideLocalIpsWithMdns"),
	)
	ctx, cancel := chromedp.NewExecAllocator(t.Context(), options...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	if err := chromedp.Run(ctx); err != nil {
		t.Fatalf("start chromium: %v", err)
	}
	return ctx
}

// page opens the agent's page in a new tab.
func page(t *testing.T, browser context.Context, h *nativeHost, query url.Values) (tab context.Context, closeTab func()) {
	t.Helper()
	tab, closeTab = chromedp.NewContext(browser)
	t.Cleanup(closeTab)
	if err := chromedp.Run(tab); err != nil { // the first context is the tab's life
		t.Fatalf("open a tab: %v", err)
	}
	do(t, tab, chromedp.Navigate(h.url("/?"+query.Encode())))
	return tab, closeTab
}

// do runs actions in a tab that is open, in bounded time.
func do(t *testing.T, tab context.Context, actions ...chromedp.Action) {
	t.Helper()
	bounded, cancel := context.WithTimeout(tab, 20*time.Second)
	defer cancel()
	if err := chromedp.Run(bounded, actions...); err != nil {
		t.Fatal(err)
	}
}

func publish(room string) url.Values { return url.Values{"room": {room}, "publish": {"camera"}} }
func watch(room string) url.Values   { return url.Values{"room": {room}, "watch": {"1"}} }

// state is the page's only session.
func state(t *testing.T, tab context.Context) session {
	t.Helper()
	var text string
	do(t, tab, chromedp.Evaluate(`JSON.stringify(window.sfu?.sessions ?? [])`, &text))
	var all []session
	if err := json.Unmarshal([]byte(text), &all); err != nil {
		t.Fatal(err)
	}
	if len(all) == 0 {
		return session{}
	}
	return all[0]
}

// decoded waits until the page has decoded n frames more than now, and audio.
func decoded(t *testing.T, tab context.Context, n int) session {
	t.Helper()
	first := state(t, tab).FramesDecoded
	var s session
	eventually(t, 30*time.Second, fmt.Sprintf("%d frames decoded", n), func() bool {
		s = state(t, tab)
		return s.FramesDecoded >= first+n && s.AudioPackets > 0
	})
	return s
}

func screenshot(t *testing.T, tab context.Context, name string) {
	t.Helper()
	var png []byte
	do(t, tab, chromedp.FullScreenshot(&png, 100))
	path := filepath.Join("..", "..", "build", name)
	if err := os.WriteFile(path, png, 0o644); err != nil {
		t.Fatal(err)
	}
	t.Logf("screenshot: build/%s", name)
}

// inScope checks that a worker's process is in its scope, inside the host.
func (h *nativeHost) inScope(t *testing.T, w agent.Worker) {
	t.Helper()
	units := h.exec(t, "systemctl", "list-units", "--plain", "--no-legend", "sfu-worker-*.scope")
	if !strings.Contains(units, w.Unit) {
		t.Errorf("worker %s: unit %q is not among\n%s", w.ID, w.Unit, units)
	}
	cgroup := h.exec(t, "cat", fmt.Sprintf("/proc/%d/cgroup", w.PID))
	if !strings.Contains(cgroup, "/"+w.Unit) {
		t.Errorf("worker %s: its process is in\n%s", w.ID, cgroup)
	}
}

func TestBrowserThroughScope(t *testing.T) {
	h := startHost(t, 3)
	b := browser(t)

	t.Run("one room", func(t *testing.T) {
		_, leave := page(t, b, h, publish("cam"))
		w := h.roomWorker(t, "cam")
		h.inScope(t, w)
		eventually(t, 10*time.Second, "the publisher sends", func() bool { return hasVideo(h.roomWorker(t, "cam"), "cam") })
		viewer, _ := page(t, b, h, watch("cam"))
		s := decoded(t, viewer, 100)
		if s.FirstFrameMS == nil || *s.FirstFrameMS > 1000 {
			t.Errorf("first frame after %v ms, want at most 1000", deref(s.FirstFrameMS))
		}
		t.Logf("first frame after %.0f ms, %s, %d audio packets", deref(s.FirstFrameMS), s.Codec, s.AudioPackets)
		screenshot(t, viewer, "browser-watch.png")
		trains(t, h, "cam")

		t.Run("publisher leaves and comes back", func(t *testing.T) {
			leave()
			eventually(t, 10*time.Second, "the publisher is gone", func() bool { return !published(h.roomWorker(t, "cam"), "cam") })
			again, _ := page(t, b, h, publish("cam"))
			decoded(t, viewer, 50)
			screenshot(t, again, "browser-publish.png")
		})
	})

	t.Run("three rooms on three workers", func(t *testing.T) {
		rooms := []string{"one", "two", "three"}
		used := map[string]bool{}
		for _, room := range rooms {
			page(t, b, h, publish(room))
			w := h.roomWorker(t, room)
			used[w.ID] = true
			h.inScope(t, w)
		}
		if len(used) < 2 {
			t.Errorf("three rooms are all on worker %v", used)
		}
		for _, room := range rooms {
			viewer, _ := page(t, b, h, watch(room))
			decoded(t, viewer, 100)
		}
	})
}

// trains tells how a browser's video leaves: in how many sends of several
// packets as one.
func trains(t *testing.T, h *nativeHost, room string) {
	t.Helper()
	before := h.roomWorker(t, room).Status.Counters
	flow(t, 10*time.Second)
	after := h.roomWorker(t, room).Status.Counters
	all, sends, packets := after.UDPPacketsOut-before.UDPPacketsOut, after.UDPTrains-before.UDPTrains, after.UDPInTrains-before.UDPInTrains
	t.Logf("of %d packets %d left in %d trains of %.2f", all, packets, sends, float64(packets)/float64(max(sends, 1)))
	if sends == 0 {
		t.Error("no trains")
	}
}

func deref(f *float64) float64 {
	if f == nil {
		return -1
	}
	return *f
}

func published(w agent.Worker, room string) bool {
	for _, r := range w.Status.Rooms {
		if r.Name == room {
			return r.Publisher
		}
	}
	return false
}

func hasVideo(w agent.Worker, room string) bool {
	for _, r := range w.Status.Rooms {
		for _, track := range r.Tracks {
			if r.Name == room && track.Kind == "video" && track.Packets > 30 {
				return true
			}
		}
	}
	return false
}

// viewers opens n viewers of a room.
func viewers(t *testing.T, h *nativeHost, room string, n int) []*rtcclient.Viewer {
	t.Helper()
	all := make([]*rtcclient.Viewer, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			v, err := rtcclient.View(t.Context(), rtcclient.Config{URL: h.url("/whep/" + room)})
			if err != nil {
				t.Errorf("viewer %d: %v", i, err)
				return
			}
			all[i] = v
		})
	}
	wg.Wait()
	if t.Failed() {
		t.FailNow()
	}
	return all
}

func publishRTP(t *testing.T, h *nativeHost, room string) *rtcclient.Publisher {
	t.Helper()
	p, err := rtcclient.Publish(t.Context(), rtcclient.Config{URL: h.url("/whip/" + room)})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// lost is what viewers missed, by viewer, and how many packets they have in all.
func lost(all []*rtcclient.Viewer) (lost uint64, packets uint64) {
	for _, v := range all {
		s := v.Stats()
		lost += s.Lost
		packets += s.Packets
	}
	return lost, packets
}

func TestFiftyViewersLoseNothing(t *testing.T) {
	h := startHost(t, 2)
	p := publishRTP(t, h, "busy")
	all := viewers(t, h, "busy", 50)
	flow(t, 30*time.Second)
	missed, packets := lost(all)
	t.Logf("%d packets at 50 viewers, %d lost", packets, missed)
	if missed != 0 || packets < 50*30*100 {
		t.Errorf("%d of %d packets lost", missed, packets)
	}
	for _, v := range all {
		v.Close(t.Context())
	}
	p.Close(t.Context())
	eventually(t, 10*time.Second, "the room is gone", func() bool {
		return !slices.ContainsFunc(h.workers(t), func(w agent.Worker) bool { return w.Status != nil && len(w.Status.Rooms) > 0 })
	})
}

// flow lets media flow for a while.
func flow(t *testing.T, d time.Duration) {
	t.Helper()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-t.Context().Done():
	}
}

func TestKilledWorkerLeavesOthersAlone(t *testing.T) {
	h := startHost(t, 2)
	publishRTP(t, h, "a")
	publishRTP(t, h, "b")
	wa, wb := h.roomWorker(t, "a"), h.roomWorker(t, "b")
	if wa.ID == wb.ID {
		t.Fatalf("both rooms are on worker %s", wa.ID)
	}
	others := viewers(t, h, "b", 10)
	h.exec(t, "kill", "-KILL", fmt.Sprint(wa.PID))
	began := time.Now()
	eventually(t, 5*time.Second, "the worker is replaced", func() bool {
		for _, w := range h.workers(t) {
			if w.ID == wa.ID {
				return w.PID != wa.PID && w.State == agent.StateReady
			}
		}
		return false
	})
	t.Logf("replaced after %s", time.Since(began).Round(time.Millisecond))
	flow(t, 5*time.Second)
	if missed, packets := lost(others); missed != 0 || packets < 10*5*50 {
		t.Errorf("viewers of the other worker lost %d of %d packets", missed, packets)
	}
	for _, w := range h.workers(t) {
		switch {
		case w.ID == wa.ID && (w.LastExit == nil || w.LastExit.Reason != agent.ReasonSignal || w.LastExit.Signal != "SIGKILL"):
			t.Errorf("killed worker's last exit: %+v", w.LastExit)
		case w.ID == wb.ID && (w.PID != wb.PID || w.Restarts != 0):
			t.Errorf("the other worker did not stay: %+v", w)
		}
	}
}

func TestTermLeavesNothing(t *testing.T) {
	h := startHost(t, 2)
	publishRTP(t, h, "a")
	before := h.workers(t)
	h.exec(t, "systemctl", "stop", "sfu-agent")
	if units := h.exec(t, "systemctl", "list-units", "--all", "--plain", "--no-legend", "sfu-*"); strings.TrimSpace(units) != "" {
		t.Errorf("units left:\n%s", units)
	}
	for _, w := range before {
		if out := h.exec(t, "sh", "-c", fmt.Sprintf("test -e /proc/%d && echo there || true", w.PID)); out != "" {
			t.Errorf("process %d of worker %s is left", w.PID, w.ID)
		}
	}
	if files := h.exec(t, "sh", "-c", "ls /run/sfu-agent | grep -v '^lock$' || true"); files != "" {
		t.Errorf("files left: %s", files)
	}
	if out := h.exec(t, "find", "/sys/fs/cgroup", "-name", "sfu-worker-*"); out != "" {
		t.Errorf("cgroups left: %s", out)
	}
}

func TestStartIsQuickAndSmall(t *testing.T) {
	h := startHost(t, 2)
	journal := h.exec(t, "journalctl", "-u", "sfu-agent", "-o", "json", "--no-pager")
	up, ready := readyTimes(t, journal)
	t.Logf("both workers ready %s after the agent was up", ready.Sub(up))
	if took := ready.Sub(up); took > time.Second {
		t.Errorf("ready after %s, want under 1 s", took)
	}
	pid := strings.TrimSpace(h.exec(t, "systemctl", "show", "-p", "MainPID", "--value", "sfu-agent"))
	var kib int
	rss := h.exec(t, "sh", "-c", "grep VmRSS /proc/"+pid+"/status")
	if _, err := fmt.Sscanf(rss, "VmRSS: %d kB", &kib); err != nil {
		t.Fatalf("%q: %v", rss, err)
	}
	t.Logf("idle agent: %d KiB resident", kib)
	if kib > 40<<10 {
		t.Errorf("idle agent has %d KiB resident, want under 40 MiB", kib)
	}
}

// readyTimes are when systemd began to start the agent and when its last
// worker was ready, by the journal.
func readyTimes(t *testing.T, journal string) (began, ready time.Time) {
	t.Helper()
	for line := range strings.Lines(journal) {
		var entry struct {
			Message string `json:"MESSAGE"`
			Time    string `json:"__REALTIME_TIMESTAMP"`
		}
		if json.Unmarshal([]byte(line), &entry) != nil {
			continue
		}
		var us int64
		fmt.Sscan(entry.Time, &us)
		at := time.UnixMicro(us)
		if began.IsZero() {
			began = at // systemd's own "Starting ..."
		}
		if strings.Contains(entry.Message, "worker ready") {
			ready = at
		}
	}
	if ready.IsZero() {
		t.Fatalf("no worker ready in\n%s", journal)
	}
	return began, ready
}
