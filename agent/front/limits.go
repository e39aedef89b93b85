package front

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"mime"
	"net/http"
	"reflect"
	"slices"
	"strings"

	"github.com/sfu-agent/sfu-agent/agent"
	"github.com/sfu-agent/sfu-agent/cgroups"
)

const (
	limitsTypes = "application/merge-patch+json, application/json" // of a change, both RFC 7396
)

// limitsHandler changes a worker's limits for one client at a time: who names
// one limit keeps the others as they are, and so must see them.
func (f *Front) limitsHandler() http.HandlerFunc {
	one := newLimiter(1)
	return func(w http.ResponseWriter, r *http.Request) {
		if t, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); t != "application/json" && t != "application/merge-patch+json" {
			w.Header().Set("Accept-Patch", limitsTypes)
			writeProblem(w, problem{Status: http.StatusUnsupportedMediaType, Detail: "The body has to be one of " + limitsTypes + "."})
			return
		}
		body, p := readBody(w, r)
		if p != nil {
			writeProblem(w, *p)
			return
		}
		if !one.enter() {
			writeProblem(w, problem{Status: http.StatusServiceUnavailable, retry: 2,
				Detail: "Limits are being changed for another client; try again."})
			return
		}
		defer one.leave()
		id := r.PathValue("id")
		limits, p := f.changeLimits(id, body)
		if p != nil {
			writeProblem(w, *p)
			return
		}
		f.log.Info("worker's limits are changed on request", "worker", id, "limits", fmt.Sprintf("%+v", limits), "client", r.RemoteAddr)
		f.writeWorker(w, http.StatusOK, id)
	}
}

func (f *Front) changeLimits(id string, body []byte) (cgroups.Limits, *problem) {
	worker, ok := f.host.Worker(id)
	if !ok {
		return cgroups.Limits{}, &noWorker
	}
	limits, err := patchLimits(worker.Limits, body)
	if err != nil {
		return limits, &problem{Status: http.StatusBadRequest, Detail: "The change is not well formed: " + err.Error() + "."}
	}
	if err := checkLimits(limits); err != nil {
		return limits, &problem{Status: http.StatusUnprocessableEntity, Detail: "No worker can have these limits: " + err.Error() + "."}
	}
	if err := f.host.SetLimits(id, limits); err != nil {
		p := limitsRefusal(err)
		return limits, &p
	}
	return limits, nil
}

// patchLimits is now with what body, {"limits": {...}}, names of it: 0 and null
// take a limit away.
func patchLimits(now cgroups.Limits, body []byte) (cgroups.Limits, error) {
	var whole, change map[string]json.RawMessage
	if err := json.Unmarshal(body, &whole); err != nil {
		return now, fmt.Errorf(`want {"limits": {...}}: %w`, err)
	}
	for name := range whole {
		if name != "limits" {
			return now, fmt.Errorf("unknown field %q; only limits can be changed", name)
		}
	}
	if err := json.Unmarshal(whole["limits"], &change); err != nil || len(change) == 0 {
		return now, errors.New(`want {"limits": {...}} with one limit or more`)
	}
	fields := limitFields(&now)
	for _, name := range slices.Sorted(maps.Keys(change)) {
		field, ok := fields[name]
		if !ok {
			return now, fmt.Errorf("unknown field %q; limits are %s", "limits."+name, strings.Join(slices.Sorted(maps.Keys(fields)), ", "))
		}
		reflect.ValueOf(field).Elem().SetZero() // null leaves it so
		if err := json.Unmarshal(change[name], field); err != nil {
			return now, fmt.Errorf("limits.%s is %.40s, want %s", name, change[name], wanted(field))
		}
	}
	return now, nil
}

// limitFields are the limits by their exact JSON names.
func limitFields(l *cgroups.Limits) map[string]any {
	return map[string]any{
		"cpu_weight": &l.CPUWeight, "cpu_quota_percent": &l.CPUQuota, "allowed_cpus": &l.AllowedCPUs,
		"memory_high": &l.MemoryHigh, "memory_max": &l.MemoryMax, "tasks_max": &l.TasksMax,
		"io_weight": &l.IOWeight, "io_max": &l.IOMax,
	}
}

func wanted(field any) string {
	if _, ok := field.(*string); ok {
		return `a text, or "" for no limit`
	}
	return "a whole number, or 0 for no limit"
}

func checkLimits(l cgroups.Limits) error {
	if l.MemoryMax > 0 && l.MemoryMax < agent.MinMemoryMax {
		return fmt.Errorf("memory_max %d: a worker needs at least %d bytes", l.MemoryMax, agent.MinMemoryMax)
	}
	return l.Check()
}

// limitsRefusal is what the Host's error means to the client.
func limitsRefusal(err error) problem {
	words := strings.ReplaceAll(err.Error(), "\n", "; ")
	switch {
	case errors.Is(err, agent.ErrNoWorker), errors.Is(err, agent.ErrNotReady):
		return refusal(err)
	case errors.Is(err, errors.ErrUnsupported):
		return problem{Status: http.StatusConflict,
			Detail: "Where this worker is placed there is no such limit: " + words + ". Run the agent with --placer scope on a cgroup v2 host; GET /api/v1/probe says what is missing."}
	}
	return problem{Status: http.StatusConflict, Detail: "The host did not take the limits: " + words + "."}
}
