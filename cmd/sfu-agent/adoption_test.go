//go:build browser

package main

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sfu-agent/sfu-agent/agent"
	"github.com/sfu-agent/sfu-agent/stress/rtcclient"
)

// sessions is how many viewers must not notice what befalls the agent.
const sessions = 200

// crowd is a room with a publisher and many viewers, at a rate that leaves the
// machine room for all of them.
func crowd(t *testing.T, h *nativeHost, room string, n int) []*rtcclient.Viewer {
	t.Helper()
	_, err := rtcclient.Publish(t.Context(), rtcclient.Config{URL: h.url("/whip/" + room), Source: rtcclient.Source{Rate: 150_000, FPS: 10}})
	if err != nil {
		t.Fatal(err)
	}
	h.roomWorker(t, room)
	var all []*rtcclient.Viewer
	for len(all) < n {
		all = append(all, viewers(t, h, room, min(25, n-len(all)))...)
	}
	return all
}

// undisturbed checks that all viewers go on and miss nothing.
func undisturbed(t *testing.T, all []*rtcclient.Viewer, during func()) {
	t.Helper()
	before := make([]uint64, len(all))
	missedBefore, _ := lost(all)
	for i, v := range all {
		before[i] = v.Stats().Packets
	}
	during()
	flow(t, 3*time.Second)
	for i, v := range all {
		if got := v.Stats().Packets - before[i]; got < 3*40 {
			t.Errorf("viewer %d received %d packets in 3 s and more", i, got)
		}
	}
	if missed, packets := lost(all); missed != missedBefore {
		t.Errorf("%d of %d packets lost", missed-missedBefore, packets)
	}
}

func pids(workers []agent.Worker) (all []int) {
	for _, w := range workers {
		all = append(all, w.PID)
	}
	return all
}

// adopted waits until a new agent has taken over all workers.
func (h *nativeHost) adopted(t *testing.T, want []int) {
	t.Helper()
	began := time.Now()
	eventually(t, 5*time.Second, "all workers are adopted", func() bool {
		resp, err := http.Get(h.url("/readyz"))
		if err != nil {
			return false
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return false
		}
		workers := h.workers(t)
		return !slices.ContainsFunc(workers, func(w agent.Worker) bool { return !w.Adopted || w.State != agent.StateReady })
	})
	t.Logf("workers adopted after %s", time.Since(began).Round(time.Millisecond))
	if got := pids(h.workers(t)); !slices.Equal(got, want) {
		t.Errorf("worker PIDs %v, want %v", got, want)
	}
}

// TestS20AgentKilled: an agent that is killed with SIGKILL, or replaced in
// place, is no concern of 200 viewers; the next one adopts the workers and
// removes what belongs to nobody.
func TestS20AgentKilled(t *testing.T) {
	h := startHost(t, 2)
	all := crowd(t, h, "crowd", sessions)
	workers := h.workers(t)
	prefix, _, _ := strings.Cut(workers[0].Name, "-")
	orphan := "sfu-worker-" + prefix + "-7-0badcafe"
	foreign := "sfu-worker-ffffff-0-0badcafe"
	for _, unit := range []string{orphan, foreign} {
		h.exec(t, "systemd-run", "-q", "systemd-run", "-q", "--scope", "--slice=sfu.slice", "--unit="+unit, "sleep", "600")
	}
	eventually(t, 5*time.Second, "the strays are there", func() bool {
		units := h.units(t)
		return strings.Contains(units, orphan) && strings.Contains(units, foreign)
	})

	t.Run("SIGKILL", func(t *testing.T) {
		undisturbed(t, all, func() {
			h.exec(t, "systemctl", "kill", "-s", "KILL", "--kill-whom=main", "sfu-agent")
			h.adopted(t, pids(workers))
		})
		eventually(t, 5*time.Second, "the orphan is removed", func() bool { return !strings.Contains(h.units(t), orphan) })
		if !strings.Contains(h.units(t), foreign) {
			t.Error("another agent's worker was removed")
		}
	})

	t.Run("SIGHUP", func(t *testing.T) {
		undisturbed(t, all, func() {
			h.exec(t, "systemctl", "kill", "-s", "HUP", "--kill-whom=main", "sfu-agent")
			eventually(t, 5*time.Second, "the new program runs", func() bool {
				log := h.exec(t, "journalctl", "-u", "sfu-agent", "-o", "cat", "--no-pager")
				return strings.Count(log, "agent up") == 3
			})
			h.adopted(t, pids(workers))
		})
	})

	t.Run("an adopted worker dies", func(t *testing.T) {
		victim := h.workers(t)[0]
		if h.roomWorker(t, "crowd").ID == victim.ID {
			victim = h.workers(t)[1]
		}
		undisturbed(t, all, func() {
			h.exec(t, "kill", "-KILL", fmt.Sprint(victim.PID))
			now := h.replaced(t, victim, 2*time.Second)
			if now.LastExit.Signal != "SIGKILL" && now.LastExit.Reason != agent.ReasonUnknown { // unknown before Linux 6.15
				t.Errorf("last exit: %+v", now.LastExit)
			}
		})
		if out := h.exec(t, "sh", "-c", "ps -o stat= --ppid $(systemctl show -p MainPID --value sfu-agent) | grep Z || true"); out != "" {
			t.Errorf("zombies left: %s", out)
		}
	})
	h.exec(t, "systemctl", "stop", foreign+".scope")
	began := time.Now()
	h.exec(t, "systemctl", "stop", "sfu-agent") // SIGTERM still counts after the replacement
	if took := time.Since(began); took > 20*time.Second || strings.TrimSpace(h.units(t)) != "" {
		t.Errorf("stop took %s and left %q", took, h.units(t))
	}
}

func (h *nativeHost) units(t *testing.T) string {
	t.Helper()
	return h.exec(t, "systemctl", "list-units", "--all", "--plain", "--no-legend", "sfu-worker-*")
}

// replaced waits until a worker's successor is ready, and returns it.
func (h *nativeHost) replaced(t *testing.T, old agent.Worker, limit time.Duration) agent.Worker {
	t.Helper()
	began := time.Now()
	var now agent.Worker
	eventually(t, limit+3*time.Second, "worker "+old.ID+" is replaced", func() bool {
		for _, w := range h.workers(t) {
			if w.ID == old.ID && w.PID != old.PID && w.State == agent.StateReady {
				now = w
				return true
			}
		}
		return false
	})
	noticed := now.LastExit.Time.Sub(began)
	t.Logf("worker %s: end noticed after %s, replaced after %s, reason %s", old.ID,
		noticed.Round(time.Millisecond), time.Since(began).Round(time.Millisecond), now.LastExit.Reason)
	if noticed > limit {
		t.Errorf("end noticed after %s, want within %s", noticed, limit)
	}
	return now
}

// TestStoppedWorkerIsReplaced: a worker that does not answer is found within
// 5 s, and the reason is in API, log and metrics.
func TestStoppedWorkerIsReplaced(t *testing.T) {
	h := startHost(t, 2)
	all := crowd(t, h, "steady", 5)
	victim := h.workers(t)[0]
	if h.roomWorker(t, "steady").ID == victim.ID {
		victim = h.workers(t)[1]
	}
	undisturbed(t, all, func() {
		h.exec(t, "kill", "-STOP", fmt.Sprint(victim.PID))
		now := h.replaced(t, victim, 5*time.Second)
		if now.LastExit.Reason != agent.ReasonHang {
			t.Errorf("last exit: %+v", now.LastExit)
		}
	})
	log := h.exec(t, "journalctl", "-u", "sfu-agent", "-o", "cat", "--no-pager")
	if !strings.Contains(log, "reason=hang") {
		t.Errorf("the log does not tell of the hang:\n%s", log)
	}
	metrics := h.get(t, "/metrics")
	if want := fmt.Sprintf(`sfu_worker_restarts_total{worker="%s"} 1`, victim.ID); !strings.Contains(metrics, want) {
		t.Errorf("no %s in the metrics", want)
	}
}
