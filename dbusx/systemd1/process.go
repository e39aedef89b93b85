package systemd1

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

func (s *Systemd) cgroupFile(pid int) string {
	return filepath.Join(s.proc, strconv.Itoa(pid), "cgroup")
}

// inUnit reports whether process pid is in the cgroup of unit or below. A
// process that is gone is in no unit.
func (s *Systemd) inUnit(pid int, unit string) (bool, error) {
	data, err := os.ReadFile(s.cgroupFile(pid))
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return within(data, unit), nil
}

// within reports whether the text of a /proc/PID/cgroup names unit.
func within(data []byte, unit string) bool {
	for name := range strings.SplitSeq(unifiedPath(data), "/") {
		if name == unit {
			return true
		}
	}
	return false
}

// allIn reports whether all processes are in the cgroup of unit.
func (s *Systemd) allIn(pids []int, unit string) (bool, error) {
	for _, pid := range pids {
		if in, err := s.inUnit(pid, unit); err != nil || !in {
			return false, err
		}
	}
	return true, nil
}

// places are the /proc/PID/cgroup of processes, held open to be read often.
type places []*os.File

// places opens those of pids, or none if one of them is gone.
func (s *Systemd) places(pids []int) places {
	var files places
	for _, pid := range pids {
		file, err := os.Open(s.cgroupFile(pid))
		if err != nil {
			files.close()
			return nil
		}
		files = append(files, file)
	}
	return files
}

func (p places) close() {
	for _, file := range p {
		_ = file.Close()
	}
}

// allIn reports whether all of the processes, at least one, are in the cgroup of
// unit.
func (p places) allIn(unit string) bool {
	var data [4096]byte
	for _, file := range p {
		n, _ := file.ReadAt(data[:], 0) // io.EOF; of a process that is gone, nothing
		if !within(data[:n], unit) {
			return false
		}
	}
	return len(p) > 0
}

// unifiedPath returns the path in the "0::" line of /proc/PID/cgroup
// (cgroups(7)); other lines are cgroup v1 hierarchies. It is empty if there is
// no such line or the cgroup has been removed.
func unifiedPath(data []byte) string {
	for line := range bytes.Lines(data) {
		path, ok := bytes.CutPrefix(bytes.TrimSuffix(line, []byte("\n")), []byte("0::"))
		if !ok {
			continue
		}
		if bytes.HasSuffix(path, []byte(" (deleted)")) {
			return ""
		}
		return string(path)
	}
	return ""
}

// ended reports whether process pid is gone or a zombie.
func (s *Systemd) ended(pid int) bool {
	data, err := os.ReadFile(filepath.Join(s.proc, strconv.Itoa(pid), "stat"))
	if err != nil {
		return errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH)
	}
	i := bytes.LastIndexByte(data, ')')
	return i >= 0 && i+2 < len(data) && (data[i+2] == 'Z' || data[i+2] == 'X')
}
