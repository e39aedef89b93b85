package agent

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// StateDir holds what an agent must remember of its workers: a record and a
// socket each. One agent at a time has it.
type StateDir struct {
	path string
	lock *os.File
}

// OpenStateDir makes the directory (mode 0711: workers of another user reach
// nothing in it) and takes its lock, which ends with the process.
func OpenStateDir(path string) (*StateDir, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(path, 0o711); err != nil {
		return nil, fmt.Errorf("state directory: %w (choose another with --state-dir)", err)
	}
	lock, err := os.OpenFile(filepath.Join(path, "lock"), os.O_RDWR|os.O_CREATE|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("state directory: %w (choose another with --state-dir)", err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		owner, _ := os.ReadFile(lock.Name())
		lock.Close()
		return nil, fmt.Errorf("state directory %s is in use by another sfu-agent (PID %s): stop it or choose another with --state-dir",
			path, strings.TrimSpace(string(owner)))
	}
	if err := errors.Join(lock.Truncate(0), writePID(lock)); err != nil {
		lock.Close()
		return nil, fmt.Errorf("state directory: %w", err)
	}
	return &StateDir{path: path, lock: lock}, nil
}

func writePID(f *os.File) error {
	_, err := f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	return err
}

// Close gives the lock back.
func (d *StateDir) Close() error { return d.lock.Close() }

// Prefix is the first part of the names of this agent's workers: it follows
// from the directory alone, so an agent finds its workers again even where the
// records are lost, and never those of another agent.
func (d *StateDir) Prefix() string {
	sum := sha256.Sum256([]byte(d.path))
	return hex.EncodeToString(sum[:3])
}

func (d *StateDir) name(index int) string {
	return fmt.Sprintf("%s-%d-%s", d.Prefix(), index, nonce())
}

// slotOf is the index in a worker's name.
func slotOf(name string) (int, bool) {
	parts := strings.Split(name, "-")
	if len(parts) != 3 {
		return 0, false
	}
	i, err := strconv.Atoi(parts[1])
	return i, err == nil && i >= 0
}

func (d *StateDir) socket(name string) string { return filepath.Join(d.path, name+".sock") }
func (d *StateDir) file(name string) string   { return filepath.Join(d.path, name+".json") }

// save writes a record so that a reader sees all of it or none.
func (d *StateDir) save(rec Record) error {
	b, err := json.MarshalIndent(rec, "", "  ")
	if err != nil {
		return err
	}
	tmp := d.file(rec.Name) + ".new"
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		return fmt.Errorf("record worker %s: %w", rec.Name, err)
	}
	return os.Rename(tmp, d.file(rec.Name))
}

// forget removes all that a worker left in the directory.
func (d *StateDir) forget(rec Record) {
	os.Remove(d.file(rec.Name))
	os.Remove(d.socket(rec.Name))
}

// records are the placed workers. A record without a PID is of an agent that
// died while placing; what it may have left is swept. So is a record that
// cannot be read.
func (d *StateDir) records() ([]Record, error) {
	all, err := d.names()
	if err != nil {
		return nil, err
	}
	placed := all[:0]
	for _, rec := range all {
		if rec.PID > 1 && strings.HasPrefix(rec.Name, d.Prefix()+"-") {
			placed = append(placed, rec)
			continue
		}
		d.forget(rec)
	}
	return placed, nil
}

// names are all records, those of workers being placed included.
func (d *StateDir) names() ([]Record, error) {
	files, err := fs.Glob(os.DirFS(d.path), "*.json")
	if err != nil {
		return nil, err
	}
	var all []Record
	for _, file := range files {
		rec := Record{Name: strings.TrimSuffix(file, ".json")}
		b, err := os.ReadFile(filepath.Join(d.path, file))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read the record of a worker: %w", err)
		}
		var read Record
		if json.Unmarshal(b, &read) == nil && read.Name == rec.Name {
			rec = read
		}
		all = append(all, rec)
	}
	return all, nil
}

// Placers names the placers of the recorded workers, each once.
func (d *StateDir) Placers() ([]string, error) {
	records, err := d.records()
	if err != nil {
		return nil, err
	}
	var placers []string
	for _, rec := range records {
		if !slices.Contains(placers, rec.Placer) {
			placers = append(placers, rec.Placer)
		}
	}
	return placers, nil
}
