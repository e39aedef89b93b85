package launch

import (
	"errors"
	"syscall"
	"time"
)

// groupLimit bounds the wait for a killed process group: only a process in
// uninterruptible sleep takes longer than some milliseconds.
const groupLimit = time.Second

// awaitGroup returns when a killed process group has ended, or after groupLimit.
func awaitGroup(leader int) {
	for end := time.Now().Add(groupLimit); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if err := syscall.Kill(-leader, 0); errors.Is(err, syscall.ESRCH) || !groupRuns(leader) {
			return
		}
	}
}

// groupRuns says whether a process group has a member that is no zombie. Of
// those kill(2) takes no notice, and when they vanish is up to their parent.
func groupRuns(leader int) bool {
	pids, err := processes()
	if err != nil {
		return true
	}
	for _, pid := range pids {
		stat, err := readStat(pid)
		if err == nil && stat.group == leader && !stat.ended() {
			return true
		}
	}
	return false
}
