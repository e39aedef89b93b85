// Package launch starts worker processes behind a gate and watches them to their end.
//
// A worker gets two descriptors: GateFD, the read end of a pipe on which one
// byte says "you are where you belong, go on" and end-of-file says "give up",
// and ControlFD, the listening unix socket on which it serves.
package launch

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"syscall"
)

// The descriptors of a worker beside the standard three. Their numbers are
// passed as --gate-fd and --control-fd.
const (
	GateFD    = 3
	ControlFD = 4
)

// ArgvPrefix and the worker's name make its argv[0], by which ps(1) and
// List tell workers from other processes.
const ArgvPrefix = "sfu-worker-"

// Spec is a worker process to start.
type Spec struct {
	Name   string // for argv[0]
	Exe    string // absolute path
	Args   []string
	Env    []string // the whole environment, nothing is inherited
	Socket string   // absolute path of the unix socket to make, at most 107 bytes

	// User and Group are numeric IDs to run as; ignored unless this process is root.
	User, Group uint32

	// Log becomes standard output and standard error; nil passes on this
	// process's standard error. The worker holds the file itself, not a pipe to
	// this process, and so survives it.
	Log *os.File

	// Cgroup is an open cgroup v2 directory for the process to be born in
	// (CLONE_INTO_CGROUP, Linux 5.7); nil means this process's own cgroup.
	Cgroup *os.File
}

// A Launcher owns the goroutines that start its processes and those that watch
// them, one for each.
type Launcher struct {
	life   context.Context // ends the goroutines, not the processes
	cancel context.CancelFunc
	spawns chan *spawn

	mu     sync.Mutex
	closed bool
	tasks  sync.WaitGroup
}

// New returns a Launcher without processes. Close it.
func New() *Launcher {
	life, cancel := context.WithCancel(context.Background())
	l := &Launcher{life: life, cancel: cancel, spawns: make(chan *spawn)}
	for range spawners {
		l.tasks.Go(l.spawner)
	}
	return l
}

// Close ends the watching and returns when it has ended. Processes go on, and
// Wait for them returns os.ErrClosed.
func (l *Launcher) Close() {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.cancel()
	l.tasks.Wait()
}

// Start starts a process, which waits at its gate. It is in a session of its
// own, has no standard input, cannot gain privileges (PR_SET_NO_NEW_PRIVS) and,
// when this process is root, runs as User and Group without supplementary
// groups. On an error neither process nor socket is left.
func (l *Launcher) Start(spec Spec) (*Process, error) {
	control, err := listen(spec.Socket)
	if err != nil {
		return nil, err
	}
	defer control.Close()
	p, err := l.start(spec, control)
	if err != nil {
		return nil, errors.Join(err, os.Remove(spec.Socket))
	}
	return p, nil
}

func (l *Launcher) start(spec Spec, control *os.File) (*Process, error) {
	gate, opener, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("make gate: %w", err)
	}
	defer gate.Close()
	proc, err := l.fork(spec, gate, control)
	if err != nil {
		opener.Close()
		return nil, err
	}
	p := &Process{proc: proc, pid: proc.Pid, child: true, gate: opener, left: make(chan struct{}), done: make(chan struct{})}
	if err := l.begin(p); err != nil {
		opener.Close()
		proc.Kill()
		proc.Wait()
		return nil, err
	}
	return p, nil
}

// begin completes and watches a child, which is there until it is waited for.
func (l *Launcher) begin(p *Process) error {
	stat, err := readStat(p.pid)
	if err != nil {
		return err
	}
	p.start = stat.start
	end, err := openPidfd(p.pid)
	if err != nil {
		return err
	}
	if err := l.watch(p, end); err != nil {
		end.Close()
		return err
	}
	return nil
}

func (l *Launcher) fork(spec Spec, gate, control *os.File) (*os.Process, error) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		return nil, fmt.Errorf("open standard input: %w", err)
	}
	defer null.Close()
	log := spec.Log
	if log == nil {
		log = os.Stderr
	}
	argv := append([]string{ArgvPrefix + spec.Name}, spec.Args...)
	argv = append(argv, "--gate-fd", strconv.Itoa(GateFD), "--control-fd", strconv.Itoa(ControlFD))
	return l.spawn(spec.Exe, argv, &os.ProcAttr{
		Dir:   "/",
		Env:   append([]string{}, spec.Env...), // nil would inherit
		Files: []*os.File{null, log, log, gate, control},
		Sys:   attributes(spec),
	})
}

func attributes(spec Spec) *syscall.SysProcAttr {
	sys := &syscall.SysProcAttr{Setsid: true} // Ctrl-C at a terminal is for the agent alone
	if os.Geteuid() == 0 {
		sys.Credential = &syscall.Credential{Uid: spec.User, Gid: spec.Group}
	}
	if spec.Cgroup != nil {
		sys.UseCgroupFD = true
		sys.CgroupFD = int(spec.Cgroup.Fd())
	}
	return sys
}
