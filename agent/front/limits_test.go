package front_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/sfu-agent/sfu-agent/agent"
	"github.com/sfu-agent/sfu-agent/agent/front"
	"github.com/sfu-agent/sfu-agent/cgroups"
)

const mergePatch = "application/merge-patch+json"

func TestChangeOfLimits(t *testing.T) {
	full := cgroups.Limits{CPUWeight: 100, CPUQuota: 150, AllowedCPUs: "0", MemoryHigh: 1 << 28, MemoryMax: 1 << 29, TasksMax: 64, IOWeight: 50}
	for _, c := range []struct {
		name, body string
		want       func(*cgroups.Limits)
	}{
		{"one", `{"limits":{"memory_max":1073741824}}`, func(l *cgroups.Limits) { l.MemoryMax = 1 << 30 }},
		{"zero takes away", `{"limits":{"memory_max":0,"allowed_cpus":"","io_max":""}}`, func(l *cgroups.Limits) { l.MemoryMax, l.AllowedCPUs, l.IOMax = 0, "", "" }},
		{"null takes away", `{"limits":{"cpu_quota_percent":null,"allowed_cpus":null}}`, func(l *cgroups.Limits) { l.CPUQuota, l.AllowedCPUs = 0, "" }},
		{"all", `{"limits":{"cpu_weight":1,"cpu_quota_percent":2,"allowed_cpus":"0-1,3","memory_high":40000000,"memory_max":50000000,"tasks_max":6,"io_weight":7}}`,
			func(l *cgroups.Limits) {
				*l = cgroups.Limits{CPUWeight: 1, CPUQuota: 2, AllowedCPUs: "0-1,3", MemoryHigh: 4e7, MemoryMax: 5e7, TasksMax: 6, IOWeight: 7}
			}},
	} {
		for _, contentType := range []string{mergePatch, "application/json; charset=utf-8"} {
			t.Run(c.name+" as "+contentType, func(t *testing.T) {
				h := &host{workers: []agent.Worker{{ID: "0", Limits: full}, {ID: "1", Limits: full}}}
				r := open(t, front.Config{Host: h}).ask("PATCH", "/api/v1/workers/1", c.body, "Content-Type", contentType)
				want := full
				c.want(&want)
				if got := decode[agent.Worker](t, r); r.StatusCode != 200 || got.ID != "1" || got.Limits != want {
					t.Errorf("%d %+v, want %+v", r.StatusCode, got.Limits, want)
				}
				if h.workers[1].Limits != want || h.workers[0].Limits != full {
					t.Errorf("the host has %+v", h.workers)
				}
			})
		}
	}
}

func TestRefusedChangeOfLimits(t *testing.T) {
	before := cgroups.Limits{MemoryMax: 1 << 29}
	h := &host{workers: []agent.Worker{{ID: "0", Limits: before}}}
	s := open(t, front.Config{Host: h})
	for _, c := range []struct {
		body   string
		status int
		detail string
	}{
		{``, 400, `want {"limits": {...}}`},
		{`{`, 400, `want {"limits": {...}}`},
		{`[]`, 400, `want {"limits": {...}}`},
		{`null`, 400, `want {"limits": {...}}`},
		{`{}`, 400, "one limit or more"},
		{`{"limits":{}}`, 400, "one limit or more"},
		{`{"limits":null}`, 400, "one limit or more"},
		{`{"limits":[1]}`, 400, "one limit or more"},
		{`{"limits":{"tasks_max":1}} x`, 400, "invalid character"},
		{`{"limits":{"tasks_max":1},"state":"ready"}`, 400, `unknown field "state"`},
		{`{"limits":{"memory":1}}`, 400, `unknown field "limits.memory"; limits are allowed_cpus, cpu_quota_percent`},
		{`{"limits":{"MEMORY_MAX":100000000}}`, 400, `unknown field "limits.MEMORY_MAX"`},
		{`{"limits":{"memory":null}}`, 400, `unknown field "limits.memory"`},
		{`{"limits":{"memory_max":"1G"}}`, 400, `limits.memory_max is "1G", want a whole number`},
		{`{"limits":{"memory_max":-1}}`, 400, "limits.memory_max is -1, want a whole number"},
		{`{"limits":{"tasks_max":1.5}}`, 400, "limits.tasks_max is 1.5, want a whole number"},
		{`{"limits":{"allowed_cpus":3}}`, 400, "limits.allowed_cpus is 3, want a text"},
		{`{"limits":{"cpu_weight":10001}}`, 422, "CPU weight 10001"},
		{`{"limits":{"allowed_cpus":"3-1"}}`, 422, "allowed CPUs"},
		{`{"limits":{"io_weight":10001}}`, 422, "IO weight 10001"},
		{`{"limits":{"io_max":"/dev/none rbps=1M"}}`, 422, "/dev/none is no disk of this host"},
		{`{"limits":{"io_max":"rbps=1M"}}`, 422, "want a device and its limits"},
		{`{"limits":{"io_max":5}}`, 400, "limits.io_max is 5, want a text"},
		{`{"limits":{"memory_max":1000000}}`, 422, "at least 33554432 bytes"},
		{`{"limits":{"tasks_max":1` + strings.Repeat(" ", 64<<10) + `}}`, 413, "65536 bytes"},
	} {
		s.ask("PATCH", "/api/v1/workers/0", c.body, "Content-Type", mergePatch).wantProblem(t, c.status, c.detail)
	}
	r := s.ask("PATCH", "/api/v1/workers/0", `{"limits":{"tasks_max":1}}`, "Content-Type", "text/plain")
	r.wantProblem(t, 415, mergePatch)
	if got := r.Header.Get("Accept-Patch"); got != "application/merge-patch+json, application/json" {
		t.Errorf("Accept-Patch %q", got)
	}
	s.ask("PATCH", "/api/v1/workers/0", `{"limits":{"tasks_max":1}}`, "Content-Type", mergePatch, "Sec-Fetch-Site", "cross-site").
		wantProblem(t, 403, "another origin")
	s.ask("PATCH", "/api/v1/workers/7", `{"limits":{"tasks_max":1}}`, "Content-Type", mergePatch).wantProblem(t, 404, "No such worker")
	if h.workers[0].Limits != before {
		t.Errorf("limits are now %+v", h.workers[0].Limits)
	}
}

func TestHostRefusesLimits(t *testing.T) {
	for _, c := range []struct {
		err    error
		status int
		detail string
	}{
		{fmt.Errorf("worker 0: a plain process has no cgroup: %w", errors.ErrUnsupported), 409, "there is no such limit: worker 0: a plain process has no cgroup"},
		{fmt.Errorf("worker 0 is backoff: %w", agent.ErrNotReady), 409, "worker 0 is backoff"},
		{errors.Join(errors.New("one"), errors.New("two")), 409, "did not take the limits: one; two."},
		{agent.ErrNoWorker, 404, "No such worker"},
	} {
		h := &host{workers: []agent.Worker{{ID: "0"}}, refuse: c.err}
		open(t, front.Config{Host: h}).ask("PATCH", "/api/v1/workers/0", `{"limits":{"tasks_max":9}}`, "Content-Type", mergePatch).
			wantProblem(t, c.status, c.detail)
	}
}

// slowHost takes its time over a change of limits.
type slowHost struct {
	*host
	entered, leave chan struct{}
}

func (h slowHost) SetLimits(id string, l cgroups.Limits) error {
	h.entered <- struct{}{}
	<-h.leave
	return h.host.SetLimits(id, l)
}

// Of two changes at a time one is sent back: it would undo the other.
func TestChangesOfLimitsTakeTurns(t *testing.T) {
	h := slowHost{&host{workers: []agent.Worker{{ID: "0"}}}, make(chan struct{}), make(chan struct{})}
	s := open(t, front.Config{Host: h})
	change := func(body string) reply { return s.ask("PATCH", "/api/v1/workers/0", body, "Content-Type", mergePatch) }
	first := make(chan reply)
	go func() { first <- change(`{"limits":{"tasks_max":9}}`) }()
	<-h.entered
	r := change(`{"limits":{"cpu_weight":9}}`)
	r.wantProblem(t, 503, "another client")
	r.wantRetry(t)
	close(h.leave)
	if r := <-first; r.StatusCode != 200 {
		t.Errorf("first: %d %s", r.StatusCode, r.body)
	}
	go func() { <-h.entered }()
	got := decode[agent.Worker](t, change(`{"limits":{"cpu_weight":9}}`))
	if want := (cgroups.Limits{TasksMax: 9, CPUWeight: 9}); got.Limits != want {
		t.Errorf("%+v, want %+v", got.Limits, want)
	}
}

func FuzzLimits(f *testing.F) {
	for _, seed := range []string{`{"limits":{"memory_max":1}}`, `{"limits":{"allowed_cpus":"0-1"}}`, `{"limits":{"x":null}}`, `[]`, `{"limits":{"cpu_weight":1e2}}`} {
		f.Add(seed)
	}
	h := &host{workers: []agent.Worker{{ID: "0"}}}
	fr, err := front.New(front.Config{Host: h})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, body string) {
		status := patch(fr, body)
		if status == 200 && !json.Valid([]byte(body)) {
			t.Errorf("took %q", body)
		}
		if err := h.workers[0].Limits.Check(); err != nil {
			t.Errorf("%q came through: %v", body, err)
		}
	})
}

func patch(h http.Handler, body string) int {
	r := httptest.NewRequest("PATCH", "/api/v1/workers/0", strings.NewReader(body))
	r.Header.Set("Content-Type", mergePatch)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Code
}
