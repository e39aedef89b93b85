package launch

import (
	"fmt"
	"os"
	"runtime"
	"syscall"
)

// spawnWithoutNewPrivs starts a process with no_new_privs set (prctl(2)).
//
// The flag belongs to a thread, passes to its children and cannot be taken
// back. So a goroutine locks a thread, sets the flag, starts the process and
// ends without unlocking: the runtime then ends the thread, and no other
// thread of this process ever has the flag. (The runtime starts no thread from
// a locked one; the main thread it cannot end, it parks it for good.)
func spawnWithoutNewPrivs(exe string, argv []string, attr *os.ProcAttr) (proc *os.Process, err error) {
	const setNoNewPrivs = 38 // PR_SET_NO_NEW_PRIVS
	started := make(chan struct{})
	go func() {
		defer close(started)
		runtime.LockOSThread()
		_, _, errno := syscall.RawSyscall6(syscall.SYS_PRCTL, setNoNewPrivs, 1, 0, 0, 0, 0)
		if errno != 0 {
			err = fmt.Errorf("set no-new-privileges: %w", errno)
			return
		}
		if proc, err = os.StartProcess(exe, argv, attr); err != nil {
			err = fmt.Errorf("start process: %w", err)
		}
	}()
	<-started
	return proc, err
}
