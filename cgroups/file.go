package cgroups

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
)

// maxFile bounds what is read of one kernel file. The longest, memory.stat and
// cgroup.procs, stay far below.
const maxFile = 4 << 20

const psiSince = "Linux 4.20 with CONFIG_PSI and without psi=0"

// since tells why a file may be missing.
var since = map[string]string{
	"cgroup.kill":      "Linux 5.14",
	"cgroup.freeze":    "Linux 5.2",
	"cgroup.events":    "Linux 4.5; the root cgroup has none",
	"cpu.pressure":     psiSince,
	"memory.pressure":  psiSince,
	"io.pressure":      psiSince,
	"memory.max":       "the memory controller",
	"memory.high":      "the memory controller",
	"memory.events":    "the memory controller",
	"memory.oom.group": "the memory controller, Linux 4.19",
	"cpu.max":          "the cpu controller",
	"cpu.weight":       "the cpu controller",
	"cpuset.cpus":      "the cpuset controller, Linux 5.0",
	"pids.max":         "the pids controller",
	"io.weight":        "the io controller, CONFIG_BLK_CGROUP_IOCOST",
	ioMaxFile:          "the io controller",
}

// read returns the content of one of the cgroup's files. It returns an error
// that wraps errors.ErrUnsupported where the cgroup has no such file, and
// ErrGone where there is no cgroup any more.
func (g Group) read(name string) ([]byte, error) {
	file, err := os.Open(filepath.Join(g.Dir(), name))
	if err != nil {
		return nil, g.fileError("read", name, err)
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, maxFile))
	if err != nil {
		return nil, g.fileError("read", name, err)
	}
	return data, nil
}

// write writes a value to one of the cgroup's files; errors are those of read.
func (g Group) write(name, value string) error {
	file, err := os.OpenFile(filepath.Join(g.Dir(), name), os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return g.fileError("write", name, err)
	}
	_, err = file.WriteString(value)
	if err = errors.Join(err, file.Close()); err != nil {
		return g.fileError(fmt.Sprintf("write %q to", value), name, err)
	}
	return nil
}

// fileError says of a missing file whether it or the whole cgroup is missing.
func (g Group) fileError(verb, name string, err error) error {
	switch {
	case errors.Is(err, syscall.ENODEV): // removed while the file was open
		return fmt.Errorf("%s %s of %s: %w", verb, name, g, ErrGone)
	case errors.Is(err, fs.ErrNotExist):
		if _, statErr := os.Lstat(g.Dir()); errors.Is(statErr, fs.ErrNotExist) {
			return fmt.Errorf("%s %s of %s: %w", verb, name, g, ErrGone)
		}
		return fmt.Errorf("%s %s of %s: no such file, needs %s: %w", verb, name, g, since[name], errors.ErrUnsupported)
	case errors.Is(err, syscall.EOPNOTSUPP):
		return fmt.Errorf("%s %s of %s: switched off: %w", verb, name, g, errors.ErrUnsupported)
	}
	return fmt.Errorf("%s %s of %s: %w", verb, name, g, err)
}

// processDone says whether err, of a file in /proc/PID, means that there is no
// such process.
func processDone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH)
}

// Have says whether the cgroup has a file: nil, an error that wraps
// errors.ErrUnsupported and names what it needs, or another.
func (g Group) Have(name string) error {
	_, err := os.Stat(filepath.Join(g.Dir(), name))
	if err != nil {
		return g.fileError("use", name, err)
	}
	return nil
}

// number is a single value, where "max" means no limit: 0.
func parseNumber(data []byte) (uint64, error) {
	data = bytes.TrimSpace(data)
	if string(data) == "max" {
		return 0, nil
	}
	return strconv.ParseUint(string(data), 10, 64)
}

// parseKeyed calls take for every "KEY VALUE" line (flat keyed files). Lines of
// another form are skipped: kernels add what they like.
func parseKeyed(data []byte, take func(key string, value uint64)) {
	for line := range bytes.Lines(data) {
		key, rest, ok := bytes.Cut(bytes.TrimSpace(line), []byte(" "))
		value, err := strconv.ParseUint(string(rest), 10, 64)
		if ok && err == nil {
			take(string(key), value)
		}
	}
}
