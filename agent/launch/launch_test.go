package launch_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sfu-agent/sfu-agent/agent/agenttest"
	"github.com/sfu-agent/sfu-agent/agent/launch"
)

func TestMain(m *testing.M) { agenttest.Main(m, agenttest.Subject{}) }

// newLauncher returns a Launcher whose goroutines and files must be gone at the test's end.
func newLauncher(t *testing.T) *launch.Launcher {
	before, files := goleak.IgnoreCurrent(), openFiles(t)
	launcher := launch.New()
	t.Cleanup(func() {
		launcher.Close()
		launcher.Close()
		goleak.VerifyNone(t, before)
		if now := openFiles(t); len(now) > len(files) {
			t.Errorf("open files %q, before %q", now, files)
		}
	})
	return launcher
}

// openFiles lists what this process has open, but for the runtime's own poller.
func openFiles(t *testing.T) (files []string) {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		target, err := os.Readlink("/proc/self/fd/" + entry.Name())
		if err == nil && target != "anon_inode:[eventpoll]" && target != "anon_inode:[eventfd]" {
			files = append(files, target)
		}
	}
	return files
}

func newSpec(t *testing.T, name string) launch.Spec {
	dir, err := os.MkdirTemp("", "sfu") // t.TempDir is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	spec := agenttest.NewSpec(name, dir)
	return launch.Spec{
		Name: name, Exe: "/proc/self/exe", Env: spec.Env, Socket: filepath.Join(dir, "s"),
		User: spec.User, Group: spec.Group,
	}
}

// start starts a worker that is killed at the test's end.
func start(t *testing.T, launcher *launch.Launcher, spec launch.Spec) *launch.Process {
	t.Helper()
	p, err := launcher.Start(spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Kill(); err != nil && !errors.Is(err, os.ErrClosed) {
			t.Error(err)
		}
		if _, err := wait(p); err != nil && !errors.Is(err, os.ErrClosed) {
			t.Error(err)
		}
	})
	return p
}

func wait(p *launch.Process) (*syscall.WaitStatus, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	return p.Wait(ctx)
}

func ask(t *testing.T, socket, command string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	answer, err := agenttest.Ask(ctx, socket, command)
	if err != nil {
		t.Fatal(err)
	}
	return answer
}

func info(t *testing.T, socket string) (info agenttest.Info) {
	t.Helper()
	if err := json.Unmarshal([]byte(ask(t, socket, "info")), &info); err != nil {
		t.Fatal(err)
	}
	return info
}

func TestWorkerHasWhatItNeedsAndNoMore(t *testing.T) {
	spec := newSpec(t, "has")
	p := start(t, newLauncher(t), spec)
	if err := errors.Join(p.Open(), p.Open()); err != nil {
		t.Fatal(err)
	}
	got := info(t, spec.Socket)
	if got.PID != p.PID() || got.Session != p.PID() || got.Dir != "/" || got.NoNewPrivs != "1" {
		t.Errorf("%+v", got)
	}
	if want := []string{"sfu-worker-has", "--gate-fd", "3", "--control-fd", "4"}; !slices.Equal(got.Args, want) {
		t.Errorf("arguments %q, want %q", got.Args, want)
	}
	if !slices.Equal(got.Env, spec.Env) {
		t.Errorf("environment %q, want %q", got.Env, spec.Env)
	}
	checkFiles(t, got.FDs)
	if mode := statMode(t, spec.Socket); mode != os.ModeSocket|0o600 {
		t.Errorf("socket has mode %v", mode)
	}
}

// checkFiles checks the worker's standard files, and that beside them it has
// nothing but the control socket, what its runtime opened, and what the test
// itself was started with.
func checkFiles(t *testing.T, files []string) {
	t.Helper()
	stderr, err := os.Readlink("/proc/self/fd/2")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		fd, target, _ := strings.Cut(file, " ")
		switch {
		case inheritable(t, fd, target):
		case fd == "0" && target == os.DevNull, fd == "1" && target == stderr, fd == "2" && target == stderr:
		case strings.HasPrefix(target, "socket:"), strings.HasPrefix(target, "anon_inode:["), strings.HasPrefix(target, "/proc/"), strings.HasPrefix(target, "/sys/fs/cgroup/"):
		default:
			t.Errorf("worker has file %s", file)
		}
	}
}

// inheritable says whether this process has the same file, not closed by exec(2).
func inheritable(t *testing.T, fd, target string) bool {
	t.Helper()
	own, _ := os.Readlink("/proc/self/fd/" + fd)
	number, err := strconv.Atoi(fd)
	if err != nil {
		t.Fatal(err)
	}
	flags, _, errno := syscall.Syscall(syscall.SYS_FCNTL, uintptr(number), syscall.F_GETFD, 0)
	return number > 2 && own == target && errno == 0 && flags&syscall.FD_CLOEXEC == 0
}

func statMode(t *testing.T, path string) os.FileMode {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Mode()
}

func TestRunsAsUser(t *testing.T) {
	spec := newSpec(t, "user")
	if os.Geteuid() == 0 {
		spec.User, spec.Group = 65534, 65533
	}
	p := start(t, newLauncher(t), spec)
	if err := p.Open(); err != nil {
		t.Fatal(err)
	}
	got := info(t, spec.Socket)
	if got.UID != int(spec.User) || got.GID != int(spec.Group) {
		t.Errorf("runs as %d:%d, want %d:%d", got.UID, got.GID, spec.User, spec.Group)
	}
	if os.Geteuid() == 0 && len(got.Groups) != 0 {
		t.Errorf("supplementary groups %v", got.Groups)
	}
}

func TestNoThreadOfOursLosesPrivileges(t *testing.T) {
	launcher := newLauncher(t)
	for i := range 20 {
		start(t, launcher, newSpec(t, "n"+strconv.Itoa(i)))
	}
	if flagged := flaggedThreads(t); len(flagged) > 4 { // the spawners'
		t.Errorf("%q have no_new_privs", flagged)
	}
	launcher.Close()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		flagged := flaggedThreads(t)
		if len(flagged) == 0 {
			return // the thread ends a little after its goroutine
		}
		if time.Now().After(deadline) {
			t.Fatalf("%q have no_new_privs", flagged)
		}
	}
}

// flaggedThreads lists our threads with no_new_privs, but for the main thread,
// which may be parked with it.
func flaggedThreads(t *testing.T) (flagged []string) {
	threads, err := filepath.Glob("/proc/self/task/*/status")
	if err != nil {
		t.Fatal(err)
	}
	for _, thread := range threads {
		status, err := os.ReadFile(thread)
		main := strings.Contains(thread, fmt.Sprintf("/%d/", os.Getpid()))
		if err == nil && !main && strings.Contains(string(status), "NoNewPrivs:\t1") {
			flagged = append(flagged, thread)
		}
	}
	return flagged
}

func TestGateKeepsWorkerBack(t *testing.T) {
	spec := newSpec(t, "gate")
	p := start(t, newLauncher(t), spec)
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	if answer, err := agenttest.Ask(ctx, spec.Socket, "info"); err == nil {
		t.Errorf("answered %s before the gate opened", answer)
	}
	if err := p.Open(); err != nil {
		t.Fatal(err)
	}
	info(t, spec.Socket)
}

func TestWorkerGivesUpWhenGateCloses(t *testing.T) {
	launcher := newLauncher(t)
	p := start(t, launcher, newSpec(t, "eof"))
	child := p.PID()
	launcher.Close()
	if _, err := wait(p); !errors.Is(err, os.ErrClosed) {
		t.Errorf("wait: %v", err)
	}
	if err := p.Open(); err == nil {
		t.Error("opened a gate that was given up")
	}
	var status syscall.WaitStatus
	if _, err := syscall.Wait4(child, &status, 0, nil); err != nil || status.ExitStatus() != 0 {
		t.Errorf("worker ended with %v, %v", status, err)
	}
}

func TestOpenAfterEnd(t *testing.T) {
	p := start(t, newLauncher(t), newSpec(t, "dead"))
	if err := p.Kill(); err != nil {
		t.Fatal(err)
	}
	if state, err := wait(p); err != nil || state.Signal() != syscall.SIGKILL {
		t.Errorf("%v, %v", state, err)
	}
	if err := p.Open(); err == nil {
		t.Error("opened a gate that was given up")
	}
	if err := p.Signal(syscall.SIGTERM); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("signal: %v", err)
	}
	if err := p.Kill(); err != nil {
		t.Errorf("kill: %v", err)
	}
}

// A process that ends at its gate keeps its ID until the gate is left.
func TestEndAtGateIsNotReaped(t *testing.T) {
	for name, leave := range map[string]func(*launch.Process) error{
		"open": func(p *launch.Process) error {
			if err := p.Open(); !errors.Is(err, syscall.EPIPE) {
				return fmt.Errorf("open: %w", err)
			}
			return nil
		},
		"kill": (*launch.Process).Kill,
	} {
		p := start(t, newLauncher(t), newSpec(t, "zombie"))
		if err := p.Signal(syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
		defer cancel()
		if _, err := p.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: wait: %v", name, err)
		}
		if err := syscall.Kill(p.PID(), 0); err != nil {
			t.Errorf("%s: the process is reaped: %v", name, err)
		}
		if err := leave(p); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if state, err := wait(p); err != nil || state.Signal() != syscall.SIGKILL {
			t.Errorf("%s: %v, %v", name, state, err)
		}
	}
}

func TestStartAfterClose(t *testing.T) {
	launcher := newLauncher(t)
	launcher.Close()
	spec := newSpec(t, "late")
	if _, err := launcher.Start(spec); !errors.Is(err, os.ErrClosed) {
		t.Errorf("start: %v", err)
	}
	if _, err := os.Lstat(spec.Socket); !os.IsNotExist(err) {
		t.Errorf("socket left: %v", err)
	}
}

// The worker writes to the file itself: nothing breaks when the agent is gone.
func TestLog(t *testing.T) {
	log, err := os.CreateTemp(t.TempDir(), "log")
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	spec := newSpec(t, "log")
	spec.Log = log
	spec.Args = []string{"--no-such-flag"}
	p := start(t, newLauncher(t), spec)
	if err := p.Open(); err != nil {
		t.Fatal(err)
	}
	if _, err := wait(p); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(log.Name())
	if err != nil || !strings.Contains(string(text), "no-such-flag") {
		t.Errorf("log %q, %v", text, err)
	}
}

func TestSocket(t *testing.T) {
	stale := func(t *testing.T, path string) {
		listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
		if err != nil {
			t.Fatal(err)
		}
		listener.SetUnlinkOnClose(false)
		listener.Close()
	}
	live := func(t *testing.T, path string) {
		listener, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { listener.Close() })
	}
	file := func(t *testing.T, path string) {
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, test := range map[string]struct {
		socket  string // in the test's folder; "" means as long as may be
		prepare func(*testing.T, string)
		want    string // in the error; "" means no error
		keeps   bool   // what was there is there still
	}{
		"new":           {socket: "s"},
		"stale":         {socket: "s", prepare: stale},
		"live":          {socket: "s", prepare: live, want: "address already in use", keeps: true},
		"no socket":     {socket: "s", prepare: file, want: "is no socket", keeps: true},
		"no folder":     {socket: "none/s", want: "no such file"},
		"longest":       {},
		"a byte longer": {want: "108 bytes, the kernel takes 107"},
	} {
		t.Run(name, func(t *testing.T) {
			spec := newSpec(t, "socket")
			dir := filepath.Dir(spec.Socket)
			spec.Socket = filepath.Join(dir, test.socket)
			if test.socket == "" {
				size := 107
				if test.want != "" {
					size++
				}
				spec.Socket = dir + "/" + strings.Repeat("s", size-len(dir)-1)
			}
			if test.prepare != nil {
				test.prepare(t, spec.Socket)
			}
			p, err := newLauncher(t).Start(spec)
			if err == nil {
				p.Kill()
				wait(p)
			}
			if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("start: %v, want %q", err, test.want)
			}
			if _, err := os.Lstat(spec.Socket); test.want != "" && test.keeps != (err == nil) {
				t.Errorf("afterwards: %v", err)
			}
		})
	}
}

func TestFindAndList(t *testing.T) {
	launcher := newLauncher(t)
	p := start(t, launcher, newSpec(t, "findme-1"))
	list, err := launch.List("findme-")
	want := launch.Running{Name: "findme-1", PID: p.PID(), StartTime: p.StartTime()}
	if err != nil || len(list) != 1 || list[0] != want {
		t.Errorf("list %+v, %v", list, err)
	}
	found, err := launcher.Find(p.PID(), p.StartTime())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := launcher.Find(p.PID(), p.StartTime()+1); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("find with another start time: %v", err)
	}
	for _, pid := range []int{-1, 0, 1} {
		if _, err := launcher.Find(pid, 0); err == nil {
			t.Errorf("found process %d", pid)
		}
	}
	if err := found.Open(); err != nil {
		t.Errorf("open: %v", err)
	}
	if err := found.Kill(); err != nil {
		t.Error(err)
	}
	if state, err := wait(found); err != nil || state != nil && state.Signal() != syscall.SIGKILL {
		t.Errorf("state %v, %v", state, err)
	}
	if err := found.Signal(syscall.SIGTERM); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("signal: %v", err)
	}
}
