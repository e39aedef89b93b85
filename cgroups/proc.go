package cgroups

import (
	"bytes"
	"errors"
	"fmt"
	"os"
)

// PathOf is the cgroup v2 path of a process as /proc/PID/cgroup has it. It
// returns os.ErrProcessDone where there is no such process, and ErrGone where
// its cgroup has been removed already.
func PathOf(pid int) (string, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		if processDone(err) {
			err = os.ErrProcessDone
		}
		return "", fmt.Errorf("read cgroup of process %d: %w", pid, err)
	}
	path, err := parsePath(data)
	if err != nil {
		return "", fmt.Errorf("read cgroup of process %d: %w", pid, err)
	}
	return path, nil
}

// parsePath returns the path of the "0::" line of /proc/PID/cgroup. The lines
// of cgroup v1 hierarchies may come before it.
func parsePath(data []byte) (string, error) {
	for line := range bytes.Lines(data) {
		path, ok := bytes.CutPrefix(bytes.TrimSuffix(line, []byte("\n")), []byte("0::"))
		if !ok {
			continue
		}
		if bytes.HasSuffix(path, []byte(" (deleted)")) {
			return "", ErrGone
		}
		if !bytes.HasPrefix(path, []byte("/")) {
			return "", errors.New("malformed cgroup line")
		}
		return string(path), nil
	}
	return "", ErrNoUnified
}
