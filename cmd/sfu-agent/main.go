// Command sfu-agent runs WebRTC SFU workers on this host and fronts them with
// WHIP, WHEP and an API.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime/debug"

	"github.com/spf13/cobra"
)

func main() {
	root := &cobra.Command{
		Use:   "sfu-agent",
		Short: "Run WebRTC SFU workers on this host",
		Long: `sfu-agent runs WebRTC SFU workers on this host, each in a systemd scope, a
delegated cgroup or a plain process, and fronts them with WHIP, WHEP, an API
and a page.

  sfu-agent run       the agent: everything with an embedded default
  sfu-agent status    what a running agent's workers and rooms do
  sfu-agent probe     what this host can do, and what to change`,
		Version:       version(),
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return fmt.Errorf("%w (see '%s --help')", err, cmd.CommandPath())
	})
	root.AddCommand(runCommand(), workerCommand(), probeCommand(), statusCommand(), stressCommand(), tryUringCommand())
	err := root.ExecuteContext(context.Background())
	if err == nil {
		return
	}
	if !errors.Is(err, errSilent) {
		fmt.Fprintln(os.Stderr, "sfu-agent:", err)
	}
	os.Exit(1)
}

// errSilent ends the program with status 1 where all has been said.
var errSilent = errors.New("already reported")

// linkVersion is set at link time: -X main.linkVersion=v1.2.3.
var linkVersion string

func version() string {
	if linkVersion != "" {
		return linkVersion
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "devel"
}
