package launch

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// Find returns a running process that an earlier agent started. It returns
// os.ErrProcessDone when no process has this ID and start time.
func (l *Launcher) Find(pid int, startTime uint64) (*Process, error) {
	if pid <= 1 {
		return nil, fmt.Errorf("find process %d: not a worker's ID", pid)
	}
	proc, err := os.FindProcess(pid)
	if err != nil {
		return nil, fmt.Errorf("find process %d: %w", pid, err)
	}
	p := &Process{proc: proc, pid: pid, start: startTime, left: make(chan struct{}), done: make(chan struct{})}
	if err := l.find(p); err != nil {
		proc.Release()
		return nil, err
	}
	return p, nil
}

func (l *Launcher) find(p *Process) error {
	end, err := openPidfd(p.pid)
	if err != nil {
		return err
	}
	// Both handles are open now: they are of the process whose start time this is.
	stat, err := readStat(p.pid)
	if err == nil && (stat.start != p.start || stat.ended()) {
		err = os.ErrProcessDone
	}
	if err == nil {
		p.found = stat.parent == os.Getpid()
		err = l.watch(p, end)
	}
	if err != nil {
		end.Close()
	}
	return err
}

// A Running worker is one seen in the process table.
type Running struct {
	Name      string
	PID       int
	StartTime uint64
}

// List finds the running workers whose names begin with prefix by their
// argv[0]. Of a worker that forked it lists only the leader of the group.
func List(prefix string) ([]Running, error) {
	pids, err := processes()
	if err != nil {
		return nil, err
	}
	var found []Running
	for _, pid := range pids {
		cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if err != nil {
			continue // ended meanwhile
		}
		name, ok := workerName(cmdline)
		if !ok || !strings.HasPrefix(name, prefix) {
			continue
		}
		stat, err := readStat(pid)
		if err != nil && !errors.Is(err, os.ErrProcessDone) {
			return nil, err
		}
		if err == nil && !stat.ended() && stat.group == pid {
			found = append(found, Running{Name: name, PID: pid, StartTime: stat.start})
		}
	}
	return found, nil
}

// workerName takes the worker's name from the content of /proc/PID/cmdline.
func workerName(cmdline []byte) (string, bool) {
	argv0, _, _ := bytes.Cut(cmdline, []byte{0})
	return strings.CutPrefix(string(argv0), ArgvPrefix)
}

// processes lists the IDs of all processes.
func processes() ([]int, error) {
	proc, err := os.Open("/proc")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	defer proc.Close()
	names, err := proc.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	var pids []int
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}
