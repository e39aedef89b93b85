package main

import (
	"github.com/spf13/cobra"

	"github.com/sfu-agent/sfu-agent/sfu/udpio"
)

// childCommand names the command that udpio has io_uring tried by, where a
// seccomp filter may kill who tries.
const childCommand = "try-io-uring"

// newProber has a Child.
func newProber() *udpio.Prober {
	return &udpio.Prober{Child: []string{ownProgram, childCommand}}
}

func tryUringCommand() *cobra.Command {
	return &cobra.Command{
		Use:    childCommand,
		Short:  "Try io_uring, and be killed where a seccomp filter says so",
		Hidden: true,
		Args:   cobra.NoArgs,
		Run:    func(*cobra.Command, []string) { udpio.TryUring() },
	}
}
