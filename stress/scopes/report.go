package scopes

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/sfu-agent/sfu-agent/dbusx"
	"github.com/sfu-agent/sfu-agent/dbusx/systemd1"
)

// Report is what came of a Run.
type Report struct {
	Client        string         `json:"client"`
	Fault         string         `json:"fault"`
	Parallel      int            `json:"parallel"`
	Cycles        int            `json:"cycles"`
	Failures      int            `json:"failures"`
	FailuresBy    map[string]int `json:"failures_by_kind,omitempty"`
	Hangs         int            `json:"hangs"`
	WrongAnswers  int            `json:"wrong_answers"`
	WrongBy       map[string]int `json:"wrong_answers_by_kind,omitempty"`
	Leftovers     int            `json:"leftovers"`
	LeftoverNames []string       `json:"leftover_names,omitempty"`
	Rate          float64        `json:"rate"` // cycles per second
	StartMS       Percentiles    `json:"start_ms"`
	StopMS        Percentiles    `json:"stop_ms"`
	RecoveryMaxMS float64        `json:"recovery_max_ms"`       // from the end of a fault to the first start
	FaultBroke    string         `json:"fault_broke,omitempty"` // why the fault ended before the run
	Notes         []string       `json:"notes,omitempty"`

	mu            sync.Mutex
	starts, stops *hdrhistogram.Histogram // microseconds
}

// Percentiles of a duration in milliseconds.
type Percentiles struct {
	P50 float64 `json:"p50"`
	P99 float64 `json:"p99"`
	Max float64 `json:"max"`
}

func newReport(cfg Config) *Report {
	histogram := func() *hdrhistogram.Histogram { return hdrhistogram.New(1, int64(5*time.Minute/time.Microsecond), 3) }
	return &Report{
		Client: cfg.Client, Fault: cfg.Fault, Parallel: cfg.Parallel,
		FailuresBy: map[string]int{}, WrongBy: map[string]int{}, starts: histogram(), stops: histogram(),
	}
}

// Bad says why a run of our own client is not good; nil when it is.
func (r *Report) Bad() error {
	var bad []error
	for _, c := range []struct {
		n    int
		what string
	}{{r.Failures, "failures"}, {r.Hangs, "hangs"}, {r.WrongAnswers, "wrong answers"}, {r.Leftovers, "leftovers"}} {
		if c.n > 0 {
			bad = append(bad, fmt.Errorf("%d %s", c.n, c.what))
		}
	}
	if r.Cycles == 0 {
		bad = append(bad, errors.New("no cycle was done"))
	}
	if r.FaultBroke != "" {
		bad = append(bad, fmt.Errorf("the fault broke off: %s", r.FaultBroke))
	}
	return errors.Join(bad...)
}

func (r *Report) locked(do func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	do()
}

func (r *Report) start(took time.Duration) {
	r.locked(func() { r.Cycles++; r.starts.RecordValue(took.Microseconds()) })
}

func (r *Report) startFailed(took time.Duration, err error) {
	r.start(took)
	r.fail("start: " + kind(err))
}

func (r *Report) stop(took time.Duration, err error) {
	r.locked(func() { r.stops.RecordValue(took.Microseconds()) })
	if err != nil {
		r.fail("stop: " + kind(err))
	}
}

func (r *Report) fail(kind string)  { r.locked(func() { r.Failures++; r.FailuresBy[kind]++ }) }
func (r *Report) wrong(kind string) { r.locked(func() { r.WrongAnswers++; r.WrongBy[kind]++ }) }
func (r *Report) hang()             { r.locked(func() { r.Hangs++ }) }
func (r *Report) note(text string)  { r.locked(func() { r.Notes = append(r.Notes, text) }) }

func (r *Report) recovery(took time.Duration) {
	r.locked(func() { r.RecoveryMaxMS = max(r.RecoveryMaxMS, float64(took.Microseconds())/1000) })
}

func (r *Report) elapsed(took time.Duration) {
	r.locked(func() {
		r.Rate = float64(r.Cycles) / took.Seconds()
		r.StartMS, r.StopMS = percentiles(r.starts), percentiles(r.stops)
	})
}

func percentiles(h *hdrhistogram.Histogram) Percentiles {
	ms := func(us int64) float64 { return float64(us) / 1000 }
	return Percentiles{ms(h.ValueAtQuantile(50)), ms(h.ValueAtQuantile(99)), ms(h.Max())}
}

// kind is an error without what differs from one to the next.
func kind(err error) string {
	for _, known := range []error{
		context.DeadlineExceeded, dbusx.ErrTimeout, dbusx.ErrLost, dbusx.ErrLimits, dbusx.ErrConnect,
		systemd1.ErrExists, systemd1.ErrProcessGone, systemd1.ErrProperty, errNoReply,
	} {
		if errors.Is(err, known) {
			return known.Error()
		}
	}
	text := err.Error()
	if i := strings.Index(text, unitPrefix); i >= 0 {
		end := strings.IndexByte(text[i:], ' ')
		if end < 0 {
			end = len(text) - i
		}
		text = text[:i] + "UNIT" + text[i+end:]
	}
	return text
}

// census is what this process holds.
type census struct{ goroutines, fds int }

func countFDs() int {
	entries, _ := os.ReadDir("/proc/self/fd")
	return len(entries)
}

// leftovers closes the client and lists what is still there a while later.
func (r *churn) leftovers(before census) ([]string, error) {
	if err := r.client.close(); err != nil {
		r.report.note("close: " + err.Error())
	}
	var left []string
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	until(10*time.Second, func() bool {
		var err error
		if left, err = r.unitsLeft(ctx); err != nil {
			left = []string{"units not listed: " + err.Error()}
		}
		return len(left) == 0
	})
	if r.report.Hangs == 0 {
		r.hung.Wait()
		until(2*time.Second, func() bool { return runtime.NumGoroutine() <= before.goroutines && countFDs() <= before.fds })
	}
	if n := runtime.NumGoroutine() - before.goroutines; n > 0 {
		left = append(left, fmt.Sprintf("%d goroutines", n))
	}
	if n := countFDs() - before.fds; n > 0 {
		left = append(left, fmt.Sprintf("%d file descriptors", n))
	}
	return left, nil
}

// unitsLeft asks systemd, and looks at the cgroups themselves.
func (r *churn) unitsLeft(ctx context.Context) ([]string, error) {
	bus, err := dbusx.Open(ctx, dbusx.Options{})
	if err != nil {
		return nil, err
	}
	defer bus.Close()
	systemd := systemd1.New(bus, systemd1.Options{})
	defer systemd.Close()
	units, err := systemd.List(ctx, r.prefix+"-*")
	if err != nil {
		return nil, err
	}
	left := map[string]bool{}
	for _, u := range units {
		left[u.Name] = true
	}
	for _, root := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		dirs, _ := filepath.Glob(filepath.Join(root, slice, r.prefix+"-*"))
		for _, dir := range dirs {
			left[filepath.Base(dir)] = true
		}
	}
	return slices.Sorted(maps.Keys(left)), nil
}

// Print writes a table of reports.
func Print(w io.Writer, reports []*Report) error {
	table := tabwriter.NewWriter(w, 0, 8, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "client\tfault\tparallel\tcycles\tfailures\thangs\twrong\tleftovers\trate/s\tstart p50\tp99\tmax ms\tstop p50\tp99\tmax ms\trecovery ms\t")
	for _, r := range reports {
		fmt.Fprintf(table, "%s\t%s\t%d\t%d\t%d\t%d\t%d\t%d\t%.0f\t%.1f\t%.1f\t%.0f\t%.1f\t%.1f\t%.0f\t%.0f\t\n",
			r.Client, r.Fault, r.Parallel, r.Cycles, r.Failures, r.Hangs, r.WrongAnswers, r.Leftovers, r.Rate,
			r.StartMS.P50, r.StartMS.P99, r.StartMS.Max, r.StopMS.P50, r.StopMS.P99, r.StopMS.Max, r.RecoveryMaxMS)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	for _, r := range reports {
		for _, by := range []map[string]int{r.FailuresBy, r.WrongBy} {
			for _, kind := range slices.Sorted(maps.Keys(by)) {
				fmt.Fprintf(w, "  %s, %s: %d x %s\n", r.Client, r.Fault, by[kind], kind)
			}
		}
		for _, line := range slices.Concat(some(r.LeftoverNames), r.Notes) {
			fmt.Fprintf(w, "  %s, %s: %.200s\n", r.Client, r.Fault, line)
		}
	}
	return nil
}

// some are the first few of many names.
func some(names []string) []string {
	const few = 5
	if len(names) <= few {
		return names
	}
	return append(slices.Clone(names[:few]), fmt.Sprintf("and %d more", len(names)-few))
}
