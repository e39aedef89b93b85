package scopes

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// payload is the process of one scope.
type payload struct {
	cmd   *exec.Cmd
	pid   int
	reap  sync.Once
	ended chan struct{} // closed when reaped
}

func startPayload(command []string) (*payload, error) {
	cmd := exec.Command(command[0], command[1:]...)
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return &payload{cmd: cmd, pid: cmd.Process.Pid, ended: make(chan struct{})}, nil
}

// kill ends the process and leaves a zombie.
func (p *payload) kill() { syscall.Kill(p.pid, syscall.SIGKILL) }

// wait reaps the process; the PID is then free for others.
func (p *payload) wait() {
	p.reap.Do(func() {
		go func() {
			p.cmd.Wait()
			close(p.ended)
		}()
	})
	<-p.ended
}

func (p *payload) end() {
	p.kill()
	p.wait()
}

// alive tells whether the process runs: neither zombie nor gone.
func (p *payload) alive() bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.pid))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	return rest != "" && rest[0] != 'Z' && rest[0] != 'X'
}

// gone waits a moment for the process to have ended.
func (p *payload) gone() bool { return until(time.Second, func() bool { return !p.alive() }) }

// in tells whether the process is in the scope.
func (p *payload) in(unit string) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", p.pid))
	if err != nil {
		return false
	}
	for line := range strings.Lines(string(text)) {
		if path, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
			return filepath.Base(path) == unit
		}
	}
	return false
}

// staysIn tells whether the living process is in the scope and does not leave
// it: a client may need a moment to undo a start that failed.
func (p *payload) staysIn(unit string) bool {
	return !until(5*time.Second, func() bool { return !p.alive() || !p.in(unit) })
}

// until polls a condition; false means it did not hold in time.
func until(limit time.Duration, holds func() bool) bool {
	for deadline := time.Now().Add(limit); ; time.Sleep(2 * time.Millisecond) {
		if holds() {
			return true
		}
		if time.Now().After(deadline) {
			return false
		}
	}
}
