package launch

import (
	"fmt"
	"os"
	"runtime"
	"syscall"
)

// spawners is how many processes can be started at the same time. Each waits
// for execve(2) in a thread of its own; with one alone, 32 starts at once took
// 16 ms instead of 1 (docs/internals/dbus.md).
const spawners = 4

// A spawn is a process to start and how that went.
type spawn struct {
	exe  string
	argv []string
	attr *os.ProcAttr

	proc *os.Process
	err  error
	done chan struct{}
}

// spawner starts processes with no_new_privs set (prctl(2)), one after another,
// until the Launcher is closed.
//
// The flag belongs to a thread, passes to its children and cannot be taken
// back. So each spawner locks a thread, sets the flag there, and ends without
// unlocking: the runtime then ends the thread, and no other thread of this
// process ever has the flag. (The runtime starts no thread from a locked one;
// the main thread it cannot end, it parks it for good.)
func (l *Launcher) spawner() {
	const setNoNewPrivs = 38 // PR_SET_NO_NEW_PRIVS
	runtime.LockOSThread()
	_, _, errno := syscall.RawSyscall6(syscall.SYS_PRCTL, setNoNewPrivs, 1, 0, 0, 0, 0)
	for {
		select {
		case s := <-l.spawns:
			if errno != 0 {
				s.err = fmt.Errorf("set no-new-privileges: %w", errno)
			} else if s.proc, s.err = os.StartProcess(s.exe, s.argv, s.attr); s.err != nil {
				s.err = fmt.Errorf("start process: %w", s.err)
			}
			close(s.done)
		case <-l.life.Done():
			return
		}
	}
}

// spawn has the spawner start a process.
func (l *Launcher) spawn(exe string, argv []string, attr *os.ProcAttr) (*os.Process, error) {
	s := &spawn{exe: exe, argv: argv, attr: attr, done: make(chan struct{})}
	select {
	case l.spawns <- s:
		<-s.done
		return s.proc, s.err
	case <-l.life.Done():
		return nil, fmt.Errorf("start process: launcher: %w", os.ErrClosed)
	}
}
