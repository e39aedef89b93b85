package launch

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"
	"unsafe"
)

// A pidfd waits for the end of a process, child or not, in the runtime's
// poller: without a thread of its own.
type pidfd struct {
	file *os.File
}

// openPidfd opens a pidfd (pidfd_open(2), Linux 5.3). The one that the os
// package holds is not for polling: non-blocking, its waitid(2) would not wait.
// It returns os.ErrProcessDone when there is no such process.
func openPidfd(pid int) (*pidfd, error) {
	const sysPidfdOpen = 434
	fd, _, errno := syscall.Syscall(sysPidfdOpen, uintptr(pid), 0, 0)
	if errno == syscall.ESRCH {
		return nil, os.ErrProcessDone
	}
	if errno != 0 {
		return nil, os.NewSyscallError("pidfd_open", errno)
	}
	if err := syscall.SetNonblock(int(fd), true); err != nil { // or NewFile would not poll it
		syscall.Close(int(fd))
		return nil, os.NewSyscallError("fcntl", err)
	}
	return &pidfd{file: os.NewFile(fd, fmt.Sprintf("pidfd of %d", pid))}, nil
}

func (p *pidfd) Close() error { return p.file.Close() }

// wait returns nil when the process has ended (a child is a zombie then), or
// os.ErrClosed when life ends first.
func (p *pidfd) wait(life context.Context) error {
	conn, err := p.file.SyscallConn()
	if err != nil {
		return err
	}
	stop := context.AfterFunc(life, func() { p.file.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	var pollErr error
	err = conn.Read(func(fd uintptr) (done bool) {
		done, pollErr = readable(fd)
		return done || pollErr != nil
	})
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return os.ErrClosed
	}
	return errors.Join(err, pollErr)
}

// readable says whether fd has something to read (poll(2) without waiting).
func readable(fd uintptr) (bool, error) {
	poll := struct {
		fd      int32
		events  int16
		revents int16
	}{fd: int32(fd), events: 0x1} // POLLIN
	var noWait syscall.Timespec
	for {
		n, _, errno := syscall.Syscall6(syscall.SYS_PPOLL,
			uintptr(unsafe.Pointer(&poll)), 1, uintptr(unsafe.Pointer(&noWait)), 0, 0, 0)
		switch errno {
		case 0:
			return n > 0, nil
		case syscall.EINTR:
		default:
			return false, os.NewSyscallError("ppoll", errno)
		}
	}
}

// status is the wait status of a process that has ended and that its parent
// has reaped, for which it waits a moment (PIDFD_GET_INFO, Linux 6.15). It is
// nil where the kernel does not tell.
func (p *pidfd) status() *syscall.WaitStatus {
	const wantExit = 1 << 3 // PIDFD_INFO_EXIT
	var info struct {       // struct pidfd_info of <linux/pidfd.h>, its first version
		mask, cgroup uint64
		ids          [11]uint32
		exit         int32
	}
	const request = 3<<30 | unsafe.Sizeof(info)<<16 | 0xff<<8 | 11 // _IOWR(0xff, 11)
	for range 50 {
		info.mask = wantExit
		_, _, errno := syscall.Syscall(syscall.SYS_IOCTL, p.file.Fd(), request, uintptr(unsafe.Pointer(&info)))
		if errno != 0 && errno != syscall.EINTR {
			return nil
		}
		if errno == 0 && info.mask&wantExit != 0 {
			status := syscall.WaitStatus(info.exit)
			return &status
		}
		time.Sleep(2 * time.Millisecond)
	}
	return nil
}
