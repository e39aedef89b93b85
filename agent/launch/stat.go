package launch

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"syscall"
)

// stat holds the fields of /proc/PID/stat that tell processes apart.
type stat struct {
	state  byte
	parent int    // process ID
	group  int    // process group ID
	start  uint64 // clock ticks since boot
}

// ended says whether the process is a zombie or about to vanish.
func (s stat) ended() bool { return s.state == 'Z' || s.state == 'X' }

// readStat reads /proc/PID/stat. It returns os.ErrProcessDone when there is no
// such process.
func readStat(pid int) (stat, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
		return stat{}, os.ErrProcessDone
	}
	if err != nil {
		return stat{}, fmt.Errorf("read process %d: %w", pid, err)
	}
	s, err := parseStat(data)
	if err != nil {
		return stat{}, fmt.Errorf("read process %d: %w", pid, err)
	}
	return s, nil
}

// parseStat parses the content of /proc/PID/stat (proc_pid_stat(5)). The second
// field, the program's name in parentheses, may itself hold any byte.
func parseStat(data []byte) (stat, error) {
	const (
		stateField  = 0 // the man page's 3: fields are counted from there
		parentField = 4 - 3
		groupField  = 5 - 3
		startField  = 22 - 3
	)
	name := bytes.LastIndexByte(data, ')')
	fields := bytes.Fields(data[name+1:])
	if name < 0 || len(fields) <= startField || len(fields[stateField]) != 1 {
		return stat{}, errors.New("malformed stat")
	}
	parent, err := strconv.Atoi(string(fields[parentField]))
	if err != nil {
		return stat{}, fmt.Errorf("malformed parent: %w", err)
	}
	group, err := strconv.Atoi(string(fields[groupField]))
	if err != nil {
		return stat{}, fmt.Errorf("malformed process group: %w", err)
	}
	start, err := strconv.ParseUint(string(fields[startField]), 10, 64)
	if err != nil {
		return stat{}, fmt.Errorf("malformed start time: %w", err)
	}
	return stat{state: fields[stateField][0], parent: parent, group: group, start: start}, nil
}
