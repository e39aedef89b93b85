package main_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sfu-agent/sfu-agent/agent/control"
	"github.com/sfu-agent/sfu-agent/internal/testenv"
	"github.com/sfu-agent/sfu-agent/sfu/udpio"
	"github.com/sfu-agent/sfu-agent/stress/rtcclient"
)

// uringCalls are all of io_uring.
var uringCalls = []uintptr{unix.SYS_IO_URING_SETUP, unix.SYS_IO_URING_ENTER, unix.SYS_IO_URING_REGISTER}

const nobody = 65534

// A profile is what may stand in the way of io_uring, and what is then said of
// it: why --rung uring is not what it asks for, and the cause and the remedy in
// the words of probe. All are empty where nothing stands in the way.
type profile struct {
	confined
	why, cause, remedy string
}

var profiles = map[string]profile{
	"open": {},
	"seccomp EPERM": {confined{Calls: uringCalls, Answer: unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)},
		"io_uring: seccomp: io_uring_enter: operation not permitted", "seccomp", "allow io_uring_setup and io_uring_enter"},
	"seccomp ENOSYS": {confined{Calls: uringCalls, Answer: unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)},
		"io_uring: seccomp: io_uring_enter: function not implemented", "seccomp", "allow io_uring_setup and io_uring_enter"},
	"seccomp KILL_PROCESS": {confined{Calls: uringCalls, Answer: unix.SECCOMP_RET_KILL_PROCESS},
		"io_uring: seccomp-kill: a child that tries: signal: bad system call", "seccomp-kill", "allow io_uring_setup and io_uring_enter"},
	"seccomp KILL_THREAD": {confined{Calls: uringCalls, Answer: unix.SECCOMP_RET_KILL_THREAD},
		"io_uring: unknown: a child that tries: ", "unknown", "allow io_uring_setup and io_uring_enter"},
	"seccomp TRAP": {confined{Calls: uringCalls, Answer: unix.SECCOMP_RET_TRAP},
		"io_uring: seccomp-kill: a child that tries: ", "seccomp-kill", "allow io_uring_setup and io_uring_enter"},
	"seccomp on setup alone": {confined{Calls: []uintptr{unix.SYS_IO_URING_SETUP}, Answer: unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)},
		"io_uring: seccomp: io_uring_setup: operation not permitted", "seccomp", "allow io_uring_setup and io_uring_enter"},
	"seccomp on register alone": {confined: confined{Calls: []uintptr{unix.SYS_IO_URING_REGISTER}, Answer: unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)}},
	"memlock 64 KiB":            {confined: confined{Memlock: 64 << 10, UID: nobody}},
	"unprivileged user":         {confined: confined{UID: nobody}},
}

// TestUringProfiles starts workers under each of them, and has media flow.
func TestUringProfiles(t *testing.T) {
	requireUring(t)
	program := build(t)
	for name, p := range profiles {
		if _, err := os.Stat("/proc/sys/kernel/io_uring_disabled"); err != nil && name == "seccomp ENOSYS" {
			p.why, p.cause = strings.Replace(p.why, "seccomp", "kernel", 1), "kernel" // before Linux 6.6 it may be either
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p.test(t, program)
		})
	}
}

// requireUring wants a machine on which nothing stands in the way yet.
func requireUring(t *testing.T) {
	t.Helper()
	if err := new(udpio.Prober).HaveUring(); err != nil {
		testenv.Skip(t, "io_uring", err)
	}
}

// test starts a worker by each rung, and a probe.
func (p profile) test(t *testing.T, program string) {
	t.Run("auto", func(t *testing.T) {
		w := startWorker(t, p.command(t, program, workerArgs(t, "auto")...))
		w.media(t)
		w.stands(t, "gso", "")
	})
	t.Run("uring", func(t *testing.T) {
		w := startWorker(t, p.command(t, program, workerArgs(t, "uring")...))
		w.media(t)
		if p.why == "" {
			w.stands(t, "uring", "")
		} else {
			w.stands(t, "gso", "uring: "+p.why)
		}
	})
	t.Run("probe", func(t *testing.T) {
		began := time.Now()
		out, err := p.command(t, program, "probe", "--json").Output()
		if err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took > 15*time.Second { // 10 s, and some for a busy machine
			t.Errorf("took %s", took)
		}
		uringVerdict(t, out, p.cause, p.remedy)
		text, err := p.command(t, program, "probe").Output()
		if err != nil || !strings.Contains(string(text), p.remedy) {
			t.Errorf("%v: no %q in\n%s", err, p.remedy, text)
		}
	})
}

// TestUringAgent: what an agent tells of a worker that cannot have io_uring.
func TestUringAgent(t *testing.T) {
	requireUring(t)
	program, p := build(t), profiles["seccomp EPERM"]
	h := startBy(t, func(args ...string) *exec.Cmd { return p.command(t, program, args...) }, "--rung", "uring")
	h.publish(t)
	if udp := h.worker(t).Status.UDP; udp.Rung != "gso" || !strings.Contains(udp.Why, "uring: "+p.why) {
		t.Errorf("%+v", udp)
	}
	_, metrics := h.ask(t, "GET", "/metrics", "", "")
	if want := `sfu_worker_udp_info{rung="gso",why="uring: ` + p.why; !strings.Contains(metrics, want) {
		t.Errorf("no %s in\n%s", want, metrics)
	}
	_, report := h.ask(t, "GET", "/api/v1/probe", "", "")
	uringVerdict(t, []byte(report), p.cause, p.remedy)
	if log := h.log.String(); !strings.Contains(log, p.why) {
		t.Errorf("no %q in the log", p.why)
	}
}

// TestUringRefusedLater: a filter that comes while media flows costs a rung, and
// no packet.
func TestUringRefusedLater(t *testing.T) {
	requireUring(t)
	program := build(t)
	for name, c := range map[string]struct {
		rung  string
		calls []uintptr
		errno unix.Errno
		want  string
		why   string
	}{
		"uring EPERM":   {"uring", uringCalls, unix.EPERM, "gso", "uring: rung is lost: io_uring_enter: operation not permitted while sending"},
		"uring ENOSYS":  {"uring", uringCalls, unix.ENOSYS, "gso", "uring: rung is lost: io_uring_enter: function not implemented while sending"},
		"auto EPERM":    {"auto", []uintptr{unix.SYS_SENDMMSG}, unix.EPERM, "sendmsg-gso", "gso: operation not permitted while sending"},
		"both, EPERM":   {"uring", append([]uintptr{unix.SYS_SENDMMSG}, uringCalls...), unix.EPERM, "sendmsg-gso", "operation not permitted while sending"},
		"uring, no fd":  {"uring", uringCalls, unix.EBADF, "gso", "uring: rung is lost: io_uring_enter: bad file descriptor while sending"},
		"uring, memory": {"uring", uringCalls, unix.ENOMEM, "gso", "uring: rung is lost: io_uring_enter: cannot allocate memory while sending"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := confined{Calls: c.calls, Answer: unix.SECCOMP_RET_USER_NOTIF}
			cmd := p.command(t, program, workerArgs(t, c.rung)...)
			w := newWorkerProcess(t, cmd)
			overseer := startOverseen(t, cmd)
			w.ready(t)
			w.mediaWith(t, func() { overseer.refuse(t, c.errno) })
			w.stands(t, c.want, c.why)
			if !strings.Contains(w.log.String(), "UDP send path demoted") {
				t.Error("the log does not tell")
			}
		})
	}
}

// TestUringOpcodeMissing: to a kernel without IORING_OP_SENDMSG the opcode is
// one of those that it does not know.
func TestUringOpcodeMissing(t *testing.T) {
	requireUring(t)
	program := build(t)
	const cause, remedy = "opcode", "needs Linux 5.11"
	p := confined{Calls: []uintptr{unix.SYS_IO_URING_ENTER}, Answer: unix.SECCOMP_RET_USER_NOTIF}
	t.Run("worker", func(t *testing.T) {
		cmd := p.command(t, program, workerArgs(t, "uring")...)
		w := newWorkerProcess(t, cmd)
		startOverseen(t, cmd, withoutSendmsg)
		w.ready(t)
		w.media(t)
		w.stands(t, "gso", "uring: io_uring: opcode: IORING_OP_SENDMSG: invalid argument")
	})
	t.Run("probe", func(t *testing.T) {
		cmd := p.command(t, program, "probe", "--json")
		var out bytes.Buffer
		cmd.Stdout = &out
		startOverseen(t, cmd, withoutSendmsg)
		if err := cmd.Wait(); err != nil {
			t.Fatal(err)
		}
		uringVerdict(t, out.Bytes(), cause, remedy)
	})
}

// TestUringFewFiles starts workers with ever more file descriptors. One that
// starts serves, by whatever rung; one that does not says why.
func TestUringFewFiles(t *testing.T) {
	requireUring(t)
	program := build(t)
	for _, rung := range []string{"auto", "uring"} {
		t.Run(rung, func(t *testing.T) {
			t.Parallel()
			for n := uint64(8); ; n++ { // with fewer Go's runtime does not start
				if n > 64 {
					t.Fatal("no worker started with 64 files")
				}
				w := newWorkerProcess(t, confined{Nofile: n}.command(t, program, workerArgs(t, rung)...))
				if err := w.cmd.Start(); err != nil {
					t.Fatal(err)
				}
				if !w.started(t) {
					if w.cmd.ProcessState.ExitCode() < 0 || !strings.Contains(w.log.String(), "too many open files") {
						t.Errorf("%d files: %s\n%s", n, w.cmd.ProcessState, w.log)
					}
					continue
				}
				if !w.serves(t) {
					w.stop(t)
					continue
				}
				w.media(t)
				s := w.status(t)
				w.stop(t)
				t.Logf("%d files: rung %s, why %q", n, s.UDP.Rung, s.UDP.Why)
				if s.UDP.Rung == "gso" && rung == "uring" && !strings.Contains(s.UDP.Why, "too many open files") {
					t.Errorf("rung %s, why %q", s.UDP.Rung, s.UDP.Why)
				}
				if s.UDP.Rung == rung || rung == "auto" {
					break
				}
			}
		})
	}
}

// uringVerdict wants a report of probe to name cause and remedy of io_uring.
func uringVerdict(t *testing.T, report []byte, cause, remedy string) {
	t.Helper()
	var r struct {
		Capabilities []struct{ Name, Verdict, Cause, Detail, Remedy string }
	}
	if err := json.Unmarshal(report, &r); err != nil {
		t.Fatal(err)
	}
	for _, c := range r.Capabilities {
		if c.Name != "io_uring" {
			continue
		}
		if c.Cause != cause || (c.Verdict == "yes") != (cause == "") || (c.Remedy == "") != (remedy == "") || !strings.Contains(c.Remedy, remedy) {
			t.Errorf("%+v, want cause %q and remedy %q", c, cause, remedy)
		}
		return
	}
	t.Errorf("no io_uring in %s", report)
}

// workerProcess is a worker alone.
type workerProcess struct {
	cmd     *exec.Cmd
	log     *syncBuffer
	control *control.Client
	http    *http.Client
	ended   chan struct{} // closed when the process is waited for
}

// workerArgs has the address of the control socket as the last one.
func workerArgs(t *testing.T, rung string) []string {
	t.Helper()
	return []string{"worker", "--rung", rung, "--udp", "127.0.0.1:" + strconv.Itoa(freeUDPPort(t)), "--control", confinedPath(t)}
}

func newWorkerProcess(t *testing.T, cmd *exec.Cmd) *workerProcess {
	t.Helper()
	socket := cmd.Args[len(cmd.Args)-1]
	w := &workerProcess{cmd: cmd, log: &syncBuffer{}, control: control.NewClient(socket),
		http: &http.Client{Transport: control.Transport(socket), Timeout: 15 * time.Second}, ended: make(chan struct{})}
	cmd.Stderr = w.log
	t.Cleanup(func() {
		w.http.CloseIdleConnections()
		w.control.Close()
		if t.Failed() {
			t.Logf("log:\n%s", w.log)
		}
	})
	return w
}

// startWorker starts a worker that is to be ready soon, until the test ends.
func startWorker(t *testing.T, cmd *exec.Cmd) *workerProcess {
	t.Helper()
	w := newWorkerProcess(t, cmd)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.ready(t)
	return w
}

func (w *workerProcess) ready(t *testing.T) {
	t.Helper()
	if !w.started(t) {
		t.Fatalf("worker ended: %s", w.cmd.ProcessState)
	}
}

// started waits until the worker of a process that was started is ready, and
// has it stopped when the test ends; or until it ended by itself.
func (w *workerProcess) started(t *testing.T) (ready bool) {
	t.Helper()
	go func() { w.cmd.Wait(); close(w.ended) }()
	t.Cleanup(func() { w.stop(t) })
	eventually(t, 15*time.Second, "the worker is ready or gone", func() bool {
		select {
		case <-w.ended:
			return true
		default:
		}
		s, err := w.control.Status(t.Context())
		ready = err == nil && s.State == control.StateReady
		return ready
	})
	return ready
}

// stop ends a worker that runs, which has to do so by itself.
func (w *workerProcess) stop(t *testing.T) {
	select {
	case <-w.ended:
		return
	default:
	}
	w.cmd.Process.Signal(syscall.SIGTERM)
	limit := time.AfterFunc(15*time.Second, func() { w.cmd.Process.Kill() })
	defer limit.Stop()
	<-w.ended
	if !w.cmd.ProcessState.Success() {
		t.Errorf("worker ended with %s", w.cmd.ProcessState)
	}
}

// serves tells whether the worker has files enough for a publisher. It says so
// where it can.
func (w *workerProcess) serves(t *testing.T) bool {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	p, err := rtcclient.Publish(ctx, rtcclient.Config{URL: "http://worker/whip/try", HTTP: w.http})
	if err == nil {
		return p.Close(ctx) == nil
	}
	if !errors.Is(err, context.DeadlineExceeded) && !strings.Contains(err.Error(), "too many open files") {
		t.Errorf("refused with %v", err)
	}
	return false
}

func (w *workerProcess) status(t *testing.T) control.Status {
	t.Helper()
	s, err := w.control.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// stands checks by which rung the worker sends, and what it says why. An empty
// why is to be empty.
func (w *workerProcess) stands(t *testing.T, rung, why string) {
	t.Helper()
	if udp := w.status(t).UDP; udp.Rung != rung || (udp.Why == "") != (why == "") || !strings.Contains(udp.Why, why) {
		t.Errorf("rung %q, why %q; want %q and %q", udp.Rung, udp.Why, rung, why)
	}
}

func (w *workerProcess) media(t *testing.T) {
	t.Helper()
	w.mediaWith(t, func() {})
}

// mediaWith has a publisher and two viewers, and does something when half of the
// packets are there. None may be lost.
func (w *workerProcess) mediaWith(t *testing.T, halfway func()) {
	t.Helper()
	const packets = 600
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	publisher, err := rtcclient.Publish(ctx, rtcclient.Config{URL: "http://worker/whip/lobby", HTTP: w.http, Source: rtcclient.Source{Rate: 4_000_000}})
	if err != nil {
		t.Fatal(err)
	}
	defer publisher.Close(ctx)
	var viewers []*rtcclient.Viewer
	for range 2 {
		v, err := rtcclient.View(ctx, rtcclient.Config{URL: "http://worker/whep/lobby", HTTP: w.http})
		if err != nil {
			t.Fatal(err)
		}
		defer v.Close(ctx)
		viewers = append(viewers, v)
	}
	arrive := func(what string, n uint64) {
		t.Helper()
		for _, v := range viewers {
			eventually(t, 20*time.Second, what, func() bool { return v.Stats().Packets >= n })
		}
	}
	arrive("half of the media arrives", packets/2)
	halfway()
	before := viewers[0].Stats().Packets
	arrive("all media arrives", max(packets, before+packets/2))
	for i, v := range viewers {
		eventually(t, 5*time.Second, "nothing is missing for long", func() bool { return v.Stats().Missing == 0 })
		if s := v.Stats(); s.Lost != 0 || s.Streams != 2 {
			t.Errorf("viewer %d: %+v", i, s)
		}
	}
	for reason, n := range w.status(t).Counters.Drops {
		if n != 0 && reason != "no_key_frame" { // which a viewer waits for
			t.Errorf("%d packets dropped: %s", n, reason)
		}
	}
}
