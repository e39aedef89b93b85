package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

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
	Rungs        []string     `json:"rungs"` // what --rung takes besides auto
	Facts        hostFacts    `json:"facts"`
	Capabilities []capability `json:"capabilities"`
	Bench        *rungBench   `json:"bench,omitempty"` // with --bench
}

// capability is one thing that was tried.
type capability struct {
	Area    string `json:"area"`
	Name    string `json:"name"`
	Verdict string `json:"verdict"` // "yes", "no", "unknown"
	Tried   string `json:"tried"`
	Cause   string `json:"cause,omitempty"`  // unless yes: one word for programs, where it is known
	Detail  string `json:"detail,omitempty"` // what was found, or what happened
	Remedy  string `json:"remedy,omitempty"` // unless yes: what the operator can do
}

func probeCommand() *cobra.Command {
	var asJSON, bench bool
	cmd := &cobra.Command{
		Use:   "probe",
		Short: "Try what this host can do, and say what to change",
		Long: `Try, and not guess from version numbers, what this host gives to workers: UDP
send and receive paths, io_uring, limits, cgroups, D-Bus and systemd, OCI
runtimes. It takes 10 seconds at most, and nothing stays changed.

With --bench it also measures what sending by each rung costs here, which takes
a few seconds more.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			report := probeHost(cmd.Context(), nil)
			if bench {
				measured, err := benchRungs(cmd.Context())
				if err != nil {
					return err
				}
				report.Bench = measured
			}
			if asJSON {
				enc := json.NewEncoder(cmd.OutOrStdout())
				enc.SetIndent("", "  ")
				return enc.Encode(report)
			}
			return report.print(cmd.OutOrStdout())
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().BoolVar(&bench, "bench", false, "also measure what sending costs here by each rung")
	return cmd
}

// probeHost tries everything, nearly all at once; placer is the running agent's,
// nil outside one.
func probeHost(ctx context.Context, placer *chosenPlacer) hostReport {
	ctx, cancel := context.WithTimeout(ctx, probeLimit)
	defer cancel()
	r := hostReport{Version: version(), Kernel: kernel(), Arch: runtime.GOARCH, CPUs: runtime.NumCPU(), User: os.Geteuid(),
		Rungs: udpio.Rungs(), Facts: readFacts(os.DirFS("/").(fs.ReadLinkFS))}
	if placer != nil {
		r.Placer, r.PlacerWhy = placer.name, placer.why
	}
	areas := []func(context.Context) []capability{probeUDP, probeCgroups, probeSystemd, probeRuntimes, probeContainerd}
	answers := make([][]capability, len(areas))
	var all sync.WaitGroup
	for i, probe := range areas {
		all.Go(func() { answers[i] = probe(ctx) })
	}
	all.Wait()
	r.Capabilities = append(slices.Concat(answers...), probeLimits()...) // at last: for a moment it takes what others need
	return r
}

func probeUDP(ctx context.Context) []capability {
	var found []capability
	for _, c := range newProber().Probe(ctx) {
		found = append(found, capability{
			Area: "udp", Name: c.Name, Verdict: string(c.Verdict), Tried: c.Tried, Cause: c.Cause,
			Detail: strings.ReplaceAll(c.Detail, "\n", "; "), Remedy: c.Remedy,
		})
	}
	return found
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
	fmt.Fprintf(w, "sfu-agent %s on Linux %s, %s, %d CPUs, uid %d\n%s\n\n", r.Version, r.Kernel, r.Arch, r.CPUs, r.User, r.Facts)
	table := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(table, "AREA\tCAPABILITY\tVERDICT\tTRIED\tFOUND")
	for _, c := range r.Capabilities {
		found := c.Detail
		if c.Verdict != "yes" {
			found = c.Cause // the rest stands below
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\n", c.Area, c.Name, c.Verdict, c.Tried, found)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(w, "\nRungs that --rung takes besides auto: %s\n", strings.Join(r.Rungs, ", "))
	if r.Bench != nil {
		if err := r.Bench.print(w); err != nil {
			return err
		}
	}
	for _, same := range r.lacking() {
		fmt.Fprintln(w)
		for _, c := range same {
			fmt.Fprintf(w, "%s: %s\n", c.Name, c.Detail)
		}
		if remedy := same[0].Remedy; remedy != "" {
			fmt.Fprintf(w, "  remedy: %s\n", remedy)
		}
	}
	return nil
}

// lacking is all that is not there, what has the same remedy together.
func (r hostReport) lacking() (all [][]capability) {
	for _, c := range r.Capabilities {
		if c.Verdict == "yes" {
			continue
		}
		same := slices.IndexFunc(all, func(o []capability) bool { return c.Remedy != "" && o[0].Remedy == c.Remedy })
		if same < 0 {
			all = append(all, []capability{c})
			continue
		}
		all[same] = append(all[same], c)
	}
	return all
}
