package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/sfu-agent/sfu-agent/cgroups"
	"github.com/sfu-agent/sfu-agent/dbusx"
	"github.com/sfu-agent/sfu-agent/dbusx/systemd1"
	"github.com/sfu-agent/sfu-agent/sfu/udpio"
)

// probeLimit bounds a whole probe.
const probeLimit = 10 * time.Second

// hostReport is the answer of sfu-agent probe and of GET /api/v1/probe.
type hostReport struct {
	Version      string       `json:"version"`
	Kernel       string       `json:"kernel"`
	Arch         string       `json:"arch"`
	CPUs         int          `json:"cpus"`
	User         int          `json:"uid"`
	Placer       string       `json:"placer,omitempty"` // the running agent's
	PlacerWhy    string       `json:"placer_why,omitempty"`
	Rungs        []string     `json:"rungs"` // what --rung takes besides auto, the best first
	Capabilities []capability `json:"capabilities"`
}

// capability is one thing that was tried.
type capability struct {
	Area    string `json:"area"`
	Name    string `json:"name"`
	Verdict string `json:"verdict"` // "yes", "no", "unknown"
	Tried   string `json:"tried"`
	Detail  string `json:"detail,omitempty"`
	Remedy  string `json:"remedy,omitempty"`
}

func probeCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "probe",
		Short: "Try what this host can do, and say what to change",
		Long: `Try, and not guess from version numbers, what this host gives to workers:
UDP send and receive paths, cgroups, D-Bus and systemd. Nothing stays changed.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			report := probeHost(cmd.Context(), nil)
			if asJSON {
				enc := json.NewEncoder(cmd.OutOrStdout())
				enc.SetIndent("", "  ")
				return enc.Encode(report)
			}
			return report.print(cmd.OutOrStdout())
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// probeHost tries everything; placer is the running agent's, nil outside one.
func probeHost(ctx context.Context, placer *chosenPlacer) hostReport {
	ctx, cancel := context.WithTimeout(ctx, probeLimit)
	defer cancel()
	r := hostReport{Version: version(), Kernel: kernel(), Arch: runtime.GOARCH, CPUs: runtime.NumCPU(), User: os.Geteuid(), Rungs: udpio.Rungs()}
	if placer != nil {
		r.Placer, r.PlacerWhy = placer.name, placer.why
	}
	r.Capabilities = append([]capability{probeSystemd(ctx)}, probeCgroups()...)
	for _, c := range udpio.Probe(ctx) {
		r.Capabilities = append(r.Capabilities, capability{
			Area: "udp", Name: c.Name, Verdict: string(c.Verdict), Tried: c.Tried, Detail: c.Cause, Remedy: c.Remedy,
		})
	}
	return r
}

func probeSystemd(ctx context.Context) capability {
	c := capability{Area: "systemd", Name: "scopes", Tried: "asked systemd for its version over D-Bus", Verdict: "no"}
	bus, err := dbusx.Open(ctx, dbusx.Options{})
	if err != nil {
		c.Detail = oneLine(err)
		c.Remedy = "boot with systemd and D-Bus to keep workers over restarts of the agent; not required"
		return c
	}
	defer bus.Close()
	systemd := systemd1.New(bus, systemd1.Options{})
	defer systemd.Close()
	version, err := systemd.Version(ctx)
	if err != nil {
		c.Verdict, c.Detail = "unknown", err.Error()
		return c
	}
	c.Verdict, c.Detail = "yes", "systemd "+version
	return c
}

func probeCgroups() []capability {
	const area, read = "cgroups", "read mountinfo and the cgroup of this process"
	host, err := cgroups.Detect()
	if err != nil {
		return []capability{{Area: area, Name: "cgroup v2", Verdict: "unknown", Tried: read, Detail: err.Error()}}
	}
	unified := verdict(area, "cgroup v2", read, host.Unified())
	unified.Remedy = "boot with systemd.unified_cgroup_hierarchy=1 for limits per worker"
	all := []capability{unified}
	for _, controller := range []string{"cpu", "cpuset", "memory", "pids", "io"} {
		c := verdict(area, controller+" controller", "read cgroup.controllers", host.HaveController(controller))
		c.Remedy = "without it that limit of a worker has no effect; on a v1 or hybrid host boot with systemd.unified_cgroup_hierarchy=1"
		all = append(all, c)
	}
	delegated := verdict(area, "delegated cgroup", "made and removed a cgroup below our own", host.Own.Delegated())
	delegated.Remedy = "Delegate=yes in the agent's unit lets it place workers without D-Bus; not required"
	return append(all, delegated)
}

// verdict is a probe's error in the three words.
func verdict(area, name, tried string, err error) capability {
	c := capability{Area: area, Name: name, Verdict: "yes", Tried: tried}
	if err != nil {
		c.Verdict, c.Detail = "unknown", oneLine(err)
	}
	for _, conclusive := range []error{errors.ErrUnsupported, cgroups.ErrNoUnified, cgroups.ErrNotDelegated} {
		if errors.Is(err, conclusive) {
			c.Verdict = "no"
		}
	}
	return c
}

func kernel() string {
	var u syscall.Utsname
	if syscall.Uname(&u) != nil {
		return ""
	}
	var b strings.Builder
	for _, c := range u.Release {
		if c == 0 {
			break
		}
		b.WriteByte(byte(c))
	}
	return b.String()
}

func (r hostReport) print(w io.Writer) error {
	fmt.Fprintf(w, "sfu-agent %s on Linux %s, %s, %d CPUs, uid %d\n\n", r.Version, r.Kernel, r.Arch, r.CPUs, r.User)
	table := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(table, "AREA\tCAPABILITY\tVERDICT\tDETAIL")
	for _, c := range r.Capabilities {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", c.Area, c.Name, c.Verdict, c.Detail)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(w, "\nRungs to send UDP by, the best first: %s\n", strings.Join(r.Rungs, ", "))
	for _, c := range r.lacking() {
		fmt.Fprintf(w, "\n%s: %s\n", c.Name, c.Remedy)
	}
	return nil
}

// lacking is what is not there and has a remedy, one line for each remedy.
func (r hostReport) lacking() (all []capability) {
	for _, c := range r.Capabilities {
		if c.Verdict == "yes" || c.Remedy == "" {
			continue
		}
		same := slices.IndexFunc(all, func(o capability) bool { return o.Remedy == c.Remedy })
		if same < 0 {
			all = append(all, c)
			continue
		}
		all[same].Name += ", " + c.Name
	}
	return all
}
