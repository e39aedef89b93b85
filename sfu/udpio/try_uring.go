package udpio

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sfu-agent/sfu-agent/sfu/udpio/internal/uring"
)

// A UringCause is what stands in the way of io_uring.
type UringCause string

// The causes.
const (
	UringSeccomp UringCause = "seccomp"      // a filter answers calls with an errno
	UringKill    UringCause = "seccomp-kill" // a filter ends who makes a call
	UringKernel  UringCause = "kernel"       // has none, or one that is too old
	UringSysctl  UringCause = "sysctl"       // kernel.io_uring_disabled
	UringLSM     UringCause = "lsm"          // SELinux and the like
	UringOpcode  UringCause = "opcode"       // IORING_OP_SENDMSG is refused
	UringMemory  UringCause = "memory"       // RLIMIT_MEMLOCK or the cgroup's memory
	UringFiles   UringCause = "files"        // RLIMIT_NOFILE
	UringUnknown UringCause = "unknown"
)

// A UringError is why io_uring is not used. It wraps errors.ErrUnsupported
// unless that may change by itself.
type UringError struct {
	Cause  UringCause
	Remedy string // what the operator can do
	Err    error  // what was tried, and the errno
}

func (e *UringError) Error() string { return fmt.Sprintf("io_uring: %s: %v", e.Cause, e.Err) }

// Unwrap returns Err, and errors.ErrUnsupported where the cause is one to stay.
func (e *UringError) Unwrap() []error {
	switch e.Cause {
	case UringMemory, UringFiles, UringUnknown:
		return []error{e.Err}
	}
	return []error{errors.ErrUnsupported, e.Err}
}

const (
	remedyUringSeccomp = "a seccomp profile blocks io_uring: allow io_uring_setup and io_uring_enter in it " +
		"(docker --security-opt seccomp=FILE; Kubernetes seccompProfile Localhost); not required, rung gso is as fast"
	remedyUringLSM    = "a security module (SELinux, AppArmor) denies io_uring; not required, rung gso is as fast"
	remedyUringKernel = "needs Linux 5.11 with io_uring; not required, rung gso is as fast"
)

// uringHost is what is known of the host besides what the calls answer. It
// serves to name a cause, never to find out whether io_uring works.
type uringHost struct {
	disabled string // kernel.io_uring_disabled (Linux 6.6): "0", "1", "2", or "" where there is none
	filtered bool   // this thread is under a seccomp filter
	files    uint64 // RLIMIT_NOFILE
}

func thisUringHost() uringHost {
	h := uringHost{filtered: filtered()}
	text, err := os.ReadFile("/proc/sys/kernel/io_uring_disabled")
	switch {
	case err == nil:
		h.disabled = strings.TrimSpace(string(text))
	case !errors.Is(err, fs.ErrNotExist):
		h.disabled = "unknown" // though there: too many files are open, for one
	}
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) == nil {
		h.files = limit.Cur
	}
	return h
}

// filtered reports whether a seccomp filter may be on.
func filtered() bool {
	mode, err := unix.PrctlRetInt(unix.PR_GET_SECCOMP, 0, 0, 0, 0)
	return err != nil || mode != unix.SECCOMP_MODE_DISABLED
}

// explain names what an error from trying io_uring comes from.
func (h uringHost) explain(err error) *UringError {
	e := &UringError{Cause: UringUnknown, Remedy: "see the error; not required, rung gso is as fast", Err: err}
	failed, _ := errors.AsType[*uring.Error](err)
	switch {
	case errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE):
		e.Cause, e.Remedy = UringFiles, fmt.Sprintf("raise LimitNOFILE (now %d)", h.files)
	case errors.Is(err, unix.ENOMEM):
		e.Cause, e.Remedy = UringMemory, "raise LimitMEMLOCK, or the memory limit of the cgroup"
	case failed == nil:
	case failed.Step == uring.Enter, failed.Step == uring.Setup:
		e.Cause, e.Remedy = h.refusal(failed)
	case failed.Step == uring.Features:
		e.Cause, e.Remedy = UringKernel, remedyUringKernel
	case failed.Step == uring.Map && failed.Errno == unix.EACCES:
		e.Cause, e.Remedy = UringLSM, remedyUringLSM
	case failed.Step == uring.Sendmsg && (failed.Errno == unix.EACCES || refusesTrain(failed.Errno)):
		e.Cause, e.Remedy = UringOpcode, remedyUringKernel
	}
	return e
}

// refusal names who refuses io_uring_enter or io_uring_setup. The sysctl and
// security modules refuse only the second.
func (h uringHost) refusal(failed *uring.Error) (UringCause, string) {
	setup := failed.Step == uring.Setup
	switch {
	case setup && failed.Errno == unix.EPERM && h.disabled == "2":
		return UringSysctl, "the host turned io_uring off (kernel.io_uring_disabled=2), which a container cannot change; not required, rung gso is as fast"
	case setup && failed.Errno == unix.EPERM && h.disabled == "1":
		return UringSysctl, "kernel.io_uring_disabled=1: needs CAP_SYS_ADMIN, or a group of this process as kernel.io_uring_group; not required, rung gso is as fast"
	case setup && failed.Errno == unix.EACCES:
		return UringLSM, remedyUringLSM
	case setup && failed.Errno == unix.EINVAL:
		return UringKernel, remedyUringKernel
	case !setup && failed.Errno == unix.ENOSYS && h.disabled == "" && h.filtered:
		return UringKernel, remedyUringKernel + "; or " + remedyUringSeccomp
	case !setup && failed.Errno == unix.ENOSYS && h.disabled == "":
		return UringKernel, remedyUringKernel
	}
	return UringSeccomp, remedyUringSeccomp
}

// TryUring makes every call that Prober.HaveUring makes, and tells nothing of
// the answers. It is the whole of the command that Prober.Child names, and turns
// off the core dump of this process, whose end may be what it finds out.
func TryUring() {
	unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
	tryUring()
}

// tryUring sends a datagram and a train through a ring over loopback, and
// compares what arrives.
func tryUring() error {
	host := thisUringHost()
	err := uring.Have()
	if err == nil {
		err = sendByUring()
	}
	if err != nil {
		return host.explain(err)
	}
	return nil
}

func sendByUring() error {
	from, to, err := loopback()
	if err != nil {
		return err
	}
	defer from.close()
	defer to.close()
	e, err := openUring(from)
	if err != nil {
		return err
	}
	defer e.(*uringEngine).close()
	for _, parts := range [][][]byte{trainParts()[:1], trainParts()} {
		err := sendParts(e, from, to, parts)
		if errno, ok := errors.AsType[unix.Errno](err); ok && !errors.Is(err, errLost) {
			return &uring.Error{Step: uring.Sendmsg, Errno: errno}
		} else if err != nil {
			return err
		}
		if err := receiveParts(to, parts); err != nil {
			return err
		}
	}
	return nil
}

// uringChildLimit bounds the life of a child that tries.
const uringChildLimit = 2 * time.Second

// uringReturns finds out, by a child, whether io_uring calls return: a seccomp
// filter may end the one who makes them.
func uringReturns(child []string) error {
	switch {
	case !filtered():
		return nil
	case len(child) == 0:
		return &UringError{UringUnknown, remedyUringSeccomp, errors.New("a seccomp filter is on, which may end who tries")}
	}
	return letTry(child)
}

// letTry runs a child that tries, and returns an error unless it comes back.
func letTry(child []string) error {
	ctx, cancel := context.WithTimeout(context.Background(), uringChildLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, child[0], child[1:]...)
	cmd.Env = append(os.Environ(), "GOTRACEBACK=none")
	cmd.WaitDelay = uringChildLimit
	var stderr bytes.Buffer // of Go's runtime, a few lines
	cmd.Stderr = &stderr
	err := cmd.Run()
	if err == nil {
		return nil
	}
	err = fmt.Errorf("a child that tries: %w", errors.Join(ctx.Err(), err))
	exit, ran := errors.AsType[*exec.ExitError](err)
	if !ran {
		return thisUringHost().explain(err)
	}
	e := &UringError{UringUnknown, remedyUringSeccomp, err}
	if exit.Sys().(syscall.WaitStatus).Signal() == unix.SIGSYS || bytes.Contains(stderr.Bytes(), []byte("SIGSYS")) {
		e.Cause = UringKill // the second by SECCOMP_RET_TRAP
	}
	return e
}
