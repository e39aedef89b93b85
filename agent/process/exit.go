package process

import (
	"fmt"
	"syscall"

	"github.com/sfu-agent/sfu-agent/agent"
)

// exitOf translates the status of an ended process, nil where nobody told it.
func exitOf(status *syscall.WaitStatus) agent.Exit {
	if status == nil {
		return agent.Exit{Reason: agent.ReasonUnknown}
	}
	if status.Signaled() {
		return agent.Exit{Reason: agent.ReasonSignal, Signal: signalName(status.Signal())}
	}
	return agent.Exit{Reason: agent.ReasonExit, Code: status.ExitStatus()}
}

// signalName returns the name in signal(7); syscall.Signal has only descriptions.
func signalName(signal syscall.Signal) string {
	if name, ok := signalNames[signal]; ok {
		return name
	}
	return fmt.Sprintf("signal %d", int(signal))
}

var signalNames = map[syscall.Signal]string{
	syscall.SIGHUP: "SIGHUP", syscall.SIGINT: "SIGINT", syscall.SIGQUIT: "SIGQUIT", syscall.SIGILL: "SIGILL",
	syscall.SIGTRAP: "SIGTRAP", syscall.SIGABRT: "SIGABRT", syscall.SIGBUS: "SIGBUS", syscall.SIGFPE: "SIGFPE",
	syscall.SIGKILL: "SIGKILL", syscall.SIGUSR1: "SIGUSR1", syscall.SIGSEGV: "SIGSEGV", syscall.SIGUSR2: "SIGUSR2",
	syscall.SIGPIPE: "SIGPIPE", syscall.SIGALRM: "SIGALRM", syscall.SIGTERM: "SIGTERM", syscall.SIGSTKFLT: "SIGSTKFLT",
	syscall.SIGVTALRM: "SIGVTALRM", syscall.SIGPROF: "SIGPROF", syscall.SIGIO: "SIGIO",
	syscall.SIGXCPU: "SIGXCPU", syscall.SIGXFSZ: "SIGXFSZ", syscall.SIGPWR: "SIGPWR", syscall.SIGSYS: "SIGSYS",
}
